//! Where a redirect leads: the `location` that Envoy makes.

use codec::headers::{RequestHead, names};

use super::config::{Redirect, RedirectPath};
use super::table::RouteMatch;

impl RouteMatch {
    /// The `location` of a redirect by this route, or of any other redirect of a request that took it.
    pub fn location(&self, redirect: &Redirect, head: &RequestHead) -> Vec<u8> {
        let original_scheme =
            head.fields.get(names::X_FORWARDED_PROTO).unwrap_or_else(|| head.scheme());
        let scheme = redirect.scheme.as_deref().map_or(original_scheme, str::as_bytes);
        let host = match redirect.host.as_deref() {
            Some(host) => host.as_bytes(),
            None => kept_host(head.authority(), original_scheme, scheme, redirect.port.is_some()),
        };
        let mut location = Vec::with_capacity(scheme.len() + host.len() + head.path().len() + 16);
        location.extend_from_slice(scheme);
        location.extend_from_slice(b"://");
        location.extend_from_slice(host);
        if let Some(port) = redirect.port {
            location.extend_from_slice(format!(":{port}").as_bytes());
        }
        self.append_path(redirect, head.path(), &mut location);
        location
    }

    fn append_path(&self, redirect: &Redirect, original: &[u8], location: &mut Vec<u8>) {
        let query_start = memchr::memchr(b'?', original).unwrap_or(original.len());
        let query = if redirect.strip_query { &b""[..] } else { &original[query_start..] };
        if let Some(RedirectPath::Full(path)) = &redirect.path
            && !path.starts_with('/')
        {
            location.push(b'/');
        }
        match &redirect.path {
            // A query of its own replaces the request's, and stays whatever is stripped.
            Some(RedirectPath::Full(path)) if path.contains('?') => {
                location.extend_from_slice(path.as_bytes())
            }
            Some(RedirectPath::Full(path)) => {
                location.extend_from_slice(path.as_bytes());
                location.extend_from_slice(query);
            }
            Some(RedirectPath::Rewrite(rewrite)) => {
                let path =
                    self.rewritten_path(rewrite, &original[..query_start]).unwrap_or_default();
                location.extend_from_slice(&path);
                location.extend_from_slice(query);
            }
            None => {
                location.extend_from_slice(&original[..query_start]);
                location.extend_from_slice(query);
            }
        }
    }
}

/// The request's host, without its port where that is replaced, or was the default of a scheme that is replaced.
fn kept_host<'h>(
    authority: &'h [u8],
    old_scheme: &[u8],
    new_scheme: &[u8],
    has_new_port: bool,
) -> &'h [u8] {
    let start = super::domains::port_start(authority);
    let (host, port) = authority.split_at(start);
    let was_default = old_scheme != new_scheme
        && matches!((old_scheme, port), (b"https", b":443") | (b"http", b":80"));
    if has_new_port || was_default { host } else { authority }
}
