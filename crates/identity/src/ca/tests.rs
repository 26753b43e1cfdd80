use super::*;
use crate::certificate::decode_pem;
use crate::chain::{TrustRoots, verify_workload};
use crate::csr;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000)
}

fn workload() -> SpiffeId {
    SpiffeId::parse("spiffe://cluster.local/ns/default/sa/reviews").unwrap()
}

fn request() -> CertificateRequest {
    CertificateRequest::of_own_key(&PrivateKey::generate().unwrap()).unwrap()
}

/// A root, and an authority below it as a user would bring it.
fn brought_along(now: SystemTime) -> CaMaterial {
    let root = CertificateAuthority::self_signed("corp", now).unwrap();
    let key = PrivateKey::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "mesh");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    set_validity(&mut params, now, now + Duration::from_secs(3600));
    let pem = params.signed_by(key.pair(), &root.issuer).unwrap().pem();
    CaMaterial {
        certificate: pem.clone(),
        key: key.to_pem(),
        chain: pem + root.root_pem(),
        root: root.root_pem().to_owned(),
    }
}

#[test]
fn a_workload_is_named_by_its_credential_and_by_nothing_in_its_request() {
    let ca = CertificateAuthority::self_signed("cluster.local", now()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let victim = SpiffeId::parse("spiffe://cluster.local/ns/istio-system/sa/istiod").unwrap();
    let request = CertificateRequest::from_pem(&csr::create(&key, &victim).unwrap()).unwrap();

    let issued = ca.issue_workload(&request, &workload(), Duration::from_secs(60), now()).unwrap();
    let leaf = CertificateInfo::parse_pem(&issued.certificates[0]).unwrap();
    assert_eq!(leaf.uris().collect::<Vec<_>>(), [workload().as_str()]);
    assert_eq!(leaf.names.len(), 1);
    assert_eq!(leaf.subject, "");
    assert!(!leaf.is_ca);
    assert_eq!(leaf.public_key_der, key.public_key_der());
}

#[test]
fn a_chain_is_leaf_first_root_last_one_certificate_a_text() {
    for (material, depth) in [
        (CertificateAuthority::self_signed("td", now()).unwrap().material().clone(), 2),
        (brought_along(now()), 3),
    ] {
        let ca = CertificateAuthority::from_material(material, now()).unwrap();
        let issued =
            ca.issue_workload(&request(), &workload(), Duration::from_secs(60), now()).unwrap();
        assert_eq!(issued.certificates.len(), depth);
        for pem in &issued.certificates {
            assert_eq!(decode_pem(pem).unwrap().len(), 1);
        }
        assert_eq!(issued.certificates.last().unwrap().trim(), ca.root_pem().trim());
        let roots = TrustRoots::from_pem(ca.root_pem()).unwrap();
        let chain = decode_pem(&issued.certificates.concat()).unwrap();
        assert_eq!(verify_workload(&chain, &roots, "cluster.local", now()).unwrap(), workload());
    }
}

#[test]
fn a_life_is_what_was_asked_for_within_limits() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let life = |ttl, at| ca.issue_workload(&request(), &workload(), ttl, at);
    let seconds = Duration::from_secs;
    assert_eq!(life(seconds(7), now()).unwrap().not_after, now() + seconds(7));
    assert_eq!(life(MAX_TTL * 2, now()).unwrap().not_after, now() + MAX_TTL);
    assert!(matches!(life(Duration::from_millis(999), now()), Err(CaError::NoLifetime)));

    let nearly_over = ca.not_after() - seconds(30);
    assert_eq!(life(seconds(3600), nearly_over).unwrap().not_after, ca.not_after());
    assert!(matches!(life(seconds(60), ca.not_after()), Err(CaError::Expired)));
}

#[test]
fn serial_numbers_differ_and_are_positive() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let serial = || {
        let issued =
            ca.issue_workload(&request(), &workload(), Duration::from_secs(60), now()).unwrap();
        CertificateInfo::parse_pem(&issued.certificates[0]).unwrap().serial
    };
    let (a, b) = (serial(), serial());
    assert_ne!(a, b);
    assert_eq!(a.len(), 32);
}

#[test]
fn an_authority_survives_being_persisted() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let again = CertificateAuthority::from_material(ca.material().clone(), now()).unwrap();
    assert_eq!(again.root_pem(), ca.root_pem());
    let issued =
        again.issue_workload(&request(), &workload(), Duration::from_secs(60), now()).unwrap();
    let roots = TrustRoots::from_pem(ca.root_pem()).unwrap();
    let chain = decode_pem(&issued.certificates.concat()).unwrap();
    assert!(verify_workload(&chain, &roots, "cluster.local", now()).is_ok());
}

#[test]
fn parts_that_do_not_belong_together_are_refused_by_name() {
    let good = brought_along(now());
    let other = CertificateAuthority::self_signed("other", now()).unwrap().material().clone();
    let leaf = CertificateAuthority::from_material(good.clone(), now())
        .unwrap()
        .issue_server(&request(), &["a.example"], Duration::from_secs(60), now())
        .unwrap();
    let check = |change: &dyn Fn(&mut CaMaterial)| {
        let mut material = good.clone();
        change(&mut material);
        CertificateAuthority::from_material(material, now()).unwrap_err().to_string()
    };
    assert_eq!(check(&|m| m.key = other.key.clone()), "ca-cert.pem does not belong to ca-key.pem");
    assert!(check(&|m| m.root = other.root.clone()).starts_with("ca-cert.pem does not lead to"));
    assert!(check(&|m| m.root = String::new()).starts_with("root-cert.pem: no certificate"));
    assert!(check(&|m| m.key = String::new()).starts_with("ca-key.pem"));
    assert_eq!(
        check(&|m| m.certificate = leaf.certificates[0].clone()),
        "ca-cert.pem does not belong to ca-key.pem"
    );
    let late = now() + Duration::from_secs(7200);
    assert!(matches!(
        CertificateAuthority::from_material(good.clone(), late),
        Err(CaError::Expired)
    ));
}

#[test]
fn a_leaf_that_knows_its_key_is_still_no_authority() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let key = PrivateKey::generate().unwrap();
    let request = CertificateRequest::of_own_key(&key).unwrap();
    let issued = ca.issue_server(&request, &["a.example"], Duration::from_secs(60), now()).unwrap();
    let material = CaMaterial {
        certificate: issued.certificates[0].clone(),
        key: key.to_pem(),
        chain: String::new(),
        root: ca.root_pem().to_owned(),
    };
    let refused = CertificateAuthority::from_material(material, now());
    assert!(matches!(refused, Err(CaError::NotAnAuthority)));
}

#[test]
fn server_names_are_dns_names_or_addresses() {
    let ca = CertificateAuthority::self_signed("td", now()).unwrap();
    let names = ["istiod.istio-system.svc", "127.0.0.1", "::1"];
    let issued = ca.issue_server(&request(), &names, Duration::from_secs(60), now()).unwrap();
    let leaf = CertificateInfo::parse_pem(&issued.certificates[0]).unwrap();
    assert_eq!(leaf.dns_names().collect::<Vec<_>>(), ["istiod.istio-system.svc"]);
    assert_eq!(leaf.names.len(), 3);
}
