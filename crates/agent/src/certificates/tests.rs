use std::time::UNIX_EPOCH;

use identity::{CertificateAuthority, csr::CertificateRequest};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::credential::FixedToken;

fn options(ca: &CertificateAuthority) -> CertificateOptions {
    CertificateOptions {
        control_plane: ControlPlane::new("127.0.0.1:1", ca.root_pem()).unwrap(),
        roots_pem: ca.root_pem().to_owned(),
        tokens: Arc::new(FixedToken::new("x")),
        id: SpiffeId::parse("spiffe://td/ns/default/sa/reviews").unwrap(),
        ttl: Duration::from_secs(60),
    }
}

fn issue(ca: &CertificateAuthority, key: &PrivateKey, now: SystemTime) -> Vec<String> {
    let id = SpiffeId::parse("spiffe://td/ns/default/sa/reviews").unwrap();
    let request = CertificateRequest::of_own_key(key).unwrap();
    ca.issue_workload(&request, &id, Duration::from_secs(60), now).unwrap().certificates
}

#[test]
fn renewal_is_due_at_half_life_give_or_take_a_little() {
    let issued = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
    let mut rng = StdRng::seed_from_u64(1);
    for life in [10, 60, 24 * 3600] {
        let times: Vec<f64> = (0..100)
            .map(|_| renewal_time(issued, issued + Duration::from_secs(life), &mut rng))
            .map(|time| time.duration_since(issued).unwrap().as_secs_f64() / life as f64)
            .collect();
        assert!(times.iter().all(|part| (0.49..=0.51).contains(part)), "{times:?}");
        assert_ne!(times[0], times[1]);
    }
}

#[test]
fn an_answer_is_believed_only_for_our_key_and_under_our_root() {
    let now = SystemTime::now();
    let ca = CertificateAuthority::self_signed("td", now).unwrap();
    let stranger = CertificateAuthority::self_signed("td", now).unwrap();
    let options = options(&ca);
    let key = PrivateKey::generate().unwrap();
    let read = |certificates: Vec<String>| {
        read_answer(&options, &key, &certificates, now).map(|held| held.id)
    };

    assert_eq!(read(issue(&ca, &key, now)).unwrap(), options.id);
    assert!(read(issue(&ca, &PrivateKey::generate().unwrap(), now)).is_err(), "another's key");
    assert!(read(issue(&stranger, &key, now)).is_err(), "another's root");
    assert!(read(Vec::new()).is_err());
    assert!(read(vec!["nonsense".into(); 2]).is_err());

    let request = CertificateRequest::of_own_key(&key).unwrap();
    let server = ca.issue_server(&request, &["a.example"], Duration::from_secs(60), now).unwrap();
    let error = read(server.certificates).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate authority's answer: the certificate names no workload"
    );
}

#[test]
fn what_goes_to_peers_has_no_root_in_it() {
    let now = SystemTime::now();
    let ca = CertificateAuthority::self_signed("td", now).unwrap();
    let key = PrivateKey::generate().unwrap();
    let held = read_answer(&options(&ca), &key, &issue(&ca, &key, now), now).unwrap();
    assert_eq!(decode_pem(&held.chain_pem).unwrap().len(), 1);
    assert!(!format!("{held:?}").contains("KEY"));
}
