//! A certificate authority for one test.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// An authority that issues certificates into a folder.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// An issued certificate's files, in PEM.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority; its certificate is `folder/name.pem`.
    ///
    /// # Errors
    /// If files cannot be written.
    pub fn new(folder: &Path, name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(folder.join(format!("{name}.pem")), issuer.pem())?;
        Ok(Self { issuer, folder: folder.to_owned() })
    }

    /// A certificate for these names: URIs if they have `://`, else DNS names.
    ///
    /// # Errors
    /// If files cannot be written or a name is not one.
    pub fn issue(&self, file: &str, names: &[&str]) -> Result<Issued> {
        let mut params = CertificateParams::new(Vec::new())?;
        for name in names {
            let name = (*name).try_into()?;
            let is_uri = format!("{name:?}").contains("://");
            params.subject_alt_names.push(if is_uri {
                SanType::URI(name)
            } else {
                SanType::DnsName(name)
            });
        }
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let issued = Issued {
            certificate: self.folder.join(format!("{file}.pem")),
            key: self.folder.join(format!("{file}.key")),
        };
        std::fs::write(&issued.certificate, certificate.pem())?;
        std::fs::write(&issued.key, key.serialize_pem())?;
        Ok(issued)
    }
}
