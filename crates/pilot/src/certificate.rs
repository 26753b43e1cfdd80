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
/// Life of the control plane's own certificate, if its authority lives as long; it is renewed at half of it.
const SERVER_CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// The clock on the wall is looked at this often: machines sleep, and certificates do not wait.
const NAP: Duration = Duration::from_secs(15);

/// The control plane's own certificate, renewed while it runs.
pub struct ServerCertificate {
    authority: Arc<CertificateAuthority>,
    roots: TrustRoots,
    names: Vec<String>,
    current: ArcSwap<Issued>,
}

/// A certificate ready to be served, and when the next one is due.
struct Issued {
    config: Arc<rustls::ServerConfig>,
    renew_at: SystemTime,
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
        let first = issue(&authority, &roots, &all, SystemTime::now())?;
        Ok(Self { authority, roots, names: all, current: ArcSwap::from_pointee(first) })
    }

    /// What new connections are served with.
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Renews it at half of its life, for ever.
    pub async fn renew(self: Arc<Self>) {
        loop {
            tokio::time::sleep(NAP).await;
            self.renew_if_due(SystemTime::now());
        }
    }

    fn renew_if_due(&self, now: SystemTime) {
        if now < self.current.load().renew_at {
            return;
        }
        match issue(&self.authority, &self.roots, &self.names, now) {
            Ok(issued) => self.current.store(Arc::new(issued)),
            Err(error) => tracing::error!(%error, "cannot renew the control plane's certificate"),
        }
    }
}

fn issue(
    authority: &CertificateAuthority,
    roots: &TrustRoots,
    names: &[String],
    now: SystemTime,
) -> Result<Issued, String> {
    let key = PrivateKey::generate().map_err(text)?;
    let request = CertificateRequest::of_own_key(&key).map_err(text)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued =
        authority.issue_server(&request, &names, SERVER_CERTIFICATE_LIFE, now).map_err(text)?;
    let certificate =
        Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).map_err(text)?;
    let options = ServerOptions {
        certificates: vec![certificate],
        client_validation: Some(Validation { roots: Some(roots.clone()), ..Default::default() }),
        require_client_certificate: false,
        parameters: Parameters { alpn: vec![b"h2".to_vec()], ..Default::default() },
        no_tickets: false,
    };
    let life = issued.not_after.duration_since(now).unwrap_or_default();
    Ok(Issued { config: server_config(&options).map_err(text)?, renew_at: now + life / 2 })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_renewed_at_half_of_its_life_by_the_clock_on_the_wall() {
        let now = SystemTime::now();
        let authority = Arc::new(CertificateAuthority::self_signed("td", now).expect("a root"));
        let roots = TrustRoots::from_pem(authority.root_pem()).expect("roots");
        let certificate = ServerCertificate::new(authority, roots, &[]).expect("a certificate");
        let first = certificate.config();
        certificate.renew_if_due(now + SERVER_CERTIFICATE_LIFE / 3);
        assert!(Arc::ptr_eq(&first, &certificate.config()));
        // The machine slept for a day.
        certificate.renew_if_due(now + SERVER_CERTIFICATE_LIFE);
        assert!(!Arc::ptr_eq(&first, &certificate.config()));
    }
}
