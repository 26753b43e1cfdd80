//! How a client secures its connections.

use crate::field::{Fields, Names, Reason};

/// How a client secures its connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Kind of security.
    pub mode: ClientTlsMode,
    /// File of the client's certificate.
    pub client_certificate: Option<String>,
    /// File of the client's key.
    pub private_key: Option<String>,
    /// File of the certificates that are trusted; `system` for the system's.
    pub ca_certificates: Option<String>,
    /// Secret that holds certificate, key and trusted certificates.
    pub credential_name: Option<String>,
    /// Names of which the server's certificate must have one.
    pub subject_alt_names: Vec<String>,
    /// SNI that is sent.
    pub sni: Option<String>,
    /// Whether the server's certificate is not checked.
    pub insecure_skip_verify: Option<bool>,
    /// File of revoked certificates.
    pub ca_crl: Option<String>,
}

/// Kind of security.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientTlsMode {
    /// Clear text.
    #[default]
    Disable,
    /// TLS.
    Simple,
    /// TLS with a client certificate of the user's.
    Mutual,
    /// TLS with the mesh's certificates.
    IstioMutual,
}

impl Names for ClientTlsMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("DISABLE", Self::Disable),
        ("SIMPLE", Self::Simple),
        ("MUTUAL", Self::Mutual),
        ("ISTIO_MUTUAL", Self::IstioMutual),
    ];
}

impl ClientTls {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        let mut text = |name| fields.optional_text(name).filter(|text| !text.is_empty());
        let read = Self {
            client_certificate: text("clientCertificate"),
            private_key: text("privateKey"),
            ca_certificates: text("caCertificates"),
            credential_name: text("credentialName"),
            sni: text("sni"),
            ca_crl: text("caCrl"),
            subject_alt_names: fields.texts("subjectAltNames"),
            insecure_skip_verify: fields.flag("insecureSkipVerify"),
            mode: fields.choice("mode").unwrap_or_default(),
        };
        read.check(fields);
        read
    }

    fn check(&self, fields: &Fields<'_>) {
        if self.subject_alt_names.iter().any(String::is_empty) {
            fields.error_in("subjectAltNames", Reason::Invalid, "a name may not be empty");
        }
        if self.insecure_skip_verify == Some(true) {
            for (name, set) in [
                ("caCertificates", self.ca_certificates.is_some()),
                ("caCrl", self.ca_crl.is_some()),
            ] {
                if set {
                    fields.error_in(name, Reason::Forbidden, "cannot go with insecureSkipVerify");
                }
            }
        }
        if self.credential_name.is_some() {
            for field in ["clientCertificate", "privateKey", "caCertificates", "caCrl"] {
                if fields.has(field) {
                    fields.error_in(
                        field,
                        Reason::Forbidden,
                        "cannot go with credentialName, which holds it",
                    );
                }
            }
        }
        match self.mode {
            ClientTlsMode::IstioMutual => {
                for field in
                    ["clientCertificate", "privateKey", "caCertificates", "credentialName", "caCrl"]
                {
                    if fields.has(field) {
                        let message =
                            "cannot go with ISTIO_MUTUAL, whose certificates are the mesh's";
                        fields.error_in(field, Reason::Forbidden, message);
                    }
                }
            }
            ClientTlsMode::Mutual if self.credential_name.is_none() => {
                for field in ["clientCertificate", "privateKey"] {
                    if !fields.has(field) {
                        fields.error_in(
                            field,
                            Reason::Required,
                            "required for MUTUAL, or a credentialName",
                        );
                    }
                }
            }
            ClientTlsMode::Mutual | ClientTlsMode::Simple | ClientTlsMode::Disable => {}
        }
    }
}
