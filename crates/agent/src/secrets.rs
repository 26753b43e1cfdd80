//! Secret discovery: hands the workload's certificate, the mesh's roots and what configuration names by file to the engine,
//! over the agent's socket only.

use std::pin::Pin;
use std::sync::Arc;

use api::envoy::config::core::v3::{DataSource, data_source::Specifier};
use api::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use xds::server::{RequestError, RequestOutcome};
use xds::sotw::{SotwOutcome, SotwServer};
use xds::wire::{DeltaResponse, SotwResponse};
use xds::{DeltaServer, Resource, ResourceSource, ResourceType};

use crate::certificates::WorkloadCertificate;
use crate::secret_files::{LOOK_EVERY, SecretFiles};

/// The workload's certificate and key.
pub const WORKLOAD_SECRET: &str = "default";
/// What the mesh trusts.
pub const ROOTS_SECRET: &str = "ROOTCA";

type Current = watch::Receiver<Option<Arc<WorkloadCertificate>>>;
/// A stream of responses.
pub(crate) type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What is there to hand out at one moment: nothing, or two secrets and those of files.
struct Secrets<'a> {
    current: Option<Arc<WorkloadCertificate>>,
    files: &'a mut SecretFiles,
}

impl ResourceSource for Secrets<'_> {
    fn names(&mut self, kind: ResourceType) -> Vec<Arc<str>> {
        match &self.current {
            Some(_) if kind == ResourceType::Secret => {
                vec![WORKLOAD_SECRET.into(), ROOTS_SECRET.into()]
            }
            _ => Vec::new(),
        }
    }

    fn names_in(&mut self, _: ResourceType, _: &str) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<Resource> {
        let current = self.current.as_ref().filter(|_| kind == ResourceType::Secret)?;
        let secret = match name {
            WORKLOAD_SECRET => secret::Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(inline(&current.chain_pem)),
                private_key: Some(inline(&current.key_pem)),
                ..TlsCertificate::default()
            }),
            ROOTS_SECRET => secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(inline(&current.roots_pem)),
                ..CertificateValidationContext::default()
            }),
            _ => self.files.secret(name)?,
        };
        let secret = Secret { name: name.to_owned(), r#type: Some(secret) };
        Some(Resource::new(name, kind.type_url(), secret.encode_to_vec()))
    }
}

fn inline(pem: &str) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(pem.as_bytes().to_vec())),
        ..DataSource::default()
    }
}

/// Serves one incremental stream. Nothing is said before there is a certificate, so that a client waits instead of
/// hearing that there is none.
pub(crate) fn serve_delta(
    current: Current,
    requests: Request<Streaming<DeltaDiscoveryRequest>>,
) -> Response<Responses<DeltaResponse>> {
    let (responses, outgoing) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        if let Err(status) = delta(current, requests.into_inner(), &responses).await {
            let _ = responses.send(Err(status));
        }
    });
    Response::new(Box::pin(UnboundedReceiverStream::new(outgoing)))
}

async fn delta(
    mut current: Current,
    mut requests: Streaming<DeltaDiscoveryRequest>,
    responses: &mpsc::UnboundedSender<Result<DeltaResponse, Status>>,
) -> Result<(), Status> {
    let (mut server, mut files) = (DeltaServer::new(), SecretFiles::default());
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            request = requests.message() => {
                let Some(request) = request? else { return Ok(()) };
                match server.on_request(request).map_err(protocol_error)? {
                    RequestOutcome::Rejected(_, rejections) => rejections.iter().for_each(|rejection| {
                        tracing::warn!(secret = %rejection.name, reason = %rejection.reason, "the engine rejected a secret");
                    }),
                    RequestOutcome::Subscribed(_) | RequestOutcome::Accepted(_) => {}
                }
            }
            Ok(()) = current.changed() => server.changed_all(ResourceType::Secret),
            _ = look.tick(), if files.are_used() => {
                if !files.have_changed() {
                    continue;
                }
                server.changed_all(ResourceType::Secret);
            }
        }
        let certificate = current.borrow_and_update().clone();
        if certificate.is_some() {
            let mut secrets = Secrets { current: certificate, files: &mut files };
            while let Some(response) = server.next_response(&mut secrets) {
                let _ = responses.send(Ok(response));
            }
        }
    }
}

/// Serves one state-of-the-world stream, as [`serve_delta`].
pub(crate) fn serve_sotw(
    current: Current,
    requests: Request<Streaming<DiscoveryRequest>>,
) -> Response<Responses<SotwResponse>> {
    let (responses, outgoing) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        if let Err(status) = sotw(current, requests.into_inner(), &responses).await {
            let _ = responses.send(Err(status));
        }
    });
    Response::new(Box::pin(UnboundedReceiverStream::new(outgoing)))
}

async fn sotw(
    mut current: Current,
    mut requests: Streaming<DiscoveryRequest>,
    responses: &mpsc::UnboundedSender<Result<SotwResponse, Status>>,
) -> Result<(), Status> {
    let (mut server, mut files) = (SotwServer::new(), SecretFiles::default());
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            request = requests.message() => {
                let Some(request) = request? else { return Ok(()) };
                if let SotwOutcome::Rejected(_, reason) = server.on_request(request).map_err(protocol_error)? {
                    tracing::warn!(%reason, "the engine rejected its secrets");
                }
            }
            Ok(()) = current.changed() => server.changed(ResourceType::Secret),
            _ = look.tick(), if files.are_used() => {
                if !files.have_changed() {
                    continue;
                }
                server.changed(ResourceType::Secret);
            }
        }
        let certificate = current.borrow_and_update().clone();
        if certificate.is_some() {
            let mut secrets = Secrets { current: certificate, files: &mut files };
            while let Some(response) = server.next_response(&mut secrets) {
                let _ = responses.send(Ok(response));
            }
        }
    }
}

fn protocol_error(error: RequestError) -> Status {
    Status::invalid_argument(error.to_string())
}
