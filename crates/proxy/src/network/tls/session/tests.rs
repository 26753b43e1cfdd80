use std::time::{Duration, SystemTime};

use identity::chain::TrustRoots;
use identity::tls::{Certificate, ClientOptions, Parameters, ServerOptions, Validation, Version};
use identity::{CertificateAuthority, CertificateRequest, PrivateKey};

use super::*;

/// One end, with what it has to say and what it has heard.
struct End {
    session: TlsSession,
    to_send: Vec<u8>,
    heard: Vec<u8>,
}

impl End {
    fn new(session: TlsSession) -> Self {
        Self { session, to_send: Vec::new(), heard: Vec::new() }
    }

    /// Hears `bytes`, in pieces of `piece`.
    fn hear(&mut self, bytes: &[u8], piece: usize) -> Result<(), TlsFailure> {
        for part in bytes.chunks(piece).chain(bytes.is_empty().then_some(bytes)) {
            self.session.open(&mut part.to_vec(), &mut self.heard, &mut self.to_send)?;
        }
        Ok(())
    }

    fn say(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let mut records = vec![0; TlsSession::sealed_len(plaintext.len())];
        let len = self.session.seal(plaintext, &mut records).expect("open");
        records.truncate(len);
        records
    }
}

fn pair(version: Version) -> (End, End) {
    let now = SystemTime::now();
    let ca = CertificateAuthority::self_signed("test", now).unwrap();
    let key = PrivateKey::generate().unwrap();
    let request = CertificateRequest::of_own_key(&key).unwrap();
    let issued = ca.issue_server(&request, &["a.example"], Duration::from_secs(60), now).unwrap();
    let certificate = Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap();
    let parameters = Parameters { max_version: Some(version), ..Parameters::default() };
    let server = ServerOptions {
        certificates: vec![certificate],
        parameters: parameters.clone(),
        ..ServerOptions::default()
    };
    let roots = Some(TrustRoots::from_pem(ca.root_pem()).unwrap());
    let validation = Validation { roots, match_server_name: true, ..Validation::default() };
    let client = ClientOptions { validation, parameters, ..ClientOptions::default() };
    let server = TlsSession::server(identity::tls::server_config(&server).unwrap()).unwrap();
    let client = identity::tls::client_config(&client).unwrap();
    let client = TlsSession::client(client, "a.example".try_into().unwrap()).unwrap();
    (End::new(server), End::new(client))
}

fn handshake(server: &mut End, client: &mut End, piece: usize) -> Result<(), TlsFailure> {
    client.hear(&[], 1)?;
    while !client.to_send.is_empty() || !server.to_send.is_empty() {
        let flight = std::mem::take(&mut client.to_send);
        server.hear(&flight, piece)?;
        let flight = std::mem::take(&mut server.to_send);
        client.hear(&flight, piece)?;
    }
    Ok(())
}

#[test]
fn bytes_cross_both_ways_however_they_are_split() {
    for version in [Version::Tls12, Version::Tls13] {
        for piece in [1, 100, usize::MAX] {
            let (mut server, mut client) = pair(version);
            handshake(&mut server, &mut client, piece).unwrap();
            assert!(!server.session.is_handshaking() && !client.session.is_handshaking());
            assert_eq!(server.session.server_name(), Some("a.example"));
            let long: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
            let records = client.say(&long);
            server.hear(&records, piece.max(100)).unwrap();
            assert_eq!(server.heard, long);
            let records = server.say(b"short");
            client.hear(&records, piece).unwrap();
            assert_eq!(client.heard, b"short");
        }
    }
}

#[test]
fn an_orderly_end_is_told_from_a_cut() {
    let (mut server, mut client) = pair(Version::Tls13);
    handshake(&mut server, &mut client, usize::MAX).unwrap();
    assert!(!server.session.peer_has_closed());
    let mut last = client.say(b"last words");
    client.session.close(&mut last);
    server.hear(&last, usize::MAX).unwrap();
    assert_eq!(server.heard, b"last words");
    assert!(server.session.peer_has_closed());
    // The other direction still works: a half-closed connection.
    let records = server.say(b"answer");
    client.hear(&records, usize::MAX).unwrap();
    assert_eq!(client.heard, b"answer");
    let mut twice = Vec::new();
    client.session.close(&mut twice);
    assert!(twice.is_empty(), "said once");
}

