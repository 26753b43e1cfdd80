//! The agent's socket, which the engine beside it speaks to: aggregated discovery and secrets, on a Unix socket that only
//! its owner can open.

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;
use xds::wire::{DeltaResponse, SotwResponse};

use crate::certificates::WorkloadCertificate;
use crate::raw_codec::RawCodec;
use crate::relay::{Protocol, Relay};
use crate::secrets::{Responses, serve_delta, serve_sotw};

/// The socket while it is open. Dropping it closes it and removes its file.
pub(crate) struct AgentSocket {
    path: PathBuf,
    _stop: oneshot::Sender<()>,
    _task: JoinHandle<()>,
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AgentSocket {
    /// Opens the socket at `path`, in a directory that only its owner can enter. What is left there of an earlier run is
    /// replaced.
    pub(crate) fn open(
        path: &Path,
        relay: Relay,
        certificate: watch::Receiver<Option<std::sync::Arc<WorkloadCertificate>>>,
    ) -> io::Result<AgentSocket> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tonic::transport::Server::builder()
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(1 << 20)
            .add_service(Discovery { relay })
            .add_service(SecretDiscovery { certificate })
            .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped.map(|_| ()));
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the agent's socket failed");
            }
        });
        Ok(AgentSocket { path: path.to_owned(), _stop: stop, _task: task })
    }
}

type Answer = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

/// `AggregatedDiscoveryService`, relayed.
#[derive(Clone)]
struct Discovery {
    relay: Relay,
}

impl NamedService for Discovery {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let protocol = [Protocol::Delta, Protocol::Sotw]
            .into_iter()
            .find(|p| p.path() == request.uri().path());
        let Some(protocol) = protocol else { return unimplemented_method() };
        let relayed = Relayed { relay: self.relay.clone(), protocol };
        Box::pin(async move {
            let mut grpc = Grpc::new(RawCodec).max_decoding_message_size(usize::MAX);
            Ok(grpc.streaming(relayed, request).await)
        })
    }
}

struct Relayed {
    relay: Relay,
    protocol: Protocol,
}

impl StreamingService<Bytes> for Relayed {
    type Response = Bytes;
    type ResponseStream = Responses<Bytes>;
    type Future = BoxFuture<'static, Result<Response<Responses<Bytes>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        self.relay.clone().serve(self.protocol, request).boxed()
    }
}

/// `SecretDiscoveryService`, answered here.
#[derive(Clone)]
struct SecretDiscovery {
    certificate: watch::Receiver<Option<std::sync::Arc<WorkloadCertificate>>>,
}

impl NamedService for SecretDiscovery {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl Service<http::Request<Body>> for SecretDiscovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let service = self.clone();
        match request.uri().path() {
            "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets" => {
                Box::pin(async move {
                    let codec = ProstCodec::<DeltaResponse, DeltaDiscoveryRequest>::default();
                    Ok(Grpc::new(codec).streaming(service, request).await)
                })
            }
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets" => {
                Box::pin(async move {
                    let codec = ProstCodec::<SotwResponse, DiscoveryRequest>::default();
                    Ok(Grpc::new(codec).streaming(service, request).await)
                })
            }
            _ => unimplemented_method(),
        }
    }
}

type SecretsFuture<T> =
    Pin<Box<dyn Future<Output = Result<Response<Responses<T>>, Status>> + Send>>;

impl StreamingService<DeltaDiscoveryRequest> for SecretDiscovery {
    type Response = DeltaResponse;
    type ResponseStream = Responses<DeltaResponse>;
    type Future = SecretsFuture<DeltaResponse>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let response = serve_delta(self.certificate.clone(), request);
        Box::pin(async { Ok(response) })
    }
}

impl StreamingService<DiscoveryRequest> for SecretDiscovery {
    type Response = SotwResponse;
    type ResponseStream = Responses<SotwResponse>;
    type Future = SecretsFuture<SotwResponse>;

    fn call(&mut self, request: Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let response = serve_sotw(self.certificate.clone(), request);
        Box::pin(async { Ok(response) })
    }
}

fn unimplemented_method() -> Answer {
    Box::pin(async { Ok(Status::unimplemented("no such method here").into_http()) })
}
