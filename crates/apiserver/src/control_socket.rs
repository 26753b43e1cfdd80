//! How the mesh's owner talks to it from other processes: HTTP and JSON over a unix socket that nobody else can open.
//!
//! The socket is 0600 in a 0700 directory, and every connection's user must be this process's own: whoever may
//! connect may do everything.

pub mod client;
pub mod protocol;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::future::BoxFuture;
use resources::store::Store;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::protocol::{MeshInfo, Refusal, Registration, Status, TokenAnswer, TokenWish};
use crate::registration::{self, RegistrationError};
use crate::tokens::{self, Tokens, TokensError};

/// What answers through the socket.
pub struct Services {
    /// The objects.
    pub store: Arc<dyn Store>,
    /// The tokens.
    pub tokens: Tokens,
    /// What joiners must know.
    pub mesh: MeshInfo,
    /// What runs where; asked for anew each time.
    pub status: Box<dyn Fn() -> BoxFuture<'static, Status> + Send + Sync>,
}

/// A socket that is served.
pub struct ControlSocket {
    path: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

/// Serves the socket at `path`, which a process that is gone may have left behind: its directory must be locked.
pub fn serve(path: &Path, services: Services) -> io::Result<ControlSocket> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let routes = Router::new()
        .route("/v1/mesh", get(mesh))
        .route("/v1/register", post(register))
        .route("/v1/token", post(token))
        .route("/v1/status", get(status))
        .with_state(Arc::new(services));
    let (stop, stopped) = oneshot::channel();
    let listener = OwnersOnly { listener, owner: rustix::process::geteuid().as_raw() };
    let served = tokio::spawn(async move {
        let until = async {
            // A sender that is dropped stops it too.
            let _ = stopped.await;
        };
        if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(until).await {
            tracing::error!(%error, "the control socket failed");
        }
    });
    Ok(ControlSocket { path: path.to_owned(), stop: Some(stop), served })
}

impl ControlSocket {
    /// Stops serving and removes the socket.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.served.abort();
        // Gone or not, it is of no use any more.
        let _ = fs::remove_file(&self.path);
    }
}

/// Accepts connections of one user only.
struct OwnersOnly {
    listener: UnixListener,
    owner: u32,
}

impl axum::serve::Listener for OwnersOnly {
    type Io = UnixStream;
    type Addr = tokio::net::unix::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = axum::serve::Listener::accept(&mut self.listener).await;
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == self.owner => return (stream, address),
                Ok(peer) => tracing::warn!(
                    uid = peer.uid(),
                    "another user at the control socket was refused"
                ),
                Err(error) => {
                    tracing::warn!(%error, "a connection at the control socket has no user")
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

async fn mesh(State(services): State<Arc<Services>>) -> Json<MeshInfo> {
    Json(services.mesh.clone())
}

async fn status(State(services): State<Arc<Services>>) -> Json<Status> {
    Json((services.status)().await)
}

async fn register(
    State(services): State<Arc<Services>>,
    Json(wish): Json<Registration>,
) -> Response {
    let registered =
        registration::register(&*services.store, &services.tokens, &services.mesh, &wish).await;
    match registered {
        Ok(registered) => Json(registered).into_response(),
        Err(error) => refuse(
            match error {
                RegistrationError::Invalid(_) | RegistrationError::BadGroup { .. } => {
                    StatusCode::BAD_REQUEST
                }
                RegistrationError::NoGroup(_) => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            },
            &error,
        ),
    }
}

async fn token(State(services): State<Arc<Services>>, Json(wish): Json<TokenWish>) -> Response {
    match services.tokens.issue(&wish.namespace, &wish.service_account) {
        Ok(token) => Json(TokenAnswer { token, expires_in_seconds: tokens::LIFETIME.as_secs() })
            .into_response(),
        Err(error @ TokensError::Token(_)) => refuse(StatusCode::BAD_REQUEST, &error),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

fn refuse(status: StatusCode, error: &dyn std::error::Error) -> Response {
    (status, Json(Refusal { error: error.to_string() })).into_response()
}

#[cfg(test)]
mod tests {
    use super::client::{ClientError, ControlClient};
    use super::protocol::WishedPort;
    use super::*;
    use resources::store::Versioned;

    async fn served(directory: &Path) -> (ControlSocket, PathBuf) {
        let store = Arc::new(Versioned::in_memory().unwrap());
        let tokens = Tokens::load_or_create(&*store, "istio-system").await.unwrap();
        let mesh = MeshInfo {
            mesh: "m".to_owned(),
            root_namespace: "istio-system".to_owned(),
            ..MeshInfo::default()
        };
        let status = Status { mesh: "m".to_owned(), ..Status::default() };
        let services = Services {
            store,
            tokens,
            mesh,
            status: Box::new(move || Box::pin(std::future::ready(status.clone()))),
        };
        let path = directory.join("control.sock");
        (serve(&path, services).unwrap(), path)
    }

    #[tokio::test]
    async fn the_owner_is_served() {
        let temporary = tempfile::tempdir().unwrap();
        let (socket, path) = served(temporary.path()).await;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let client = ControlClient::new(&path);
        assert_eq!(client.mesh().await.unwrap().mesh, "m");
        assert_eq!(client.status().await.unwrap().mesh, "m");
        let wish = Registration {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            ports: vec![WishedPort { port: 3306, protocol: "tcp".to_owned() }],
            ..Registration::default()
        };
        let registered = client.register(&wish).await.unwrap();
        assert_eq!(registered.service_made.as_deref(), Some("web"));
        let token = client.token("default", "web").await.unwrap();
        assert!(token.expires_in_seconds <= 3600);
        let refused = client.token("default", "a b").await;
        assert!(matches!(refused, Err(ClientError::Refused(_))), "{refused:?}");
        socket.stop().await;
        assert!(matches!(client.mesh().await, Err(ClientError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn another_user_is_not() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("s");
        let mut listener =
            OwnersOnly { listener: UnixListener::bind(&path).unwrap(), owner: u32::MAX - 7 };
        let accepting =
            tokio::spawn(async move { axum::serve::Listener::accept(&mut listener).await.1 });
        let stream = UnixStream::connect(&path).await.unwrap();
        // The connection ends without having been accepted.
        stream.readable().await.unwrap();
        let mut byte = [0];
        assert_eq!(stream.try_read(&mut byte).unwrap(), 0);
        assert!(!accepting.is_finished());
        accepting.abort();
    }
}
