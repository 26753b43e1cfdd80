use std::time::{Duration, SystemTime};

use rustls::{ClientConnection, HandshakeKind, ServerConnection};
use rustls_pki_types::ServerName;

use super::*;
use crate::ca::CertificateAuthority;
use crate::csr::CertificateRequest;
use crate::key::PrivateKey;
use crate::san::{SanMatcher, SanType, TextMatch};
use crate::spiffe::SpiffeId;

struct Mesh {
    ca: CertificateAuthority,
}

const HOUR: Duration = Duration::from_secs(3600);

impl Mesh {
    fn new() -> Mesh {
        Mesh { ca: CertificateAuthority::self_signed("td", SystemTime::now()).unwrap() }
    }

    fn roots(&self) -> Option<TrustRoots> {
        Some(TrustRoots::from_pem(self.ca.root_pem()).unwrap())
    }

    fn workload(&self, account: &str) -> Certificate {
        let key = PrivateKey::generate().unwrap();
        let request = CertificateRequest::of_own_key(&key).unwrap();
        let id = SpiffeId::parse(&format!("spiffe://td/ns/default/sa/{account}")).unwrap();
        let issued = self.ca.issue_workload(&request, &id, HOUR, SystemTime::now()).unwrap();
        Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap()
    }

    fn server(&self, names: &[&str]) -> Certificate {
        let key = PrivateKey::generate().unwrap();
        let request = CertificateRequest::of_own_key(&key).unwrap();
        let issued = self.ca.issue_server(&request, names, HOUR, SystemTime::now()).unwrap();
        Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap()
    }

    fn mutual_server(&self, account: &str) -> ServerOptions {
        ServerOptions {
            certificates: vec![self.workload(account)],
            client_validation: Some(Validation { roots: self.roots(), ..Validation::default() }),
            require_client_certificate: true,
            ..ServerOptions::default()
        }
    }

    fn client(&self, account: &str, names: Vec<SanMatcher>) -> ClientOptions {
        ClientOptions {
            certificate: Some(self.workload(account)),
            validation: Validation { roots: self.roots(), names, ..Validation::default() },
            ..ClientOptions::default()
        }
    }
}

