//! `listener.<address>.ssl.*` and `cluster.<name>.ssl.*`.

crate::stat_set! {
    /// TLS handshakes; the scope is a listener's or a cluster's.
    pub struct Tls {
        HANDSHAKE = counter "ssl.handshake",
        CONNECTION_ERROR = counter "ssl.connection_error",
        SESSION_REUSED = counter "ssl.session_reused",
        NO_CERTIFICATE = counter "ssl.no_certificate",
        FAIL_VERIFY_NO_CERT = counter "ssl.fail_verify_no_cert",
        FAIL_VERIFY_ERROR = counter "ssl.fail_verify_error",
        FAIL_VERIFY_SAN = counter "ssl.fail_verify_san",
        CIPHERS = names("envoy.ssl_cipher", TLS_CIPHERS) "ssl.ciphers.",
        VERSIONS = names("envoy.ssl_version", TLS_VERSIONS) "ssl.versions.",
    }
}

/// Cipher suites by the names BoringSSL gives them, in the order of the family [`Tls::CIPHERS`].
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

/// Protocol versions in the order of the family [`Tls::VERSIONS`].
pub const TLS_VERSIONS: &[&str] = &["TLSv1.2", "TLSv1.3"];
