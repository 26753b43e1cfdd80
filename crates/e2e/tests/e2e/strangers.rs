//! What the control plane gives to somebody who is not who he says: nothing, and never more than his credential is worth.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::google::protobuf::{Struct, Value, value::Kind};
use api::istio::v1::auth::IstioCertificateRequest;
use api::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::mesh::{Mesh, Plan};
use identity::PrivateKey;
use identity::token::{CONTROL_PLANE_AUDIENCE, TokenIssuer};
use rcgen::{CertificateParams, KeyPair, SanType};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};

use crate::one_mesh_at_a_time;

/// Istio's type for what a sidecar asks for first.
const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const DETAILS: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-details";
const RATINGS: &str = "spiffe://cluster.local/ns/default/sa/bookinfo-ratings";

#[test]
fn a_certificate_has_the_name_of_the_token_whatever_the_request_says() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mesh = Plan::bookinfo()?.start()?;
    let visitor = Visitor::new(&mesh)?;
    let token = visitor.token("bookinfo-details")?;
    for asked in [DETAILS, RATINGS, "spiffe://cluster.local/ns/istio-system/sa/istiod"] {
        match visitor.certificate(Some(&token), asked) {
            Ok(leaf) => {
                let names = names_of(&leaf)?;
                assert!(names.contains(DETAILS), "asked as details for {asked}, got {names}");
                assert!(
                    asked == DETAILS || !names.contains(asked),
                    "asked as details for {asked}, got {names}"
                );
            }
            Err(refused) => assert_ne!(asked, DETAILS, "{refused}"),
        }
    }
    Ok(())
}

#[test]
fn nothing_is_given_without_a_good_token() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mesh = Plan::bookinfo()?.start()?;
    let visitor = Visitor::new(&mesh)?;
    let good = visitor.token("bookinfo-details")?;
    let strangers = [
        ("no token", None),
        ("nonsense", Some("nonsense".to_owned())),
        ("a token with another audience", Some(with_claim(&good, "aud", "[\"elsewhere\"]")?)),
        ("a token that lives longer", Some(with_claim(&good, "exp", "99999999999")?)),
        (
            "a token that names another",
            Some(with_claim(&good, "sub", "\"system:serviceaccount:default:bookinfo-ratings\"")?),
        ),
        ("an unsigned token", Some(unsigned(&good)?)),
    ];
    for (who, token) in &strangers {
        let refused = visitor.certificate(token.as_deref(), DETAILS);
        let status = refused.err().with_context(|| format!("{who} bought a certificate"))?;
        assert_eq!(status.code(), Code::Unauthenticated, "{who}: {status}");
        let status = visitor.subscribe(token.as_deref(), "details-v1").err();
        let status = status.with_context(|| format!("{who} got configuration"))?;
        assert_eq!(status.code(), Code::Unauthenticated, "{who}: {status}");
    }
    // The same door opens for who has the key.
    visitor.certificate(Some(&good), DETAILS)?;
    Ok(())
}

/// Tokens that the mesh's own key has signed, and that are still not good: only what they say is wrong with them.
#[test]
fn a_good_signature_is_not_enough() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let key = PrivateKey::generate()?;
    let issuer = TokenIssuer::new(key, "https://outrigger.local")?;
    let plan = Plan::bookinfo()?;
    // The mesh takes the key that it finds.
    let pem: String = issuer.key_pem().lines().map(|line| format!("    {line}\n")).collect();
    plan.write(
        "token-key.yaml",
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{ name: outrigger-token-key, namespace: istio-system }}\n\
             type: outrigger.dev/token-key\nstringData:\n  signing-key.pem: |\n{pem}"
        ),
    )?;
    let mesh = plan.start()?;
    let visitor = Visitor::new(&mesh)?;
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let sign = |issuer: &TokenIssuer, audience: &str, from: SystemTime| {
        issuer.issue("default", "bookinfo-details", audience, hour, from)
    };
    let other = TokenIssuer::new(PrivateKey::generate()?, "https://outrigger.local")?;
    let elsewhere = TokenIssuer::from_pem(&issuer.key_pem(), "https://elsewhere")?;
    let strangers = [
        ("for another audience", sign(&issuer, "elsewhere", now)?),
        ("expired", sign(&issuer, CONTROL_PLANE_AUDIENCE, now - 2 * hour)?),
        ("of the future", sign(&issuer, CONTROL_PLANE_AUDIENCE, now + hour)?),
        ("of another issuer", sign(&elsewhere, CONTROL_PLANE_AUDIENCE, now)?),
        ("signed with another key", sign(&other, CONTROL_PLANE_AUDIENCE, now)?),
    ];
    for (who, token) in &strangers {
        let status = visitor.certificate(Some(token), DETAILS).err();
        let status = status.with_context(|| format!("a token {who} bought a certificate"))?;
        assert_eq!(status.code(), Code::Unauthenticated, "{who}: {status}");
        let status = visitor.subscribe(Some(token), "details-v1").err();
        let status = status.with_context(|| format!("a token {who} got configuration"))?;
        assert_eq!(status.code(), Code::Unauthenticated, "{who}: {status}");
    }
    visitor.certificate(Some(&sign(&issuer, CONTROL_PLANE_AUDIENCE, now)?), DETAILS)?;
    Ok(())
}

