//! Delegation: the routes of a VirtualService without hosts, put in the place of the route that names it.
//!
//! A delegate narrows what its root gave it: every one of its matches must lie within a match of the root's route, and
//! what it does not say of its own it takes from there. Short host names stay relative to the delegate's namespace. One
//! level deep, as in Istio: a delegate's own `delegate` leads nowhere.

use std::collections::BTreeMap;

use resources::field::{FieldPath, Finding, Reason};
use resources::kinds::Parsed;
use resources::kinds::networking::virtual_service::{
    Headers, HttpAction, HttpMatch, HttpRoute, VirtualService,
};
use resources::terms::destination::Destination;
use resources::terms::string_match::{StringMatch, ValueMatch};

use super::export::ExportTo;
use super::hostname;
use super::mesh::MeshConfig;
use super::objects::{Name, Table};

/// A root's routes with its delegates' in place.
#[derive(Debug, Default)]
pub struct Merged {
    /// The routes.
    pub http: Vec<HttpRoute>,
    /// The delegates that are named, there or not.
    pub delegates: Vec<Name>,
    /// What leads nowhere.
    pub findings: Vec<Finding>,
}

/// Whether a VirtualService is there for others to delegate to.
pub fn is_delegate(view: &VirtualService) -> bool {
    view.hosts.is_empty()
}

/// Puts the routes of the delegates that `root` names into their places.
pub fn merge(
    root: &Parsed<VirtualService>,
    objects: &Table<VirtualService>,
    mesh: &MeshConfig,
) -> Merged {
    let mut merged = Merged::default();
    for (index, route) in root.view.http.iter().enumerate() {
        let HttpAction::Delegate { namespace, name } = &route.action else {
            merged.http.push(route.clone());
            continue;
        };
        let name = Name::new(namespace, name);
        match find(&name, &root.meta.namespace, objects, mesh) {
            Ok(delegate) => {
                let all = &delegate.view.http;
                let routes: Vec<HttpRoute> =
                    all.iter().filter_map(|own| narrow(route, own, &name, mesh)).collect();
                if routes.len() < all.len() {
                    let left_out = all.len() - routes.len();
                    let message = format!(
                        "{left_out} of the {} routes of {name} do not lie within this route's matches, or delegate \
                         again: they are left out",
                        all.len()
                    );
                    merged.findings.push(finding(index, message));
                }
                merged.http.extend(routes);
            }
            Err(problem) => merged.findings.push(finding(index, problem)),
        }
        merged.delegates.push(name);
    }
    merged
}

fn find<'a>(
    name: &Name,
    root_namespace: &str,
    objects: &'a Table<VirtualService>,
    mesh: &MeshConfig,
) -> Result<&'a Parsed<VirtualService>, String> {
    let Some(found) = objects.get(name) else {
        return Err(format!("there is no VirtualService {name}: the route is left out"));
    };
    if !is_delegate(&found.view) {
        return Err(format!("{name} has hosts, so it is no delegate: the route is left out"));
    }
    let export =
        ExportTo::of(&found.view.export_to, &found.meta.namespace, &mesh.virtual_service_export);
    if !export.reaches(root_namespace) {
        return Err(format!("{name} is not exported to {root_namespace}: the route is left out"));
    }
    Ok(found)
}

fn finding(index: usize, message: String) -> Finding {
    let path = FieldPath::of("spec").field("http").index(index).field("delegate");
    Finding { path, reason: Reason::Invalid, message }
}

/// A delegate's route within the root's; `None` if none of it lies there.
fn narrow(root: &HttpRoute, own: &HttpRoute, name: &Name, mesh: &MeshConfig) -> Option<HttpRoute> {
    if matches!(own.action, HttpAction::Delegate { .. }) {
        return None;
    }
    let mut route = own.clone();
    route.matches = narrow_all(&root.matches, &own.matches)?;
    route.name = joined(root.name.as_ref(), own.name.as_ref());
    route.rewrite = route.rewrite.or_else(|| root.rewrite.clone());
    route.timeout = route.timeout.or(root.timeout);
    route.retries = route.retries.or_else(|| root.retries.clone());
    route.fault = route.fault.or_else(|| root.fault.clone());
    route.cors_policy = route.cors_policy.or_else(|| root.cors_policy.clone());
    if route.mirrors.is_empty() {
        route.mirrors.clone_from(&root.mirrors);
    }
    if route.headers == Headers::default() {
        route.headers = root.headers.clone();
    }
    resolve_hosts(&mut route, &name.namespace, mesh);
    Some(route)
}