/// Runs a handshake in memory, and a few bytes each way so that tickets and alerts arrive.
fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    sni: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(sni.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

#[test]
fn two_workloads_know_each_other() {
    let mesh = Mesh::new();
    let wanted = SanMatcher::exact_uri("spiffe://td/ns/default/sa/ratings");
    let client = client_config(&mesh.client("reviews", vec![wanted])).unwrap();
    let server = server_config(&mesh.mutual_server("ratings")).unwrap();
    let (_, server) = connect(&client, &server, "outbound_.9080_._.ratings").unwrap();
    let peer = CertificateInfo::parse(&server.peer_certificates().unwrap()[0]).unwrap();
    assert_eq!(peer.spiffe_id().unwrap().as_str(), "spiffe://td/ns/default/sa/reviews");
}

#[test]
fn a_server_that_is_someone_else_is_refused() {
    let mesh = Mesh::new();
    let server = server_config(&mesh.mutual_server("ratings")).unwrap();
    let matcher = |text| SanMatcher { san_type: SanType::Uri, text, ignore_case: false };
    let table = [
        (SanMatcher::exact_uri("spiffe://td/ns/default/sa/details"), false),
        (SanMatcher::exact_uri("spiffe://td/ns/default/sa/rating"), false),
        (SanMatcher::exact_dns("spiffe://td/ns/default/sa/ratings"), false),
        (matcher(TextMatch::Prefix("spiffe://td/ns/default/".into())), true),
        (matcher(TextMatch::Suffix("/sa/ratings".into())), true),
    ];
    for (name, accepted) in table {
        let client = client_config(&mesh.client("reviews", vec![name.clone()])).unwrap();
        assert_eq!(connect(&client, &server, "x").is_ok(), accepted, "{name:?}");
    }
}

#[test]
fn a_stranger_cannot_be_a_client() {
    let (mesh, elsewhere) = (Mesh::new(), Mesh::new());
    let server = server_config(&mesh.mutual_server("ratings")).unwrap();

    let mut stranger = mesh.client("reviews", Vec::new());
    stranger.certificate = Some(elsewhere.workload("reviews"));
    assert!(connect(&client_config(&stranger).unwrap(), &server, "x").is_err());

    let mut nobody = mesh.client("reviews", Vec::new());
    nobody.certificate = None;
    assert!(connect(&client_config(&nobody).unwrap(), &server, "x").is_err());

    let mut optional = mesh.mutual_server("ratings");
    optional.require_client_certificate = false;
    let optional = server_config(&optional).unwrap();
    assert!(connect(&client_config(&nobody).unwrap(), &optional, "x").is_ok());
    assert!(connect(&client_config(&stranger).unwrap(), &optional, "x").is_err());
}

#[test]
fn a_client_certificate_is_demanded_even_where_nothing_verifies_it() {
    let mesh = Mesh::new();
    let mut options = mesh.mutual_server("ratings");
    options.client_validation = None;
    let server = server_config(&options).unwrap();
    let mut client = mesh.client("reviews", Vec::new());
    assert!(connect(&client_config(&client).unwrap(), &server, "x").is_ok());
    client.certificate = None;
    assert!(connect(&client_config(&client).unwrap(), &server, "x").is_err());
}

/// CVE-2022-21654: what was agreed under one validation must not be resumed under another.
#[test]
fn sessions_resume_only_under_the_validation_they_were_made_under() {
    let mesh = Mesh::new();
    let options = mesh.mutual_server("ratings");
    let first = server_config(&options).unwrap();
    let client = client_config(&mesh.client("reviews", Vec::new())).unwrap();
    let kind = |server: &Arc<ServerConfig>| {
        connect(&client, server, "ratings.example").unwrap().1.handshake_kind().unwrap()
    };
    assert_eq!(kind(&first), HandshakeKind::Full);
    assert_eq!(kind(&first), HandshakeKind::Resumed);

    let mut stricter = options;
    let only = SanMatcher::exact_uri("spiffe://td/ns/default/sa/details");
    stricter.client_validation.as_mut().unwrap().names = vec![only];
    let second = server_config(&stricter).unwrap();
    assert!(connect(&client, &second, "ratings.example").is_err());
}

#[test]
fn a_session_is_not_resumed_without_tickets() {
    let mesh = Mesh::new();
    let mut options = mesh.mutual_server("ratings");
    options.no_tickets = true;
    let server = server_config(&options).unwrap();
    let client = client_config(&mesh.client("reviews", Vec::new())).unwrap();
    for _ in 0..2 {
        let (_, server) = connect(&client, &server, "ratings.example").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn certificates_are_chosen_by_sni_exact_before_wildcard_else_the_first() {
    let mesh = Mesh::new();
    let names = [&["first.example"][..], &["*.example.com"], &["www.example.com"]];
    let server = server_config(&ServerOptions {
        certificates: names.iter().map(|names| mesh.server(names)).collect(),
        ..ServerOptions::default()
    })
    .unwrap();
    let mut options = mesh.client("reviews", Vec::new());
    options.no_resumption = true;
    let client = client_config(&options).unwrap();
    let table = [
        ("www.example.com", "www.example.com"),
        ("WWW.example.com", "www.example.com"),
        ("api.example.com", "*.example.com"),
        ("a.b.example.com", "first.example"),
        ("127.0.0.1", "first.example"),
    ];
    for (sni, presented) in table {
        let (client, _) = connect(&client, &server, sni).unwrap();
        let peer = CertificateInfo::parse(&client.peer_certificates().unwrap()[0]).unwrap();
        assert_eq!(peer.dns_names().collect::<Vec<_>>(), [presented], "{sni}");
    }
}

#[test]
fn the_name_that_was_asked_for_is_checked_when_told_so() {
    let mesh = Mesh::new();
    let server = server_config(&ServerOptions {
        certificates: vec![mesh.server(&["*.example.com", "127.0.0.1"])],
        ..ServerOptions::default()
    })
    .unwrap();
    let mut options = mesh.client("reviews", Vec::new());
    options.validation.match_server_name = true;
    let client = client_config(&options).unwrap();
    let table = [("a.example.com", true), ("example.com", false), ("a.b.example.com", false)];
    for (sni, accepted) in table.into_iter().chain([("127.0.0.1", true), ("127.0.0.2", false)]) {
        assert_eq!(connect(&client, &server, sni).is_ok(), accepted, "{sni}");
    }
}

#[test]
fn fingerprints_pin_a_certificate_or_a_key() {
    let mesh = Mesh::new();
    let certificate = mesh.server(&["a.example"]);
    let hash = <[u8; 32]>::try_from(hex::decode(&certificate.leaf().sha256).unwrap()).unwrap();
    let server = server_config(&ServerOptions {
        certificates: vec![certificate.clone()],
        ..ServerOptions::default()
    })
    .unwrap();
    let key = &certificate.leaf().public_key_der;
    let key_hash = aws_lc_rs_digest(key);
    type Hashes = Vec<[u8; 32]>;
    let pins: [(Hashes, Hashes, bool); 4] = [
        (vec![hash], vec![], true),
        (vec![[0; 32]], vec![], false),
        (vec![], vec![key_hash], true),
        (vec![hash], vec![[0; 32]], false),
    ];
    for (certificate_hashes, public_key_hashes, accepted) in pins {
        let mut options = mesh.client("reviews", Vec::new());
        options.validation.certificate_hashes = certificate_hashes;
        options.validation.public_key_hashes = public_key_hashes;
        let client = client_config(&options).unwrap();
        assert_eq!(connect(&client, &server, "a.example").is_ok(), accepted);
    }
}

fn aws_lc_rs_digest(bytes: &[u8]) -> [u8; 32] {
    let digest = ::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, bytes);
    <[u8; 32]>::try_from(digest.as_ref()).unwrap()
}

#[test]
fn versions_suites_and_protocols_are_negotiated_as_told() {
    let mesh = Mesh::new();
    let mut server = mesh.mutual_server("ratings");
    server.parameters.alpn = vec![b"istio".to_vec(), b"h2".to_vec()];
    server.parameters.max_version = Some(Version::Tls12);
    server.parameters.cipher_suites = vec!["ECDHE-ECDSA-AES256-GCM-SHA384".into()];
    let mut client = mesh.client("reviews", Vec::new());
    client.parameters.alpn = vec![b"h2".to_vec(), b"istio".to_vec()];
    let server = server_config(&server).unwrap();
    let (connection, _) = connect(&client_config(&client).unwrap(), &server, "x").unwrap();
    assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    assert_eq!(connection.alpn_protocol(), Some(&b"istio"[..]));
    let suite = connection.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);

    client.parameters.min_version = Some(Version::Tls13);
    assert!(connect(&client_config(&client).unwrap(), &server, "x").is_err());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mesh = Mesh::new();
    assert!(matches!(server_config(&ServerOptions::default()), Err(TlsError::NoCertificate)));

    let mut blind = mesh.client("reviews", vec![SanMatcher::exact_dns("a")]);
    blind.validation.roots = None;
    assert!(matches!(client_config(&blind), Err(TlsError::NamesWithoutRoots)));

    let mut upside_down = mesh.client("reviews", Vec::new());
    upside_down.parameters.min_version = Some(Version::Tls13);
    upside_down.parameters.max_version = Some(Version::Tls12);
    assert!(matches!(client_config(&upside_down), Err(TlsError::NothingLeft(_))));
    assert!(matches!(cipher_suite("RC4-MD5"), Err(TlsError::CipherSuite(_))));

    let key = PrivateKey::generate().unwrap().to_pem();
    let mismatch = Certificate::from_pem(mesh.ca.root_pem(), &key);
    assert!(matches!(mismatch, Err(TlsError::KeyMismatch)));
}
