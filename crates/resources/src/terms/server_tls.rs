//! How a Gateway or Sidecar terminates TLS.

use crate::field::{Fields, Names, Reason};

/// How a server terminates TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerTls {
    /// Whether clear-text requests are redirected to https.
    pub https_redirect: bool,
    /// What is done with TLS connections.
    pub mode: ServerTlsMode,
    /// Certificates with their keys, from files. The first two fields of the object, or `tlsCertificates`.
    pub certificates: Vec<CertificateFiles>,
    /// File of the certificates that clients are checked against.
    pub ca_certificates: Option<String>,
    /// File of revoked certificates.
    pub ca_crl: Option<String>,
    /// Secrets that hold certificates and keys: `credentialName`, or `credentialNames`.
    pub credential_names: Vec<String>,
    /// Secret that holds the certificates that clients are checked against.
    pub ca_cert_credential_name: Option<String>,
    /// Names of which a client's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 hashes of public keys that clients may have.
    pub verify_certificate_spki: Vec<String>,
    /// Hex SHA-256 hashes of certificates that clients may have.
    pub verify_certificate_hash: Vec<String>,
    /// Lowest version.
    pub min_protocol_version: TlsVersion,
    /// Highest version.
    pub max_protocol_version: TlsVersion,
    /// Cipher suites up to TLS 1.2, by OpenSSL's names.
    pub cipher_suites: Vec<String>,
    /// Key exchange groups.
    pub ecdh_curves: Vec<String>,
    /// Whether a client's certificate is asked for and not checked.
    pub insecure_skip_verify: Option<bool>,
}

/// A certificate with its key, as files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Chain.
    pub server_certificate: String,
    /// Key.
    pub private_key: String,
}

/// What is done with TLS connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTlsMode {
    /// They are routed by SNI, unread.
    #[default]
    Passthrough,
    /// They are terminated.
    Simple,
    /// They are terminated, and clients must show a certificate.
    Mutual,
    /// They are routed by an SNI that names cluster and port.
    AutoPassthrough,
    /// They are terminated with the mesh's certificates, and clients must show theirs.
    IstioMutual,
    /// They are terminated, and a client that shows a certificate must show a good one.
    OptionalMutual,
}

impl Names for ServerTlsMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("PASSTHROUGH", Self::Passthrough),
        ("SIMPLE", Self::Simple),
        ("MUTUAL", Self::Mutual),
        ("AUTO_PASSTHROUGH", Self::AutoPassthrough),
        ("ISTIO_MUTUAL", Self::IstioMutual),
        ("OPTIONAL_MUTUAL", Self::OptionalMutual),
    ];
}

/// A TLS version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// The proxy's choice.
    #[default]
    Auto,
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

impl Names for TlsVersion {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("TLS_AUTO", Self::Auto),
        ("TLSV1_0", Self::V1_0),
        ("TLSV1_1", Self::V1_1),
        ("TLSV1_2", Self::V1_2),
        ("TLSV1_3", Self::V1_3),
    ];
}

