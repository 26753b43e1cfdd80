//! SDS: credentials for gateways, by the names that their listeners and clusters ask for.

use std::collections::{BTreeMap, BTreeSet};

use resources::field::{FieldPath, Finding, Reason};
use resources::kinds::networking::gateway::{Gateway, Server};
use xds::ResourceType;

use super::origin::Translated;
use super::view::ViewKey;
use super::{Caches, Generator, nothing_of_host, nothing_of_view};
use crate::model::credential::Credential;
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
    let mut names: BTreeMap<String, BTreeSet<Name>> = BTreeMap::new();
    for gateway in &gateways {
        for name in gateway.view.servers.iter().flat_map(credential_names) {
            let by = Name::new(&gateway.namespace, &gateway.name);
            names.entry(name).or_default().insert(by);
        }
    }
    // And those that DestinationRules name, for what the gateway calls.
    let rules = context.destination_rules.hosts();
    let usable = rules.filter(|(_, _, rules)| rules.export_to.reaches(&proxy.namespace));
    for name in usable.flat_map(|(_, _, rules)| rules.credential_names()) {
        names.entry(name.to_owned()).or_default();
    }
    let mut all = Vec::new();
    for (name, gateways) in &names {
        all.extend(named(caches, context, proxy, name, gateways, false));
        all.extend(named(caches, context, proxy, name, gateways, true));
    }
    all
}

/// What a Gateway's servers ask of the namespace of this gateway and is not there: until it is, they are not served.
pub fn absent(context: &PushContext, proxy: &Proxy, gateway: &Gateway) -> Vec<Finding> {
    let mut found = Vec::new();
    if proxy.kind != ProxyKind::Router || !proxy.is_registered {
        return found;
    }
    for (index, server) in gateway.servers.iter().enumerate() {
        let Some(tls) = terminating_tls(server) else { continue };
        for name in &tls.credential_names {
            let credential = context.credentials.get(&Name::new(&proxy.namespace, name));
            let is_whole =
                |it: &Credential| !it.certificate.is_empty() && !it.private_key.is_empty();
            if credential.is_some_and(|credential| is_whole(credential)) {
                continue;
            }
            let path = FieldPath::of("spec").field("servers").index(index);
            let message = format!(
                "there is no Secret {}/{name} with a certificate and a key; until there is, this server is not in effect",
                proxy.namespace
            );
            let path = path.field("tls").field("credentialName");
            found.push(Finding { path, reason: Reason::Invalid, message });
        }
    }
    found
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
    gateways: &BTreeSet<Name>,
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
    let gateways = gateways.iter().cloned().collect();
    let key = SecretKey { name: resource_name, roots, credential: credential?.clone(), gateways };
    caches.secrets.resource(key, |key| Some((key.name.as_str().into(), secret(key)?)))
}
