//! Reading certificates: what access logs, `/certs` and authorisation need to know of a peer, parsed once a connection.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::oid_registry::OidRegistry;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::san::{self, San};

/// Why a certificate cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM, or no certificate in it.
    #[error("no certificate in PEM: {0}")]
    Pem(String),
    /// Not a certificate.
    #[error("invalid certificate: {0}")]
    Der(String),
    /// The subject alternative names are malformed or given twice.
    #[error("invalid subject alternative names")]
    Names,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateInfo {
    /// The subject in the form of RFC 2253: last component first.
    pub subject: String,
    /// The issuer in the form of RFC 2253.
    pub issuer: String,
    /// The serial number, lower-case hexadecimal without separators.
    pub serial: String,
    /// Its names that could be read; what has a NUL or a control character in it is left out.
    pub names: Vec<San>,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// SHA-256 over the certificate, lower-case hexadecimal.
    pub sha256: String,
    /// SHA-1 over the certificate, lower-case hexadecimal.
    pub sha1: String,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// `SubjectPublicKeyInfo`, DER.
    pub public_key_der: Vec<u8>,
}

impl CertificateInfo {
    /// Reads one DER certificate.
    pub fn parse(der: &[u8]) -> Result<CertificateInfo, CertificateError> {
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|error| CertificateError::Der(error.to_string()))?;
        if !rest.is_empty() {
            return Err(CertificateError::Der("bytes after the certificate".to_owned()));
        }
        let digest = |algorithm| hex::encode(aws_lc_rs::digest::digest(algorithm, der));
        Ok(CertificateInfo {
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
            serial: serial(certificate.raw_serial()),
            names: san::of_certificate(&certificate).map_err(|_| CertificateError::Names)?,
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
            sha256: digest(&aws_lc_rs::digest::SHA256),
            sha1: digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY),
            is_ca: certificate.is_ca(),
            public_key_der: certificate.public_key().raw.to_vec(),
        })
    }

    /// Reads the first certificate of a PEM text.
    pub fn parse_pem(pem: &str) -> Result<CertificateInfo, CertificateError> {
        let der = decode_pem(pem)?;
        CertificateInfo::parse(&der[0])
    }

    /// Its URI names, in order.
    pub fn uris(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            San::Uri(uri) => Some(uri.as_str()),
            _ => None,
        })
    }

    /// Its DNS names, in order.
    pub fn dns_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| match name {
            San::Dns(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The SPIFFE id, if the certificate has exactly one URI name and that is one.
    pub fn spiffe_id(&self) -> Option<crate::SpiffeId> {
        let mut uris = self.uris();
        let id = crate::SpiffeId::parse(uris.next()?).ok()?;
        uris.next().is_none().then_some(id)
    }
}

/// All certificates of a PEM text, in order; at least one.
pub fn decode_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Pem(error.to_string()))?;
    if all.is_empty() { Err(CertificateError::Pem("no certificate".to_owned())) } else { Ok(all) }
}

/// One certificate as PEM, ending in a newline.
pub fn encode_pem(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::with_capacity(body.len() + body.len() / 64 + 60);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    for at in (0..body.len()).step_by(64) {
        pem.push_str(&body[at..(at + 64).min(body.len())]);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

fn time(unix_seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds.max(0) as u64)
}

fn serial(raw: &[u8]) -> String {
    let leading = raw.iter().take_while(|byte| **byte == 0).count();
    hex::encode(&raw[leading.min(raw.len().saturating_sub(1))..])
}

/// RFC 2253: components from the most specific, special characters escaped.
fn rfc2253(name: &X509Name<'_>) -> String {
    let registry = OidRegistry::default().with_x509();
    let mut components = Vec::new();
    for rdn in name.iter_rdn() {
        let mut text = String::new();
        for attribute in rdn.iter() {
            if !text.is_empty() {
                text.push('+');
            }
            let key = match registry.get(attribute.attr_type()) {
                Some(entry) => short_name(entry.sn()),
                None => attribute.attr_type().to_id_string(),
            };
            text.push_str(&key);
            text.push('=');
            escape_rfc2253(attribute.as_str().unwrap_or_default(), &mut text);
        }
        components.push(text);
    }
    components.reverse();
    components.join(",")
}

fn short_name(long: &str) -> String {
    match long {
        "commonName" => "CN",
        "organizationName" => "O",
        "organizationalUnit" | "organizationalUnitName" => "OU",
        "countryName" => "C",
        "stateOrProvinceName" => "ST",
        "localityName" => "L",
        other => other,
    }
    .to_owned()
}

fn escape_rfc2253(value: &str, out: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (index == 0 && matches!(c, '#' | ' '))
            || (index == last && c == ' ');
        if c.is_control() {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                let _ = write!(out, "\\{byte:02X}");
            }
            continue;
        }
        if special {
            out.push('\\');
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests;
