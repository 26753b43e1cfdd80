//! Judging a peer's certificate: its chain, its use, its names, its fingerprints.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{PeerRefusal, TlsError, Validation};
use crate::certificate::CertificateInfo;
use crate::chain::{Usage, verify_at};
use crate::san::{San, dns_name_matches};

/// One verifier for both directions; what differs is the use that a certificate must allow.
#[derive(Debug)]
pub(super) struct PeerVerifier {
    validation: Validation,
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
    mandatory: bool,
}

impl PeerVerifier {
    pub(super) fn new(
        validation: Validation,
        provider: Arc<CryptoProvider>,
        mandatory: bool,
    ) -> Result<PeerVerifier, TlsError> {
        if validation.roots.is_none()
            && (!validation.names.is_empty() || validation.match_server_name)
        {
            return Err(TlsError::NamesWithoutRoots);
        }
        let hints = validation
            .roots
            .iter()
            .flat_map(|roots| roots.subjects())
            .map(DistinguishedName::in_sequence)
            .collect();
        Ok(PeerVerifier { validation, provider, hints, mandatory })
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        server_name: Option<&ServerName<'_>>,
        now: UnixTime,
    ) -> Result<(), Error> {
        if let Some(roots) = &self.validation.roots {
            verify_at(leaf, intermediates, roots, usage, now).map_err(certificate_error)?;
        }
        let info = CertificateInfo::parse(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if !self.names_match(&info, server_name) {
            return Err(PeerRefusal::Name.into_error());
        }
        if !self.fingerprints_match(leaf, &info) {
            return Err(PeerRefusal::Fingerprint.into_error());
        }
        Ok(())
    }

    fn names_match(&self, info: &CertificateInfo, server_name: Option<&ServerName<'_>>) -> bool {
        let listed = self.validation.names.is_empty()
            || info
                .names
                .iter()
                .any(|name| self.validation.names.iter().any(|matcher| matcher.matches(name)));
        let as_asked = !self.validation.match_server_name
            || server_name
                .is_some_and(|asked| info.names.iter().any(|name| is_server(name, asked)));
        listed && as_asked
    }

    fn fingerprints_match(&self, leaf: &CertificateDer<'_>, info: &CertificateInfo) -> bool {
        let sha256 = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        let listed = |hashes: &[[u8; 32]], bytes: &[u8]| {
            hashes.is_empty() || hashes.iter().any(|hash| hash.as_slice() == sha256(bytes).as_ref())
        };
        listed(&self.validation.certificate_hashes, leaf)
            && listed(&self.validation.public_key_hashes, &info.public_key_der)
    }
}

fn is_server(name: &San, asked: &ServerName<'_>) -> bool {
    match (name, asked) {
        (San::Dns(presented), ServerName::DnsName(host)) => {
            dns_name_matches(presented, host.as_ref())
        }
        (San::Ip(presented), ServerName::IpAddress(ip)) => {
            *presented == std::net::IpAddr::from(*ip)
        }
        _ => false,
    }
}

/// So that the peer gets the alert that says what is wrong.
fn certificate_error(error: webpki::Error) -> Error {
    use webpki::Error as Webpki;
    Error::InvalidCertificate(match error {
        Webpki::CertExpired { .. } => CertificateError::Expired,
        Webpki::CertNotValidYet { .. } => CertificateError::NotValidYet,
        Webpki::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        Webpki::UnknownIssuer => CertificateError::UnknownIssuer,
        Webpki::CertRevoked => CertificateError::Revoked,
        Webpki::UnknownRevocationStatus => CertificateError::UnknownRevocationStatus,
        Webpki::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        Webpki::BadDer | Webpki::BadDerTime => CertificateError::BadEncoding,
        other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
    })
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Server, Some(server_name), now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Usage::Client, None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(self)
    }
}
