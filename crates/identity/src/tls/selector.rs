//! Which of several certificates a server presents.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::Certificate;
use crate::san::dns_name_matches;

/// Chooses by SNI, exact names before wildcards, and among equals the first whose key the client can verify; the first
/// certificate is for whoever matches none.
#[derive(Debug)]
pub(super) struct BySni {
    certificates: Vec<Certificate>,
}

impl BySni {
    pub(super) fn new(certificates: &[Certificate]) -> BySni {
        BySni { certificates: certificates.to_vec() }
    }

    fn matching<'a>(&'a self, sni: &'a str, exact: bool) -> impl Iterator<Item = &'a Certificate> {
        self.certificates.iter().filter(move |certificate| {
            certificate.leaf().dns_names().any(|name| {
                if exact { name.eq_ignore_ascii_case(sni) } else { dns_name_matches(name, sni) }
            })
        })
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let usable = |certificate: &&Certificate| {
            certificate.key.key.choose_scheme(hello.signature_schemes()).is_some()
        };
        let by_name = hello.server_name().and_then(|sni| {
            self.matching(sni, true).find(usable).or_else(|| self.matching(sni, false).find(usable))
        });
        let chosen = by_name
            .or_else(|| self.certificates.iter().find(usable))
            .or_else(|| self.certificates.first())?;
        Some(chosen.key.clone())
    }
}
