//! Private keys: ECDSA P-256 when we make them; P-384 and RSA too when they are given to us.

use std::fmt;

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why a private key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No PEM block of a private key.
    #[error("no private key in PEM: {0}")]
    Pem(String),
    /// The key's kind or form is not supported.
    #[error("unsupported private key: {0}")]
    Unsupported(#[from] rcgen::Error),
}

/// A private key. It is never printed.
pub struct PrivateKey {
    pair: KeyPair,
}

impl PrivateKey {
    /// Makes a new ECDSA P-256 key.
    pub fn generate() -> Result<PrivateKey, KeyError> {
        Ok(PrivateKey { pair: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)? })
    }

    /// Reads a key from PEM: PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`).
    pub fn from_pem(pem: &str) -> Result<PrivateKey, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| KeyError::Pem(error.to_string()))?;
        Ok(PrivateKey { pair: KeyPair::try_from(&der)? })
    }

    /// The key as PKCS#8 PEM. For a file that only its owner may read, or for a Secret.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    /// The key as PKCS#8, for rustls.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pair.serialize_der()))
    }

    /// The public half as PEM (`PUBLIC KEY`).
    pub fn public_key_pem(&self) -> String {
        self.pair.public_key_pem()
    }

    /// The public half as DER (`SubjectPublicKeyInfo`).
    pub fn public_key_der(&self) -> Vec<u8> {
        self.pair.subject_public_key_info()
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.pair.algorithm())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_pem_and_is_never_printed() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.public_key_der(), key.public_key_der());
        let body: String = key.to_pem().lines().nth(1).unwrap().to_owned();
        assert!(!format!("{key:?}").contains(&body[..16]));
    }

    #[test]
    fn a_certificate_is_no_key() {
        assert!(matches!(
            PrivateKey::from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            Err(KeyError::Pem(_))
        ));
    }
}
