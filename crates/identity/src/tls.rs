//! rustls configurations: Envoy's TLS contexts and the mesh's mTLS, over one set of verifiers.
//!
//! A configuration made here never changes. A new certificate or a new validation is a new configuration for new
//! handshakes; running connections keep theirs. Each configuration has its own session cache and ticket keys, so a session
//! is resumed only under the very validation that it was made under (CVE-2022-21654).

mod refusal;
mod selector;
mod verifier;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::certificate::{CertificateError, CertificateInfo, decode_pem};
use crate::chain::TrustRoots;
use crate::san::SanMatcher;
pub use refusal::PeerRefusal;
use selector::BySni;
use verifier::PeerVerifier;

/// Why a TLS configuration cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate chain cannot be read.
    #[error("certificate_chain: {0}")]
    Certificate(#[from] CertificateError),
    /// A private key cannot be read, or rustls cannot use it.
    #[error("private_key: {0}")]
    Key(String),
    /// The key is not the certificate's.
    #[error("private_key does not belong to certificate_chain")]
    KeyMismatch,
    /// A server without a certificate.
    #[error("no certificate to present")]
    NoCertificate,
    /// Names are checked, and anyone could have written them.
    #[error("subject alternative names are matched, but no trusted_ca is given")]
    NamesWithoutRoots,
    /// Minimum and maximum leave no version, or the suites fit none.
    #[error("no cipher suite or protocol version is left: {0}")]
    NothingLeft(String),
    /// A cipher suite that rustls does not have.
    #[error("cipher suite {0:?} is not supported")]
    CipherSuite(String),
}

/// A certificate chain with its private key, ready to sign.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    leaf: Arc<CertificateInfo>,
    file: Option<Arc<Path>>,
}

impl Certificate {
    /// Reads chain (leaf first) and key from PEM, and checks that they belong together.
    pub fn from_pem(chain: &str, key: &str) -> Result<Certificate, TlsError> {
        let chain = decode_pem(chain)?;
        let leaf = CertificateInfo::parse(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| TlsError::Key(error.to_string()))?;
        let key = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|error| TlsError::Key(error.to_string()))?;
        // rustls's own comparison reads only X.509 version 3, which a server's certificate need not be.
        let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| TlsError::Key(error.to_string()))?;
        if key.public_key().is_some_and(|public| *public != *certificate.public_key().raw) {
            return Err(TlsError::KeyMismatch);
        }
        let key = CertifiedKey::new(chain, key);
        Ok(Certificate { key: Arc::new(key), leaf: Arc::new(leaf), file: None })
    }

    /// The same, noting the file that the chain was read from.
    pub fn from_file(self, file: &Path) -> Certificate {
        Certificate { file: Some(file.into()), ..self }
    }

    /// What the leaf says.
    pub fn leaf(&self) -> &Arc<CertificateInfo> {
        &self.leaf
    }

    /// What each certificate of the chain says, leaf first, as far as it can be read.
    pub fn chain(&self) -> impl Iterator<Item = CertificateInfo> {
        self.key.cert.iter().filter_map(|der| CertificateInfo::parse(der).ok())
    }

    /// The file that the chain was read from, if it was.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

/// How a peer's certificate is judged: Envoy's `CertificateValidationContext`.
#[derive(Clone, Debug, Default)]
pub struct Validation {
    /// `trusted_ca`. Without it nothing is verified, as with Envoy, and then no names may be matched.
    pub roots: Option<TrustRoots>,
    /// `match_typed_subject_alt_names`: one must match. Empty means any name.
    pub names: Vec<SanMatcher>,
    /// `verify_certificate_hash`: SHA-256 of the leaf. Empty means any.
    pub certificate_hashes: Vec<[u8; 32]>,
    /// `verify_certificate_spki`: SHA-256 of the leaf's public key. Empty means any.
    pub public_key_hashes: Vec<[u8; 32]>,
    /// `auto_sni_san_validation`: a DNS name of the server must be the SNI that was sent.
    pub match_server_name: bool,
}

/// What both sides of a handshake can be told.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    /// ALPN protocols, best first. Empty means that the extension is not used.
    pub alpn: Vec<Vec<u8>>,
    /// The lowest protocol version.
    pub min_version: Option<Version>,
    /// The highest protocol version.
    pub max_version: Option<Version>,
    /// TLS 1.2 cipher suites under their OpenSSL or IANA names. Empty means rustls' safe defaults. TLS 1.3's cannot be
    /// chosen, as with Envoy.
    pub cipher_suites: Vec<String>,
}

