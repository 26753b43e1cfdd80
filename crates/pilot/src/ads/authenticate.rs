//! Who is calling: by client certificate, else by token. Nothing a caller says of itself counts.

use std::sync::Arc;
use std::time::SystemTime;

use identity::SpiffeId;
use identity::chain::{ChainError, TrustRoots, verify_workload};
use identity::token::{CONTROL_PLANE_AUDIENCE, TokenVerifier};
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tonic::metadata::MetadataMap;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::{Extensions, Status};

use crate::plane::Plane;
use crate::proxy::Peer;

/// What a connection over TLS knows of its client.
type TlsInfo = TlsConnectInfo<<TcpStream as tonic::transport::server::Connected>::ConnectInfo>;

/// Judges callers.
pub struct Authenticator {
    roots: TrustRoots,
    tokens: TokenVerifier,
    /// Knows whose certificates count: the mesh's trust domain and, as the mesh configuration has them now, its aliases.
    plane: Arc<Plane>,
}

/// Why a caller is not believed. What exactly was wrong is for the log of the control plane, not for a stranger.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// Neither certificate nor token.
    #[error("no client certificate and no token")]
    Nothing,
    /// The certificate is no workload's of this mesh.
    #[error("client certificate: {0}")]
    Certificate(String),
    /// The token is no workload's of this mesh.
    #[error("token: {0}")]
    Token(String),
}

impl Authenticator {
    /// Believes certificates that these roots sign, and tokens.
    pub fn new(roots: TrustRoots, tokens: TokenVerifier, plane: Arc<Plane>) -> Arc<Self> {
        Arc::new(Self { roots, tokens, plane })
    }

    /// The caller of a request over TLS.
    pub fn caller(
        &self,
        extensions: &Extensions,
        metadata: &MetadataMap,
    ) -> Result<Peer, AuthenticationError> {
        let certificates =
            extensions.get::<TlsInfo>().and_then(TlsConnectInfo::<TcpConnectInfo>::peer_certs);
        if let Some(certificates) = certificates.filter(|certificates| !certificates.is_empty()) {
            return self.by_certificate(&certificates);
        }
        let token = metadata
            .get("authorization")
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .ok_or(AuthenticationError::Nothing)?;
        let bearer = self
            .tokens
            .verify(token.trim(), CONTROL_PLANE_AUDIENCE, SystemTime::now())
            .map_err(|error| AuthenticationError::Token(error.to_string()))?;
        Ok(Peer { namespace: bearer.namespace, service_account: bearer.service_account })
    }

    fn by_certificate(
        &self,
        certificates: &[CertificateDer<'_>],
    ) -> Result<Peer, AuthenticationError> {
        let id: SpiffeId = self
            .verify(certificates)
            .map_err(|error| AuthenticationError::Certificate(error.to_string()))?;
        let (namespace, service_account) = id.service_account().ok_or_else(|| {
            AuthenticationError::Certificate(format!("{id} is no service account"))
        })?;
        Ok(Peer { namespace: namespace.to_owned(), service_account: service_account.to_owned() })
    }

    /// The identity of a chain, of whichever trust domain the mesh accepts.
    fn verify(&self, certificates: &[CertificateDer<'_>]) -> Result<SpiffeId, ChainError> {
        let mesh = self.plane.mesh();
        let now = SystemTime::now();
        let mut verdict = verify_workload(certificates, &self.roots, &mesh.trust_domain, now);
        for alias in &mesh.trust_domain_aliases {
            if matches!(verdict, Err(ChainError::NotOfTrustDomain(_))) {
                verdict = verify_workload(certificates, &self.roots, alias, now);
            }
        }
        verdict
    }
}

impl From<AuthenticationError> for Status {
    fn from(error: AuthenticationError) -> Status {
        tracing::warn!(%error, "refused a caller");
        // Istio's words.
        Status::unauthenticated("request authenticate failure")
    }
}
