//! Workload tokens: signed with a key that lives in the store, so that they outlive the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::key::PrivateKey;
use identity::token::{CONTROL_PLANE_AUDIENCE, TokenError, TokenIssuer, TokenVerifier};
use resources::kinds::Kind;
use resources::kinds::core::secret::Secret;
use resources::object::{Object, ObjectKey};
use resources::store::{Store, StoreError, WriteOptions};
use serde_json::json;

/// Name of the Secret with the signing key, in the root namespace.
pub const KEY_SECRET: &str = "outrigger-token-key";
const KEY: &str = "signing-key.pem";
/// Issuer that tokens name, as a cluster's do.
const ISSUER: &str = "https://outrigger.local";
/// Life of a token: no more than an hour.
pub const LIFETIME: Duration = Duration::from_secs(3600);

/// Why tokens cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The key cannot be read or kept.
    #[error("the token key: {0}")]
    Store(#[from] StoreError),
    /// The Secret is there and has no usable key.
    #[error("Secret {0} has no {KEY}")]
    NoKey(String),
    /// The key or a request is not valid.
    #[error(transparent)]
    Token(#[from] TokenError),
}

/// Signs and judges workload tokens.
#[derive(Clone, Debug)]
pub struct Tokens {
    issuer: Arc<TokenIssuer>,
}

impl Tokens {
    /// Takes the key from the store; the first time, makes one and keeps it there.
    pub async fn load_or_create(
        store: &dyn Store,
        root_namespace: &str,
    ) -> Result<Self, TokensError> {
        let key = ObjectKey::new(Secret::INFO.collection.clone(), root_namespace, KEY_SECRET);
        loop {
            match store.get(&key).await {
                Ok(secret) => return Self::from_secret(&secret),
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
            let issuer =
                TokenIssuer::new(PrivateKey::generate().map_err(TokenError::from)?, ISSUER)?;
            let secret = Object::new("v1", "Secret", root_namespace, KEY_SECRET)
                .with("type", json!("outrigger.dev/token-key"))
                .with("stringData", json!({ KEY: issuer.key_pem() }));
            match store.create(key.clone(), secret, WriteOptions::by("outrigger")).await {
                // Somebody else was quicker: theirs counts.
                Err(StoreError::AlreadyExists(_)) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(Self { issuer: Arc::new(issuer) }),
            }
        }
    }

    fn from_secret(secret: &Object) -> Result<Self, TokensError> {
        let no_key = || TokensError::NoKey(secret.name().to_owned());
        let view = Secret::parse(secret).map_err(|_| no_key())?.view;
        let pem = view
            .data
            .get(KEY)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .ok_or_else(no_key)?;
        Ok(Self { issuer: Arc::new(TokenIssuer::from_pem(pem, ISSUER)?) })
    }

    /// A token with which a service account may ask the control plane for configuration and certificates.
    pub fn issue(&self, namespace: &str, service_account: &str) -> Result<String, TokensError> {
        Ok(self.issuer.issue(
            namespace,
            service_account,
            CONTROL_PLANE_AUDIENCE,
            LIFETIME,
            SystemTime::now(),
        )?)
    }

    /// Judges these tokens.
    pub fn verifier(&self) -> Result<TokenVerifier, TokensError> {
        Ok(self.issuer.verifier()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::store::Versioned;

    #[tokio::test]
    async fn the_key_is_kept() {
        let store = Versioned::in_memory().unwrap();
        let tokens = Tokens::load_or_create(&store, "istio-system").await.unwrap();
        let token = tokens.issue("default", "reviews").unwrap();
        let later = Tokens::load_or_create(&store, "istio-system").await.unwrap();
        let verifier = later.verifier().unwrap();
        let bearer = verifier.verify(&token, CONTROL_PLANE_AUDIENCE, SystemTime::now()).unwrap();
        assert_eq!(
            (bearer.namespace.as_str(), bearer.service_account.as_str()),
            ("default", "reviews")
        );
        assert!(tokens.issue("default", "../x").is_err());
    }
}
