//! The certificate authority of a mesh: a self-signed root, or an intermediate that the user brought (Istio's `cacerts`).
//!
//! The authority is a value made of four PEM texts ([`CaMaterial`]); keeping them is its owner's business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certificate::{CertificateError, CertificateInfo, encode_pem};
use crate::chain::{self, ChainError, Usage};
use crate::csr::CertificateRequest;
use crate::key::{KeyError, PrivateKey};
use crate::spiffe::SpiffeId;

/// What a workload gets if it does not ask for less.
pub const DEFAULT_WORKLOAD_TTL: Duration = Duration::from_secs(24 * 3600);
/// The longest life of a certificate that this authority issues.
pub const MAX_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// The life of a self-signed root.
pub const ROOT_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Certificates are valid from a little earlier, for peers whose clocks lag.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Why an authority cannot be made or cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The key cannot be read.
    #[error("ca-key.pem: {0}")]
    Key(#[from] KeyError),
    /// A certificate cannot be read; names the file.
    #[error("{0}: {1}")]
    Certificate(&'static str, CertificateError),
    /// The certificate is not for this key.
    #[error("ca-cert.pem does not belong to ca-key.pem")]
    KeyMismatch,
    /// The certificate may not sign others.
    #[error("ca-cert.pem is no certificate authority")]
    NotAnAuthority,
    /// The certificate does not lead to the root.
    #[error("ca-cert.pem does not lead to root-cert.pem: {0}")]
    Chain(ChainError),
    /// The authority has expired, so that nothing it issues would be valid.
    #[error("the certificate authority has expired")]
    Expired,
    /// A life of nothing.
    #[error("a certificate must live for at least one second")]
    NoLifetime,
    /// A DNS name that cannot stand in a certificate.
    #[error("invalid name {0:?}")]
    Name(String),
    /// Encoding or signing failed.
    #[error("cannot issue: {0}")]
    Issue(#[from] rcgen::Error),
}

/// The four files of an authority, under Istio's names.
#[derive(Clone, PartialEq, Eq)]
pub struct CaMaterial {
    /// `ca-cert.pem`: the certificate that signs.
    pub certificate: String,
    /// `ca-key.pem`: its key.
    pub key: String,
    /// `cert-chain.pem`: from the signing certificate up; may be empty.
    pub chain: String,
    /// `root-cert.pem`: what everyone trusts; may hold several roots.
    pub root: String,
}

/// An authority that can issue.
pub struct CertificateAuthority {
    material: CaMaterial,
    issuer: Issuer<'static, KeyPair>,
    /// What follows the leaf: intermediates, then roots, as PEM.
    above: Vec<String>,
    roots: Vec<CertificateDer<'static>>,
    not_after: SystemTime,
}

/// A certificate with everything above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// PEM texts, one certificate each: the leaf first, the root last.
    pub certificates: Vec<String>,
    /// When the leaf ends.
    pub not_after: SystemTime,
}

impl CertificateAuthority {
    /// Makes a new self-signed root for an organisation (Istio uses the trust domain), valid for [`ROOT_TTL`].
    pub fn self_signed(
        organization: &str,
        now: SystemTime,
    ) -> Result<CertificateAuthority, CaError> {
        let key = PrivateKey::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.serial_number = Some(random_serial());
        set_validity(&mut params, now, now + ROOT_TTL);
        let pem = params.self_signed(key.pair())?.pem();
        CertificateAuthority::from_material(
            CaMaterial {
                certificate: pem.clone(),
                key: key.to_pem(),
                chain: String::new(),
                root: pem,
            },
            now,
        )
    }

    /// Takes an authority over, after checking that its parts belong together.
    pub fn from_material(
        material: CaMaterial,
        now: SystemTime,
    ) -> Result<CertificateAuthority, CaError> {
        let certificate = one_certificate("ca-cert.pem", &material.certificate)?;
        let roots = certificates("root-cert.pem", &material.root)?;
        let chain = certificates_or_none("cert-chain.pem", &material.chain)?;
        let key = PrivateKey::from_pem(&material.key)?;

        let info = CertificateInfo::parse(&certificate)
            .map_err(|error| CaError::Certificate("ca-cert.pem", error))?;
        if info.public_key_der != key.public_key_der() {
            return Err(CaError::KeyMismatch);
        }
        if !info.is_ca {
            return Err(CaError::NotAnAuthority);
        }
        if info.not_after <= now {
            return Err(CaError::Expired);
        }
        let mut intermediates: Vec<CertificateDer<'static>> = Vec::new();
        for der in std::iter::once(&certificate).chain(&chain) {
            if !roots.contains(der) && !intermediates.contains(der) {
                intermediates.push(der.clone());
            }
        }
        let above = intermediates.iter().chain(&roots).map(encode_pem).collect();
        let pair = KeyPair::try_from(&key.to_der())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair)?;
        let authority =
            CertificateAuthority { material, issuer, above, roots, not_after: info.not_after };
        authority.check_chain(now)?;
        Ok(authority)
    }

    /// The four PEM texts, to be persisted.
    pub fn material(&self) -> &CaMaterial {
        &self.material
    }

    /// What everyone in the mesh trusts: `root-cert.pem`.
    pub fn root_pem(&self) -> &str {
        &self.material.root
    }

    /// When the signing certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Issues a workload's certificate: its only name is `id`, whatever the request says. Lives for `ttl` from `now`, at
    /// most [`MAX_TTL`], and not beyond the authority.
    pub fn issue_workload(
        &self,
        request: &CertificateRequest,
        id: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let name = id.as_str().try_into().map_err(|_| CaError::Name(id.to_string()))?;
        self.issue(request, vec![SanType::URI(name)], ttl, now)
    }

    /// Issues a server's certificate for DNS names and IP addresses (the control plane's own, or a test's).
    pub fn issue_server(
        &self,
        request: &CertificateRequest,
        names: &[&str],
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let sans = names.iter().map(|name| server_name(name)).collect::<Result<Vec<_>, _>>()?;
        self.issue(request, sans, ttl, now)
    }

    fn issue(
        &self,
        request: &CertificateRequest,
        sans: Vec<SanType>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if ttl < Duration::from_secs(1) {
            return Err(CaError::NoLifetime);
        }
        if self.not_after <= now {
            return Err(CaError::Expired);
        }
        let not_after = (now + ttl.min(MAX_TTL)).min(self.not_after);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = sans;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial());
        set_validity(&mut params, now.checked_sub(CLOCK_SKEW).unwrap_or(UNIX_EPOCH), not_after);
        let leaf = params.signed_by(request.public_key(), &self.issuer)?;
        let mut certificates = Vec::with_capacity(1 + self.above.len());
        certificates.push(encode_pem(leaf.der()));
        certificates.extend(self.above.iter().cloned());
        Ok(Issued { certificates, not_after })
    }

    /// Issues to itself once: only a chain that verifies is of use to anyone.
    fn check_chain(&self, now: SystemTime) -> Result<(), CaError> {
        let probe = PrivateKey::generate()?;
        let issued = self.issue_server(
            &CertificateRequest::of_own_key(&probe)?,
            &["chain.invalid"],
            Duration::from_secs(60),
            now,
        )?;
        let certificates = certificates("issued", &issued.certificates.concat())?;
        let roots = chain::TrustRoots::from_der(&self.roots).map_err(CaError::Chain)?;
        chain::verify(&certificates[0], &certificates[1..], &roots, Usage::Server, now)
            .map_err(CaError::Chain)
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CertificateAuthority({} certificates above a leaf)", self.above.len())
    }
}

