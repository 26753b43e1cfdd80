//! TLS contexts: what a listener presents and asks for, what a cluster presents and expects.
//!
//! A context is made once per configuration and shared by all workers. Its secrets (certificates, validation) may come
//! later and change: a new handshake takes what is current, a connection keeps what it has. rustls's configurations are
//! [`identity::tls`]'s; a session is resumed only under the configuration that it was made under.

pub mod info;
pub mod session;
pub mod stats;

use std::sync::{Arc, OnceLock};

use crate::stream_info::AlpnList;
use arc_swap::ArcSwapOption;
use identity::CertificateInfo;
use identity::tls::{self, Certificate, ClientOptions, Parameters, ServerOptions, Validation};
use parking_lot::Mutex;

pub use identity::tls::TlsError;

/// What may change under a context: what SDS delivers.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Ours: a server's are chosen from by SNI, a client presents the first.
    pub certificates: Vec<Certificate>,
    /// How the peer is validated; `None` asks for nothing.
    pub validation: Option<Validation>,
}

/// `DownstreamTlsContext` without secrets.
#[derive(Debug, Clone, Default)]
pub struct DownstreamTlsSettings {
    /// Versions, suites, ALPN.
    pub parameters: Parameters,
    /// Refuse clients without a certificate.
    pub require_client_certificate: bool,
    /// `disable_stateless_session_resumption`.
    pub no_tickets: bool,
}

/// `UpstreamTlsContext` without secrets.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTlsSettings {
    /// Versions, suites, ALPN.
    pub parameters: Parameters,
    /// The name to ask for.
    pub sni: Option<Arc<str>>,
    /// Ask for the request's authority (`auto_sni`).
    pub auto_sni: bool,
    /// A DNS name of the server's certificate must be the name asked for (`auto_san_validation`).
    pub match_server_name: bool,
    /// `max_session_keys: 0`.
    pub no_resumption: bool,
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
    without_alpn: OnceLock<Arc<rustls::ServerConfig>>,
}

impl ServerSide {
    /// rustls's, for a client that offers these protocols (none: it is not known what it offers). As in Envoy, a client none
    /// of whose protocols is ours is served without ALPN; RFC 7301 §3.2 would have it refused.
    pub fn accepting(&self, offered: &[Vec<u8>]) -> Arc<rustls::ServerConfig> {
        let ours = &self.config.alpn_protocols;
        if offered.is_empty() || ours.is_empty() || offered.iter().any(|name| ours.contains(name)) {
            return Arc::clone(&self.config);
        }
        let without = self.without_alpn.get_or_init(|| {
            let mut config = (*self.config).clone();
            config.alpn_protocols.clear();
            Arc::new(config)
        });
        Arc::clone(without)
    }
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
    /// The same with other ALPN lists that streams asked for: as many as there are such lists, which is few.
    variants: Mutex<Vec<(AlpnList, Arc<rustls::ClientConfig>)>>,
}

impl ClientSide {
    /// rustls's, offering `alpn` instead of the context's own protocols.
    pub fn offering(&self, alpn: Option<&AlpnList>) -> Arc<rustls::ClientConfig> {
        let Some(alpn) = alpn else { return Arc::clone(&self.config) };
        let mut variants = self.variants.lock();
        if let Some((_, config)) = variants.iter().find(|(known, _)| known == alpn) {
            return Arc::clone(config);
        }
        let mut config = (*self.config).clone();
        config.alpn_protocols = alpn.to_vec();
        let config = Arc::new(config);
        variants.push((Arc::clone(alpn), Arc::clone(&config)));
        config
    }
}

impl Secrets {
    /// Is a peer's certificate verified against trusted roots?
    pub fn verify_peer(&self) -> bool {
        self.validation.as_ref().is_some_and(|validation| validation.roots.is_some())
    }

