use rcgen::{
    CertificateParams, CertificateRevocationListParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
};

use super::*;
use crate::ca::CertificateAuthority;
use crate::csr::CertificateRequest;
use crate::key::PrivateKey;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn issue(ca: &CertificateAuthority, id: &str) -> Vec<CertificateDer<'static>> {
    let request = CertificateRequest::of_own_key(&PrivateKey::generate().unwrap()).unwrap();
    let id = SpiffeId::parse(id).unwrap();
    let issued = ca.issue_workload(&request, &id, Duration::from_secs(60), now()).unwrap();
    decode_pem(&issued.certificates.concat()).unwrap()
}

#[test]
fn only_our_own_root_our_own_trust_domain_and_the_present_count() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let stranger = CertificateAuthority::self_signed("td", now()).unwrap();
    let roots = TrustRoots::from_pem(ca.root_pem()).unwrap();
    let id = "spiffe://td/ns/a/sa/b";
    let ours = issue(&ca, id);

    assert_eq!(verify_workload(&ours, &roots, "td", now()).unwrap().as_str(), id);
    let untrusted = |chain: &[CertificateDer<'_>], domain: &str, at| {
        verify_workload(chain, &roots, domain, at).unwrap_err()
    };
    assert!(matches!(untrusted(&issue(&stranger, id), "td", now()), ChainError::Untrusted(_)));
    assert!(matches!(untrusted(&ours, "other", now()), ChainError::NotOfTrustDomain(_)));
    assert!(matches!(untrusted(&[], "td", now()), ChainError::Untrusted(_)));
    let (late, early) = (now() + Duration::from_secs(61), now() - Duration::from_secs(3600));
    assert!(matches!(untrusted(&ours, "td", late), ChainError::Untrusted(_)));
    assert!(matches!(untrusted(&ours, "td", early), ChainError::Untrusted(_)));
    // A trust domain that merely starts alike.
    let alike = issue(&ca, "spiffe://td.evil/ns/a/sa/b");
    assert!(matches!(untrusted(&alike, "td", now()), ChainError::NotOfTrustDomain(_)));
}

/// CVE-2022-21657: a certificate for servers must not authenticate a client, nor the other way round.
#[test]
fn extended_key_usage_is_honoured() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let material = ca.material();
    let key = KeyPair::from_pem(&material.key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&material.certificate, key).unwrap();
    let roots = TrustRoots::from_pem(ca.root_pem()).unwrap();
    let table = [
        (vec![ExtendedKeyUsagePurpose::ServerAuth], true, false),
        (vec![ExtendedKeyUsagePurpose::ClientAuth], false, true),
        (vec![ExtendedKeyUsagePurpose::CodeSigning], false, false),
        (vec![], true, true),
    ];
    for (usages, server, client) in table {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = vec![SanType::DnsName("a.example".try_into().unwrap())];
        params.extended_key_usages = usages.clone();
        let leaf = params.signed_by(PrivateKey::generate().unwrap().pair(), &issuer).unwrap();
        let works = |usage| verify(leaf.der(), &[], &roots, usage, now()).is_ok();
        assert_eq!((works(Usage::Server), works(Usage::Client)), (server, client), "{usages:?}");
    }
}

/// A leaf must not act as an authority.
#[test]
fn a_leaf_signs_nothing() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let roots = TrustRoots::from_pem(ca.root_pem()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let request = CertificateRequest::of_own_key(&key).unwrap();
    let id = SpiffeId::parse("spiffe://td/ns/a/sa/b").unwrap();
    let issued = ca.issue_workload(&request, &id, Duration::from_secs(60), now()).unwrap();
    let above = decode_pem(&issued.certificates[0]).unwrap();

    let pair = KeyPair::from_pem(&key.to_pem()).unwrap();
    let issuer = Issuer::from_ca_cert_der(&above[0], pair).unwrap();
    let mut params = CertificateParams::default();
    let admin = "spiffe://td/ns/istio-system/sa/istiod".try_into().unwrap();
    params.subject_alt_names = vec![SanType::URI(admin)];
    let forged = params.signed_by(PrivateKey::generate().unwrap().pair(), &issuer).unwrap();
    assert!(verify(forged.der(), &above, &roots, Usage::Client, now()).is_err());
}

#[test]
fn what_a_revocation_list_names_is_refused() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let chain = issue(&ca, "spiffe://td/ns/a/sa/b");
    let other = issue(&ca, "spiffe://td/ns/a/sa/c");
    let serial = CertificateInfo::parse(&chain[0]).unwrap().serial;
    let material = ca.material();
    let key = KeyPair::from_pem(&material.key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&material.certificate, key).unwrap();
    let list = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2026, 1, 1),
        next_update: rcgen::date_time_ymd(2036, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(hex::decode(serial).unwrap()),
            revocation_time: rcgen::date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let pem = list.signed_by(&issuer).unwrap().pem().unwrap();
    let roots =
        TrustRoots::from_pem(ca.root_pem()).unwrap().with_revocation_lists(&pem, false).unwrap();
    assert!(verify(&chain[0], &chain[1..], &roots, Usage::Client, now()).is_err());
    assert_eq!(verify(&other[0], &other[1..], &roots, Usage::Client, now()), Ok(()));
    let empty = TrustRoots::from_pem(ca.root_pem()).unwrap().with_revocation_lists("", false);
    assert!(empty.is_err());
}

#[test]
fn no_roots_is_an_error_and_not_everyone() {
    assert_eq!(TrustRoots::from_der(&[]).unwrap_err(), ChainError::NoRoots);
    assert!(TrustRoots::from_pem("").is_err());
}