#[test]
fn a_failure_comes_with_an_alert() {
    let (mut server, _) = pair(Version::Tls13);
    let error = server.hear(b"GET / HTTP/1.1\r\n\r\n", usize::MAX).unwrap_err();
    assert!(error.to_string().starts_with("TLS_error: "), "{error}");
    assert_eq!(server.to_send.first(), Some(&21), "an alert record");

    // A client that does not trust the server says so.
    let (mut server, _) = pair(Version::Tls13);
    let (_, mut stranger) = pair(Version::Tls13);
    stranger.hear(&[], 1).unwrap();
    let hello = std::mem::take(&mut stranger.to_send);
    server.hear(&hello, usize::MAX).unwrap();
    let flight = std::mem::take(&mut server.to_send);
    assert!(stranger.hear(&flight, usize::MAX).is_err());
    let alert = std::mem::take(&mut stranger.to_send);
    assert!(!alert.is_empty());
    assert!(server.hear(&alert, usize::MAX).is_err());
}

#[test]
fn writing_while_a_record_is_half_read_loses_nothing() {
    let (mut server, mut client) = pair(Version::Tls13);
    handshake(&mut server, &mut client, usize::MAX).unwrap();
    let records = client.say(b"in two parts");
    let (first, second) = records.split_at(9);
    server.hear(first, usize::MAX).unwrap();
    let answer = server.say(b"meanwhile");
    server.hear(second, usize::MAX).unwrap();
    assert_eq!(server.heard, b"in two parts");
    client.hear(&answer, usize::MAX).unwrap();
    assert_eq!(client.heard, b"meanwhile");
}

#[test]
fn nothing_is_sealed_before_the_handshake() {
    let (mut server, _) = pair(Version::Tls13);
    assert!(server.session.seal(b"early", &mut [0; 256]).is_err());
    let mut replies = Vec::new();
    server.session.close(&mut replies);
    assert!(replies.is_empty());
}

/// A server that wants a client's certificate, and one client that has none.
#[test]
fn a_failed_session_is_closed_without_being_asked_again() {
    for version in [Version::Tls12, Version::Tls13] {
        let now = SystemTime::now();
        let ca = CertificateAuthority::self_signed("test", now).unwrap();
        let key = PrivateKey::generate().unwrap();
        let request = CertificateRequest::of_own_key(&key).unwrap();
        let issued =
            ca.issue_server(&request, &["a.example"], Duration::from_secs(60), now).unwrap();
        let roots = Some(TrustRoots::from_pem(ca.root_pem()).unwrap());
        let validation = Validation { roots, ..Validation::default() };
        let parameters = Parameters { max_version: Some(version), ..Parameters::default() };
        let server = ServerOptions {
            certificates: vec![
                Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap(),
            ],
            client_validation: Some(validation.clone()),
            require_client_certificate: true,
            parameters: parameters.clone(),
            ..ServerOptions::default()
        };
        let client = ClientOptions { validation, parameters, ..ClientOptions::default() };
        let server = identity::tls::server_config(&server).unwrap();
        let client = identity::tls::client_config(&client).unwrap();
        let mut server = End::new(TlsSession::server(server).unwrap());
        let mut client =
            End::new(TlsSession::client(client, "a.example".try_into().unwrap()).unwrap());
        let failure = handshake(&mut server, &mut client, usize::MAX).unwrap_err();
        assert_eq!(failure.refusal, Some(PeerRefusal::NoCertificate), "{version:?}");
        let mut more = Vec::new();
        server.session.close(&mut more);
        assert!(more.is_empty(), "the alert was the last word");
        assert!(server.session.seal(b"x", &mut [0; 256]).is_err());
        assert!(server.hear(b"anything", usize::MAX).is_err());
    }
}
