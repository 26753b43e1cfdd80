//! A table: an index of virtual hosts, and what a search in it finds.

use std::sync::Arc;

use codec::headers::RequestHead;

use super::config::{
    Action, Criteria, FilterOverrides, PathMatch, Redirect, RouteAction, RouteConfig, TableConfig,
    VirtualHostConfig, WeightedEntry,
};
use super::criteria::RouteInput;
use super::domains::DomainIndex;
use super::path_index::RouteScratch;
use super::virtual_host::{BuildError, Found, VirtualHost};
use crate::router::config::ClusterChoice;
use crate::upstream::config::ClusterRef;

/// A compiled route table.
#[derive(Debug)]
pub struct RouteTable {
    pub(super) config: Arc<TableConfig>,
    hosts: Vec<Arc<VirtualHost>>,
    domains: Arc<DomainIndex>,
    /// What is taken where a virtual host asks for TLS.
    tls_redirect: Arc<RouteConfig>,
}

impl RouteTable {
    /// Puts virtual hosts together.
    ///
    /// # Errors
    /// When two virtual hosts have a domain in common.
    pub fn new(
        config: TableConfig,
        hosts: Vec<Arc<VirtualHost>>,
    ) -> Result<RouteTable, BuildError> {
        Ok(RouteTable {
            domains: Arc::new(index_domains(&hosts)?),
            config: Arc::new(config),
            hosts,
            tls_redirect: Arc::new(tls_redirect()),
        })
    }

    /// The same table with other virtual hosts: those that have not changed are given as they are. Costs little where the
    /// domains are the same.
    ///
    /// # Errors
    /// When two virtual hosts have a domain in common.
    pub fn with_virtual_hosts(
        &self,
        hosts: Vec<Arc<VirtualHost>>,
    ) -> Result<RouteTable, BuildError> {
        let same_domains = self.hosts.len() == hosts.len()
            && self.hosts.iter().zip(&hosts).all(|(old, new)| {
                Arc::ptr_eq(old, new) || old.config().domains == new.config().domains
            });
        let domains =
            if same_domains { Arc::clone(&self.domains) } else { Arc::new(index_domains(&hosts)?) };
        Ok(RouteTable {
            config: Arc::clone(&self.config),
            hosts,
            domains,
            tls_redirect: Arc::clone(&self.tls_redirect),
        })
    }

    /// The table's name.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// Its settings.
    pub fn config(&self) -> &TableConfig {
        &self.config
    }

    /// Its virtual hosts in order.
    pub fn virtual_hosts(&self) -> &[Arc<VirtualHost>] {
        &self.hosts
    }

    /// The route that a request takes; `None` is 404 (`route_not_found`, NR). The answer pins the table.
    pub fn route(
        self: &Arc<Self>,
        head: &RequestHead,
        input: RouteInput<'_>,
        scratch: &mut RouteScratch,
    ) -> Option<RouteMatch> {
        let host = self.domains.find(head.authority(), self.config.ignore_port_in_host_matching)?;
        let (route, choice) = match self.hosts[host as usize].find(head, input, scratch)? {
            Found::NeedsTls => (NEEDS_TLS, 0),
            Found::Route(route) => {
                let choice = match &self.hosts[host as usize].routes()[route as usize].action {
                    Action::Route(action) => choose(action, input.random),
                    Action::Redirect(_) | Action::Direct(_) => 0,
                };
                (route, choice)
            }
        };
        Some(RouteMatch { table: Arc::clone(self), host, route, choice })
    }
}

impl Default for RouteTable {
    /// A table without virtual hosts: nothing is found in it.
    fn default() -> Self {
        RouteTable {
            config: Arc::default(),
            hosts: Vec::new(),
            domains: Arc::default(),
            tls_redirect: Arc::new(tls_redirect()),
        }
    }
}

fn tls_redirect() -> RouteConfig {
    let redirect = Redirect { scheme: Some("https".into()), ..Redirect::default() };
    RouteConfig::new(
        Criteria::path(PathMatch::Prefix("".into())),
        Action::Redirect(Box::new(redirect)),
    )
}

fn index_domains(hosts: &[Arc<VirtualHost>]) -> Result<DomainIndex, BuildError> {
    let mut index = DomainIndex::default();
    for (position, host) in (0..).zip(hosts) {
        for domain in &host.config().domains {
            if index.insert(domain, position) {
                continue;
            }
            // Envoy's words.
            let reason = match domain.as_str() {
                "*" => "Only a single wildcard domain is permitted in route".to_owned(),
                _ => format!(
                    "Only unique values for domains are permitted. Duplicate entry of domain {domain}"
                ),
            };
            return Err(BuildError { virtual_host: Arc::clone(host.name()), route: None, reason });
        }
    }
    Ok(index)
}

fn choose(action: &RouteAction, random: u64) -> u32 {
    match &action.cluster {
        ClusterChoice::Weighted(weighted) => weighted.pick(random) as u32,
        ClusterChoice::Cluster(_) | ClusterChoice::Header(_) => 0,
    }
}

/// Not a route of the virtual host but its demand for TLS.
const NEEDS_TLS: u32 = u32::MAX;

/// A route that was found. It pins its table, so that a stream sees one configuration from its beginning to its end.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub(super) table: Arc<RouteTable>,
    host: u32,
    route: u32,
    choice: u32,
}

impl RouteMatch {
    /// What the route does.
    pub fn action(&self) -> &Action {
        &self.route_config().action
    }

    /// What the route does, if it sends the request on.
    pub fn route_action(&self) -> Option<&RouteAction> {
        match self.action() {
            Action::Route(action) => Some(action),
            Action::Redirect(_) | Action::Direct(_) => None,
        }
    }

    /// The cluster, chosen by weight where there are several; `None` if a header names it, or there is none.
    pub fn cluster(&self) -> Option<ClusterRef> {
        match &self.route_action()?.cluster {
            ClusterChoice::Cluster(cluster) => Some(*cluster),
            ClusterChoice::Weighted(weighted) => {
                weighted.entries().get(self.choice as usize).map(|(cluster, _)| *cluster)
            }
            ClusterChoice::Header(_) => None,
        }
    }

    /// Which entry of weighted clusters was chosen.
    pub fn weighted_index(&self) -> usize {
        self.choice as usize
    }

    /// The route's name, maybe empty.
    pub fn name(&self) -> &Arc<str> {
        &self.route_config().name
    }

    /// The virtual host.
    pub fn virtual_host(&self) -> &VirtualHost {
        &self.table.hosts[self.host as usize]
    }

    /// The table.
    pub fn table(&self) -> &Arc<RouteTable> {
        &self.table
    }

    /// The position of the route in its virtual host; `None` if it is the virtual host's demand for TLS.
    pub fn route_index(&self) -> Option<usize> {
        (self.route != NEEDS_TLS).then_some(self.route as usize)
    }

    /// The route as configured.
    pub fn route_config(&self) -> &RouteConfig {
        self.virtual_host().routes().get(self.route as usize).unwrap_or(&self.table.tls_redirect)
    }

    /// What the route says of filters.
    pub fn filter_overrides(&self) -> &FilterOverrides {
        match self.weighted_entry().and_then(|entry| entry.filter_overrides.as_ref()) {
            Some(overrides) => overrides,
            None => &self.route_config().filter_overrides,
        }
    }

    pub(super) fn host_config(&self) -> &VirtualHostConfig {
        self.virtual_host().config()
    }

    pub(super) fn weighted_entry(&self) -> Option<&WeightedEntry> {
        self.route_action()?.weighted.get(self.choice as usize)
    }
}
