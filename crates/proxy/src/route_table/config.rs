//! A compiled route table.

use std::sync::Arc;

use codec::headers::RequestHead;

use crate::router::config::{ClusterChoice, RoutePolicy};

/// A compiled table of virtual hosts.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// The table's name.
    pub name: Arc<str>,
    /// In order.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
}

/// One virtual host.
#[derive(Debug)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// Routes in order.
    pub routes: Vec<Route>,
}

/// One route.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// Path prefix.
    pub prefix: Box<str>,
    /// What it does.
    pub action: Action,
}

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Sends the request on.
    Route(ClusterChoice, RoutePolicy),
    /// Answers with a redirect.
    Redirect(Redirect),
}

/// A redirect.
#[derive(Debug)]
pub struct Redirect {
    /// Its status.
    pub status: u16,
}

/// A route found: pins its virtual host.
#[derive(Debug, Clone)]
pub struct RouteMatch {
    host: Arc<VirtualHost>,
    index: u32,
}

impl RouteMatch {
    /// What the route does.
    pub fn action(&self) -> &Action {
        &self.host.routes[self.index as usize].action
    }

    /// The route's name, maybe empty.
    pub fn name(&self) -> &Arc<str> {
        &self.host.routes[self.index as usize].name
    }
}

impl RouteTable {
    /// The first route that matches.
    pub fn route(&self, head: &RequestHead) -> Option<RouteMatch> {
        let host = self.virtual_hosts.first()?;
        let index = host.routes.iter().position(|route| head.path().starts_with(route.prefix.as_bytes()))?;
        Some(RouteMatch { host: Arc::clone(host), index: index as u32 })
    }
}
