//! The workload's certificate: a key that never leaves this process, a request to the mesh's authority, and another one
//! at half its life. Time is the wall clock's, since laptops sleep and certificates do not wait.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::istio::v1::auth::IstioCertificateRequest;
use api::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use identity::certificate::{CertificateError, decode_pem};
use identity::chain::{self, ChainError, Usage};
use identity::csr::{self, CsrError};
use identity::key::KeyError;
use identity::tls::{Certificate, TlsError};
use identity::{PrivateKey, SpiffeId};
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::control_plane::{ConnectError, ControlPlane, with_causes};
use crate::credential::{NoToken, TokenSource};

/// Renewal is due when this part of a certificate's life has passed, give or take [`JITTER`].
const RENEW_AT: f64 = 0.5;
/// So that a thousand workloads that started together do not renew together.
const JITTER: f64 = 0.01;
/// The clock is looked at this often at least: it may have jumped.
const LONGEST_NAP: Duration = Duration::from_secs(15);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A certificate, its key, and what it was issued under.
pub struct WorkloadCertificate {
    /// Leaf first, PEM.
    pub chain_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
    /// What the mesh trusts, PEM.
    pub roots_pem: String,
    /// Ready to present.
    pub tls: Certificate,
    /// Who it says that we are.
    pub id: SpiffeId,
    /// When we got it.
    pub issued: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl std::fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WorkloadCertificate({}, until {:?})", self.id, self.not_after)
    }
}