#[test]
fn a_token_registers_its_own_workload_and_no_other() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mesh = Plan::bookinfo()?.start()?;
    let visitor = Visitor::new(&mesh)?;
    let token = visitor.token("bookinfo-details")?;
    let status = visitor.subscribe(Some(&token), "ratings-v1").err();
    let status = status.context("details registered itself as ratings")?;
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let status = visitor.subscribe(Some(&token), "no-such-group").err();
    assert!(status.is_some(), "a group was made up");
    Ok(())
}

/// Somebody outside the mesh with a network connection and perhaps a token.
struct Visitor<'a> {
    mesh: &'a Mesh,
    address: String,
    root: String,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Visitor<'a> {
    fn new(mesh: &'a Mesh) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut visitor = Self { mesh, address: String::new(), root: String::new(), runtime };
        let answer = visitor.create_token("bookinfo-details")?;
        visitor.address = answer["address"].as_str().context("no address")?.to_owned();
        visitor.root = answer["rootCertificate"].as_str().context("no root")?.to_owned();
        Ok(visitor)
    }

    /// A token as the mesh's owner can hand it out.
    fn token(&self, account: &str) -> Result<String> {
        Ok(self.create_token(account)?["token"].as_str().context("no token")?.to_owned())
    }

    fn create_token(&self, account: &str) -> Result<serde_json::Value> {
        let arguments = ["token", "create", "--service-account", account, "-o", "json"];
        e2e::wait_until("a token", || {
            let done = self.mesh.run(&arguments)?;
            if !done.status.success() {
                bail!("{}", String::from_utf8_lossy(&done.stderr));
            }
            Ok(Some(serde_json::from_slice(&done.stdout)?))
        })
    }

    /// Asks for a certificate with this name in the request; gives the leaf in PEM.
    fn certificate(&self, token: Option<&str>, name: &str) -> Result<String, Status> {
        let csr = signing_request(name).map_err(|error| Status::internal(error.to_string()))?;
        let request = IstioCertificateRequest { csr, validity_duration: 3600, metadata: None };
        self.runtime.block_on(async {
            let mut client = IstioCertificateServiceClient::new(self.channel().await?);
            let answer = client.create_certificate(with_token(request, token)?).await?.into_inner();
            answer.cert_chain.into_iter().next().ok_or_else(|| Status::internal("an empty chain"))
        })
    }

    /// Opens a discovery stream as a member of `group` and waits for the first answer.
    fn subscribe(&self, token: Option<&str>, group: &str) -> Result<(), Status> {
        let request = DeltaDiscoveryRequest {
            node: Some(node(group)),
            type_url: CLUSTERS.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        self.runtime.block_on(async {
            let mut client = AggregatedDiscoveryServiceClient::new(self.channel().await?);
            let requests = tokio_stream::StreamExt::chain(
                tokio_stream::once(request),
                tokio_stream::pending(),
            );
            let stream = client.delta_aggregated_resources(with_token(requests, token)?).await?;
            let first = stream.into_inner().message().await?;
            first.map(drop).ok_or_else(|| Status::internal("the stream ended"))
        })
    }

    async fn channel(&self) -> Result<Channel, Status> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.root))
            .domain_name("istiod.istio-system.svc");
        let unreachable =
            |error: tonic::transport::Error| Status::unavailable(format!("{error:?}"));
        let endpoint =
            Endpoint::from_shared(format!("https://{}", self.address)).map_err(unreachable)?;
        endpoint.tls_config(tls).map_err(unreachable)?.connect().await.map_err(unreachable)
    }
}

fn with_token<T>(message: T, token: Option<&str>) -> Result<Request<T>, Status> {
    let mut request = Request::new(message);
    request.set_timeout(e2e::wait::PATIENCE);
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse();
        request
            .metadata_mut()
            .insert("authorization", value.map_err(|_| Status::internal("a token"))?);
    }
    Ok(request)
}

fn signing_request(name: &str) -> Result<String> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names.push(SanType::URI(name.try_into()?));
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

/// A sidecar's node that registers with `group`.
fn node(group: &str) -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let fields =
        [("AUTO_REGISTER_GROUP", group), ("NAMESPACE", "default"), ("INTERCEPTION_MODE", "NONE")];
    let fields = fields.map(|(name, value)| (name.to_owned(), text(value)));
    Node {
        id: "sidecar~127.64.200.200~stranger.default~default.svc.cluster.local".to_owned(),
        metadata: Some(Struct { fields: fields.into_iter().collect() }),
        ..Node::default()
    }
}

/// The token with one claim replaced, its signature kept.
fn with_claim(token: &str, claim: &str, value: &str) -> Result<String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, claims, signature] = parts[..] else { bail!("not a JWT: {token}") };
    let mut claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?;
    claims[claim] = serde_json::from_str(value)?;
    Ok(format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string())))
}

/// The token as one that says it needs no signature.
fn unsigned(token: &str) -> Result<String> {
    let claims = token.split('.').nth(1).context("not a JWT")?;
    Ok(format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#)))
}

/// The alternative names of a certificate, as openssl prints them.
fn names_of(pem: &str) -> Result<String> {
    let mut openssl = Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    openssl.stdin.take().context("no standard input")?.write_all(pem.as_bytes())?;
    Ok(String::from_utf8(openssl.wait_with_output()?.stdout)?)
}
