//! Gateway: what a gateway workload listens on.

use std::collections::BTreeMap;

use super::{GROUP, VERSIONS};
use crate::field::{Fields, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;
use crate::terms::port::ListenPort;
use crate::terms::server_tls::ServerTls;

/// What a gateway workload listens on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gateway {
    /// Labels of the gateway workloads.
    pub selector: BTreeMap<String, String>,
    /// Ports and hosts.
    pub servers: Vec<Server>,
}

/// One port and the hosts that are served on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Name, for status.
    pub name: Option<String>,
    /// Port of the gateway's Service.
    pub port: ListenPort,
    /// Address to listen on; every one where nothing was said.
    pub bind: Option<String>,
    /// Hosts that are exposed.
    pub hosts: Vec<ServerHost>,
    /// TLS.
    pub tls: Option<ServerTls>,
}

/// A host that a server exposes, and the namespaces whose routes may serve it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerHost {
    /// Namespaces whose routes may bind.
    pub namespaces: HostNamespaces,
    /// Host, wildcards allowed.
    pub host: String,
}

/// Namespaces whose routes may bind to a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostNamespaces {
    /// Any (`*/host`, or nothing written).
    Any,
    /// This one (`namespace/host`; `./host` is the gateway's own).
    One(String),
}

impl Kind for Gateway {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of(GROUP, "gateways"),
        kind: "Gateway",
        short_names: &["gw"],
        versions: VERSIONS,
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, meta: &Meta) -> Self {
        let read = fields.required_object("spec", |spec| {
            let selector = rules::label::read_labels(spec, "selector");
            let servers = spec.list("servers", |server| Server::read(server, &meta.namespace));
            if servers.is_empty() {
                spec.error_in("servers", Reason::Required, "at least one server is required");
            }
            for (index, server) in servers.iter().enumerate() {
                let taken =
                    servers[..index].iter().any(|earlier| earlier.port.name == server.port.name);
                if taken && !server.port.name.is_empty() {
                    let message = format!("port name {:?} is there already", server.port.name);
                    spec.error_at("servers", index, Reason::Duplicate, message);
                }
            }
            Self { selector, servers }
        });
        read.unwrap_or_default()
    }
}

impl Server {
    fn read(fields: &mut Fields<'_>, namespace: &str) -> Self {
        let bind = fields.optional_text("bind").filter(|bind| !bind.is_empty());
        let unix = bind.as_deref().is_some_and(|bind| bind.starts_with("unix://"));
        let port = fields.required_object("port", |fields| ListenPort::read(fields, unix));
        let port = port.unwrap_or(ListenPort {
            number: 0,
            protocol: crate::terms::port::Protocol::Unspecified,
            name: String::new(),
        });
        if unix && port.number != 0 {
            fields.error_in("port", Reason::Invalid, "number must be 0 for a unix socket");
        }
        if let Some(bind) = &bind
            && !unix
        {
            fields.check("bind", bind, rules::host::address);
        }
        if fields.raw("defaultEndpoint").is_some() {
            fields.warn_in("defaultEndpoint", "has no effect, as in Istio");
        }
        let tls = fields.object("tls", ServerTls::read);
        check_tls(fields, &port, tls.as_ref());
        Self {
            name: fields.optional_text("name"),
            port,
            bind,
            hosts: read_hosts(fields, namespace),
            tls,
        }
    }
}

fn check_tls(fields: &Fields<'_>, port: &ListenPort, tls: Option<&ServerTls>) {
    match tls {
        None if port.protocol.is_tls() => {
            fields.error_in(
                "tls",
                Reason::Required,
                format!("required for a port that speaks {}", port.protocol.name()),
            );
        }
        Some(tls) if !port.protocol.is_tls() => {
            if port.protocol.is_http() && tls.is_only_redirect() {
                return;
            }
            let message = format!(
                "a port that speaks {} has no TLS, but for httpsRedirect",
                port.protocol.name()
            );
            fields.error_in("tls", Reason::Forbidden, message);
        }
        Some(tls) if tls.https_redirect => {
            fields.warn_in("tls", "httpsRedirect has no effect on a port that speaks TLS");
        }
        _ => {}
    }
}

fn read_hosts(fields: &mut Fields<'_>, own: &str) -> Vec<ServerHost> {
    let mut hosts = Vec::new();
    let written = fields.texts("hosts");
    if !fields.has("hosts")
        || (written.is_empty()
            && fields.raw("hosts").is_some_and(|hosts| hosts.as_array().is_some_and(Vec::is_empty)))
    {
        fields.error_in("hosts", Reason::Required, "at least one host is required");
    }
    for (index, text) in written.iter().enumerate() {
        let (namespaces, host) = match text.split_once('/') {
            None => (HostNamespaces::Any, text.as_str()),
            Some(("*", host)) => (HostNamespaces::Any, host),
            Some((".", host)) => (HostNamespaces::One(own.to_owned()), host),
            Some((namespace, host)) => (HostNamespaces::One(namespace.to_owned()), host),
        };
        let namespace_ok = match &namespaces {
            HostNamespaces::One(namespace) if !namespace.is_empty() => {
                rules::name::dns_label(namespace)
            }
            HostNamespaces::One(_) | HostNamespaces::Any => Ok(()),
        };
        match namespace_ok.and_then(|()| rules::host::host_or_address(host)) {
            Ok(()) => hosts.push(ServerHost { namespaces, host: host.to_owned() }),
            Err(error) => fields.error_at(
                "hosts",
                index,
                Reason::Invalid,
                format!("invalid value {text:?}: {error}"),
            ),
        }
    }
    hosts
}