/// Short names of a delegate's destinations are of its own namespace, whoever uses it.
fn resolve_hosts(route: &mut HttpRoute, namespace: &str, mesh: &MeshConfig) {
    let resolve = |to: &mut Destination| {
        to.host = hostname::resolve(&to.host, namespace, &mesh.domain_suffix);
    };
    if let HttpAction::Route(destinations) = &mut route.action {
        destinations.iter_mut().for_each(|to| resolve(&mut to.destination));
    }
    route.mirrors.iter_mut().for_each(|mirror| resolve(&mut mirror.destination));
}

fn joined(root: Option<&String>, own: Option<&String>) -> Option<String> {
    match (root, own) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (root, own) => own.or(root).cloned(),
    }
}

/// Every pair of matches of which one lies within the other. `None` if a delegate's match lies within no root's: its
/// route would hold for requests that it was not meant for.
fn narrow_all(root: &[HttpMatch], own: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() || own.is_empty() {
        return Some(if own.is_empty() { root } else { own }.to_vec());
    }
    let mut all = Vec::new();
    for narrower in own {
        let before = all.len();
        all.extend(
            root.iter().filter(|wider| lies_within(wider, narrower)).map(|w| both(w, narrower)),
        );
        if all.len() == before {
            return None;
        }
    }
    Some(all)
}

/// Whether what a delegate's match says contradicts nothing of a root's.
fn lies_within(wider: &HttpMatch, narrower: &HttpMatch) -> bool {
    let texts = [
        (&wider.uri, &narrower.uri),
        (&wider.scheme, &narrower.scheme),
        (&wider.method, &narrower.method),
        (&wider.authority, &narrower.authority),
    ];
    let values = [
        (&wider.headers, &narrower.headers),
        (&wider.without_headers, &narrower.without_headers),
        (&wider.query_params, &narrower.query_params),
    ];
    let labels = narrower.source_labels.iter();
    texts.into_iter().all(|(wider, narrower)| text_within(wider.as_ref(), narrower.as_ref()))
        && values.into_iter().all(|(wider, narrower)| values_within(wider, narrower))
        && wider.ignore_uri_case == narrower.ignore_uri_case
        && agree(wider.port, narrower.port)
        && wider
            .source_namespace
            .as_ref()
            .is_none_or(|wanted| narrower.source_namespace.as_ref().is_none_or(|own| own == wanted))
        && labels.clone().all(|(key, own)| wider.source_labels.get(key).is_none_or(|v| v == own))
        && (wider.gateways.is_empty()
            || narrower.gateways.iter().all(|gateway| wider.gateways.contains(gateway)))
}

fn agree<T: PartialEq>(wider: Option<T>, narrower: Option<T>) -> bool {
    match (wider, narrower) {
        (Some(wider), Some(narrower)) => wider == narrower,
        _ => true,
    }
}

fn values_within(
    wider: &BTreeMap<String, ValueMatch>,
    narrower: &BTreeMap<String, ValueMatch>,
) -> bool {
    narrower.iter().all(|(key, own)| match (wider.get(key), own) {
        (None | Some(ValueMatch::Present), _) => true,
        (Some(ValueMatch::Matches(_)), ValueMatch::Present) => false,
        (Some(ValueMatch::Matches(wider)), ValueMatch::Matches(own)) => {
            text_within(Some(wider), Some(own))
        }
    })
}

/// Expressions are compared with nothing: whether one lies within another cannot be told.
fn text_within(wider: Option<&StringMatch>, narrower: Option<&StringMatch>) -> bool {
    let (Some(wider), Some(narrower)) = (wider, narrower) else { return true };
    match (wider, narrower) {
        (StringMatch::Exact(wider), StringMatch::Exact(narrower)) => wider == narrower,
        (
            StringMatch::Prefix(wider),
            StringMatch::Exact(narrower) | StringMatch::Prefix(narrower),
        ) => narrower.starts_with(wider.as_str()),
        (StringMatch::Exact(_), StringMatch::Prefix(_))
        | (StringMatch::Regex(_), _)
        | (_, StringMatch::Regex(_)) => false,
    }
}

