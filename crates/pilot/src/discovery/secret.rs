//! SDS: credentials for gateways, by the names that their listeners and clusters ask for.

use std::collections::BTreeSet;

use resources::kinds::networking::gateway::Server;
use xds::ResourceType;

use super::origin::Translated;
use super::view::ViewKey;
use super::{Caches, Generator, nothing_of_host, nothing_of_view};
use crate::model::objects::Name;
use crate::model::{Aspect, PushContext};
use crate::networking::gateway::terminating_tls;
use crate::networking::secret::{SecretKey, secret};
use crate::proxy::{Proxy, ProxyKind};

pub(super) const GENERATOR: Generator = Generator {
    kind: ResourceType::Secret,
    aspects: Aspect::ALL,
    of_host: nothing_of_host,
    follows: &[],
    of_view: nothing_of_view,
    of_proxy,
};

/// How credentials are named.
const SCHEME: &str = "kubernetes://";
/// Ends the name of a credential's roots.
const ROOTS_SUFFIX: &str = "-cacert";

/// Secrets of the gateway's own namespace that its Gateways name. Only a gateway that the registry knows by its own
/// credential gets any: labels that a node gives itself select no Gateway for it to take keys from.
fn of_proxy(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    _: &ViewKey,
) -> Vec<Translated> {
    if proxy.kind != ProxyKind::Router || !proxy.is_registered {
        return Vec::new();
    }
    let gateways = context.gateways.selecting(&proxy.labels);
    let mut names: BTreeSet<String> = gateways
        .iter()
        .flat_map(|gateway| &gateway.view.servers)
        .flat_map(credential_names)
        .collect();
    // And those that DestinationRules name, for what the gateway calls.
    let rules = context.destination_rules.hosts();
    let usable = rules.filter(|(_, _, rules)| rules.export_to.reaches(&proxy.namespace));
    names.extend(usable.flat_map(|(_, _, rules)| rules.credential_names()).map(str::to_owned));
    let mut all = Vec::new();
    for name in names {
        all.extend(named(caches, context, proxy, &name, false));
        all.extend(named(caches, context, proxy, &name, true));
    }
    all
}

fn credential_names(server: &Server) -> Vec<String> {
    let Some(tls) = terminating_tls(server) else { return Vec::new() };
    tls.credential_names.iter().chain(&tls.ca_cert_credential_name).cloned().collect()
}

/// `name` or `name-cacert`; the roots come from a Secret of that name, or from the certificate's own.
fn named(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    name: &str,
    roots: bool,
) -> Option<Translated> {
    let find = |name: &str| context.credentials.get(&Name::new(&proxy.namespace, name));
    let resource_name =
        if roots { format!("{SCHEME}{name}{ROOTS_SUFFIX}") } else { format!("{SCHEME}{name}") };
    let credential = if roots {
        find(&format!("{name}{ROOTS_SUFFIX}")).or_else(|| find(name))
    } else {
        find(name)
    };
    let key = SecretKey { name: resource_name, roots, credential: credential?.clone() };
    caches.secrets.resource(key, |key| Some((key.name.as_str().into(), secret(key)?)))
}
