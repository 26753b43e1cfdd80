//! The gRPC services on their sockets.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use tokio::io;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::codegen::Service;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::Server;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use xds::DeltaServer;
use xds::sotw::SotwServer;

use super::authenticate::Authenticator;
use super::form::Form;
use super::{RESPONSES_IN_FLIGHT, Stream, framing};
use crate::ca::CertificateService;
use crate::certificate::ServerCertificate;
use crate::plane::Plane;

/// A client that does not finish its handshake by then is gone.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes that may be done at the same time, and connections that may wait for a stream.
const PENDING_CONNECTIONS: usize = 64;
/// A request is a list of names; Envoy's biggest have every cluster's.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// Serves streams and certificates over TLS until the control plane ends.
pub async fn serve_tls(
    plane: Arc<Plane>,
    listener: TcpListener,
    certificates: Arc<ServerCertificate>,
    authenticator: Arc<Authenticator>,
    certificate_service: CertificateService,
) {
    let streams = Streams { plane: Arc::clone(&plane), authenticator: Some(authenticator) };
    let certificate_service = IstioCertificateServiceServer::new(certificate_service);
    let (sender, incoming) = mpsc::channel(PENDING_CONNECTIONS);
    let accepting = accept(listener, certificates, sender);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(streams)
        .add_service(certificate_service)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), plane.stopping());
    tokio::select! {
        () = accepting => {}
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "serving over TLS ended");
            }
        }
    }
}

/// Accepts connections and does their handshakes, each by itself: a slow one holds up nobody.
async fn accept(
    listener: TcpListener,
    certificates: Arc<ServerCertificate>,
    sender: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, most likely: what is open goes on, and new ones wait.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(certificates.config());
        let sender = sender.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = sender.send(Ok(stream)).await;
                }
                Ok(Err(error)) => tracing::info!(%error, "a TLS handshake failed"),
                Err(_) => tracing::info!("a TLS handshake took too long"),
            }
        });
    }
}

/// Serves streams in plaintext until the control plane ends: no secrets, no registration.
pub async fn serve_plaintext(plane: Arc<Plane>, listener: TcpListener) {
    let streams = Streams { plane: Arc::clone(&plane), authenticator: None };
    let served = Server::builder()
        .add_service(streams)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), plane.stopping())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving in plaintext ended");
    }
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService` in both forms, with responses whose resources are shared bytes.
#[derive(Clone)]
struct Streams {
    plane: Arc<Plane>,
    /// None on the plaintext port.
    authenticator: Option<Arc<Authenticator>>,
}

impl NamedService for Streams {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

type Answer =
    Pin<Box<dyn Future<Output = Result<http::Response<Body>, std::convert::Infallible>> + Send>>;

impl Service<http::Request<Body>> for Streams {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let streams = self.clone();
        Box::pin(async move {
            let method = request.uri().path().strip_prefix('/').and_then(|path| {
                path.strip_prefix(Streams::NAME).and_then(|path| path.strip_prefix('/'))
            });
            Ok(match method {
                Some(DeltaServer::METHOD) => streams.serve::<DeltaServer>(request),
                Some(SotwServer::METHOD) => streams.serve::<SotwServer>(request),
                _ => Err(Status::unimplemented("this service has no such method")),
            }
            .unwrap_or_else(Status::into_http))
        })
    }
}

impl Streams {
    fn serve<F: Form>(self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let (parts, body) = request.into_parts();
        if parts.headers.get("grpc-encoding").is_some_and(|encoding| encoding != "identity") {
            return Err(Status::unimplemented("requests are not taken compressed"));
        }
        let peer = match &self.authenticator {
            Some(authenticator) => {
                let metadata = MetadataMap::from_headers(parts.headers);
                Some(authenticator.caller(&parts.extensions, &metadata)?)
            }
            None => None,
        };
        let decoder = ProstCodec::<F::Response, F::Request>::default().decoder();
        let requests = Streaming::new_request(decoder, body, None, Some(MAX_REQUEST_BYTES));
        let (sender, responses) = mpsc::channel(RESPONSES_IN_FLIGHT);
        tokio::spawn(Stream::<F>::new(self.plane, peer, requests, sender).serve());
        Ok(framing::response(responses))
    }
}
