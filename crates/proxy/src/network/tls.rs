//! TLS contexts: what a listener presents and asks for, what a cluster presents and expects.
//!
//! A context is made once per configuration and shared by all workers. Its secrets (certificates, validation) may come
//! later and change: a new handshake takes what is current, a connection keeps what it has.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::string_matcher::StringMatcher;

/// TLS protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2
    V1_2,
    /// TLS 1.3
    V1_3,
}

/// `TlsParameters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsParams {
    /// The lowest version.
    pub min: TlsVersion,
    /// The highest version (Envoy: 1.3 for servers, 1.2 for clients unless configured).
    pub max: TlsVersion,
    /// TLS 1.2 cipher suites by OpenSSL name; empty is the default list. (Suites that do not exist here are the
    /// compiler's to refuse: see [`known_cipher_suite`].)
    pub cipher_suites: Vec<String>,
}

impl Default for TlsParams {
    fn default() -> Self {
        Self { min: TlsVersion::V1_2, max: TlsVersion::V1_3, cipher_suites: Vec::new() }
    }
}

/// A certificate chain and its key.
#[derive(Debug)]
pub struct CertificatePair {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for CertificatePair {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

/// Which kind of SAN a matcher is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanType {
    /// `uniformResourceIdentifier`: SPIFFE ids.
    Uri,
    /// `dNSName`; a wildcard SAN covers one label of an exact matcher.
    Dns,
    /// `iPAddress` as text.
    Ip,
    /// `rfc822Name`.
    Email,
}

/// One of `match_typed_subject_alt_names`: any that matches will do.
#[derive(Debug, Clone)]
pub struct SanMatcher {
    /// Which SANs are looked at.
    pub san_type: SanType,
    /// What they must be.
    pub matcher: StringMatcher,
}

/// `CertificateValidationContext`.
#[derive(Debug, Clone, Default)]
pub struct ValidationContext {
    /// Trust anchors; empty means the peer's certificate is not verified (as in Envoy).
    pub trusted_ca: Vec<CertificateDer<'static>>,
    /// Revocation lists.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
    /// Any of these must match, if there are any.
    pub san_matchers: Vec<SanMatcher>,
    /// `allow_expired_certificate`.
    pub allow_expired: bool,
    /// `trust_chain_verification: ACCEPT_UNTRUSTED`.
    pub accept_untrusted: bool,
}

/// What may change under a context: what SDS delivers.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Ours: a server's are chosen from by SNI, a client presents the first.
    pub certificates: Vec<CertificatePair>,
    /// How the peer is validated; `None` asks for nothing.
    pub validation: Option<ValidationContext>,
}

/// `DownstreamTlsContext` without secrets.
#[derive(Debug, Clone, Default)]
pub struct DownstreamTlsSettings {
    /// Versions and suites.
    pub params: TlsParams,
    /// ALPN protocols in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// Refuse clients without a certificate.
    pub require_client_certificate: bool,
    /// `disable_stateless_session_resumption`.
    pub disable_tickets: bool,
    /// With several certificates and an SNI none has: present the first (Envoy) — or, when set, refuse.
    pub strict_sni: bool,
}

/// `UpstreamTlsContext` without secrets.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTlsSettings {
    /// Versions and suites.
    pub params: TlsParams,
    /// ALPN protocols in order of preference.
    pub alpn: Vec<Vec<u8>>,
    /// The name to ask for.
    pub sni: Option<Arc<str>>,
    /// Ask for the request's authority (`auto_sni`).
    pub auto_sni: bool,
    /// Sessions kept for resumption (Envoy: 1); 0 is none.
    pub max_session_keys: u32,
}

/// Why a context could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or its key cannot be used.
    #[error("certificate {index}: {reason}")]
    Certificate {
        /// Which of the certificates, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// The trusted CA cannot be used.
    #[error("trusted CA: {0}")]
    TrustedCa(String),
    /// A revocation list cannot be used.
    #[error("revocation list: {0}")]
    Crl(String),
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

/// A server's TLS context.
#[derive(Debug)]
pub struct DownstreamTls {
    settings: DownstreamTlsSettings,
    current: ArcSwapOption<ServerSide>,
}

/// What a server handshake takes.
#[derive(Debug)]
pub struct ServerSide {
    /// rustls's.
    pub config: Arc<rustls::ServerConfig>,
    /// The secrets it was made from.
    pub secrets: Secrets,
}

/// A client's TLS context.
#[derive(Debug)]
pub struct UpstreamTls {
    settings: UpstreamTlsSettings,
    current: ArcSwapOption<ClientSide>,
}

/// What a client handshake takes.
#[derive(Debug)]
pub struct ClientSide {
    /// rustls's.
    pub config: Arc<rustls::ClientConfig>,
    /// The secrets it was made from.
    pub secrets: Secrets,
}

impl DownstreamTls {
    /// A context without secrets yet: handshakes fail until [`DownstreamTls::set`].
    pub fn new(settings: DownstreamTlsSettings) -> Self {
        Self { settings, current: ArcSwapOption::empty() }
    }

    /// The settings.
    pub fn settings(&self) -> &DownstreamTlsSettings {
        &self.settings
    }

    /// Makes what handshakes will take, without taking it into use: the part of a change that may fail.
    ///
    /// # Errors
    /// When a certificate, its key or the validation context cannot be used.
    pub fn prepare(&self, secrets: Secrets) -> Result<Arc<ServerSide>, TlsError> {
        let previous = self.current.load_full();
        let config = server::build(&self.settings, &secrets, previous.as_deref())?;
        Ok(Arc::new(ServerSide { config, secrets }))
    }

    /// New handshakes take this from now on; connections stay.
    pub fn set(&self, prepared: Arc<ServerSide>) {
        self.current.store(Some(prepared));
    }

    /// What a handshake takes now; `None` while secrets are missing.
    pub fn current(&self) -> Option<Arc<ServerSide>> {
        self.current.load_full()
    }
}

impl UpstreamTls {
    /// A context without secrets yet: connects fail until [`UpstreamTls::set`].
    pub fn new(settings: UpstreamTlsSettings) -> Self {
        Self { settings, current: ArcSwapOption::empty() }
    }

    /// The settings.
    pub fn settings(&self) -> &UpstreamTlsSettings {
        &self.settings
    }

    /// Makes what handshakes will take, without taking it into use: the part of a change that may fail.
    ///
    /// # Errors
    /// When the certificate, its key or the validation context cannot be used.
    pub fn prepare(&self, secrets: Secrets) -> Result<Arc<ClientSide>, TlsError> {
        let previous = self.current.load_full();
        let config = client::build(&self.settings, &secrets, previous.as_deref())?;
        Ok(Arc::new(ClientSide { config, secrets }))
    }

    /// New handshakes take this from now on; connections stay.
    pub fn set(&self, prepared: Arc<ClientSide>) {
        self.current.store(Some(prepared));
    }

    /// What a handshake takes now; `None` while secrets are missing.
    pub fn current(&self) -> Option<Arc<ClientSide>> {
        self.current.load_full()
    }
}

mod client;
mod server;
pub mod verify;