/// Why a certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CertificateRequestError {
    /// The control plane cannot be reached.
    #[error("{0}")]
    Connect(#[from] ConnectError),
    /// Nothing to prove who we are with.
    #[error("{0}")]
    NoToken(#[from] NoToken),
    /// The authority said no.
    #[error("the certificate authority answers {code}: {message}")]
    Refused {
        /// The gRPC status code.
        code: tonic::Code,
        /// Its message.
        message: String,
    },
    /// No key, or no request for it.
    #[error("{0}")]
    Key(#[from] KeyError),
    /// The request cannot be made.
    #[error("{0}")]
    Request(#[from] CsrError),
    /// The answer is not what was asked for.
    #[error("the certificate authority's answer: {0}")]
    Answer(String),
}

impl From<CertificateError> for CertificateRequestError {
    fn from(error: CertificateError) -> Self {
        CertificateRequestError::Answer(error.to_string())
    }
}

impl From<ChainError> for CertificateRequestError {
    fn from(error: ChainError) -> Self {
        CertificateRequestError::Answer(error.to_string())
    }
}

impl From<TlsError> for CertificateRequestError {
    fn from(error: TlsError) -> Self {
        CertificateRequestError::Answer(error.to_string())
    }
}

/// What certificates are asked for with.
pub struct CertificateOptions {
    /// Where the authority is.
    pub control_plane: ControlPlane,
    /// What the mesh trusts, PEM.
    pub roots_pem: String,
    /// Proof of who we are, while there is no certificate.
    pub tokens: Arc<dyn TokenSource>,
    /// Who we think we are; the authority decides.
    pub id: SpiffeId,
    /// How long certificates should live.
    pub ttl: Duration,
}

/// Keeps a certificate fresh until dropped.
pub struct CertificateKeeper {
    current: watch::Receiver<Option<Arc<WorkloadCertificate>>>,
    task: JoinHandle<()>,
}

impl Drop for CertificateKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl CertificateKeeper {
    /// Starts asking. Must be called inside a tokio runtime.
    pub fn start(options: CertificateOptions) -> CertificateKeeper {
        let (publish, current) = watch::channel(None);
        CertificateKeeper { current, task: tokio::spawn(keep(options, publish)) }
    }

    /// The certificate now and from now on; `None` until there is a first one.
    pub fn certificates(&self) -> watch::Receiver<Option<Arc<WorkloadCertificate>>> {
        self.current.clone()
    }
}

async fn keep(
    options: CertificateOptions,
    publish: watch::Sender<Option<Arc<WorkloadCertificate>>>,
) {
    let mut pause = FIRST_RETRY;
    let mut held: Option<Arc<WorkloadCertificate>> = None;
    let mut certificate_refused = false;
    loop {
        let now = SystemTime::now();
        let presented = held.as_ref().filter(|held| held.not_after > now && !certificate_refused);
        match request(&options, presented.map(|held| &held.tls), now).await {
            Ok(issued) => {
                pause = FIRST_RETRY;
                certificate_refused = false;
                let renew_at = renewal_time(issued.issued, issued.not_after, &mut rand::rng());
                tracing::info!(id = %issued.id, not_after = ?issued.not_after, "certificate issued");
                let issued = Arc::new(issued);
                held = Some(issued.clone());
                if publish.send(Some(issued)).is_err() {
                    return;
                }
                sleep_until(renew_at).await;
            }
            Err(error) => {
                // A certificate that the authority no longer takes is no use: a token may be.
                certificate_refused =
                    presented.is_some() && matches!(error, CertificateRequestError::Refused { .. });
                tracing::warn!(%error, ?pause, "no certificate; the one there is stays");
                let jittered = rand::rng().random_range(pause / 2..=pause);
                tokio::time::sleep(jittered).await;
                pause = (pause * 2).min(LONGEST_RETRY);
            }
        }
    }
}

/// Asks once, with a new key.
async fn request(
    options: &CertificateOptions,
    presented: Option<&Certificate>,
    now: SystemTime,
) -> Result<WorkloadCertificate, CertificateRequestError> {
    let key = PrivateKey::generate()?;
    let mut request = tonic::Request::new(IstioCertificateRequest {
        csr: csr::create(&key, &options.id)?,
        validity_duration: options.ttl.as_secs() as i64,
        metadata: None,
    });
    request.set_timeout(REQUEST_TIMEOUT);
    if presented.is_none() {
        bearer(&mut request, &options.tokens.token().await?)?;
    }
    let channel = options.control_plane.connect(presented).await?;
    let answer = IstioCertificateServiceClient::new(channel).create_certificate(request).await;
    let chain = answer.map_err(refused)?.into_inner().cert_chain;
    read_answer(options, &key, &chain, now)
}

/// Puts a token where the control plane looks for it.
pub(crate) fn bearer<T>(request: &mut tonic::Request<T>, token: &str) -> Result<(), NoToken> {
    let value = format!("Bearer {token}")
        .parse()
        .map_err(|_| NoToken("it has characters that no header can have".into()))?;
    request.metadata_mut().insert("authorization", value);
    Ok(())
}

fn refused(status: tonic::Status) -> CertificateRequestError {
    let message = match status.message() {
        "" => with_causes(&status),
        message => message.to_owned(),
    };
    CertificateRequestError::Refused { code: status.code(), message }
}

/// Believes nothing of an answer: it must be for our key, lead to the root, and name a workload.
fn read_answer(
    options: &CertificateOptions,
    key: &PrivateKey,
    certificates: &[String],
    now: SystemTime,
) -> Result<WorkloadCertificate, CertificateRequestError> {
    let wrong = |what: &str| CertificateRequestError::Answer(what.to_owned());
    // The root comes last; a peer has it already.
    let (root, chain) = certificates.split_last().ok_or_else(|| wrong("no certificates"))?;
    let chain = if chain.is_empty() { std::slice::from_ref(root) } else { chain };
    let chain_pem: String = chain.iter().map(|pem| format!("{}\n", pem.trim())).collect();
    let key_pem = key.to_pem();
    let tls = Certificate::from_pem(&chain_pem, &key_pem)?;
    let der = decode_pem(&chain_pem)?;
    chain::verify(&der[0], &der[1..], options.control_plane.roots(), Usage::Client, now)?;
    let id = tls.leaf().spiffe_id().ok_or_else(|| wrong("the certificate names no workload"))?;
    let not_after = tls.leaf().not_after;
    if tls.leaf().public_key_der != key.public_key_der() {
        return Err(wrong("the certificate is for another key"));
    }
    Ok(WorkloadCertificate {
        chain_pem,
        key_pem,
        roots_pem: options.roots_pem.clone(),
        tls,
        id,
        issued: now,
        not_after,
    })
}

/// Half of the life that is left at `issued`, with jitter.
fn renewal_time(issued: SystemTime, not_after: SystemTime, rng: &mut impl Rng) -> SystemTime {
    let life = not_after.duration_since(issued).unwrap_or_default();
    issued + life.mul_f64(RENEW_AT + rng.random_range(-JITTER..=JITTER))
}

async fn sleep_until(time: SystemTime) {
    while let Ok(left) = time.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_NAP)).await;
    }
}

#[cfg(test)]
mod tests;