impl std::fmt::Debug for CaMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaMaterial").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn certificates_or_none(
    file: &'static str,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CaError::Certificate(file, CertificateError::Pem(error.to_string())))
}

fn certificates(file: &'static str, pem: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let all = certificates_or_none(file, pem)?;
    if all.is_empty() {
        return Err(CaError::Certificate(file, CertificateError::Pem("no certificate".to_owned())));
    }
    Ok(all)
}

fn one_certificate(file: &'static str, pem: &str) -> Result<CertificateDer<'static>, CaError> {
    Ok(certificates(file, pem)?.swap_remove(0))
}

fn server_name(name: &str) -> Result<SanType, CaError> {
    match name.parse() {
        Ok(ip) => Ok(SanType::IpAddress(ip)),
        Err(_) => {
            Ok(SanType::DnsName(name.try_into().map_err(|_| CaError::Name(name.to_owned()))?))
        }
    }
}

fn set_validity(params: &mut CertificateParams, not_before: SystemTime, not_after: SystemTime) {
    let since_epoch =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(since_epoch(not_before));
    params.not_after = epoch + Duration::from_secs(since_epoch(not_after));
}

/// 127 random bits: positive, and never the same twice.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// The public half of a key, for whoever issues to itself.
impl CertificateRequest {
    /// A request for a key that the caller holds, without the detour through a signed message.
    pub fn of_own_key(key: &PrivateKey) -> Result<CertificateRequest, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let pem = params.serialize_request(key.pair())?.pem()?;
        CertificateRequest::from_pem(&pem).map_err(|_| CaError::KeyMismatch)
    }
}

#[cfg(test)]
mod tests;
