//! Who someone is, and how one proves it.
//!
//! * [`spiffe`]: trust domains and SPIFFE ids, `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
//! * [`key`], [`csr`], [`ca`]: private keys, certificate requests, and the authority that answers them.
//! * [`certificate`], [`san`], [`chain`]: reading certificates, matching their names, verifying their chains.
//! * [`tls`]: rustls configurations for servers and clients, with verifiers that do what Envoy's validation context says.
//! * [`token`]: the short-lived JWTs by which a workload that has no certificate yet says who it is.
//! * [`proxy_credential`]: what an application shows to its sidecar's outbound proxy.
//!
//! Nothing here opens a socket, reads a file or looks at the clock by itself, except where rustls asks for the time.

pub mod ca;
pub mod certificate;
pub mod chain;
pub mod csr;
pub mod key;
pub mod proxy_credential;
pub mod san;
pub mod spiffe;
pub mod tls;
pub mod token;

pub use ca::CertificateAuthority;
pub use certificate::CertificateInfo;
pub use csr::CertificateRequest;
pub use key::PrivateKey;
pub use proxy_credential::ProxyCredential;
pub use spiffe::{SpiffeId, TrustDomain};
