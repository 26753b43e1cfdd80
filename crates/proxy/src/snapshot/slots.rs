//! Names → slots. Whoever refers to a cluster or a route table holds a number; the name is looked up once, here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::http::config::RouteTableRef;
use crate::upstream::config::ClusterRef;

/// The slots of clusters and route tables.
///
/// A slot belongs to its name for the life of the process: a name that was ever referred to costs its text and a few
/// words, and a reference held by an old route table can never meet another cluster.
#[derive(Debug, Default)]
pub struct Slots {
    clusters: HashMap<Arc<str>, ClusterRef>,
    routes: HashMap<Arc<str>, RouteTableRef>,
}

impl Slots {
    /// The slot of a cluster, possibly empty until it comes.
    pub fn cluster(&mut self, name: &str) -> ClusterRef {
        if let Some(found) = self.clusters.get(name) {
            return *found;
        }
        let made = ClusterRef { slot: self.clusters.len() as u32, generation: 0 };
        self.clusters.insert(name.into(), made);
        made
    }

    /// The slot of a route table, possibly empty until it comes.
    pub fn route_table(&mut self, name: &str) -> RouteTableRef {
        if let Some(found) = self.routes.get(name) {
            return *found;
        }
        let made = RouteTableRef { slot: self.routes.len() as u32, generation: 0 };
        self.routes.insert(name.into(), made);
        made
    }
}
