//! Why a peer's certificate was refused, as far as statistics tell reasons apart.

use std::fmt;
use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};

/// Why a handshake ended over the peer's certificate: Envoy's `ssl.fail_verify_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRefusal {
    /// It presented none, and one is required.
    NoCertificate,
    /// Its chain does not lead to a root, has expired, is revoked, or is not for this use.
    Chain,
    /// None of its names is one that is expected.
    Name,
    /// Its certificate, or its key, is not one of those that are pinned.
    Fingerprint,
}

impl PeerRefusal {
    /// The refusal that a handshake's error stands for; `None` when something else went wrong, such as an alert that the
    /// peer sent.
    pub fn of(error: &Error) -> Option<Self> {
        match error {
            Error::NoCertificatesPresented => Some(Self::NoCertificate),
            Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                Some(inner.downcast_ref::<Refused>().map_or(Self::Chain, |refused| refused.0))
            }
            Error::InvalidCertificate(_) => Some(Self::Chain),
            _ => None,
        }
    }

    /// As the error that makes rustls send the alert `certificate_unknown`, as Envoy does.
    pub(super) fn into_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Refused(self)))))
    }
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCertificate => "the peer presented no certificate",
            Self::Chain => "the peer's certificate is not trusted",
            Self::Name => "none of the certificate's subject alternative names is expected here",
            Self::Fingerprint => {
                "the certificate's fingerprint is not one of those that are pinned"
            }
        })
    }
}

/// A refusal on its way through rustls.
#[derive(Debug)]
struct Refused(PeerRefusal);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refused {}
