//! A plain reverse proxy of hyper, HTTP/2 in and out: what a Rust developer would write, and what the proxy is compared with.
//!
//! One thread that does all the work, the connections of upstream kept and shared, bodies and trailers passed on as they
//! come. A hidden command of the tools runs it, as a process of its own like every other peer.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::{Context, Result};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Listens on `listen` and passes everything on to `upstream`; returns only with an error.
pub fn run(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(listen, upstream))
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) -> Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await.context("listening")?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Incoming> = Client::builder(TokioExecutor::new())
        .http2_only(true)
        .timer(TokioTimer::new())
        .build(connector);
    loop {
        let (socket, _) = listener.accept().await.context("accepting")?;
        socket.set_nodelay(true)?;
        let client = client.clone();
        let service = service_fn(move |request| {
            let client = client.clone();
            async move { Ok::<_, Infallible>(pass_on(&client, upstream, request).await) }
        });
        tokio::spawn(async move {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            // A client that goes away is not an error of the proxy's.
            server.serve_connection(TokioIo::new(socket), service).await.ok();
        });
    }
}

async fn pass_on(
    client: &Client<HttpConnector, Incoming>,
    upstream: SocketAddr,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = Uri::try_from(format!("http://{upstream}{path}")) {
        *request.uri_mut() = uri;
    }
    match client.request(request).await {
        Ok(response) => response.map(|body| body.boxed_unsync()),
        Err(_) => {
            let mut response =
                Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}
