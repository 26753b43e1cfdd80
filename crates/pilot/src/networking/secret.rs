//! Credentials as secrets that gateways fetch.

use api::envoy::config::core::v3::{DataSource, data_source};
use api::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};

use crate::model::credential::Credential;
use crate::model::interned::Interned;
use crate::model::objects::Name;

/// What a secret depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretKey {
    /// The name it was asked for by: `kubernetes://name`, or with `-cacert` for its roots.
    pub name: String,
    /// Whether its roots are asked for.
    pub roots: bool,
    /// The Secret.
    pub credential: Interned<Credential>,
    /// The Gateways whose servers present it.
    pub gateways: Vec<Name>,
}

/// The secret; `None` if the Secret lacks what was asked for.
pub fn secret(key: &SecretKey) -> Option<Secret> {
    let credential = &*key.credential;
    let r#type = if key.roots {
        if credential.roots.is_empty() {
            return None;
        }
        Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(&credential.roots)),
            crl: (!credential.revocations.is_empty()).then(|| inline(&credential.revocations)),
            ..Default::default()
        })
    } else {
        if credential.certificate.is_empty() || credential.private_key.is_empty() {
            return None;
        }
        Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(&credential.certificate)),
            private_key: Some(inline(&credential.private_key)),
            ..Default::default()
        })
    };
    Some(Secret { name: key.name.clone(), r#type: Some(r#type) })
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec())),
        ..Default::default()
    }
}
