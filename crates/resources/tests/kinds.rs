//! Accept and reject tables of every kind: what is refused, where, and in which words.

#![cfg(test)]

use resources::kinds::{self, kind_of};
use resources::yaml;

/// Errors and warnings of the only object in a text, as `path: message`.
fn check(text: &str) -> (Vec<String>, Vec<String>) {
    let documents =
        yaml::load("t.yaml", text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"));
    assert_eq!(documents.len(), 1, "{text}");
    let info = kind_of(&documents[0].object).unwrap();
    let findings = (info.check)(&documents[0].object);
    let texts = |findings: Vec<resources::field::Finding>| {
        findings.iter().map(ToString::to_string).collect()
    };
    (texts(findings.errors), texts(findings.warnings))
}

fn object(api: &str, kind: &str, spec: &str) -> String {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec:\n{indented}"
    )
}

#[track_caller]
fn accepts(api: &str, kind: &str, spec: &str) {
    let (errors, _) = check(&object(api, kind, spec));
    assert_eq!(errors, Vec::<String>::new(), "{spec}");
}

#[track_caller]
fn rejects(api: &str, kind: &str, spec: &str, expected: &[&str]) {
    let (errors, _) = check(&object(api, kind, spec));
    assert_eq!(errors, expected, "{spec}");
}

#[track_caller]
fn warns(api: &str, kind: &str, spec: &str, expected: &[&str]) {
    let (errors, warnings) = check(&object(api, kind, spec));
    assert_eq!(
        (errors, warnings),
        (Vec::new(), expected.iter().map(|text| (*text).to_owned()).collect()),
        "{spec}"
    );
}

const NET: &str = "networking.istio.io/v1";

#[test]
fn virtual_services() {
    let accepts = |spec: &str| accepts(NET, "VirtualService", spec);
    let route = "{route: [{destination: {host: a}}]}";
    accepts(&format!("hosts: [a, b.ns.svc.cluster.local, 10.0.0.1]\nhttp: [{route}]"));
    accepts(&format!("hosts: ['*']\ngateways: [gw]\nhttp: [{route}]"));
    accepts("hosts: [a]\nhttp: [{redirect: {uri: /x, redirectCode: 302}}]");
    accepts(
        "hosts: [a]\nhttp: [{match: [{uri: {prefix: /a}}], redirect: {prefixRewrite: /b, derivePort: FROM_REQUEST_PORT}}]",
    );
    accepts("hosts: [a]\nhttp: [{directResponse: {status: 200, body: {string: hi}}}]");
    accepts("hosts: [a]\ngateways: [gw]\nhttp: [{delegate: {name: d}, timeout: 1s}]");
    accepts(
        "hosts: [a]\nhttp: [{match: [{headers: {x: {}, Y: {exact: z}}}], route: [{destination: {host: a}}]}]",
    );
    accepts(
        "hosts: ['*.a.com']\ntls: [{match: [{sniHosts: [x.a.com]}], route: [{destination: {host: a}}]}]",
    );
    accepts(
        "hosts: [a]\ntcp: [{match: [{port: 80}], route: [{destination: {host: a}, weight: 1}]}]",
    );
    accepts(&format!("http: [{route}]"));
}

