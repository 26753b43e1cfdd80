//! One check of one host: a request, a connection, or a call.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, TE};
use http::uri::Uri;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::config_sync::channel::{self, Stream};
use crate::network::tls::UpstreamTls;
use crate::upstream::health_check::{GrpcProbe, HttpProbe, Outcome, Probe, TcpProbe, has_pieces};
use crate::upstream::host::{Host, HostAddress};

/// The path of `grpc.health.v1.Health/Check`.
const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse { status: SERVING }`, encoded.
const SERVING: [u8; 2] = [0x08, 0x01];
/// Who answers, in a header.
const SERVED_BY: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");
/// Of a body nobody looks at so much is read to keep the connection; and no answer to a call is longer.
const MAX_BODY: usize = 64 * 1024;
/// Of what a TCP host sends so much is looked at.
const MAX_RECEIVED: usize = 64 * 1024;

/// What one check came to.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// What the answer, or its absence, means.
    pub outcome: Outcome,
    /// The service behind the host was compared.
    pub verified_service: bool,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, verified_service: false }
    }
}

/// A connection kept between checks. Dropping it closes it.
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Full<Bytes>>, Driver),
    /// HTTP/2.
    Http2(http2::SendRequest<Full<Bytes>>, Driver),
    /// Bytes.
    Tcp(Stream),
}

/// The task that moves a connection's bytes.
pub struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks a host once. The connection is taken from `kept`, and left there when it can be used again.
pub async fn ask(host: &Host, probe: &Probe, kept: &mut Option<Connection>) -> Answer {
    let answer = match probe {
        Probe::Http(http) => ask_http(host, http, kept).await,
        Probe::Tcp(tcp) => ask_tcp(host, tcp, kept).await.map(Answer::from),
        Probe::Grpc(grpc) => ask_grpc(host, grpc, kept).await.map(Answer::from),
    };
    answer.unwrap_or_else(|error| {
        tracing::debug!(host = %host.address_text, %error, "no answer to a health check");
        Outcome::Network.into()
    })
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
}

async fn ask_http(
    host: &Host,
    probe: &HttpProbe,
    kept: &mut Option<Connection>,
) -> Result<Answer, NoAnswer> {
    let name = name_of(host).unwrap_or(&probe.host);
    let response = if probe.http2 {
        let uri = uri(host, name, &probe.path)?;
        let request = request(&probe.method, uri, &probe.headers, probe.send.clone())?;
        send_http2(host, request, kept).await?
    } else {
        let uri = Uri::try_from(&*probe.path).map_err(http::Error::from)?;
        let mut request = request(&probe.method, uri, &probe.headers, probe.send.clone())?;
        let name = HeaderValue::from_str(name).map_err(http::Error::from)?;
        request.headers_mut().entry(HOST).or_insert(name);
        send_http1(host, request, kept).await?
    };
    let (head, body) = response.into_parts();
    let outcome = probe.judge_status(head.status.as_u16());
    if outcome != Outcome::Success {
        return Ok(outcome.into());
    }
    let wanted = match (probe.receive.is_empty(), probe.response_buffer) {
        (true, _) => 0,
        (false, 0) => usize::MAX,
        (false, limit) => limit,
    };
    let body = read_body(body, wanted, kept).await?;
    if !has_pieces(&body, &probe.receive) {
        return Ok(Outcome::Failure.into());
    }
    let Some(service) = &probe.service else { return Ok(Outcome::Success.into()) };
    let served_by = head.headers.get(SERVED_BY).map_or(&b""[..], |value| value.as_bytes());
    let outcome = if service.matches(served_by) { Outcome::Success } else { Outcome::Failure };
    Ok(Answer { outcome, verified_service: true })
}

async fn ask_grpc(
    host: &Host,
    probe: &GrpcProbe,
    kept: &mut Option<Connection>,
) -> Result<Outcome, NoAnswer> {
    let name = name_of(host).unwrap_or(&probe.authority);
    let uri = uri(host, name, CHECK)?;
    let mut request = request(&Method::POST, uri, &probe.headers, probe.message.clone())?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let (head, body) = send_http2(host, request, kept).await?.into_parts();
    let body = body.collect().await?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status"));
    let is_ok = status.or(head.headers.get("grpc-status")).is_some_and(|status| status == "0");
    let bytes = body.to_bytes();
    let serves = bytes.get(codec::grpc::PREFIX..).is_some_and(|it| it.starts_with(&SERVING));
    let is_small = bytes.len() <= MAX_BODY;
    let is_good = head.status == 200 && is_ok && serves && is_small;
    Ok(if is_good { Outcome::Success } else { Outcome::Failure })
}

async fn ask_tcp(
    host: &Host,
    probe: &TcpProbe,
    kept: &mut Option<Connection>,
) -> Result<Outcome, NoAnswer> {
    let mut stream = match kept.take() {
        Some(Connection::Tcp(stream)) => stream,
        _ => dial(host, &[]).await?,
    };
    if !probe.send.is_empty() {
        stream.write_all(&probe.send).await?;
        stream.flush().await?;
    }
    if probe.receive.is_empty() {
        return Ok(Outcome::Success);
    }
    let mut received = BytesMut::new();
    while !has_pieces(&received, &probe.receive) {
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if received.len() > MAX_RECEIVED {
            return Ok(Outcome::Failure);
        }
    }
    *kept = Some(Connection::Tcp(stream));
    Ok(Outcome::Success)
}

fn request(
    method: &Method,
    uri: Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
    *request.headers_mut() = headers.clone();
    Ok(request)
}

fn uri(host: &Host, authority: &str, path: &str) -> Result<Uri, http::Error> {
    let scheme = if host.tls.is_some() { "https" } else { "http" };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build()
}

async fn send_http1(
    host: &Host,
    request: Request<Full<Bytes>>,
    kept: &mut Option<Connection>,
) -> Result<http::Response<Incoming>, NoAnswer> {
    let (mut sender, driver) = match kept.take() {
        Some(Connection::Http1(sender, driver)) if !sender.is_closed() => (sender, driver),
        _ => {
            let io = TokioIo::new(dial(host, &[]).await?);
            let (sender, connection) = http1::handshake(io).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            (sender, Driver(driver))
        }
    };
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    *kept = Some(Connection::Http1(sender, driver));
    Ok(response)
}

async fn send_http2(
    host: &Host,
    request: Request<Full<Bytes>>,
    kept: &mut Option<Connection>,
) -> Result<http::Response<Incoming>, NoAnswer> {
    let (mut sender, driver) = match kept.take() {
        Some(Connection::Http2(sender, driver)) if !sender.is_closed() => (sender, driver),
        _ => {
            let io = TokioIo::new(dial(host, &[b"h2"]).await?);
            let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            (sender, Driver(driver))
        }
    };
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    *kept = Some(Connection::Http2(sender, driver));
    Ok(response)
}

/// Reads up to `wanted` bytes, and on for a while so that the connection can be used again; beyond that it is given up.
async fn read_body(
    mut body: Incoming,
    wanted: usize,
    kept: &mut Option<Connection>,
) -> Result<Vec<u8>, NoAnswer> {
    let (mut read, mut total) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        total += data.len();
        read.extend_from_slice(&data[..data.len().min(wanted - read.len())]);
        if read.len() == wanted && total > MAX_BODY {
            *kept = None;
            break;
        }
    }
    Ok(read)
}

/// The name to ask the host for, if it has one of its own.
fn name_of(host: &Host) -> Option<&Arc<str>> {
    let check = host.check.as_deref()?;
    Some(&check.hostname).filter(|name| !name.is_empty())
}

/// A connection to where the host is checked; under TLS `protocols` are offered, or else what the cluster offers.
async fn dial(host: &Host, protocols: &[&[u8]]) -> io::Result<Stream> {
    let elsewhere = host.check.as_deref();
    let (address, port) = elsewhere.map(|check| (check.address, check.port)).unwrap_or_default();
    let address = match (address, port, &host.address) {
        (Some(address), _, _) => HostAddress::Tcp(address),
        (None, Some(port), HostAddress::Tcp(address)) => {
            HostAddress::Tcp((address.ip(), port).into())
        }
        (None, _, address) => address.clone(),
    };
    let tls = host.tls.as_deref();
    let config = tls.and_then(UpstreamTls::current).map(|side| match protocols {
        [] => Arc::clone(&side.config),
        protocols => {
            let mut config = rustls::ClientConfig::clone(&side.config);
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        }
    });
    if tls.is_some() && config.is_none() {
        return Err(io::Error::other("its certificates are not there yet"));
    }
    let sni = tls.and_then(|tls| tls.settings().sni.as_deref());
    channel::dial(&address, config.as_ref(), sni).await
}