impl ServerTls {
    /// Reads the settings.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let mut text = |name| fields.optional_text(name).filter(|text| !text.is_empty());
        let own = CertificateFiles {
            server_certificate: text("serverCertificate").unwrap_or_default(),
            private_key: text("privateKey").unwrap_or_default(),
        };
        let (ca_certificates, ca_crl) = (text("caCertificates"), text("caCrl"));
        let (single, ca_cert_credential_name) =
            (text("credentialName"), text("caCertCredentialName"));
        let mut certificates = fields.list("tlsCertificates", |fields| {
            fields.kept(&["caCertificates"]);
            if fields.has("caCertificates") {
                fields.warn_in(
                    "caCertificates",
                    "has no effect, as in Istio: use the one beside tlsCertificates",
                );
            }
            CertificateFiles {
                server_certificate: fields.required_text("serverCertificate"),
                private_key: fields.required_text("privateKey"),
            }
        });
        if own != CertificateFiles::default() {
            certificates.push(own);
        }
        let mut credential_names = fields.texts("credentialNames");
        credential_names.extend(single);
        let read = Self {
            https_redirect: fields.flag("httpsRedirect").unwrap_or_default(),
            mode: fields.choice("mode").unwrap_or_default(),
            certificates,
            ca_certificates,
            ca_crl,
            credential_names,
            ca_cert_credential_name,
            subject_alt_names: fields.texts("subjectAltNames"),
            verify_certificate_spki: fields.texts("verifyCertificateSpki"),
            verify_certificate_hash: fields.texts("verifyCertificateHash"),
            min_protocol_version: fields.choice("minProtocolVersion").unwrap_or_default(),
            max_protocol_version: fields.choice("maxProtocolVersion").unwrap_or_default(),
            cipher_suites: fields.texts("cipherSuites"),
            ecdh_curves: fields.texts("ecdhCurves"),
            insecure_skip_verify: fields.flag("insecureSkipVerify"),
        };
        read.check(fields);
        read
    }

    /// Whether nothing but a redirect to https is said: the only thing a clear-text port may say.
    pub fn is_only_redirect(&self) -> bool {
        *self == Self { https_redirect: self.https_redirect, ..Self::default() }
    }

    fn check(&self, fields: &Fields<'_>) {
        const SOURCES: &[&str] =
            &["serverCertificate", "credentialName", "credentialNames", "tlsCertificates"];
        let own_certificates = [
            "serverCertificate",
            "privateKey",
            "caCertificates",
            "tlsCertificates",
            "credentialName",
            "credentialNames",
        ];
        fields.at_most_one(SOURCES);
        for list in ["credentialNames", "tlsCertificates"] {
            let length = if list == "credentialNames" {
                self.credential_names.len()
            } else {
                self.certificates.len()
            };
            if fields.has(list) && length > 2 {
                fields.error_in(list, Reason::Invalid, "may have two entries at most");
            }
        }
        let both = (self.min_protocol_version, self.max_protocol_version);
        if both.0 != TlsVersion::Auto && both.1 != TlsVersion::Auto && both.0 > both.1 {
            fields.error_in(
                "minProtocolVersion",
                Reason::Invalid,
                "is higher than maxProtocolVersion",
            );
        }
        match self.mode {
            ServerTlsMode::IstioMutual => {
                for field in own_certificates.into_iter().filter(|field| fields.has(field)) {
                    let message = "cannot go with ISTIO_MUTUAL, whose certificates are the mesh's";
                    fields.error_in(field, Reason::Forbidden, message);
                }
            }
            ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => {
                for field in own_certificates.into_iter().filter(|field| fields.has(field)) {
                    fields.warn_in(field, "has no effect: connections are passed through unread");
                }
            }
            ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => {
                self.check_terminating(fields)
            }
        }
        if self.ca_crl.is_some()
            && (fields.has("credentialName") || self.mode == ServerTlsMode::Simple)
        {
            fields.error_in("caCrl", Reason::Forbidden, "cannot go with credentialName or SIMPLE");
        }
    }

    fn check_terminating(&self, fields: &Fields<'_>) {
        if !self.credential_names.is_empty() {
            return;
        }
        if self.certificates.is_empty() {
            fields.error(
                Reason::Required,
                "credentialName, or serverCertificate and privateKey, is required",
            );
        }
        if fields.has("serverCertificate") != fields.has("privateKey") {
            fields.error(Reason::Required, "serverCertificate and privateKey go together");
        }
        let checks_clients =
            matches!(self.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
        if checks_clients
            && self.ca_certificates.is_none()
            && self.ca_cert_credential_name.is_none()
        {
            fields.error_in(
                "caCertificates",
                Reason::Required,
                "required to check clients, or a credentialName",
            );
        }
    }
}