#[test]
fn virtual_services_refused() {
    let rejects = |spec: &str, expected: &[&str]| rejects(NET, "VirtualService", spec, expected);
    let route = "{route: [{destination: {host: a}}]}";
    rejects("hosts: [a]", &["spec: one of http, tls, tcp is required"]);
    rejects(
        &format!("hosts: ['*', a]\nhttp: [{route}]"),
        &[
            "spec.hosts[0]: * is not allowed for the sidecars of the mesh: name the hosts, or a gateway in gateways",
            "spec.hosts[1]: \"a\" overlaps \"*\"",
        ],
    );
    rejects(
        "hosts: [a]\nhttp: [{rout: [{destination: {host: a}}], timeout: 5}]",
        &[
            "spec.http[0]: one of route, redirect, directResponse, delegate is required",
            "spec.http[0].timeout: expected a string, found the number 5",
            "spec.http[0].rout: unknown field, did you mean route?",
        ],
    );
    rejects(
        "hosts: [a]\nhttp: [{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}, weight: 0}]}]",
        &["spec.http[0].route: the weights add up to 0: give at least one destination a weight"],
    );
    rejects(
        "hosts: [a]\nhttp: [{route: [{destination: {host: a, port: {number: 0}}, weight: -1}]}]",
        &[
            "spec.http[0].route[0].destination.port.number: invalid value 0: must be between 1 and 65535",
            "spec.http[0].route[0].weight: invalid value -1: must be between 0 and 2147483647",
        ],
    );
    rejects(
        "hosts: [a]\nhttp: [{match: [{uri: {exact: /a, prefix: /b}}, {uri: {regex: '('}}], route: [{destination: {host: a}}]}]",
        &[
            "spec.http[0].match[0].uri: only one of exact, prefix may be set",
            "spec.http[0].match[1].uri.regex: invalid value \"(\": unclosed group at character 1",
        ],
    );
    rejects(
        "hosts: [a]\nhttp: [{redirect: {uri: /a}, fault: {abort: {httpStatus: 500}}, route: [{destination: {host: a}}]}]",
        &[
            "spec.http[0]: only one of route, redirect may be set",
            "spec.http[0].fault: cannot go with a redirect or direct response, which no upstream sees",
        ],
    );
    rejects(
        "hosts: [a]\nhttp: [{retries: {attempts: 0, retryOn: 5xx}, route: [{destination: {host: a}}]}]",
        &["spec.http[0].retries.retryOn: has no effect while attempts is 0: retries are off"],
    );
    rejects(
        "hosts: [a]\nhttp: [{retries: {attempts: 1, retryOn: '5xx,conect-failure,503'}, route: [{destination: {host: a}}]}]",
        &[concat!(
            "spec.http[0].retries.retryOn: \"conect-failure\" is no retry condition and no HTTP status, ",
            "did you mean connect-failure?"
        )],
    );
    rejects(
        "hosts: [a]\nhttp: [{timeout: 0s, route: [{destination: {host: a}}]}]",
        &["spec.http[0].timeout: must be 1ms or more"],
    );
    rejects(
        "hosts: [a]\nhttp: [{headers: {request: {set: {':path': /x}}, response: {remove: [Host]}}, route: [{destination: {host: a}}]}]",
        &[
            "spec.http[0].headers.request.set[:path]: a pseudo header other than :authority may not be changed",
            "spec.http[0].headers.response.remove[0]: invalid value \"Host\": the Host header may not be changed",
        ],
    );
    rejects(
        "hosts: [a]\ntls: [{match: [{sniHosts: [b]}], route: [{destination: {host: a}}]}]",
        &[
            "spec.tls[0].match[0].sniHosts[0]: \"b\" is covered by none of this VirtualService's hosts",
        ],
    );
}

#[test]
fn destination_rules() {
    let accepts = |spec: &str| accepts(NET, "DestinationRule", spec);
    let rejects = |spec: &str, expected: &[&str]| rejects(NET, "DestinationRule", spec, expected);
    accepts("host: a\nsubsets: [{name: v1, labels: {version: v1}}]");
    accepts(
        "host: a\ntrafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 0s}}}}",
    );
    accepts("host: '*.local'\ntrafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    accepts(
        "host: a\ntrafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE}}]}",
    );
    rejects("subsets: []", &["spec.host: required"]);
    rejects(
        "host: a\nsubsets: [{name: v1}, {name: v1}, {labels: {a: b}}]",
        &["spec.subsets[2].name: required", "spec.subsets[1]: \"v1\" is there already"],
    );
    rejects(
        "host: a\ntrafficPolicy: {loadBalancer: {simple: ROUNDROBIN, consistentHash: {useSourceIp: true}}}",
        &[
            "spec.trafficPolicy.loadBalancer: only one of simple, consistentHash may be set",
            concat!(
                "spec.trafficPolicy.loadBalancer.simple: unknown value \"ROUNDROBIN\" (did you mean ROUND_ROBIN?): must be ",
                "one of UNSPECIFIED, LEAST_CONN, RANDOM, PASSTHROUGH, ROUND_ROBIN, LEAST_REQUEST"
            ),
        ],
    );
    rejects(
        "host: a\ntrafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /c}}",
        &["spec.trafficPolicy.tls.privateKey: required for MUTUAL, or a credentialName"],
    );
    rejects(
        "host: a\ntrafficPolicy: {}",
        &[concat!(
            "spec.trafficPolicy: one of loadBalancer, connectionPool, outlierDetection, tls, portLevelSettings, tunnel, ",
            "proxyProtocol, retryBudget is required"
        )],
    );
    rejects(
        "host: a\ntrafficPolicy: {connectionPool: {http: {maxRetries: -1, http2MaxRequest: 5}}}",
        &[
            "spec.trafficPolicy.connectionPool.http.maxRetries: invalid value -1: must be between 0 and 2147483647",
            "spec.trafficPolicy.connectionPool.http.http2MaxRequest: unknown field, did you mean http2MaxRequests?",
        ],
    );
    warns(
        NET,
        "DestinationRule",
        "host: a\ntrafficPolicy: {outlierDetection: {consecutiveErrors: 5}}",
        &[concat!(
            "spec.trafficPolicy.outlierDetection.consecutiveErrors: deprecated, use consecutive5xxErrors (or ",
            "consecutiveGatewayErrors) instead"
        )],
    );
}

