//! Real Envoy as a client: it accepts everything that it is sent.
//!
//! Skips with a notice where there is no Envoy (`cargo xtask` brings one for the project's other tests).

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod fixture;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::core::v3::{DataSource, data_source::Specifier};
use api::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret::Type,
};
use api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use api::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use identity::ca::CertificateAuthority;
use identity::token::TokenIssuer;
use identity::{CertificateRequest, PrivateKey, SpiffeId};
use pilot::status::ProxyStatus;
use pilot::{Options, Pilot};
use resources::store::{Store, Versioned, WriteOptions};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

/// Where the project keeps its peers.
fn envoy() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/python/lib");
    let versions = std::fs::read_dir(root).ok()?;
    versions
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.is_file())
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An agent, as far as Envoy needs one here: gives every secret that it is asked for.
struct Agent {
    certificate: String,
    key: String,
    root: String,
}

impl Agent {
    fn new() -> Agent {
        let now = std::time::SystemTime::now();
        let authority = CertificateAuthority::self_signed("test", now).expect("an authority");
        let key = PrivateKey::generate().expect("a key");
        let domain = "cluster.local".parse().expect("a trust domain");
        let id = SpiffeId::for_service_account(&domain, "default", "test").expect("an id");
        let request = CertificateRequest::of_own_key(&key).expect("a request");
        let issued = authority
            .issue_workload(&request, &id, Duration::from_secs(600), now)
            .expect("a certificate");
        Agent {
            certificate: issued.certificates.concat(),
            key: key.to_pem(),
            root: authority.root_pem().to_owned(),
        }
    }

    fn secret(&self, name: &str) -> Secret {
        let inline = |text: &str| {
            Some(DataSource {
                specifier: Some(Specifier::InlineString(text.to_owned())),
                ..Default::default()
            })
        };
        let r#type = if name == "ROOTCA" || name.starts_with("file-root:") {
            Type::ValidationContext(CertificateValidationContext {
                trusted_ca: inline(&self.root),
                ..Default::default()
            })
        } else {
            Type::TlsCertificate(TlsCertificate {
                certificate_chain: inline(&self.certificate),
                private_key: inline(&self.key),
                ..Default::default()
            })
        };
        Secret { name: name.to_owned(), r#type: Some(r#type) }
    }

    async fn serve(self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let service = SecretDiscoveryServiceServer::new(AgentService(Arc::new(self)));
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming),
        );
        port
    }
}

struct AgentService(Arc<Agent>);

type Responses<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for AgentService {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let agent = Arc::clone(&self.0);
        let answers = request.into_inner().filter_map(move |request| {
            let request = match request {
                Err(status) => return Some(Err(status)),
                // An acknowledgement.
                Ok(request) if request.resource_names_subscribe.is_empty() => return None,
                Ok(request) => request,
            };
            let resource = |name: &String| Resource {
                name: name.clone(),
                version: "1".to_owned(),
                resource: Some(api::pack_any(agent.secret(name))),
                ..Default::default()
            };
            Some(Ok(DeltaDiscoveryResponse {
                nonce: "1".to_owned(),
                resources: request.resource_names_subscribe.iter().map(resource).collect(),
                type_url: request.type_url,
                ..Default::default()
            }))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn stream_secrets(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }
}

fn spawn(binary: &PathBuf, id: &str, metadata: &str, ports: (u16, u16), base_id: u32) -> Running {
    let (xds_port, sds_port) = ports;
    let bootstrap = format!(
        r#"
node: {{id: "{id}", cluster: test, metadata: {metadata}}}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    set_node_on_first_message_only: true
    grpc_services: [{{envoy_grpc: {{cluster_name: xds-grpc}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment: &xds
      cluster_name: xds-grpc
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {xds_port}}}}}}}}}]}}]
  - name: sds-grpc
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: sds-grpc
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {sds_port}}}}}}}}}]}}]
"#
    );
    let child = Command::new(binary)
        .args([
            "--config-yaml",
            &bootstrap,
            "-l",
            "error",
            "--concurrency",
            "1",
            "--base-id",
            &base_id.to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("Envoy starts");
    Running(child)
}

async fn start(yaml: &str) -> Pilot {
    let store: Arc<dyn Store> = Arc::new(Versioned::in_memory().expect("a store"));
    for object in fixture::objects(yaml) {
        let info = resources::kinds::kind_of(&object).expect("a known kind");
        let key = resources::kinds::key_of(&object, info);
        store.create(key, object, WriteOptions::by("test")).await.expect("a write");
    }
    let issuer =
        TokenIssuer::new(PrivateKey::generate().expect("a key"), "test").expect("an issuer");
    let any = "127.0.0.1:0".parse().expect("an address");
    pilot::start(Options {
        store,
        tokens: issuer.verifier().expect("a verifier"),
        listen: any,
        plaintext_listen: Some(any),
        monitoring_listen: any,
        server_names: Vec::new(),
        workload_certificate_ttl: None,
        disconnect_grace: Duration::from_secs(1),
    })
    .await
    .expect("a control plane")
}

fn wants(status: &ProxyStatus, types: &[&str]) -> bool {
    status.synced && types.iter().all(|kind| status.types.contains_key(kind))
}

#[tokio::test]
async fn envoy_accepts_a_sidecars_and_a_gateways_configuration() {
    let Some(binary) = envoy() else {
        eprintln!("skipped: there is no Envoy below target/tools");
        return;
    };
    let more = include_str!("data/everything.yaml");
    let pilot = start(&format!("{}\n---\n{more}", include_str!("data/bookinfo.yaml"))).await;
    let port = pilot.plaintext_address().expect("a plaintext port").port();
    let sds = Agent::new().serve().await;
    let base = 700 + u32::from(port) % 1000 * 2;
    let _sidecar = spawn(
        &binary,
        "sidecar~127.64.7.1~productpage-1.default~default.svc.cluster.local",
        r#"{INTERCEPTION_MODE: NONE, LABELS: {app: productpage}, OUTRIGGER_UPSTREAMS: "mysqldb:3306, many:82, many:83, many:84", OUTRIGGER_PROXY_CREDENTIAL: "u:{SHA}2kuSN7rMzfGcB2DKt67EqDWQELA="}"#,
        (port, sds),
        base,
    );
    let _gateway = spawn(
        &binary,
        "router~127.64.7.9~gateway-1.istio-system~istio-system.svc.cluster.local",
        r#"{LABELS: {istio: ingressgateway}, OUTRIGGER_GATEWAY_ADDRESS: "127.64.7.9"}"#,
        (port, sds),
        base + 1,
    );
    let synced = async {
        loop {
            let proxies = pilot.status().proxies;
            let rejected: Vec<_> = proxies.iter().flat_map(|proxy| &proxy.rejected).collect();
            assert!(rejected.is_empty(), "{rejected:#?}");
            if proxies.len() == 2
                && proxies.iter().all(|proxy| wants(proxy, &["CDS", "EDS", "LDS", "RDS"]))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(60), synced).await;
    assert!(in_time.is_ok(), "not in sync: {:#?}", pilot.status());
    pilot.shutdown().await;
}
