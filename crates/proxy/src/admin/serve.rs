//! The HTTP server of the admin interface.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::AdminContext;
use super::endpoints;
use super::request::{Method, Query, Reply};

/// The longest request head accepted, in bytes.
const MAX_HEAD: usize = 32 << 10;

/// A running admin interface.
#[derive(Debug)]
pub struct AdminHandle {
    /// Where it is bound (the port the kernel chose).
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl AdminHandle {
    /// Stops accepting, and waits until that is done. Requests being served go on.
    pub async fn shutdown(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

/// Binds and serves.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(context: AdminContext, address: SocketAddr) -> io::Result<AdminHandle> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(accept(listener, context, stopped));
    Ok(AdminHandle { address, stop, task })
}

async fn accept(listener: TcpListener, context: AdminContext, mut stopped: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let context = context.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(&context, request));
                    let served = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .max_buf_size(MAX_HEAD)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    if let Err(error) = served {
                        tracing::debug!(%error, "an admin connection ended");
                    }
                });
            }
            // Out of file descriptors: wait for some to be closed instead of spinning.
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(
    context: &AdminContext,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = dispatch(context, &request);
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = http::StatusCode::from_u16(reply.status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn dispatch<B>(context: &AdminContext, request: &Request<B>) -> Reply {
    let method = match *request.method() {
        http::Method::GET | http::Method::HEAD => Method::Read,
        http::Method::POST => Method::Write,
        _ => return Reply::error(405, format!("Method {} not allowed.\n", request.method())),
    };
    // A page of another site must not change anything here through its reader's browser.
    if method == Method::Write && is_cross_origin(request) {
        return Reply::error(403, "Requests from other origins are not allowed.\n");
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    endpoints::dispatch(context, method, request.method().as_str(), request.uri().path(), &query)
}

fn is_cross_origin<B>(request: &Request<B>) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return false };
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    !matches!((origin, host), (Some((_, origin)), Some(host)) if origin == host)
}