#[test]
fn gateways() {
    let accepts = |spec: &str| accepts(NET, "Gateway", spec);
    let rejects = |spec: &str, expected: &[&str]| rejects(NET, "Gateway", spec, expected);
    let http = "{number: 80, name: http, protocol: HTTP}";
    accepts(&format!(
        "selector: {{istio: x}}\nservers: [{{port: {http}, hosts: [a.com, './b.com', '*/c.com']}}]"
    ));
    accepts(
        "servers: [{port: {number: 443, name: s, protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: c}, hosts: ['*']}]",
    );
    accepts(&format!("servers: [{{port: {http}, tls: {{httpsRedirect: true}}, hosts: ['*']}}]"));
    rejects("selector: {a: b}", &["spec.servers: at least one server is required"]);
    rejects(
        "servers: [{port: {number: 443, name: s, protocol: HTTPS}, hosts: ['*']}]",
        &["spec.servers[0].tls: required for a port that speaks HTTPS"],
    );
    rejects(
        &format!(
            "servers: [{{port: {http}, tls: {{mode: SIMPLE, credentialName: c}}, hosts: ['*']}}, {{port: {http}, hosts: []}}]"
        ),
        &[
            "spec.servers[0].tls: a port that speaks HTTP has no TLS, but for httpsRedirect",
            "spec.servers[1].hosts: at least one host is required",
            "spec.servers[1]: port name \"http\" is there already",
        ],
    );
    rejects(
        "servers: [{port: {number: 80, name: h, protocol: HTPP}, hosts: ['a/b/c']}]",
        &[
            concat!(
                "spec.servers[0].port.protocol: unknown value \"HTPP\": must be one of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, ",
                "TCP, TLS, MONGO, REDIS, MYSQL, HTTP_PROXY"
            ),
            "spec.servers[0].hosts[0]: invalid value \"a/b/c\": \"b/c\" is no valid part of a host name",
        ],
    );
    rejects(
        "servers: [{port: {number: 443, name: s, protocol: HTTPS}, tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k}, hosts: ['*']}]",
        &["spec.servers[0].tls.caCertificates: required to check clients, or a credentialName"],
    );
}

#[test]
fn sidecars_and_workloads() {
    accepts(NET, "Sidecar", "egress: [{hosts: ['./*', 'istio-system/*', '~/*']}]");
    accepts(
        NET,
        "Sidecar",
        concat!(
            "workloadSelector: {labels: {app: a}}\n",
            "ingress: [{port: {number: 9080, protocol: HTTP, name: h}, bind: 127.64.0.1, defaultEndpoint: '127.0.0.1:41000'}]\n",
            "egress: [{port: {number: 15007, protocol: HTTP_PROXY, name: p}, bind: 127.64.0.1, hosts: ['*/*']}]",
        ),
    );
    rejects(
        NET,
        "Sidecar",
        "egress: [{hosts: [a]}, {port: {number: 80}, hosts: ['*/*']}]",
        &[
            "spec.egress[0].hosts[0]: invalid value \"a\": must be <namespace>/<host>, with ., * or ~ for the namespace",
            "spec.egress[0]: only the last listener may be without a port",
        ],
    );
    rejects(
        NET,
        "Sidecar",
        "ingress: [{port: {number: 80, protocol: HTTP, name: h}, defaultEndpoint: '10.0.0.1:80'}]",
        &[concat!(
            "spec.ingress[0].defaultEndpoint: invalid value \"10.0.0.1:80\": must be 127.0.0.1:<port>, 0.0.0.0:<port>, ",
            "[::1]:<port>, [::]:<port> or unix://<path>"
        )],
    );
    accepts(
        NET,
        "WorkloadEntry",
        "address: 127.64.0.1\nports: {http: 8080}\nlabels: {app: a}\nserviceAccount: s",
    );
    rejects(
        NET,
        "WorkloadEntry",
        "ports: {http: 0}",
        &[
            "spec.ports[http]: expected a port between 1 and 65535, found the number 0",
            "spec.address: required",
        ],
    );
    accepts(NET, "WorkloadGroup", "template: {serviceAccount: a}\nprobe: {httpGet: {port: 80}}");
    rejects(
        NET,
        "WorkloadGroup",
        "probe: {httpGet: {port: 80}, exec: {command: [x]}}",
        &["spec.template: required", "spec.probe: only one of httpGet, exec may be set"],
    );
}

