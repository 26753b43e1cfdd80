//! Secrets that gateways and clients present or check certificates with.

use std::collections::BTreeMap;
use std::fmt;

use resources::kinds::core::secret::Secret;

use super::interned::Interned;
use super::objects::{Name, Table};

/// The parts of a Secret, in either of the forms that users write. `Debug` shows no key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    /// PEM chain: `tls.crt` or `cert`.
    pub certificate: Vec<u8>,
    /// PEM key: `tls.key` or `key`.
    pub private_key: Vec<u8>,
    /// PEM roots: `ca.crt` or `cacert`.
    pub roots: Vec<u8>,
    /// PEM revocation lists: `ca.crl` or `crl`.
    pub revocations: Vec<u8>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Credential { certificate, roots, .. } = self;
        write!(
            f,
            "Credential({} bytes of certificates, {} of roots)",
            certificate.len(),
            roots.len()
        )
    }
}

/// The Secrets that may be credentials.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    by_name: BTreeMap<Name, Interned<Credential>>,
}

impl Credentials {
    /// The index of these objects; what did not change keeps its identity.
    pub fn build(objects: &Table<Secret>, before: &Credentials) -> Credentials {
        let credentials = objects.iter().filter_map(|(name, parsed)| {
            let credential = read(&parsed.view)?;
            Some((name.clone(), Interned::renew(before.by_name.get(name), credential)))
        });
        Credentials { by_name: credentials.collect() }
    }

    /// A Secret's credential.
    pub fn get(&self, name: &Name) -> Option<&Interned<Credential>> {
        self.by_name.get(name)
    }
}

/// `None` for a Secret of another kind.
fn read(secret: &Secret) -> Option<Credential> {
    let part = |names: [&str; 2]| {
        names.iter().find_map(|name| secret.data.get(*name)).cloned().unwrap_or_default()
    };
    let credential = Credential {
        certificate: part(["tls.crt", "cert"]),
        private_key: part(["tls.key", "key"]),
        roots: part(["ca.crt", "cacert"]),
        revocations: part(["ca.crl", "crl"]),
    };
    let has_pair = !credential.certificate.is_empty() && !credential.private_key.is_empty();
    (has_pair || !credential.roots.is_empty()).then_some(credential)
}
