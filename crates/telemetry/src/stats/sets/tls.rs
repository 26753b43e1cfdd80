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

/// Key exchange groups by the names BoringSSL gives them: the values of the families `ssl.curves.*`.
pub const TLS_CURVES: &[&str] = &["X25519", "P-256", "P-384", "X25519MLKEM768"];

crate::stat_set! {
    /// TLS of a listener or of a cluster's connections: `ssl.*` below either.
    pub struct Tls {
        HANDSHAKE = counter "ssl.handshake",
        /// Failures that are not about the peer's certificate.
        CONNECTION_ERROR = counter "ssl.connection_error",
        SESSION_REUSED = counter "ssl.session_reused",
        NO_CERTIFICATE = counter "ssl.no_certificate",
        FAIL_VERIFY_NO_CERT = counter "ssl.fail_verify_no_cert",
        FAIL_VERIFY_ERROR = counter "ssl.fail_verify_error",
        FAIL_VERIFY_SAN = counter "ssl.fail_verify_san",
        FAIL_VERIFY_CERT_HASH = counter "ssl.fail_verify_cert_hash",
        CIPHERS = names("envoy.ssl_cipher", TLS_CIPHERS) "ssl.ciphers.",
        VERSIONS = names("envoy.ssl_version", TLS_VERSIONS) "ssl.versions.",
        CURVES = names("envoy.ssl_curve", TLS_CURVES) "ssl.curves.",
    }
}

/// What a handshake came to, as far as statistics go.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeOutcome<'a> {
    /// The version's name.
    pub version: &'a str,
    /// The cipher suite's name.
    pub cipher: &'a str,
    /// The key exchange group's name.
    pub curve: &'a str,
    /// A session was resumed.
    pub resumed: bool,
    /// The peer presented a certificate.
    pub has_peer_certificate: bool,
}

impl crate::stats::Local<Tls> {
    /// Counts a finished handshake.
    pub fn handshake(&self, outcome: &HandshakeOutcome<'_>) {
        self.inc(Tls::HANDSHAKE);
        if outcome.resumed {
            self.inc(Tls::SESSION_REUSED);
        }
        if !outcome.has_peer_certificate {
            self.inc(Tls::NO_CERTIFICATE);
        }
        let index = |names: &[&str], name| names.iter().position(|known| *known == name);
        if let Some(index) = index(TLS_CIPHERS, outcome.cipher) {
            self.inc_member(Tls::CIPHERS, index);
        }
        if let Some(index) = index(TLS_VERSIONS, outcome.version) {
            self.inc_member(Tls::VERSIONS, index);
        }
        if let Some(index) = index(TLS_CURVES, outcome.curve) {
            self.inc_member(Tls::CURVES, index);
        }
    }
}
