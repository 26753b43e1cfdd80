//! The names of everything this control plane emits. They are Istio's, exactly: patches, dashboards and people know them.

use std::sync::Arc;

/// The cluster that answers nothing: no endpoints.
pub const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
/// The virtual host of last resort when only registered hosts may be called.
pub const BLOCK_ALL: &str = "block_all";
/// The virtual host of a gateway port that no VirtualService claims.
pub const BLACKHOLE_VIRTUAL_HOST: &str = "blackhole";
/// The route name of a route that no VirtualService made.
pub const DEFAULT_ROUTE: &str = "default";
/// The route name of a route that relays what a CONNECT request carries.
pub const TUNNEL_ROUTE: &str = "tunnel";
/// The secret that holds the workload's own certificate and key.
pub const SDS_DEFAULT_CERTIFICATE: &str = "default";
/// The secret that holds the mesh's roots.
pub const SDS_ROOT: &str = "ROOTCA";

/// `outbound|80|v1|reviews.default.svc.cluster.local`.
pub fn outbound_cluster(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `outbound_.80_.v1_.reviews.default.svc.cluster.local`: the SNI of mesh TLS for that cluster.
pub fn outbound_sni(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|8080||`.
pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

/// `inbound|http|8080`: the one virtual host of an inbound port.
pub fn inbound_virtual_host(port: u16) -> String {
    format!("inbound|http|{port}")
}

/// `0.0.0.0_8080`: a listener by what it is bound to in Istio's terms.
pub fn listener(bind: &str, port: u16) -> String {
    format!("{bind}_{port}")
}

/// `http.8080`: the route configuration that all plain HTTP servers of a gateway port share.
pub fn gateway_http_route(port: u16) -> String {
    format!("http.{port}")
}

/// `https.8443.https.bookinfo-gateway.default`: the route configuration of one TLS-terminating server.
pub fn gateway_https_route(port: u16, port_name: &str, gateway: &str, namespace: &str) -> String {
    format!("https.{port}.{port_name}.{gateway}.{namespace}")
}

/// `reviews.default.svc.cluster.local:9080`: a virtual host.
pub fn virtual_host(host: &str, port: u16) -> String {
    format!("{host}:{port}")
}

/// `80/reviews.default.svc.cluster.local:80`: a virtual host that is a resource of its own.
pub fn virtual_host_resource(route_configuration: &str, virtual_host: &str) -> Arc<str> {
    format!("{route_configuration}/{virtual_host}").into()
}

/// `spiffe://cluster.local/ns/default/sa/bookinfo-reviews`.
pub fn spiffe_id(trust_domain: &str, namespace: &str, service_account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
}

/// `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`: how a route or cluster names the object
/// that made it.
pub fn config_path(kind: &str, namespace: &str, name: &str) -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

/// Every name by which a client in `client_namespace` may call the Kubernetes service host `host`: the whole name, and
/// each shorter form that resolves there (`reviews`, `reviews.default`, `reviews.default.svc`).
pub fn host_aliases(host: &str, client_namespace: &str, domain_suffix: &str) -> Vec<String> {
    let mut aliases = vec![host.to_owned()];
    let Some(short) = host.strip_suffix(domain_suffix).and_then(|h| h.strip_suffix(".svc.")) else {
        return aliases;
    };
    let Some((name, namespace)) = short.rsplit_once('.') else { return aliases };
    if namespace == client_namespace {
        aliases.push(name.to_owned());
    }
    aliases.push(format!("{name}.{namespace}"));
    aliases.push(format!("{name}.{namespace}.svc"));
    aliases
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_istios() {
        let host = "reviews.default.svc.cluster.local";
        assert_eq!(
            outbound_cluster(80, "v1", host),
            "outbound|80|v1|reviews.default.svc.cluster.local"
        );
        assert_eq!(outbound_sni(80, "", host), "outbound_.80_._.reviews.default.svc.cluster.local");
        assert_eq!(inbound_cluster(8080), "inbound|8080||");
        assert_eq!(gateway_https_route(443, "https", "gw", "ns"), "https.443.https.gw.ns");
    }

    #[test]
    fn short_names_are_relative_to_the_client() {
        let host = "reviews.default.svc.cluster.local";
        assert_eq!(
            host_aliases(host, "default", "cluster.local"),
            [host, "reviews", "reviews.default", "reviews.default.svc"]
        );
        assert_eq!(
            host_aliases(host, "other", "cluster.local"),
            [host, "reviews.default", "reviews.default.svc"]
        );
        assert_eq!(host_aliases("httpbin.org", "default", "cluster.local"), ["httpbin.org"]);
    }
}