    /// The certificate a server presents for this SNI, for logs: by name, else the first.
    pub fn presented(&self, sni: Option<&str>) -> Option<&Arc<CertificateInfo>> {
        let named = sni.and_then(|sni| {
            self.certificates.iter().find(|certificate| {
                let mut names = certificate.leaf().dns_names();
                names.any(|name| identity::san::dns_name_matches(name, sni))
            })
        });
        named.or(self.certificates.first()).map(Certificate::leaf)
    }
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
        let config = tls::server_config(&ServerOptions {
            certificates: secrets.certificates.clone(),
            client_validation: secrets.validation.clone(),
            require_client_certificate: self.settings.require_client_certificate,
            parameters: self.settings.parameters.clone(),
            no_tickets: self.settings.no_tickets,
        })?;
        Ok(Arc::new(ServerSide { config, secrets, without_alpn: OnceLock::new() }))
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
        let mut validation = secrets.validation.clone().unwrap_or_default();
        validation.match_server_name |= self.settings.match_server_name;
        let config = tls::client_config(&ClientOptions {
            certificate: secrets.certificates.first().cloned(),
            validation,
            parameters: self.settings.parameters.clone(),
            no_resumption: self.settings.no_resumption,
        })?;
        Ok(Arc::new(ClientSide { config, secrets, variants: Mutex::default() }))
    }

    /// New handshakes take this from now on; connections stay.
    pub fn set(&self, prepared: Arc<ClientSide>) {
        self.current.store(Some(prepared));
    }

    /// What a handshake takes now; `None` while secrets are missing.
    pub fn current(&self) -> Option<Arc<ClientSide>> {
        self.current.load_full()
    }

    /// The name a handshake asks for: the configured SNI, else with `auto_sni` the request's authority without its port.
    /// Without either, or where the name is none, the host's address, which is not sent (RFC 6066 §3).
    pub fn server_name(
        &self,
        authority: Option<&str>,
        address: std::net::IpAddr,
    ) -> rustls_pki_types::ServerName<'static> {
        let wanted = match &self.settings.sni {
            Some(sni) => Some(&**sni),
            None if self.settings.auto_sni => authority.map(without_port),
            None => None,
        };
        wanted
            .and_then(|name| rustls_pki_types::ServerName::try_from(name.to_owned()).ok())
            .unwrap_or_else(|| rustls_pki_types::ServerName::IpAddress(address.into()))
    }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use rustls_pki_types::ServerName;

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn asked(sni: Option<&str>, auto_sni: bool, authority: Option<&str>) -> ServerName<'static> {
        let settings =
            UpstreamTlsSettings { sni: sni.map(Into::into), auto_sni, ..Default::default() };
        UpstreamTls::new(settings).server_name(authority, ADDRESS)
    }

    #[test]
    fn the_name_asked_for() {
        let dns = |name: &'static str| ServerName::try_from(name).expect("a name");
        let address = ServerName::IpAddress(ADDRESS.into());
        assert_eq!(asked(Some("a.b"), true, Some("c.d")), dns("a.b"));
        assert_eq!(asked(None, true, Some("c.d:443")), dns("c.d"));
        assert_eq!(asked(None, false, Some("c.d")), address);
        assert_eq!(asked(None, true, Some("no name!")), address);
        // Istio's default SNI of a cluster has underscores and dots: rustls takes it as a name.
        let istio = "outbound_.80_.v1_.reviews.default.svc.cluster.local";
        assert_eq!(asked(Some(istio), false, None), dns(istio));
    }

    #[test]
    fn a_stream_may_offer_other_protocols() {
        let context = UpstreamTls::new(UpstreamTlsSettings::default());
        let side = context.prepare(Secrets::default()).expect("needs no secret");
        let list = |names: &[&str]| -> AlpnList {
            names.iter().map(|name| name.as_bytes().to_vec()).collect()
        };
        assert!(Arc::ptr_eq(&side.offering(None), &side.config));
        let first = side.offering(Some(&list(&["istio-http/1.1", "istio"])));
        assert_eq!(first.alpn_protocols, [b"istio-http/1.1".to_vec(), b"istio".to_vec()]);
        let again = side.offering(Some(&list(&["istio-http/1.1", "istio"])));
        assert!(Arc::ptr_eq(&first, &again), "made once");
        assert!(!Arc::ptr_eq(&first, &side.offering(Some(&list(&["istio"])))));
    }

    #[test]
    fn secrets_come_later() {
        let context = DownstreamTls::new(DownstreamTlsSettings::default());
        assert!(context.current().is_none());
        assert!(matches!(context.prepare(Secrets::default()), Err(TlsError::NoCertificate)));
        let context = UpstreamTls::new(UpstreamTlsSettings::default());
        let prepared = context.prepare(Secrets::default()).expect("needs no secret");
        context.set(prepared);
        assert!(context.current().is_some());
    }
}
