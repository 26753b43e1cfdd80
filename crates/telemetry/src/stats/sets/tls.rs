//! Names of what TLS handshakes come to: `listener.<address>.ssl.*` and `cluster.<name>.ssl.*`.

/// Cipher suites by the names BoringSSL gives them: the values of the families `ssl.ciphers.*`.
pub const TLS_CIPHERS: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-RSA-CHACHA20-POLY1305",
];

/// Protocol versions: the values of the families `ssl.versions.*`.
pub const TLS_VERSIONS: &[&str] = &["TLSv1.2", "TLSv1.3"];

/// What a handshake came to, as far as statistics go.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeOutcome<'a> {
    /// The version's name.
    pub version: &'a str,
    /// The cipher suite's name.
    pub cipher: &'a str,
    /// A session was resumed.
    pub resumed: bool,
    /// The peer presented a certificate.
    pub has_peer_certificate: bool,
}

macro_rules! count_handshakes {
    ($set:ty) => {
        impl crate::stats::Local<$set> {
            /// Counts a finished handshake.
            pub fn handshake(&self, outcome: &HandshakeOutcome<'_>) {
                self.inc(<$set>::SSL_HANDSHAKE);
                if outcome.resumed {
                    self.inc(<$set>::SSL_SESSION_REUSED);
                }
                if !outcome.has_peer_certificate {
                    self.inc(<$set>::SSL_NO_CERTIFICATE);
                }
                let index = |names: &[&str], name| names.iter().position(|known| *known == name);
                if let Some(index) = index(TLS_CIPHERS, outcome.cipher) {
                    self.inc_member(<$set>::SSL_CIPHERS, index);
                }
                if let Some(index) = index(TLS_VERSIONS, outcome.version) {
                    self.inc_member(<$set>::SSL_VERSIONS, index);
                }
            }
        }
    };
}

count_handshakes!(super::Listener);
count_handshakes!(super::Cluster);
