//! What a route does to the heads of its requests and responses: header changes at every level, then rewrites.

use codec::headers::{RequestHead, ResponseHead, names};

use super::config::{HostRewrite, PathMatch, PathRewrite, RouteAction};
use super::criteria::split_path;
use super::table::RouteMatch;
use crate::http::header_mutation::{HeaderMutations, MutationContext, MutationScratch};

/// How heads are changed beside what the route says.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions {
    /// Keep what is rewritten in `x-envoy-original-path` and `x-envoy-original-host`: the router's
    /// `suppress_envoy_headers` is off.
    pub keeps_originals: bool,
}

impl RouteMatch {
    /// Changes a request on its way to the cluster, once, as Envoy's `finalizeRequestHeaders`: header changes see the path and
    /// the host before they are rewritten.
    pub fn apply_request(
        &self,
        head: &mut RequestHead,
        options: ApplyOptions,
        cx: MutationContext<'_>,
        scratch: &mut MutationScratch,
    ) {
        for level in self.levels(|levels| {
            [
                levels.weighted_request,
                levels.route_request,
                levels.host_request,
                levels.table_request,
            ]
        }) {
            level.apply_to_request(head, cx, scratch);
        }
        let Some(action) = self.route_action() else {
            return;
        };
        self.rewrite_host(action, head, options);
        if let Some(rewrite) = &action.path_rewrite
            && let Some(path) = self.rewritten_path(rewrite, head.path())
        {
            if options.keeps_originals {
                let original = head.path().to_vec();
                head.fields.set(names::X_ENVOY_ORIGINAL_PATH, &original);
            }
            head.set_path(&path);
        }
    }

    /// Changes a response on its way to the client, whoever made it; `request` is the one it answers.
    pub fn apply_response(
        &self,
        head: &mut ResponseHead,
        request: Option<&RequestHead>,
        cx: MutationContext<'_>,
        scratch: &mut MutationScratch,
    ) {
        for level in self.levels(|levels| {
            [
                levels.weighted_response,
                levels.route_response,
                levels.host_response,
                levels.table_response,
            ]
        }) {
            level.apply_to_response(head, request, cx, scratch);
        }
    }

    /// The changes of each level, in the order in which they are made: the last has the last word.
    fn levels<'a>(
        &'a self,
        pick: impl Fn(Levels<'a>) -> [Option<&'a HeaderMutations>; 4],
    ) -> impl Iterator<Item = &'a HeaderMutations> {
        let (table, host, route, weighted) =
            (self.table.config(), self.host_config(), self.route_config(), self.weighted_entry());
        let mut levels = pick(Levels {
            weighted_request: weighted.map(|entry| &entry.request_headers),
            weighted_response: weighted.map(|entry| &entry.response_headers),
            route_request: Some(&route.request_headers),
            route_response: Some(&route.response_headers),
            host_request: Some(&host.request_headers),
            host_response: Some(&host.response_headers),
            table_request: Some(&table.request_headers),
            table_response: Some(&table.response_headers),
        });
        if table.most_specific_header_mutations_wins {
            levels.reverse();
        }
        levels.into_iter().flatten()
    }

    fn rewrite_host(&self, action: &RouteAction, head: &mut RequestHead, options: ApplyOptions) {
        let by_weight = self.weighted_entry().and_then(|entry| entry.host_rewrite.as_deref());
        let host: Vec<u8> = match (by_weight, &action.host_rewrite) {
            (Some(literal), _) => literal.as_bytes().to_vec(),
            (None, Some(HostRewrite::Literal(literal))) => literal.as_bytes().to_vec(),
            (None, Some(HostRewrite::Header(name))) => head.get(name).unwrap_or_default().to_vec(),
            (None, Some(HostRewrite::PathRegex(substitution))) => {
                let mut host = Vec::new();
                substitution.append(split_path(head.path()).0, &mut host);
                host
            }
            (None, None) => return,
        };
        if !host.is_empty() {
            set_authority(head, &host, action.policy.append_x_forwarded_host, options);
        }
    }

    /// The path that a request goes on with, query included; `None` if it stays.
    pub(super) fn rewritten_path(&self, rewrite: &PathRewrite, original: &[u8]) -> Option<Vec<u8>> {
        let (path, _) = split_path(original);
        let rest = &original[path.len()..];
        let mut out = Vec::with_capacity(original.len() + 32);
        match rewrite {
            PathRewrite::Prefix(replacement) => {
                out.extend_from_slice(replacement.as_bytes());
                out.extend_from_slice(&path[self.matched_len(path)..]);
            }
            PathRewrite::Regex(substitution) => substitution.append(path, &mut out),
        }
        out.extend_from_slice(rest);
        (!path.is_empty()).then_some(out)
    }

    /// How much of the path the route's criterion was about.
    fn matched_len(&self, path: &[u8]) -> usize {
        match &self.route_config().criteria.path {
            PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => {
                prefix.len().min(path.len())
            }
            _ => path.len(),
        }
    }
}

struct Levels<'a> {
    weighted_request: Option<&'a HeaderMutations>,
    weighted_response: Option<&'a HeaderMutations>,
    route_request: Option<&'a HeaderMutations>,
    route_response: Option<&'a HeaderMutations>,
    host_request: Option<&'a HeaderMutations>,
    host_response: Option<&'a HeaderMutations>,
    table_request: Option<&'a HeaderMutations>,
    table_response: Option<&'a HeaderMutations>,
}

/// Gives a request another authority and keeps the old one where it is asked for. The router does this too, for
/// `auto_host_rewrite`.
pub fn set_authority(
    head: &mut RequestHead,
    authority: &[u8],
    append_x_forwarded_host: bool,
    options: ApplyOptions,
) {
    if head.authority() == authority {
        return;
    }
    let original = head.authority().to_vec();
    if append_x_forwarded_host && !original.is_empty() {
        head.fields.append_to(names::X_FORWARDED_HOST, b",", &original);
    }
    if options.keeps_originals && !original.is_empty() {
        head.fields.set(names::X_ENVOY_ORIGINAL_HOST, &original);
    }
    head.set_authority(authority);
}
