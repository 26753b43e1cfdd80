//! One virtual host, compiled.

use std::fmt;
use std::sync::Arc;

use codec::headers::{Method, RequestHead, names};

use super::config::{Criteria, RequireTls, RouteConfig, VirtualHostConfig};
use super::criteria::{RouteInput, split_path};
use super::path_index::{PathIndex, RouteScratch};
use crate::string_matcher::{RegexError, full_match_regex};

/// A compiled virtual host: the unit of compilation, and of change.
#[derive(Debug)]
pub struct VirtualHost {
    pub(super) config: VirtualHostConfig,
    index: PathIndex,
}

/// What is wrong with a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildError {
    /// In which virtual host.
    pub virtual_host: Arc<str>,
    /// In which of its routes, from 0; `None` is the virtual host itself.
    pub route: Option<usize>,
    /// What.
    pub reason: String,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.route {
            Some(route) => {
                write!(f, "virtual host `{}`, route {route}: {}", self.virtual_host, self.reason)
            }
            None => write!(f, "virtual host `{}`: {}", self.virtual_host, self.reason),
        }
    }
}

impl std::error::Error for BuildError {}

/// What a request comes to in its virtual host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Route(u32),
    /// It must come again by https.
    NeedsTls,
}

impl VirtualHost {
    /// Compiles a virtual host.
    ///
    /// # Errors
    /// When a regular expression does not compile, alone or with the others.
    pub fn compile(config: VirtualHostConfig) -> Result<Arc<VirtualHost>, BuildError> {
        let refuse = |route, error: RegexError| BuildError {
            virtual_host: Arc::clone(&config.name),
            route,
            reason: error.to_string(),
        };
        for (route, path) in config.routes.iter().map(|route| &route.criteria.path).enumerate() {
            if let super::config::PathMatch::Regex(pattern) = path {
                // Alone first: the error then names the route.
                full_match_regex(pattern).map_err(|error| refuse(Some(route), error))?;
            }
        }
        let criteria = config.routes.iter().map(|route| &route.criteria);
        let index = PathIndex::build(criteria).map_err(|error| refuse(None, error))?;
        Ok(Arc::new(VirtualHost { config, index }))
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// What it was compiled from.
    pub fn config(&self) -> &VirtualHostConfig {
        &self.config
    }

    /// Its routes in order.
    pub fn routes(&self) -> &[RouteConfig] {
        &self.config.routes
    }

    pub(super) fn find(
        &self,
        head: &RequestHead,
        input: RouteInput<'_>,
        scratch: &mut RouteScratch,
    ) -> Option<Found> {
        if self.needs_tls(head) {
            return Some(Found::NeedsTls);
        }
        let (path, query) = split_path(head.path());
        let criteria = |route: u32| -> &Criteria { &self.config.routes[route as usize].criteria };
        let is_connect = head.method_kind() == Method::Connect;
        let accepts = |route| criteria(route).hold(head, query, input);
        self.index.find(path, is_connect, scratch, accepts).map(Found::Route)
    }

    fn needs_tls(&self, head: &RequestHead) -> bool {
        let is_plaintext = || head.fields.get(names::X_FORWARDED_PROTO) != Some(b"https");
        match self.config.require_tls {
            RequireTls::None => false,
            RequireTls::All => is_plaintext(),
            RequireTls::ExternalOnly => {
                is_plaintext() && head.fields.get(names::X_ENVOY_INTERNAL) != Some(b"true")
            }
        }
    }
}
