//! Secrets that configuration names by file, as Istio's agent serves them: `file-cert:<chain>~<key>` and
//! `file-root:<roots>`, where `system` stands for the roots of this machine.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

use api::envoy::config::core::v3::{DataSource, data_source::Specifier};
use api::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, TlsCertificate, secret,
};

/// Time between looks at files that somebody uses.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Where systems keep what they trust: Debian and Alpine, Fedora, SUSE, OpenSSL's own.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The files behind the secrets that one stream asked for, as they were last read.
#[derive(Default)]
pub(crate) struct SecretFiles(BTreeMap<String, Option<Vec<Vec<u8>>>>);

impl SecretFiles {
    /// The secret of this name; `None` for one that is not of files, or whose files cannot be read now.
    pub(crate) fn secret(&mut self, name: &str) -> Option<secret::Type> {
        let paths = paths(name)?;
        let read = read(name, &paths);
        self.0.insert(name.to_owned(), read.clone());
        match read?.as_slice() {
            [roots] => Some(secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: Some(inline(roots)),
                ..CertificateValidationContext::default()
            })),
            [chain, key] => Some(secret::Type::TlsCertificate(TlsCertificate {
                certificate_chain: Some(inline(chain)),
                private_key: Some(inline(key)),
                ..TlsCertificate::default()
            })),
            _ => None,
        }
    }

    /// Whether any was asked for.
    pub(crate) fn are_used(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether any file that was asked for is not as it was.
    pub(crate) fn have_changed(&self) -> bool {
        self.0
            .iter()
            .any(|(name, known)| paths(name).is_some_and(|paths| contents(&paths).ok() != *known))
    }
}

/// The files that a secret's name means, the chain before its key.
fn paths(name: &str) -> Option<Vec<&str>> {
    if let Some(pair) = name.strip_prefix("file-cert:") {
        let (chain, key) = pair.split_once('~')?;
        return Some(vec![chain, key]);
    }
    match name.strip_prefix("file-root:")? {
        "system" => {
            let there = SYSTEM_ROOTS.into_iter().find(|path| fs::metadata(path).is_ok());
            Some(vec![there.unwrap_or(SYSTEM_ROOTS[0])])
        }
        path => Some(vec![path]),
    }
}

fn read(name: &str, paths: &[&str]) -> Option<Vec<Vec<u8>>> {
    let read = contents(paths);
    if let Err(error) = &read {
        tracing::warn!(secret = name, %error, "a file that the configuration names cannot be read");
    }
    read.ok()
}

fn contents(paths: &[&str]) -> io::Result<Vec<Vec<u8>>> {
    paths.iter().map(fs::read).collect()
}

fn inline(pem: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(pem.to_vec())), ..DataSource::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_files() {
        assert_eq!(paths("file-cert:/a~/b"), Some(vec!["/a", "/b"]));
        assert_eq!(paths("file-root:/r"), Some(vec!["/r"]));
        assert_eq!(paths("file-cert:/a"), None);
        assert_eq!(paths("default"), None);
        let system = paths("file-root:system").expect("a path");
        assert!(SYSTEM_ROOTS.contains(&system[0]));
    }

    #[test]
    fn a_change_is_noticed_and_so_is_a_file_that_comes_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("roots.pem");
        let name = format!("file-root:{}", path.display());
        let mut files = SecretFiles::default();
        assert_eq!(files.secret(&name), None);
        assert!(!files.have_changed());
        fs::write(&path, "one").expect("written");
        assert!(files.have_changed());
        let Some(secret::Type::ValidationContext(found)) = files.secret(&name) else { panic!() };
        assert_eq!(found.trusted_ca, Some(inline(b"one")));
        assert!(!files.have_changed());
    }
}
