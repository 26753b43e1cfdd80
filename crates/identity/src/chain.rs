//! Verifying chains of certificates, with extended key usage and revocation.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, KeyUsage, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::certificate::{CertificateError, CertificateInfo, decode_pem};
use crate::spiffe::SpiffeId;

/// Why a chain is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A certificate or a root cannot be read.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// No roots: nothing can be trusted.
    #[error("no trusted roots")]
    NoRoots,
    /// A revocation list cannot be read.
    #[error("invalid revocation list: {0}")]
    RevocationList(String),
    /// It does not lead to a root, has expired, is revoked, or is not for this use.
    #[error("certificate not trusted: {0}")]
    Untrusted(String),
    /// It is trusted, and not a SPIFFE identity of this trust domain.
    #[error("certificate has no SPIFFE identity of trust domain {0}")]
    NotOfTrustDomain(String),
}

/// What a certificate is about to be used for (its extended key usage, where it has one, must say so).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// By a server, towards us as its client.
    Server,
    /// By a client, towards us as its server.
    Client,
}

/// What is trusted, and what is not any more.
#[derive(Clone, Debug)]
pub struct TrustRoots {
    anchors: Arc<[TrustAnchor<'static>]>,
    certificates: Arc<[CertificateDer<'static>]>,
    file: Option<Arc<Path>>,
    revocations: Vec<OwnedRevocationList>,
    only_leaf_is_checked: bool,
}

/// `CertRevocationList` neither clones nor says what it is; both are wanted here.
#[derive(Clone)]
struct OwnedRevocationList(Arc<CertRevocationList<'static>>);

impl std::fmt::Debug for OwnedRevocationList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RevocationList")
    }
}

impl TrustRoots {
    /// Trusts these certificates, and whatever they sign.
    pub fn from_der(roots: &[CertificateDer<'static>]) -> Result<TrustRoots, ChainError> {
        if roots.is_empty() {
            return Err(ChainError::NoRoots);
        }
        let anchors = roots
            .iter()
            .map(|der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError::Der(error.to_string()))?;
        Ok(TrustRoots {
            anchors,
            certificates: roots.into(),
            file: None,
            revocations: Vec::new(),
            only_leaf_is_checked: false,
        })
    }

    /// Trusts every certificate in a PEM text.
    pub fn from_pem(pem: &str) -> Result<TrustRoots, ChainError> {
        TrustRoots::from_der(&decode_pem(pem)?)
    }

    /// Refuses what these PEM revocation lists name. As with Envoy, once there is one list, every issuer in a chain needs
    /// one, unless only the leaf is checked.
    pub fn with_revocation_lists(
        mut self,
        pem: &str,
        only_leaf: bool,
    ) -> Result<TrustRoots, ChainError> {
        for der in CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()) {
            let der = der.map_err(|error| ChainError::RevocationList(error.to_string()))?;
            let list = OwnedCertRevocationList::from_der(&der)
                .map_err(|error| ChainError::RevocationList(error.to_string()))?;
            self.revocations.push(OwnedRevocationList(Arc::new(list.into())));
        }
        if self.revocations.is_empty() {
            return Err(ChainError::RevocationList("no revocation list in PEM".to_owned()));
        }
        self.only_leaf_is_checked = only_leaf;
        Ok(self)
    }

    /// The same, noting the file that they were read from.
    pub fn from_file(self, file: &Path) -> TrustRoots {
        TrustRoots { file: Some(file.into()), ..self }
    }

    /// The file that they were read from, if they were.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// What each root's certificate says, as far as it can be read.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateInfo> {
        self.certificates.iter().filter_map(|der| CertificateInfo::parse(der).ok())
    }

    /// The roots' subject names, DER, for the hint in a server's certificate request.
    pub fn subjects(&self) -> impl Iterator<Item = &[u8]> {
        self.anchors.iter().map(|anchor| anchor.subject.as_ref())
    }
}

/// Verifies that `leaf` leads to a root through `intermediates`, at this time and for this use.
pub fn verify(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &TrustRoots,
    usage: Usage,
    now: SystemTime,
) -> Result<(), ChainError> {
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO));
    verify_at(leaf, intermediates, roots, usage, now)
        .map_err(|error| ChainError::Untrusted(error.to_string()))
}

/// As [`verify`], with webpki's own error, which rustls turns into the right TLS alert.
pub(crate) fn verify_at(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &TrustRoots,
    usage: Usage,
    now: UnixTime,
) -> Result<(), webpki::Error> {
    let lists: Vec<&CertRevocationList<'_>> =
        roots.revocations.iter().map(|list| list.0.as_ref()).collect();
    let usage = match usage {
        Usage::Server => KeyUsage::server_auth(),
        Usage::Client => KeyUsage::client_auth(),
    };
    EndEntityCert::try_from(leaf)?
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &roots.anchors,
            intermediates,
            now,
            usage,
            revocation(&lists, roots),
            None,
        )
        .map(|_| ())
}

fn revocation<'a>(
    lists: &'a [&'a CertRevocationList<'a>],
    roots: &TrustRoots,
) -> Option<RevocationOptions<'a>> {
    let depth = if roots.only_leaf_is_checked {
        RevocationCheckDepth::EndEntity
    } else {
        RevocationCheckDepth::Chain
    };
    let builder = RevocationOptionsBuilder::new(lists).ok()?;
    Some(builder.with_depth(depth).with_status_policy(UnknownStatusPolicy::Deny).build())
}

/// Verifies a client's chain and reads who it is: its one URI name, a SPIFFE id of this trust domain.
pub fn verify_workload(
    certificates: &[CertificateDer<'_>],
    roots: &TrustRoots,
    trust_domain: &str,
    now: SystemTime,
) -> Result<SpiffeId, ChainError> {
    let (leaf, intermediates) = certificates
        .split_first()
        .ok_or_else(|| ChainError::Untrusted("no certificate presented".to_owned()))?;
    verify(leaf, intermediates, roots, Usage::Client, now)?;
    CertificateInfo::parse(leaf)?
        .spiffe_id()
        .filter(|id| id.trust_domain() == trust_domain)
        .ok_or_else(|| ChainError::NotOfTrustDomain(trust_domain.to_owned()))
}

#[cfg(test)]
mod tests;
