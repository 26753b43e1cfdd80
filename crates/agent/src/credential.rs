//! How a workload proves who it is before it has a certificate: by a token.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

/// Why there is no token now. Another attempt may find one.
#[derive(Debug, thiserror::Error)]
#[error("no token: {0}")]
pub struct NoToken(pub String);

/// The future of a token.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<String, NoToken>> + Send + 'a>>;

/// Where tokens come from. Asked anew whenever one is needed, since they live for an hour at most.
pub trait TokenSource: Send + Sync + 'static {
    /// A token that is valid now.
    fn token(&self) -> TokenFuture<'_>;
}

/// A token that was given once.
pub struct FixedToken(String);

impl FixedToken {
    /// Keeps a token, without the white space around it.
    pub fn new(token: &str) -> FixedToken {
        FixedToken(token.trim().to_owned())
    }
}

impl TokenSource for FixedToken {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// A file in which someone keeps a fresh token, as Kubernetes does.
pub struct TokenFile(pub PathBuf);

impl TokenSource for TokenFile {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(async {
            let text = tokio::fs::read_to_string(&self.0).await;
            let text = text.map_err(|error| NoToken(format!("{}: {error}", self.0.display())))?;
            match text.trim() {
                "" => Err(NoToken(format!("{} is empty", self.0.display()))),
                token => Ok(token.to_owned()),
            }
        })
    }
}
