//! A throw-away certificate authority for the TLS scenarios, made by the `openssl` program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::setup::succeed;

/// Where the files are: one authority, one leaf that serves as server and client alike.
pub struct Certificates {
    pub folder: PathBuf,
    pub authority: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// The leaf's SPIFFE id, which each side of the double hop verifies.
pub const SPIFFE_ID: &str = "spiffe://cluster.local/ns/default/sa/bench";

const SCRIPT: &str = r#"
set -e
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -days 3650 -subj /CN=bench-ca -out ca.pem \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign
openssl ecparam -name prime256v1 -genkey -noout | openssl pkcs8 -topk8 -nocrypt -out leaf.key
openssl req -new -key leaf.key -subj /CN=bench.local -out leaf.csr
printf 'subjectAltName=DNS:bench.local,URI:%s\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n' "$SPIFFE" > leaf.ext
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile leaf.ext -out leaf.pem
chmod 0644 leaf.key
touch complete
"#;

impl Certificates {
    /// The files in `folder`, made if they are not there.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        if !folder.join("complete").exists() {
            fs::create_dir_all(folder)?;
            let mut script = Command::new("bash");
            script
                .args(["-c", SCRIPT])
                .env("SPIFFE", SPIFFE_ID)
                .current_dir(folder)
                .stderr(Stdio::null());
            succeed(&mut script).context("making certificates")?;
        }
        let file = |name: &str| folder.join(name);
        Ok(Self {
            folder: folder.to_owned(),
            authority: file("ca.pem"),
            certificate: file("leaf.pem"),
            key: file("leaf.key"),
        })
    }

    /// A client that verifies the server. One cipher suite and one group, the same for every proxy, so that what
    /// is compared is the proxies and not their preferences.
    pub fn client(&self) -> Result<Arc<rustls::ClientConfig>> {
        let provider = rustls::crypto::CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// The client's end of the double hop, with a certificate and rustls's own preferences.
    pub fn mutual_client(&self) -> Result<Arc<rustls::ClientConfig>> {
        let (chain, key) = self.identity()?;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)?;
        Ok(Arc::new(config))
    }

    /// A server, which may want a certificate from its clients.
    pub fn server(&self, is_mutual: bool) -> Result<Arc<rustls::ServerConfig>> {
        let builder = rustls::ServerConfig::builder();
        let builder = if is_mutual {
            let roots = Arc::new(self.roots()?);
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(roots).build()?)
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = self.identity()?;
        Ok(Arc::new(builder.with_single_cert(chain, key)?))
    }

    fn identity(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = vec![CertificateDer::from_pem_file(&self.certificate)?];
        Ok((chain, PrivateKeyDer::from_pem_file(&self.key)?))
    }

    fn roots(&self) -> Result<rustls::RootCertStore> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority)?)?;
        Ok(roots)
    }
}
