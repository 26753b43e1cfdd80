//! The other end of the control socket.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::protocol::{
    MeshInfo, Refusal, Registered, Registration, Status, TokenAnswer, TokenWish,
};

/// Why a mesh did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the socket.
    #[error("no mesh runs at {socket}: {error}")]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The mesh says no.
    #[error("{0}")]
    Refused(String),
    /// The answer did not come or is not understood.
    #[error("the mesh did not answer as expected: {0}")]
    Answer(String),
}

/// Asks a mesh through its control socket; a connection per question.
#[derive(Clone, Debug)]
pub struct ControlClient {
    socket: PathBuf,
}

impl ControlClient {
    /// A client of the socket at `path`. Nothing is asked yet.
    pub fn new(path: &Path) -> Self {
        Self { socket: path.to_owned() }
    }

    /// What joiners must know.
    pub async fn mesh(&self) -> Result<MeshInfo, ClientError> {
        self.ask("GET", "/v1/mesh", Bytes::new()).await
    }

    /// What runs where.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.ask("GET", "/v1/status", Bytes::new()).await
    }

    /// Registers a workload of this machine.
    pub async fn register(&self, wish: &Registration) -> Result<Registered, ClientError> {
        self.ask("POST", "/v1/register", json(wish)?).await
    }

    /// A token for a service account.
    pub async fn token(
        &self,
        namespace: &str,
        service_account: &str,
    ) -> Result<TokenAnswer, ClientError> {
        let wish = TokenWish {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        };
        self.ask("POST", "/v1/token", json(&wish)?).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream
            .map_err(|error| ClientError::NotRunning { socket: self.socket.clone(), error })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let driver = tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "control")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(failed)?;
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(failed)?.to_bytes();
        driver.abort();
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(failed);
        }
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => Err(ClientError::Refused(refusal.error)),
            Err(_) => {
                Err(ClientError::Answer(format!("{status}: {}", String::from_utf8_lossy(&body))))
            }
        }
    }
}

fn json(value: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> ClientError {
    ClientError::Answer(error.to_string())
}
