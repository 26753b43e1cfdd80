//! Certificate requests (PKCS#10). A request proves that its sender has a key; it proves nothing else, so nothing else is
//! taken from it: the names in the certificate come from the sender's credential.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, PublicKey,
    PublicKeyData, SanType,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey as ParsedKey;

use crate::key::PrivateKey;
use crate::spiffe::SpiffeId;

/// The smallest RSA modulus that is signed, in bits.
const MIN_RSA_BITS: usize = 2048;

/// Why a certificate request is refused.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// Not one PEM block of a certificate request.
    #[error("no certificate request in PEM: {0}")]
    Pem(String),
    /// Not a request, signed by another key than its own, or with an extension that we do not know.
    #[error("invalid certificate request: {0}")]
    Invalid(#[from] rcgen::Error),
    /// The key is too weak or of a kind that we do not sign.
    #[error("the request's key is not accepted: {0}")]
    Key(&'static str),
}

/// A verified request: the public key, whose private half signed the request.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    public_key: PublicKey,
}

impl CertificateRequest {
    /// Verifies a PEM request and keeps its key.
    pub fn from_pem(pem: &str) -> Result<CertificateRequest, CsrError> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| CsrError::Pem(error.to_string()))?;
        // Verifies the signature, which is the proof of possession.
        let public_key = CertificateSigningRequestParams::from_der(&der)?.public_key;
        check_strength(&public_key.subject_public_key_info())?;
        Ok(CertificateRequest { public_key })
    }

    /// The public key that asks for a certificate, as `SubjectPublicKeyInfo` DER.
    pub fn public_key_der(&self) -> Vec<u8> {
        self.public_key.subject_public_key_info()
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }
}

/// Makes a request, as PEM, with the identity in its SAN as Istio's agent sends it (authorities ignore it).
pub fn create(key: &PrivateKey, id: &SpiffeId) -> Result<String, CsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    Ok(params.serialize_request(key.pair())?.pem()?)
}

fn check_strength(spki: &[u8]) -> Result<(), CsrError> {
    let (_, spki) =
        SubjectPublicKeyInfo::from_der(spki).map_err(|_| CsrError::Key("unreadable"))?;
    match spki.parsed() {
        Ok(ParsedKey::RSA(rsa)) if rsa.key_size() < MIN_RSA_BITS => {
            Err(CsrError::Key("RSA below 2048 bits"))
        }
        Ok(ParsedKey::RSA(_) | ParsedKey::EC(_)) => Ok(()),
        _ => Err(CsrError::Key("neither RSA nor ECDSA")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_its_key() {
        let key = PrivateKey::generate().unwrap();
        let pem = create(&key, &SpiffeId::parse("spiffe://td/ns/a/sa/b").unwrap()).unwrap();
        assert_eq!(
            CertificateRequest::from_pem(&pem).unwrap().public_key_der(),
            key.public_key_der()
        );
    }

    #[test]
    fn a_request_signed_by_another_key_is_refused() {
        let victim = PrivateKey::generate().unwrap();
        let thief = PrivateKey::generate().unwrap();
        let id = SpiffeId::parse("spiffe://td/ns/a/sa/b").unwrap();
        let request = create(&thief, &id).unwrap();
        let mut der =
            CertificateSigningRequestDer::from_pem_slice(request.as_bytes()).unwrap().to_vec();
        // The victim's public key in the thief's request.
        let (old, new) = (thief.public_key_der(), victim.public_key_der());
        let at = der.windows(old.len()).position(|window| window == old).unwrap();
        der[at..at + old.len()].copy_from_slice(&new);
        let forged = CertificateSigningRequestDer::from(der);
        assert!(CertificateSigningRequestParams::from_der(&forged).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "x",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        ] {
            assert!(CertificateRequest::from_pem(text).is_err(), "{text}");
        }
    }
}
