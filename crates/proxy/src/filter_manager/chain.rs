//! Instances of filter chains, made once and lent to streams.

use std::sync::Arc;

use super::{FilterChainFactory, HttpFilter, Phases, WorkerContext};
use crate::route_table::RouteMatch;

/// A chain's filters for one stream.
pub struct ChainInstance {
    factory: Arc<FilterChainFactory>,
    pub(crate) filters: Vec<(Phases, Box<dyn HttpFilter>)>,
    /// Those that the stream's route leaves out, a bit each.
    left_out: u64,
}

impl ChainInstance {
    /// Notes which filters the stream's route leaves out.
    pub fn begin(&mut self, route: Option<&RouteMatch>) {
        self.left_out = self.factory.disabled;
        let Some(overrides) = route.map(RouteMatch::filter_overrides) else { return };
        if overrides.is_empty() {
            return;
        }
        for (index, (name, _)) in self.factory.filters.iter().enumerate() {
            match overrides.disables(name) {
                Some(true) => self.left_out |= 1 << index,
                Some(false) => self.left_out &= !(1 << index),
                None => {}
            }
        }
    }

    /// The filter at a position as configured, with its name and what it wants to see; `None` if the route leaves it out.
    pub(super) fn filter(&mut self, index: usize) -> Option<(&str, Phases, &mut dyn HttpFilter)> {
        if self.left_out >> index & 1 == 1 {
            return None;
        }
        let (phases, filter) = self.filters.get_mut(index)?;
        Some((&self.factory.filters[index].0, *phases, &mut **filter))
    }
}

impl std::fmt::Debug for ChainInstance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChainInstance").field("filters", &self.filters.len()).finish()
    }
}

/// A worker's idle chain instances.
#[derive(Debug, Default)]
pub struct ChainPool {
    // Lent and given back as boxes: moving an instance would cost more than the indirection.
    #[expect(clippy::vec_box)]
    idle: Vec<Box<ChainInstance>>,
}

/// Instances kept beyond this are dropped: streams beyond it are a burst.
const MAX_IDLE: usize = 1024;

impl ChainPool {
    /// An instance of a chain; `None` when the chain has no filters.
    pub fn take(
        &mut self,
        factory: &Arc<FilterChainFactory>,
        cx: &WorkerContext,
    ) -> Option<Box<ChainInstance>> {
        if factory.filters.is_empty() {
            return None;
        }
        // The last one given back is the likeliest: most workers serve few chains at a time.
        if let Some(position) =
            self.idle.iter().rposition(|instance| Arc::ptr_eq(&instance.factory, factory))
        {
            return Some(self.idle.swap_remove(position));
        }
        let filters = factory
            .filters
            .iter()
            .map(|(_, filter)| (filter.phases(), filter.create(cx)))
            .collect();
        let left_out = factory.disabled;
        Some(Box::new(ChainInstance { factory: Arc::clone(factory), filters, left_out }))
    }

    /// Gives an instance back.
    pub fn give(&mut self, mut instance: Box<ChainInstance>) {
        if self.idle.len() >= MAX_IDLE {
            // The oldest is the likeliest to belong to a chain that configuration has replaced.
            self.idle.remove(0);
        }
        for (_, filter) in &mut instance.filters {
            filter.reset();
        }
        self.idle.push(instance);
    }
}
