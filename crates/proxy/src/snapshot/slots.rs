//! Names → slots. Whoever refers to a cluster or a route table holds a number; the name is looked up once, here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::http::config::RouteTableRef;
use crate::upstream::config::ClusterRef;

/// Names kept beyond those in use before the unused are looked for.
const SLACK: usize = 1024;

/// The slots of clusters and route tables.
///
/// A slot belongs to its name while anything configured has or refers to that name. Then another name may get it, under
/// a new generation: what an old configuration still refers to, for the streams that began with it, finds nothing there
/// and can never meet another cluster.
#[derive(Debug, Default)]
pub struct Slots {
    clusters: Table,
    routes: Table,
}

/// The slots of one kind.
#[derive(Debug, Default)]
struct Table {
    by_name: HashMap<Arc<str>, Place>,
    /// Places to give away, under their next generation.
    free: Vec<Place>,
    /// How many slots there are, used or free.
    made: u32,
    /// How many names were in use when that was last looked at.
    in_use: usize,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    slot: u32,
    generation: u32,
}

impl Slots {
    /// A cluster's name, as everyone has it who keeps it.
    pub fn cluster_name(&mut self, name: &str) -> Arc<str> {
        self.clusters.place(name);
        self.clusters
            .by_name
            .get_key_value(name)
            .map_or_else(|| name.into(), |(name, _)| Arc::clone(name))
    }

    /// The slot of a cluster, possibly empty until it comes.
    pub fn cluster(&mut self, name: &str) -> ClusterRef {
        let Place { slot, generation } = self.clusters.place(name);
        ClusterRef { slot, generation }
    }

    /// The slot of a route table, possibly empty until it comes.
    pub fn route_table(&mut self, name: &str) -> RouteTableRef {
        let Place { slot, generation } = self.routes.place(name);
        RouteTableRef { slot, generation }
    }

    /// Whether there is enough that may be unused to be worth a look at everything.
    pub fn want_sweep(&self) -> bool {
        self.clusters.wants_sweep() || self.routes.wants_sweep()
    }

    /// Gives away the slots of names that nothing has or refers to.
    pub fn sweep(
        &mut self,
        is_cluster_used: impl Fn(&str) -> bool,
        is_route_table_used: impl Fn(&str) -> bool,
    ) {
        self.clusters.sweep(is_cluster_used);
        self.routes.sweep(is_route_table_used);
    }
}

impl Table {
    fn place(&mut self, name: &str) -> Place {
        if let Some(found) = self.by_name.get(name) {
            return *found;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            Place { slot: self.made - 1, generation: 0 }
        });
        self.by_name.insert(name.into(), place);
        place
    }

    fn wants_sweep(&self) -> bool {
        self.by_name.len() > 2 * self.in_use + SLACK
    }

    fn sweep(&mut self, is_used: impl Fn(&str) -> bool) {
        let free = &mut self.free;
        self.by_name.retain(|name, place| {
            let used = is_used(name);
            if !used {
                // One that was given away as often as can be told apart stays empty for ever.
                let next = place.generation.checked_add(1).filter(|next| *next < u32::MAX);
                free.extend(next.map(|generation| Place { generation, ..*place }));
            }
            used
        });
        self.in_use = self.by_name.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_given_to_another_name_only_under_another_generation() {
        let mut slots = Slots::default();
        let (a, b) = (slots.cluster("a"), slots.cluster("b"));
        assert_eq!((a.slot, b.slot), (0, 1));
        slots.sweep(|name| name == "b", |_| true);
        assert_eq!(slots.cluster("b"), b, "what is used stays");
        let c = slots.cluster("c");
        assert_eq!((c.slot, c.generation), (0, 1));
        assert_ne!(c, a, "whoever holds the old one does not meet the new one");
        let again = slots.cluster("a");
        assert_eq!((again.slot, again.generation), (2, 0));
    }

    #[test]
    fn names_that_come_and_go_do_not_pile_up() {
        let mut slots = Slots::default();
        for round in 0..100 {
            for n in 0..SLACK {
                slots.cluster(&format!("{round}.{n}"));
            }
            if slots.want_sweep() {
                slots.sweep(|_| false, |_| false);
            }
        }
        assert!(slots.clusters.made as usize <= 2 * SLACK, "{}", slots.clusters.made);
    }
}
