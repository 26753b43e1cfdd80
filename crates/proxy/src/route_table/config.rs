//! What a route table is compiled from: Envoy's `RouteConfiguration` as plain data, defaults resolved and levels merged.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use codec::headers::HeaderName;

use crate::http::header_mutation::HeaderMutations;
use crate::router::config::{ClusterChoice, RoutePolicy};
use crate::stream_info::Metadata;
use crate::string_matcher::StringMatcher;

/// What a whole table says beside its virtual hosts.
#[derive(Clone, Debug, Default)]
pub struct TableConfig {
    /// The table's name: what route discovery knows it by.
    pub name: Arc<str>,
    /// Compare hosts without their port.
    pub ignore_port_in_host_matching: bool,
    /// Header changes go from the table to the route, so that the route's have the last word; else the other way round.
    pub most_specific_header_mutations_wins: bool,
    /// Changes of every request that matches a route.
    pub request_headers: HeaderMutations,
    /// Changes of every response to one.
    pub response_headers: HeaderMutations,
    /// Removed from requests of external origin.
    pub internal_only_headers: Vec<HeaderName>,
}

/// One virtual host.
#[derive(Clone, Debug, Default)]
pub struct VirtualHostConfig {
    /// Its name, unique within the table.
    pub name: Arc<str>,
    /// `example.com`, `*.example.com`, `example.*`, `*`.
    pub domains: Vec<String>,
    /// Routes; the first that matches is taken.
    pub routes: Vec<RouteConfig>,
    /// Whether plaintext requests are redirected.
    pub require_tls: RequireTls,
    /// Changes of every request that matches one of its routes.
    pub request_headers: HeaderMutations,
    /// Changes of every response to one.
    pub response_headers: HeaderMutations,
}

/// `VirtualHost.require_tls`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// Plaintext is welcome.
    #[default]
    None,
    /// Redirect external plaintext requests to https.
    ExternalOnly,
    /// Redirect every plaintext request.
    All,
}

/// One route.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// Its name, maybe empty.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub criteria: Criteria,
    /// What it does with them.
    pub action: Action,
    /// Changes of its requests.
    pub request_headers: HeaderMutations,
    /// Changes of their responses.
    pub response_headers: HeaderMutations,
    /// `Route.metadata`.
    pub metadata: Metadata,
    /// `typed_per_filter_config`, laid over the virtual host's and the table's.
    pub filter_overrides: FilterOverrides,
}

impl RouteConfig {
    /// A route without a name that changes no headers.
    pub fn new(criteria: Criteria, action: Action) -> RouteConfig {
        RouteConfig {
            name: "".into(),
            criteria,
            action,
            request_headers: HeaderMutations::default(),
            response_headers: HeaderMutations::default(),
            metadata: None,
            filter_overrides: FilterOverrides::default(),
        }
    }
}

/// `RouteMatch`: all of it must hold.
#[derive(Clone, Debug)]
pub struct Criteria {
    /// On the path without query and fragment.
    pub path: PathMatch,
    /// Whether the case of the path counts (Envoy: true). Regular expressions say so themselves.
    pub case_sensitive: bool,
    /// On headers.
    pub headers: Vec<HeaderMatcher>,
    /// On the query.
    pub query: Vec<QueryMatcher>,
    /// Takes only so many requests.
    pub fraction: Option<Fraction>,
    /// Takes gRPC requests only.
    pub grpc: bool,
    /// On the client's certificate.
    pub tls: Option<TlsCriteria>,
}

impl Criteria {
    /// Takes every request of a path.
    pub fn path(path: PathMatch) -> Criteria {
        Criteria {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            fraction: None,
            grpc: false,
            tls: None,
        }
    }
}

/// `RouteMatch.path_specifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The path begins so.
    Prefix(Box<str>),
    /// The path is this.
    Exact(Box<str>),
    /// The path is this, or goes on with `/`.
    SeparatedPrefix(Box<str>),
    /// The whole path matches, RE2 syntax.
    Regex(Box<str>),
    /// CONNECT.
    Connect,
}

/// `HeaderMatcher`. Of a header that occurs more than once, one matching value is enough (and with `invert`, spoils it).
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    /// Which header; `:method`, `:path`, `:authority`, `:scheme` are headers too.
    pub name: HeaderName,
    /// What it must be.
    pub value: ValueMatch,
    /// Turns the verdict around, but for absent headers, which do not match either way.
    pub invert: bool,
    /// An absent header counts as an empty one.
    pub treat_missing_as_empty: bool,
}

/// What a header must be.
#[derive(Clone, Debug)]
pub enum ValueMatch {
    /// There (true), or not there.
    Present(bool),
    /// As the pattern says.
    String(StringMatcher),
    /// A whole number, from the first, below the second.
    Range(i64, i64),
}

/// `QueryParameterMatcher`: on the first parameter of the name, as it stands in the query.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    /// Which parameter.
    pub name: Box<str>,
    /// What of it must be so.
    pub value: QueryValue,
}

/// The value part of a [`QueryMatcher`].
#[derive(Clone, Debug)]
pub enum QueryValue {
    /// It is there, or it is not.
    Present(bool),
    /// It is there and as the pattern says.
    String(StringMatcher),
}

/// `FractionalPercent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// So many
    pub numerator: u32,
    /// of so many: 100, 10 000 or 1 000 000.
    pub denominator: u32,
}