/// The protocol versions there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// What a server's configuration is made of: Envoy's `DownstreamTlsContext`.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// The certificates to choose from by SNI; the first is for whoever matches none.
    pub certificates: Vec<Certificate>,
    /// How a client's certificate is judged; `None` means that none is asked for.
    pub client_validation: Option<Validation>,
    /// Whether a client without a certificate is refused.
    pub require_client_certificate: bool,
    /// Versions, suites, ALPN.
    pub parameters: Parameters,
    /// No tickets: `disable_stateless_session_resumption`.
    pub no_tickets: bool,
}

/// What a client's configuration is made of: Envoy's `UpstreamTlsContext`.
#[derive(Clone, Debug, Default)]
pub struct ClientOptions {
    /// The certificate to present, if the server asks.
    pub certificate: Option<Certificate>,
    /// How the server's certificate is judged.
    pub validation: Validation,
    /// Versions, suites, ALPN.
    pub parameters: Parameters,
    /// Whether sessions are resumed.
    pub no_resumption: bool,
}

/// Builds a server's configuration.
pub fn server_config(options: &ServerOptions) -> Result<Arc<ServerConfig>, TlsError> {
    if options.certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let provider = Arc::new(provider(&options.parameters)?);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(&options.parameters))
        .map_err(|error| TlsError::NothingLeft(error.to_string()))?;
    let builder = match &options.client_validation {
        None if options.require_client_certificate => {
            let any = PeerVerifier::new(Validation::default(), provider, true)?;
            builder.with_client_cert_verifier(Arc::new(any))
        }
        None => builder.with_no_client_auth(),
        Some(validation) => {
            let verifier = PeerVerifier::new(
                validation.clone(),
                provider,
                options.require_client_certificate,
            )?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(BySni::new(&options.certificates)));
    config.alpn_protocols = options.parameters.alpn.clone();
    if options.no_tickets {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    } else {
        config.ticketer =
            aws_lc_rs::Ticketer::new().map_err(|error| TlsError::Key(error.to_string()))?;
    }
    Ok(Arc::new(config))
}

/// Builds a client's configuration.
pub fn client_config(options: &ClientOptions) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(provider(&options.parameters)?);
    let verifier = PeerVerifier::new(options.validation.clone(), provider.clone(), true)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(&options.parameters))
        .map_err(|error| TlsError::NothingLeft(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &options.certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(
            rustls::sign::SingleCertAndKey::from(certificate.key.clone()),
        )),
    };
    config.alpn_protocols = options.parameters.alpn.clone();
    if options.no_resumption {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(Arc::new(config))
}

fn versions(parameters: &Parameters) -> Vec<&'static SupportedProtocolVersion> {
    let (min, max) = (
        parameters.min_version.unwrap_or(Version::Tls12),
        parameters.max_version.unwrap_or(Version::Tls13),
    );
    [(Version::Tls13, &rustls::version::TLS13), (Version::Tls12, &rustls::version::TLS12)]
        .into_iter()
        .filter(|(version, _)| (min..=max).contains(version))
        .map(|(_, supported)| supported)
        .collect()
}

fn provider(parameters: &Parameters) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if !parameters.cipher_suites.is_empty() {
        let chosen = parameters
            .cipher_suites
            .iter()
            .map(|name| cipher_suite(name))
            .collect::<Result<Vec<_>, _>>()?;
        provider.cipher_suites.retain(|suite| suite.tls13().is_some());
        provider.cipher_suites.extend(chosen);
    }
    Ok(provider)
}

/// A TLS 1.2 cipher suite by OpenSSL's name, as in Envoy's configuration, or by IANA's.
pub fn cipher_suite(name: &str) -> Result<SupportedCipherSuite, TlsError> {
    use aws_lc_rs::cipher_suite as suite;
    Ok(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" | "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => {
            suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-ECDSA-AES256-GCM-SHA384" | "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => {
            suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-ECDSA-CHACHA20-POLY1305" | "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        }
        "ECDHE-RSA-AES128-GCM-SHA256" | "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => {
            suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        }
        "ECDHE-RSA-AES256-GCM-SHA384" | "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => {
            suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        }
        "ECDHE-RSA-CHACHA20-POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => {
            suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
        }
        _ => return Err(TlsError::CipherSuite(name.to_owned())),
    })
}

#[cfg(test)]
mod tests;
