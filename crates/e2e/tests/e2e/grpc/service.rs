//! The service of the interop tests in tonic; `python/interop.py` has the same in grpcio.
//!
//! A message is plain bytes. Metadata of the request says what a method does:
//!
//! | metadata | effect |
//! |---|---|
//! | `x-echo`, `x-echo-bin` | come back as initial metadata |
//! | `x-size`, `x-count` | length of the messages that are made up; how many of them |
//! | `x-status`, `x-message-bin` | the code and the message that the call ends with |
//! | `x-trailer-bin` | comes back as trailing metadata |

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio_stream::{Stream, StreamExt};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service, http};
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService};
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

use super::bytes_codec::BytesCodec;

type Answer<T> = Result<Response<T>, Status>;
type Messages = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// A listening server on a runtime of its own.
pub struct Server {
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    pub fn start() -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        // hyper gives a connection no more window than one of its streams, so that a stream nobody reads stops all others.
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .add_service(TestService(Arc::default()));
        runtime.spawn(async move { server.serve_with_incoming(incoming).await });
        Ok(Self { address, _runtime: runtime })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

#[derive(Default)]
struct State {
    /// Calls of `Hang` that have come.
    hanging: AtomicU64,
    /// Calls of `Hang` that ended before they were answered: all of them.
    cancelled: AtomicU64,
    /// Bytes of the current `Download` that the transport has taken.
    written: AtomicU64,
}

#[derive(Clone)]
struct TestService(Arc<State>);

impl NamedService for TestService {
    const NAME: &'static str = "interop.Test";
}

impl Service<http::Request<Body>> for TestService {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move { Ok(state.dispatch(request).await) })
    }
}

impl State {
    async fn dispatch(self: Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        let mut grpc = Grpc::new(BytesCodec)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        match method.as_str() {
            "Unary" => grpc.unary(tower::service_fn(unary), request).await,
            "Download" => {
                let download = move |request| download(Arc::clone(&self), request);
                grpc.server_streaming(tower::service_fn(download), request).await
            }
            "Upload" => grpc.client_streaming(tower::service_fn(upload), request).await,
            "Chat" => grpc.streaming(tower::service_fn(chat), request).await,
            "Hang" => {
                let hang = move |_: Request<Bytes>| hang(Arc::clone(&self));
                grpc.unary(tower::service_fn(hang), request).await
            }
            "Hanging" => count(grpc, self.hanging.load(Ordering::Relaxed), request).await,
            "Cancelled" => count(grpc, self.cancelled.load(Ordering::Relaxed), request).await,
            "Written" => count(grpc, self.written.load(Ordering::Relaxed), request).await,
            _ => Status::unimplemented(method).into_http(),
        }
    }
}

async fn count(
    mut grpc: Grpc<BytesCodec>,
    count: u64,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let answer =
        move |_: Request<Bytes>| async move { Ok(Response::new(Bytes::from(count.to_string()))) };
    grpc.unary(tower::service_fn(answer), request).await
}

async fn unary(request: Request<Bytes>) -> Answer<Bytes> {
    let (asked, _, message) = request.into_parts();
    if let Some(status) = end(&asked) {
        return Err(status);
    }
    let size = number(&asked, "x-size");
    Ok(begin(&asked, size.map_or(message, |size| vec![0; size].into())))
}

async fn download(state: Arc<State>, request: Request<Bytes>) -> Answer<Messages> {
    let (asked, _, _) = request.into_parts();
    state.written.store(0, Ordering::Relaxed);
    let message = Bytes::from(vec![0; number(&asked, "x-size").unwrap_or(0)]);
    let messages = (0..number(&asked, "x-count").unwrap_or(0)).map(move |_| {
        state.written.fetch_add(message.len() as u64, Ordering::Relaxed);
        Ok(message.clone())
    });
    let messages = tokio_stream::iter(messages);
    let ended = tokio_stream::iter(end(&asked).map(Err));
    Ok(begin(&asked, Box::pin(messages.chain(ended))))
}

async fn upload(request: Request<Streaming<Bytes>>) -> Answer<Bytes> {
    let (asked, _, mut messages) = request.into_parts();
    let (mut count, mut size) = (0, 0);
    while let Some(message) = messages.message().await? {
        count += 1;
        size += message.len();
    }
    end(&asked).map_or_else(|| Ok(begin(&asked, format!("{count} {size}").into())), Err)
}

async fn chat(request: Request<Streaming<Bytes>>) -> Answer<Messages> {
    let (asked, _, messages) = request.into_parts();
    let ended = tokio_stream::iter(end(&asked).map(Err));
    Ok(begin(&asked, Box::pin(messages.chain(ended))))
}

async fn hang(state: Arc<State>) -> Answer<Bytes> {
    /// A call that is given up is dropped where it waits.
    struct GivenUp(Arc<State>);
    impl Drop for GivenUp {
        fn drop(&mut self) {
            self.0.cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }
    state.hanging.fetch_add(1, Ordering::Relaxed);
    let _given_up = GivenUp(state);
    std::future::pending().await
}

fn begin<T>(asked: &MetadataMap, message: T) -> Response<T> {
    let mut response = Response::new(message);
    for value in asked.get_all("x-echo") {
        response.metadata_mut().append("x-echo", value.clone());
    }
    for value in asked.get_all_bin("x-echo-bin") {
        response.metadata_mut().append_bin("x-echo-bin", value.clone());
    }
    response
}

/// The status that the call ends with, if the request asks for one or for trailing metadata.
fn end(asked: &MetadataMap) -> Option<Status> {
    let code = number(asked, "x-status").unwrap_or(0);
    let trailer = asked.get_bin("x-trailer-bin");
    if code == 0 && trailer.is_none() {
        return None;
    }
    let text = asked.get_bin("x-message-bin").and_then(|value| value.to_bytes().ok());
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let mut status = Status::new(Code::from_i32(i32::try_from(code).unwrap_or(2)), text);
    if let Some(trailer) = trailer {
        status.metadata_mut().insert_bin("x-trailer-bin", trailer.clone());
    }
    Some(status)
}

fn number(asked: &MetadataMap, name: &str) -> Option<usize> {
    asked.get(name)?.to_str().ok()?.parse().ok()
}
