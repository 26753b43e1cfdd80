//! VirtualService: how requests for a host are routed.

mod http;
mod http_policy;
mod l4;

pub use http::{
    HeaderOperations, Headers, HttpAction, HttpDirectResponse, HttpMatch, HttpRedirect, HttpRoute,
    HttpRouteDestination, RedirectPath, RedirectPort, ResponseBody,
};
pub use http_policy::{
    Abort, AbortStatus, CorsPolicy, Delay, Fault, HttpRewrite, Mirror, PathRewrite, Retries,
    UnmatchedPreflights,
};
pub use l4::{L4Match, RouteDestination, TcpRoute, TlsMatch, TlsRoute};

use super::{GROUP, VERSIONS};
use crate::field::{Fields, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;
use crate::terms::export::ExportTo;
use crate::terms::gateway_ref::GatewayRef;

/// How requests for some hosts are routed.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualService {
    /// Hosts it is for, as written: short names are relative to its namespace. Empty for a delegate.
    pub hosts: Vec<String>,
    /// Gateways it is for; `[Mesh]` if none was written.
    pub gateways: Vec<GatewayRef>,
    /// HTTP routes, first match wins.
    pub http: Vec<HttpRoute>,
    /// Routes of TLS connections that are passed through, first match wins.
    pub tls: Vec<TlsRoute>,
    /// Routes of TCP connections, first match wins.
    pub tcp: Vec<TcpRoute>,
    /// Namespaces that may use it.
    pub export_to: ExportTo,
}

impl Kind for VirtualService {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of(GROUP, "virtualservices"),
        kind: "VirtualService",
        short_names: &["vs"],
        versions: VERSIONS,
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, meta: &Meta) -> Self {
        let read = fields.required_object("spec", |spec| read_spec(spec, &meta.namespace));
        read.unwrap_or_else(|| Self {
            hosts: Vec::new(),
            gateways: Vec::new(),
            http: Vec::new(),
            tls: Vec::new(),
            tcp: Vec::new(),
            export_to: ExportTo::Default,
        })
    }
}

fn read_spec(spec: &mut Fields<'_>, namespace: &str) -> VirtualService {
    let hosts = spec.texts_with("hosts", rules::host::host_or_address);
    let is_delegate = !spec.has("hosts");
    let mut gateways = GatewayRef::read_list(spec, "gateways", namespace);
    if !spec.has("gateways") && !is_delegate {
        gateways.push(GatewayRef::Mesh);
    }
    check_hosts(spec, &hosts, &gateways);
    if spec.count(&["http", "tls", "tcp"]) == 0 {
        spec.error(Reason::Required, "one of http, tls, tcp is required");
    }
    if is_delegate {
        for field in ["gateways", "tls", "tcp"] {
            if spec.has(field) {
                spec.error_in(
                    field,
                    Reason::Forbidden,
                    "a VirtualService without hosts is a delegate and has only http",
                );
            }
        }
    }
    VirtualService {
        http: spec.list("http", |route| HttpRoute::read(route, namespace, is_delegate)),
        tls: spec.list("tls", |route| TlsRoute::read(route, namespace, &hosts)),
        tcp: spec.list("tcp", |route| TcpRoute::read(route, namespace)),
        export_to: ExportTo::read(spec, namespace),
        hosts,
        gateways,
    }
}

fn check_hosts(spec: &Fields<'_>, hosts: &[String], gateways: &[GatewayRef]) {
    let mesh_only = gateways.iter().all(|gateway| *gateway == GatewayRef::Mesh);
    for (index, host) in hosts.iter().enumerate() {
        if host == "*" && mesh_only {
            let message = "* is not allowed for the sidecars of the mesh: name the hosts, or a gateway in gateways";
            spec.error_at("hosts", index, Reason::Invalid, message);
        }
        let earlier = hosts[..index].iter().find(|earlier| {
            rules::host::covers(earlier, host) || rules::host::covers(host, earlier)
        });
        if let Some(earlier) = earlier {
            spec.error_at(
                "hosts",
                index,
                Reason::Duplicate,
                format!("{host:?} overlaps {earlier:?}"),
            );
        }
    }
}