#[test]
fn peer_authentications() {
    let api = "security.istio.io/v1";
    accepts(api, "PeerAuthentication", "mtls: {mode: STRICT}");
    accepts(
        api,
        "PeerAuthentication",
        "selector: {matchLabels: {app: a}}\nportLevelMtls: {8080: {mode: DISABLE}}",
    );
    rejects(
        api,
        "PeerAuthentication",
        "mtls: {mode: STRICKT}\nportLevelMtls: {x: {mode: STRICT}}",
        &[
            "spec.portLevelMtls[x]: must be a port between 1 and 65535",
            "spec.portLevelMtls: needs a selector: ports are of workloads, not of namespaces or meshes",
            "spec.portLevelMtls: at least one port is required",
            concat!(
                "spec.mtls.mode: unknown value \"STRICKT\" (did you mean STRICT?): must be one of UNSET, DISABLE, ",
                "PERMISSIVE, STRICT"
            ),
        ],
    );
    let bare =
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\n";
    assert_eq!(check(bare).0, Vec::<String>::new());
}

#[test]
fn core_kinds() {
    accepts(
        "v1",
        "Service",
        "selector: {app: a}\nports: [{port: 80, targetPort: http, name: http}]",
    );
    rejects(
        "v1",
        "Service",
        "ports: [{port: 80}, {port: 80, name: b}]",
        &[
            "spec.ports[0]: a name is required where there is more than one port",
            "spec.ports[1]: port 80 is there already",
        ],
    );
    rejects("v1", "Service", "type: ExternalName", &["spec.externalName: required"]);
    rejects(
        "apps/v1",
        "Deployment",
        concat!(
            "selector: {matchLabels: {app: a}}\n",
            "template: {metadata: {labels: {app: b}}, spec: {container: []}}",
        ),
        &[
            "spec.template.spec.containers: at least one container is required",
            "spec.template.spec.container: unknown field, did you mean containers?",
            "spec.selector: the template's labels have no app: a",
        ],
    );
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: Bad_Name}\ntype: kubernetes.io/tls\ndata: {tls.crt: '!'}\n";
    let (errors, _) = check(secret);
    assert_eq!(errors.len(), 4, "{errors:?}");
}

#[test]
fn kinds_that_are_not_there_are_refused_by_name() {
    let refuse = |api: &str, kind: &str| kinds::kind_named(api, kind).unwrap_err().to_string();
    assert_eq!(
        refuse("gateway.networking.k8s.io/v1", "HTTPRoute"),
        "no kind HTTPRoute in gateway.networking.k8s.io is supported"
    );
    assert_eq!(
        refuse("networking.istio.io/v1", "VirtualServce"),
        "no kind VirtualServce in networking.istio.io is supported, did you mean VirtualService?"
    );
    assert_eq!(
        refuse("extensions/v1beta1", "Deployment"),
        "no kind Deployment in extensions is supported, did you mean apiVersion apps/v1?"
    );
    assert_eq!(
        refuse("networking.istio.io/v2", "Gateway"),
        concat!(
            "apiVersion networking.istio.io/v2 of Gateway is not served: use networking.istio.io/v1, ",
            "networking.istio.io/v1beta1, networking.istio.io/v1alpha3"
        )
    );
}

/// Every real file: what is understood is accepted, what is not is refused by name.
#[test]
fn real_files() {
    let inputs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/inputs");
    let mut files = Vec::new();
    for folder in [
        "seeds",
        "istio/bookinfo/networking",
        "istio/bookinfo/platform",
        "istio/bookinfo/gateway-api",
    ] {
        let Ok(entries) = std::fs::read_dir(inputs.join(folder)) else {
            eprintln!("skipped: no {folder} beside the repository");
            return;
        };
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let (mut accepted, mut refused) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for document in yaml::load(&file.display().to_string(), &text).unwrap() {
            match kind_of(&document.object) {
                Ok(info) => {
                    let findings = (info.check)(&document.object);
                    assert_eq!(findings.errors, [], "{}", file.display());
                    accepted += 1;
                }
                Err(error) => refused.push(error.to_string()),
            }
        }
    }
    refused.sort();
    refused.dedup();
    assert!(accepted > 60, "{accepted}");
    let known = ["AuthorizationPolicy", "Gateway", "HTTPRoute", "ServiceEntry", "Telemetry"];
    for refusal in &refused {
        assert!(
            known.iter().any(|kind| refusal.contains(&format!("no kind {kind} "))),
            "{refusal}"
        );
    }
}
