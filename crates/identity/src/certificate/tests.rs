use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};

use super::*;
use crate::key::PrivateKey;

fn self_signed(build: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    build(&mut params);
    params.self_signed(PrivateKey::generate().unwrap().pair()).unwrap().der().clone()
}

#[test]
fn a_subject_is_written_as_rfc_2253_says() {
    let der = self_signed(|params| {
        params.distinguished_name.push(DnType::CountryName, "CH");
        params.distinguished_name.push(DnType::OrganizationName, "Sails, Ropes & Co");
        params.distinguished_name.push(DnType::CommonName, "#1 \"boat\" ");
    });
    let info = CertificateInfo::parse(&der).unwrap();
    assert_eq!(info.subject, r#"CN=\#1 \"boat\"\ ,O=Sails\, Ropes & Co,C=CH"#);
    assert_eq!(info.issuer, info.subject);
}

/// A subject goes into logs and headers.
#[test]
fn control_characters_in_a_subject_are_escaped() {
    let der = self_signed(|params| {
        params.distinguished_name.push(DnType::CommonName, "a\r\nx-admin: 1");
    });
    assert_eq!(CertificateInfo::parse(&der).unwrap().subject, r"CN=a\0D\0Ax-admin: 1");
}

#[test]
fn names_are_read_by_type() {
    let der = self_signed(|params| {
        params.subject_alt_names = vec![
            SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()),
            SanType::DnsName("a.example".try_into().unwrap()),
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
        ];
    });
    let info = CertificateInfo::parse(&der).unwrap();
    assert_eq!(info.spiffe_id().unwrap().as_str(), "spiffe://td/ns/a/sa/b");
    assert_eq!(info.dns_names().collect::<Vec<_>>(), ["a.example"]);
    assert_eq!(info.names[2], San::Ip("10.0.0.1".parse().unwrap()));
}

#[test]
fn two_uris_are_no_identity() {
    let der = self_signed(|params| {
        params.subject_alt_names = vec![
            SanType::URI("spiffe://td/ns/a/sa/b".try_into().unwrap()),
            SanType::URI("spiffe://td/ns/a/sa/c".try_into().unwrap()),
        ];
    });
    assert_eq!(CertificateInfo::parse(&der).unwrap().spiffe_id(), None);
}

#[test]
fn a_uri_with_a_nul_is_no_identity() {
    let der = self_signed(|params| {
        let uri = "spiffe://td/ns/a/sa/b\0c".try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(uri)];
    });
    let info = CertificateInfo::parse(&der).unwrap();
    assert_eq!(info.names, []);
    assert_eq!(info.spiffe_id(), None);
}

#[test]
fn pem_goes_round() {
    let der = self_signed(|_| {});
    let pem = encode_pem(&der);
    assert!(pem.lines().all(|line| line.len() <= 64));
    assert_eq!(decode_pem(&pem).unwrap(), vec![der]);
    assert!(decode_pem("nothing").is_err());
}

#[test]
fn bytes_that_are_no_certificate_are_an_error() {
    let der = self_signed(|_| {});
    assert!(CertificateInfo::parse(&[]).is_err());
    assert!(CertificateInfo::parse(&der[..der.len() - 1]).is_err());
    let longer = [der.as_ref(), b"x"].concat();
    assert!(CertificateInfo::parse(&longer).is_err());
}
