//! The control plane's own certificate, signed by the mesh's authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use identity::ca::CertificateAuthority;
use identity::chain::TrustRoots;
use identity::tls::{Certificate, Parameters, ServerOptions, Validation, server_config};
use identity::{CertificateRequest, PrivateKey};

/// The name that agents look for in the control plane's certificate.
const SERVER_NAME: &str = "istiod.istio-system.svc";
/// Life of the control plane's own certificate; it is renewed at half of it.
const SERVER_CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The control plane's own certificate, renewed while it runs.
pub struct ServerCertificate {
    authority: Arc<CertificateAuthority>,
    roots: TrustRoots,
    names: Vec<String>,
    config: ArcSwap<rustls::ServerConfig>,
}

impl ServerCertificate {
    /// A certificate for the control plane's own names and these.
    pub fn new(
        authority: Arc<CertificateAuthority>,
        roots: TrustRoots,
        names: &[String],
    ) -> Result<Self, String> {
        let mut all = vec![SERVER_NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        all.extend(names.iter().filter(|name| name.as_str() != SERVER_NAME).cloned());
        all.sort();
        all.dedup();
        let config = tls_config(&authority, &roots, &all)?;
        Ok(Self { authority, roots, names: all, config: ArcSwap::new(config) })
    }

    /// What new connections are served with.
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        self.config.load_full()
    }

    /// Renews it at half of its life, for ever.
    pub async fn renew(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SERVER_CERTIFICATE_LIFE / 2).await;
            match tls_config(&self.authority, &self.roots, &self.names) {
                Ok(config) => self.config.store(config),
                Err(error) => {
                    tracing::error!(%error, "cannot renew the control plane's certificate")
                }
            }
        }
    }
}

fn tls_config(
    authority: &CertificateAuthority,
    roots: &TrustRoots,
    names: &[String],
) -> Result<Arc<rustls::ServerConfig>, String> {
    let key = PrivateKey::generate().map_err(text)?;
    let request = CertificateRequest::of_own_key(&key).map_err(text)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued = authority
        .issue_server(&request, &names, SERVER_CERTIFICATE_LIFE, SystemTime::now())
        .map_err(text)?;
    let certificate =
        Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).map_err(text)?;
    let options = ServerOptions {
        certificates: vec![certificate],
        client_validation: Some(Validation { roots: Some(roots.clone()), ..Default::default() }),
        require_client_certificate: false,
        parameters: Parameters { alpn: vec![b"h2".to_vec()], ..Default::default() },
        no_tickets: false,
    };
    server_config(&options).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