impl Fraction {
    /// Whether a random number is within the fraction.
    pub fn admits(self, random: u64) -> bool {
        random % u64::from(self.denominator.max(1)) < u64::from(self.numerator)
    }
}

/// `RouteMatch.tls_context`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsCriteria {
    /// Whether the client has presented a certificate.
    pub presented: Option<bool>,
    /// Whether it has been validated.
    pub validated: Option<bool>,
}

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sends the request on.
    Route(Box<RouteAction>),
    /// Answers with a redirect.
    Redirect(Box<Redirect>),
    /// Answers.
    Direct(DirectResponse),
}

/// `RouteAction`.
#[derive(Clone, Debug)]
pub struct RouteAction {
    /// Where to.
    pub cluster: ClusterChoice,
    /// What the entries of weighted clusters change, in the same order. May be shorter.
    pub weighted: Vec<WeightedEntry>,
    /// Timeouts, retries and the like: what the router carries out.
    pub policy: RoutePolicy,
    /// How the path changes.
    pub path_rewrite: Option<PathRewrite>,
    /// How the authority changes (`auto` is in the policy).
    pub host_rewrite: Option<HostRewrite>,
}

impl RouteAction {
    /// Sends everything to a cluster as it is.
    pub fn new(cluster: ClusterChoice) -> RouteAction {
        RouteAction {
            cluster,
            weighted: Vec::new(),
            policy: RoutePolicy::default(),
            path_rewrite: None,
            host_rewrite: None,
        }
    }
}

/// What an entry of weighted clusters changes.
#[derive(Clone, Debug, Default)]
pub struct WeightedEntry {
    /// Changes of requests.
    pub request_headers: HeaderMutations,
    /// Changes of responses.
    pub response_headers: HeaderMutations,
    /// `host_rewrite_literal`.
    pub host_rewrite: Option<Box<str>>,
    /// `typed_per_filter_config`, laid over the route's; `None` where it is the same.
    pub filter_overrides: Option<FilterOverrides>,
}

/// How a path changes. The query stays.
#[derive(Clone, Debug)]
pub enum PathRewrite {
    /// `prefix_rewrite`: instead of what the route matched: the prefix, or the whole path.
    Prefix(Box<str>),
    /// `regex_rewrite`.
    Regex(Substitution),
}

/// How an authority changes.
#[derive(Clone, Debug)]
pub enum HostRewrite {
    /// `host_rewrite_literal`.
    Literal(Box<str>),
    /// `host_rewrite_header`: this header's value, if there is one.
    Header(HeaderName),
    /// `host_rewrite_path_regex`: the path without its query, rewritten.
    PathRegex(Substitution),
}

pub use super::substitution::Substitution;

/// `RedirectAction`.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `https_redirect` is `https`.
    pub scheme: Option<Box<str>>,
    /// Instead of the request's host.
    pub host: Option<Box<str>>,
    /// Instead of the request's port.
    pub port: Option<u16>,
    /// Instead of the request's path.
    pub path: Option<RedirectPath>,
    /// Leaves the query out, unless it stands in `path`.
    pub strip_query: bool,
}

impl Default for Redirect {
    fn default() -> Self {
        Redirect {
            status: 301,
            scheme: None,
            host: None,
            port: None,
            path: None,
            strip_query: false,
        }
    }
}

/// `RedirectAction.path_rewrite_specifier`.
#[derive(Clone, Debug)]
pub enum RedirectPath {
    /// The whole path, and maybe a query, which then replaces the request's.
    Full(Box<str>),
    /// As a route's.
    Rewrite(PathRewrite),
}

/// `DirectResponseAction`.
#[derive(Clone, Debug, Default)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// Empty for none.
    pub body: Arc<[u8]>,
}

/// What one route says of the HTTP filters, all levels around it merged.
#[derive(Clone, Debug, Default)]
pub struct FilterOverrides(Arc<[FilterOverride]>);

/// What a route says of one filter.
#[derive(Clone)]
pub struct FilterOverride {
    /// The name the filter has in its chain.
    pub filter: Arc<str>,
    /// Leave it out; otherwise it is in, also where the chain leaves it out by default.
    pub disabled: bool,
    /// What the filter has compiled for the route.
    pub config: Option<Arc<dyn Any + Send + Sync>>,
}

impl FilterOverrides {
    /// These, where `more` says nothing of the same filter.
    pub fn with(&self, mut more: Vec<FilterOverride>) -> FilterOverrides {
        let is_kept = |entry: &&FilterOverride| !more.iter().any(|it| it.filter == entry.filter);
        let kept: Vec<_> = self.0.iter().filter(is_kept).cloned().collect();
        more.extend(kept);
        FilterOverrides(more.into())
    }

    /// Nothing is said of any filter.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The configuration for the filter of this name, if it is a `T`.
    pub fn get<T: 'static>(&self, filter: &str) -> Option<&T> {
        self.of(filter)?.config.as_ref()?.downcast_ref()
    }

    /// Whether the filter of this name is left out; `None` where nothing is said of it.
    pub fn disables(&self, filter: &str) -> Option<bool> {
        self.of(filter).map(|entry| entry.disabled)
    }

    fn of(&self, filter: &str) -> Option<&FilterOverride> {
        self.0.iter().find(|entry| *entry.filter == *filter)
    }
}

impl fmt::Debug for FilterOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.filter, if self.disabled { " (disabled)" } else { "" })
    }
}
