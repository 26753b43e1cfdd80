//! Connections to the control plane: HTTP/2 over TLS, whose certificate must lead to the mesh's root and name the
//! control plane. There is no way to connect without.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use identity::chain::{ChainError, TrustRoots};
use identity::tls::{Certificate, ClientOptions, Parameters, TlsError, Validation};
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// The name that the control plane's certificate must have.
pub const SERVER_NAME: &str = "istiod.istio-system.svc";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A control plane that vanished without a word is noticed after these two.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Whole tables arrive at once; the default window would make them wait for round trips.
const WINDOW: u32 = 1 << 20;

/// Why the control plane cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The root certificate cannot be read.
    #[error("the mesh's root certificate: {0}")]
    Root(#[from] ChainError),
    /// TLS cannot be set up.
    #[error("{0}")]
    Tls(#[from] TlsError),
    /// The server name is no DNS name.
    #[error("server name: {0}")]
    ServerName(#[from] InvalidDnsNameError),
    /// No connection, or the server is not who it should be.
    #[error("control plane at {address}: {reason}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// The error and what caused it.
        reason: String,
    },
}

/// Where the control plane is and what proves it.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    address: String,
    server_name: String,
    roots: TrustRoots,
}

impl ControlPlane {
    /// A control plane at `host:port` (15012) whose certificate leads to `roots_pem`.
    pub fn new(address: impl Into<String>, roots_pem: &str) -> Result<ControlPlane, ConnectError> {
        Ok(ControlPlane {
            address: address.into(),
            server_name: SERVER_NAME.to_owned(),
            roots: TrustRoots::from_pem(roots_pem)?,
        })
    }

    /// What the mesh trusts.
    pub fn roots(&self) -> &TrustRoots {
        &self.roots
    }

    /// Connects, presenting `certificate` if there is one.
    pub async fn connect(
        &self,
        certificate: Option<&Certificate>,
    ) -> Result<Channel, ConnectError> {
        let tls = identity::tls::client_config(&ClientOptions {
            certificate: certificate.cloned(),
            validation: Validation {
                roots: Some(self.roots.clone()),
                match_server_name: true,
                ..Validation::default()
            },
            parameters: Parameters { alpn: vec![b"h2".to_vec()], ..Parameters::default() },
            // Who we are is decided by the certificate of this very connection.
            no_resumption: true,
        })?;
        let name = ServerName::try_from(self.server_name.clone())?;
        let address: Arc<str> = Arc::from(self.address.as_str());
        let connector = service_fn(move |_| {
            let (tls, name, address) = (tls.clone(), name.clone(), address.clone());
            async move {
                let socket = TcpStream::connect(&*address).await?;
                socket.set_nodelay(true)?;
                TlsConnector::from(tls).connect(name, socket).await.map(TokioIo::new)
            }
        });
        self.endpoint()
            .connect_with_connector(connector)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    fn endpoint(&self) -> Endpoint {
        let origin = format!("https://{}", self.server_name).parse().unwrap_or_default();
        // The URI is only a name: where to go is the connector's business, and `origin` is what the server sees.
        Endpoint::from_static("http://control-plane.invalid")
            .origin(origin)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> ConnectError {
        ConnectError::Unreachable { address: self.address.clone(), reason: with_causes(error) }
    }
}

/// An error with its causes: tonic's own text is "transport error".
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
