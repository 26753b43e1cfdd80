//! A VirtualService's match as a route's match.

use std::collections::BTreeMap;

use api::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};
use api::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use resources::kinds::networking::virtual_service::HttpMatch;
use resources::terms::string_match::{StringMatch, ValueMatch};

use super::values::{boolean, regex, string_matcher};

/// Header keys with this prefix match claims of a verified token, not headers.
pub const CLAIMS_PREFIX: &str = "@request.auth.claims";

/// Matches every request.
pub fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..Default::default() }
}

/// Whether a match looks at anything of the request at all.
pub fn is_catch_all(matched: &RouteMatch) -> bool {
    let any_path = match &matched.path_specifier {
        None => true,
        Some(PathSpecifier::Prefix(prefix)) => prefix == "/",
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex == "*" || regex.regex == ".*",
        Some(_) => false,
    };
    any_path && matched.headers.is_empty() && matched.query_parameters.is_empty()
}

/// Translates the parts of a match that look at the request; `None` for one that can never hold here: the claims of a
/// verified token are not there until tokens are verified.
pub fn translate(matched: &HttpMatch) -> Option<RouteMatch> {
    if matched
        .headers
        .keys()
        .chain(matched.without_headers.keys())
        .any(|key| key.starts_with(CLAIMS_PREFIX))
    {
        return None;
    }
    let mut headers: Vec<HeaderMatcher> = Vec::new();
    header_matches(&matched.headers, false, &mut headers);
    header_matches(&matched.without_headers, true, &mut headers);
    for (name, wanted) in [
        (":method", &matched.method),
        (":authority", &matched.authority),
        (":scheme", &matched.scheme),
    ] {
        if let Some(wanted) = wanted {
            headers.push(header(name, &ValueMatch::Matches(wanted.clone()), false));
        }
    }
    let query_parameters =
        matched.query_params.iter().map(|(name, wanted)| query_parameter(name, wanted)).collect();
    Some(RouteMatch {
        path_specifier: Some(path(matched.uri.as_ref())),
        // Absent means true: say only what differs.
        case_sensitive: if matched.ignore_uri_case { boolean(false) } else { None },
        headers,
        query_parameters,
        ..Default::default()
    })
}

fn path(uri: Option<&StringMatch>) -> PathSpecifier {
    match uri {
        None => PathSpecifier::Prefix("/".to_owned()),
        Some(StringMatch::Exact(path)) => PathSpecifier::Path(path.clone()),
        Some(StringMatch::Prefix(prefix)) => PathSpecifier::Prefix(prefix.clone()),
        Some(StringMatch::Regex(pattern)) => PathSpecifier::SafeRegex(regex(pattern)),
    }
}

fn header_matches(
    wanted: &BTreeMap<String, ValueMatch>,
    invert: bool,
    out: &mut Vec<HeaderMatcher>,
) {
    out.extend(wanted.iter().map(|(name, value)| header(name, value, invert)));
}

fn header(name: &str, wanted: &ValueMatch, invert: bool) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        invert_match: invert,
        // A header that is not there does not match, so "without it" holds.
        treat_missing_header_as_empty: invert && matches!(wanted, ValueMatch::Matches(_)),
        header_match_specifier: Some(match wanted {
            ValueMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
            ValueMatch::Matches(wanted) => HeaderMatchSpecifier::StringMatch(text(wanted)),
        }),
    }
}

fn query_parameter(name: &str, wanted: &ValueMatch) -> QueryParameterMatcher {
    QueryParameterMatcher {
        name: name.to_owned(),
        query_parameter_match_specifier: Some(match wanted {
            ValueMatch::Present => QueryParameterMatchSpecifier::PresentMatch(true),
            ValueMatch::Matches(wanted) => QueryParameterMatchSpecifier::StringMatch(text(wanted)),
        }),
    }
}

/// A matcher of a text.
pub fn text(wanted: &StringMatch) -> StringMatcher {
    string_matcher(match wanted {
        StringMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        StringMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        StringMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern)),
    })
}
