//! The certificate authority: its root in the store, and the service that signs workloads' requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use api::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use identity::ca::{CaError, CaMaterial, CertificateAuthority, DEFAULT_WORKLOAD_TTL};
use identity::csr::CertificateRequest;
use identity::{SpiffeId, TrustDomain};
use resources::kinds::Kind;
use resources::kinds::core::secret::Secret;
use resources::object::{Object, ObjectKey};
use resources::store::{Store, StoreError, WriteOptions};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::ads::authenticate::Authenticator;
use crate::plane::Plane;

/// A Secret with an authority that the user brought.
const USER_SECRET: &str = "cacerts";
/// A Secret with the authority that this control plane made for itself.
const OWN_SECRET: &str = "istio-ca-secret";

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The store does not answer.
    #[error("secret {namespace}/{name}: {error}")]
    Store {
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        name: &'static str,
        /// What the store says.
        error: StoreError,
    },
    /// The Secret is none.
    #[error("secret {namespace}/{name}: {problem}")]
    Secret {
        /// Namespace of the Secret.
        namespace: String,
        /// Name of the Secret.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificates or keys are not usable.
    #[error("certificate authority: {0}")]
    Authority(#[from] CaError),
}

/// The mesh's authority: the one that the user brought (`cacerts`), else the one in the store, else a new one, which is
/// stored before it signs anything.
pub async fn load_or_create(
    store: &dyn Store,
    namespace: &str,
    trust_domain: &str,
) -> Result<CertificateAuthority, AuthorityError> {
    let now = SystemTime::now();
    if let Some(secret) = read(store, namespace, USER_SECRET).await? {
        return Ok(CertificateAuthority::from_material(
            material(&secret, namespace, USER_SECRET)?,
            now,
        )?);
    }
    if let Some(secret) = read(store, namespace, OWN_SECRET).await? {
        return Ok(CertificateAuthority::from_material(
            material(&secret, namespace, OWN_SECRET)?,
            now,
        )?);
    }
    let authority = CertificateAuthority::self_signed(trust_domain, now)?;
    match write(store, namespace, authority.material()).await {
        Ok(()) => Ok(authority),
        // Another replica was faster: its root is the mesh's.
        Err(StoreError::AlreadyExists(_)) => {
            let secret = read(store, namespace, OWN_SECRET).await?.unwrap_or_default();
            Ok(CertificateAuthority::from_material(material(&secret, namespace, OWN_SECRET)?, now)?)
        }
        Err(error) => {
            Err(AuthorityError::Store { namespace: namespace.to_owned(), name: OWN_SECRET, error })
        }
    }
}

async fn read(
    store: &dyn Store,
    namespace: &str,
    name: &'static str,
) -> Result<Option<Secret>, AuthorityError> {
    let key = ObjectKey::new(Secret::INFO.collection.clone(), namespace, name);
    match store.get(&key).await {
        Ok(object) => match Secret::parse(&object) {
            Ok(parsed) => Ok(Some(parsed.view)),
            Err(errors) => Err(AuthorityError::Secret {
                namespace: namespace.to_owned(),
                name,
                problem: errors.to_string(),
            }),
        },
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(AuthorityError::Store { namespace: namespace.to_owned(), name, error }),
    }
}

/// Istio's names of the parts, for both Secrets.
fn material(
    secret: &Secret,
    namespace: &str,
    name: &'static str,
) -> Result<CaMaterial, AuthorityError> {
    let text =
        |key: &str| secret.data.get(key).and_then(|bytes| String::from_utf8(bytes.clone()).ok());
    let required = |key: &str| {
        text(key).filter(|text| !text.is_empty()).ok_or_else(|| AuthorityError::Secret {
            namespace: namespace.to_owned(),
            name,
            problem: format!("data[{key}] is missing or no text"),
        })
    };
    let certificate = required("ca-cert.pem")?;
    Ok(CaMaterial {
        key: required("ca-key.pem")?,
        chain: text("cert-chain.pem").unwrap_or_default(),
        // A self-signed certificate is its own root, and Istio's own Secret has no other.
        root: text("root-cert.pem")
            .filter(|root| !root.is_empty())
            .unwrap_or_else(|| certificate.clone()),
        certificate,
    })
}

async fn write(
    store: &dyn Store,
    namespace: &str,
    material: &CaMaterial,
) -> Result<(), StoreError> {
    let object = Object::new("v1", "Secret", namespace, OWN_SECRET)
        .with("type", json!("istio.io/ca-root"))
        .with(
            "stringData",
            json!({
                "ca-cert.pem": material.certificate,
                "ca-key.pem": material.key,
                "cert-chain.pem": material.chain,
                "root-cert.pem": material.root,
            }),
        );
    let key = ObjectKey::new(Secret::INFO.collection.clone(), namespace, OWN_SECRET);
    store.create(key, object, WriteOptions::by("pilot")).await.map(|_| ())
}

/// `istio.v1.auth.IstioCertificateService`.
pub struct CertificateService {
    /// Signs.
    pub authority: Arc<CertificateAuthority>,
    /// Says who asks.
    pub authenticator: Arc<Authenticator>,
    /// Of the identities.
    pub trust_domain: TrustDomain,
    /// Life of a certificate where nothing was asked for; the longest where it was.
    pub ttl: Option<Duration>,
    /// Counts.
    pub plane: Arc<Plane>,
}

impl CertificateService {
    fn life(&self, requested_seconds: i64) -> Result<Duration, Status> {
        let requested = match requested_seconds {
            0 => None,
            seconds => Some(Duration::from_secs(u64::try_from(seconds).map_err(|_| {
                Status::invalid_argument("validity_duration must not be negative")
            })?)),
        };
        Ok(match (requested, self.ttl) {
            (None, None) => DEFAULT_WORKLOAD_TTL,
            (Some(requested), None) => requested,
            (None, Some(longest)) => longest,
            (Some(requested), Some(longest)) => requested.min(longest),
        })
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    /// Signs a request's key for whoever the caller's credential says it is: names in the request grant nothing.
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.plane.counters.certificate_requested();
        let peer = self.authenticator.caller(request.extensions(), request.metadata())?;
        let message = request.into_inner();
        let asks_another = message
            .metadata
            .as_ref()
            .is_some_and(|m| m.fields.contains_key("ImpersonatedIdentity"));
        if asks_another {
            return Err(Status::permission_denied(
                "metadata.ImpersonatedIdentity: impersonation is not supported",
            ));
        }
        let csr = CertificateRequest::from_pem(&message.csr)
            .map_err(|error| Status::invalid_argument(format!("csr: {error}")))?;
        let id = SpiffeId::for_service_account(
            &self.trust_domain,
            &peer.namespace,
            &peer.service_account,
        )
        .map_err(|error| Status::permission_denied(error.to_string()))?;
        let life = self.life(message.validity_duration)?;
        let issued = self
            .authority
            .issue_workload(&csr, &id, life, SystemTime::now())
            .map_err(|error| Status::internal(format!("signing failed: {error}")))?;
        tracing::info!(%id, seconds = life.as_secs(), "issued a certificate");
        Ok(Response::new(IstioCertificateResponse { cert_chain: issued.certificates }))
    }
}
