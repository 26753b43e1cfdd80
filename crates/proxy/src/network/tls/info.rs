//! What a finished handshake came to, as logs, filters and `/certs` tell it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use identity::san::San;
use rustls::{CipherSuite, CommonState, HandshakeKind, NamedGroup, ProtocolVersion};

use super::Secrets;
use crate::stream_info::{CertificateInfo, TlsInfo};

/// Reads a finished handshake. `secrets` are those it was made with, `presented` is our own certificate in it.
pub fn of(
    connection: &CommonState,
    secrets: &Secrets,
    presented: Option<&Arc<identity::CertificateInfo>>,
) -> TlsInfo {
    let peer_chain: Vec<_> = connection
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let peer = peer_chain.first().and_then(|leaf| identity::CertificateInfo::parse(leaf).ok());
    TlsInfo {
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "",
        },
        cipher: connection
            .negotiated_cipher_suite()
            .map_or("", |suite| openssl_name(suite.suite())),
        curve: connection
            .negotiated_key_exchange_group()
            .map_or("", |group| boringssl_name(group.name())),
        alpn: connection.alpn_protocol().unwrap_or_default().into(),
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        // A handshake that is done has passed the verifier: with roots, that means validated.
        peer_validated: peer.is_some() && secrets.verify_peer(),
        peer: peer.as_ref().map(CertificateInfo::from),
        local: presented.map(|leaf| Arc::new(CertificateInfo::from(&**leaf))),
        peer_chain,
    }
}

impl From<&identity::CertificateInfo> for CertificateInfo {
    fn from(info: &identity::CertificateInfo) -> Self {
        let mut read = Self {
            subject: info.subject.clone(),
            issuer: info.issuer.clone(),
            serial: info.serial.clone(),
            fingerprint_256: info.sha256.clone(),
            not_before: seconds(info.not_before),
            not_after: seconds(info.not_after),
            ..Self::default()
        };
        for name in &info.names {
            match name {
                San::Uri(uri) => read.uri_sans.push(uri.clone()),
                San::Dns(name) => read.dns_sans.push(name.clone()),
                San::Email(email) => read.email_sans.push(email.clone()),
                San::Ip(ip) => read.ip_sans.push(*ip),
            }
        }
        read
    }
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The name that BoringSSL, and so Envoy, has for a key exchange group.
fn boringssl_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}

/// The name that OpenSSL, and so Envoy, has for a suite.
fn openssl_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use identity::chain::TrustRoots;
    use identity::tls::{Certificate, ClientOptions, Validation};
    use identity::{CertificateAuthority, CertificateRequest, PrivateKey, SpiffeId};

    use super::*;
    use crate::network::tls::{DownstreamTls, DownstreamTlsSettings};

    const ID: &str = "spiffe://cluster.local/ns/default/sa/reviews";

    fn workload() -> (Certificate, Validation) {
        let now = SystemTime::now();
        let ca = CertificateAuthority::self_signed("cluster.local", now).unwrap();
        let key = PrivateKey::generate().unwrap();
        let request = CertificateRequest::of_own_key(&key).unwrap();
        let id = SpiffeId::parse(ID).unwrap();
        let issued = ca.issue_workload(&request, &id, Duration::from_secs(60), now).unwrap();
        let certificate =
            Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap();
        let roots = Some(TrustRoots::from_pem(ca.root_pem()).unwrap());
        (certificate, Validation { roots, ..Validation::default() })
    }

    /// Both ends of a handshake, in memory.
    fn handshake(server: &mut rustls::ServerConnection, client: &mut rustls::ClientConnection) {
        while server.is_handshaking() || client.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets().unwrap();
        }
    }

    #[test]
    fn a_mutual_handshake_is_told() {
        let (certificate, validation) = workload();
        let context = DownstreamTls::new(DownstreamTlsSettings::default());
        let secrets = Secrets {
            certificates: vec![certificate.clone()],
            validation: Some(validation.clone()),
        };
        let side = context.prepare(secrets).unwrap();
        let client = ClientOptions {
            certificate: Some(certificate),
            validation,
            ..ClientOptions::default()
        };
        let client = identity::tls::client_config(&client).unwrap();
        let mut server = rustls::ServerConnection::new(Arc::clone(&side.config)).unwrap();
        let mut client =
            rustls::ClientConnection::new(client, "a.example".try_into().unwrap()).unwrap();
        handshake(&mut server, &mut client);

        let info = of(&server, &side.secrets, side.secrets.presented(Some("a.example")));
        assert_eq!(info.version, "TLSv1.3");
        assert!(info.cipher.starts_with("TLS_"), "{}", info.cipher);
        assert_eq!(info.peer.as_ref().unwrap().uri_sans, [ID]);
        assert_eq!(info.local.as_ref().unwrap().uri_sans, [ID]);
        assert!(info.peer_validated);
        assert!(!info.resumed);
        assert!(telemetry::stats::sets::TLS_CURVES.contains(&info.curve), "{}", info.curve);
    }
}