/// A match that holds where both do.
fn both(wider: &HttpMatch, narrower: &HttpMatch) -> HttpMatch {
    let either = |own: &Option<StringMatch>, root: &Option<StringMatch>| {
        own.clone().or_else(|| root.clone())
    };
    let joined_maps = |root: &BTreeMap<String, ValueMatch>, own: &BTreeMap<String, ValueMatch>| {
        root.iter().chain(own).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let labels = wider.source_labels.iter().chain(&narrower.source_labels);
    let gateways = if narrower.gateways.is_empty() { wider } else { narrower };
    HttpMatch {
        name: joined(wider.name.as_ref(), narrower.name.as_ref()),
        uri: either(&narrower.uri, &wider.uri),
        scheme: either(&narrower.scheme, &wider.scheme),
        method: either(&narrower.method, &wider.method),
        authority: either(&narrower.authority, &wider.authority),
        headers: joined_maps(&wider.headers, &narrower.headers),
        without_headers: joined_maps(&wider.without_headers, &narrower.without_headers),
        query_params: joined_maps(&wider.query_params, &narrower.query_params),
        port: narrower.port.or(wider.port),
        source_labels: labels.map(|(key, value)| (key.clone(), value.clone())).collect(),
        source_namespace: narrower
            .source_namespace
            .clone()
            .or_else(|| wider.source_namespace.clone()),
        gateways: gateways.gateways.clone(),
        ignore_uri_case: narrower.ignore_uri_case,
        stat_prefix: narrower.stat_prefix.clone().or_else(|| wider.stat_prefix.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::{ChangeSet, Objects};

    /// The merged routes of `root`, as `uri -> host` each, and the findings.
    fn merged(delegate: &str, root_matches: &str) -> (Vec<String>, Vec<String>) {
        let yaml = format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: root, namespace: a}}, spec: {{hosts: [shop.test], http: [{{name: outer, match: {root_matches}, timeout: 3s, delegate: {{name: inner, namespace: b}}}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: inner, namespace: b}}, spec: {delegate}}}"
        );
        let mut changes = ChangeSet::default();
        for document in resources::yaml::load("test.yaml", &yaml).expect("well-formed") {
            changes.upsert(&document.object).expect("valid");
        }
        let mut objects = Objects::default();
        objects.apply(&changes);
        let root = &objects.virtual_services[&Name::new("a", "root")];
        let merged = merge(root, &objects.virtual_services, &MeshConfig::default());
        let describe = |route: &HttpRoute| {
            let host = match &route.action {
                HttpAction::Route(to) => to[0].destination.host.clone(),
                other => format!("{other:?}"),
            };
            let uris: Vec<String> = route.matches.iter().map(|m| format!("{:?}", m.uri)).collect();
            let (name, timeout) = (route.name.as_deref(), route.timeout.map(|t| t.as_secs()));
            format!("{} {timeout:?} {} -> {host}", name.unwrap_or("-"), uris.join("|"))
        };
        (
            merged.http.iter().map(describe).collect(),
            merged.findings.iter().map(|finding| finding.to_string()).collect(),
        )
    }

    #[test]
    fn a_delegate_narrows_its_root_and_inherits_from_it() {
        let (routes, findings) = merged(
            "{http: [{match: [{uri: {exact: /shop/cart}}], route: [{destination: {host: cart}}]}, {name: rest, timeout: 9s, route: [{destination: {host: web.c.svc.cluster.local}}]}]}",
            "[{uri: {prefix: /shop}}]",
        );
        assert_eq!(
            routes,
            [
                "outer Some(3) Some(Exact(\"/shop/cart\")) -> cart.b.svc.cluster.local",
                "outer-rest Some(9) Some(Prefix(\"/shop\")) -> web.c.svc.cluster.local",
            ]
        );
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn what_lies_outside_of_the_root_is_left_out_and_told() {
        let (routes, findings) = merged(
            "{http: [{match: [{uri: {prefix: /}}], route: [{destination: {host: cart}}]}, {match: [{uri: {regex: /shop/.*}}], route: [{destination: {host: cart}}]}]}",
            "[{uri: {prefix: /shop}}]",
        );
        assert_eq!(routes, Vec::<String>::new());
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("spec.http[0].delegate: 2 of the 2 routes of b/inner"));
    }

    #[test]
    fn a_delegate_that_is_none_is_told() {
        let (_, findings) = merged(
            "{hosts: [x.test], http: [{route: [{destination: {host: cart}}]}]}",
            "[{uri: {prefix: /shop}}]",
        );
        assert!(findings[0].contains("b/inner has hosts"), "{findings:?}");
        let (_, findings) = merged(
            "{exportTo: [.], http: [{route: [{destination: {host: cart}}]}]}",
            "[{uri: {prefix: /shop}}]",
        );
        assert!(findings[0].contains("is not exported to a"), "{findings:?}");
    }
}
