//! Connections to a discovery service: TCP or a Unix socket, plain or under TLS, HTTP/2 on top.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::sink::{GrpcSource, GrpcTarget};
use crate::upstream::host::HostAddress;

/// How long a connection attempt may take if the source does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word is noticed after this and [`KEEP_ALIVE_TIMEOUT`].
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Whole tables arrive at once; the default window would make them wait for round trips.
const WINDOW: u32 = 1 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("cluster {0:?} of the discovery service does not exist or has no endpoint")]
    NoCluster(String),
    #[error("invalid authority {0:?}")]
    Authority(String),
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
}

/// Connects to the first endpoint of a target that accepts.
pub(super) async fn connect(
    source: &GrpcSource,
    target: GrpcTarget,
) -> Result<Channel, ConnectError> {
    let authority = source.authority.clone().unwrap_or_else(|| target.authority.clone());
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let origin = format!("{scheme}://{authority}")
        .parse()
        .map_err(|_| ConnectError::Authority(authority))?;
    let target = Arc::new(with_http2(target));
    // The URI is only a name: where to go is the target's business, and `origin` is what the server sees.
    let endpoint = Endpoint::from_static("http://discovery.invalid")
        .origin(origin)
        .connect_timeout(source.timeout.unwrap_or(CONNECT_TIMEOUT))
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let connector = service_fn(move |_| {
        let target = target.clone();
        async move { dial_any(&target).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector(connector).await?)
}

fn with_http2(mut target: GrpcTarget) -> GrpcTarget {
    if let Some(tls) = &mut target.tls
        && tls.alpn_protocols.is_empty()
    {
        let mut config = rustls::ClientConfig::clone(tls);
        config.alpn_protocols = vec![b"h2".to_vec()];
        *tls = Arc::new(config);
    }
    target
}

async fn dial_any(target: &GrpcTarget) -> io::Result<Stream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no endpoint");
    for address in &target.addresses {
        match self::dial(address, target.tls.as_ref(), target.sni.as_deref()).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// Connects to an address, under TLS where there is a configuration for it.
pub(crate) async fn dial(
    address: &HostAddress,
    tls: Option<&Arc<rustls::ClientConfig>>,
    sni: Option<&str>,
) -> io::Result<Stream> {
    let (socket, peer): (Box<dyn Socket>, _) = match address {
        HostAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            (Box::new(stream), Some(ServerName::from(address.ip())))
        }
        HostAddress::Pipe(path) => (Box::new(UnixStream::connect(path).await?), None),
    };
    let Some(tls) = tls else { return Ok(Stream(socket)) };
    let name = match sni {
        Some(sni) => ServerName::try_from(sni.to_owned()).map_err(io::Error::other)?,
        None => peer.ok_or_else(|| io::Error::other("TLS over a Unix socket needs an SNI"))?,
    };
    let secured = TlsConnector::from(tls.clone()).connect(name, socket).await?;
    Ok(Stream(Box::new(secured)))
}

/// Anything that bytes go through both ways.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// One connection, whatever it is made of.
pub(crate) struct Stream(Box<dyn Socket>);

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
