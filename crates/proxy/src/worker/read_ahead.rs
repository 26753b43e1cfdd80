//! Reads made ahead of their turn. A processor's nearest caches do not hold the kernel's way of reading and ours of working
//! on what was read at once: with many sockets readable in a turn, all are read first, and then all is worked on.

use std::collections::VecDeque;

use mio::event::Event;
use mio::{Events, Token};

use super::Worker;
use super::token::Owner;
use crate::network::io::{Io, Landed};

/// What was read ahead in this turn, in the order of the events.
#[derive(Debug, Default)]
pub(super) struct ReadsAhead(VecDeque<(Token, Landed)>);

impl ReadsAhead {
    /// What was read for an event. To be asked for the events in their order.
    #[inline]
    pub(super) fn take(&mut self, event: &Event) -> Option<Landed> {
        let is_this_one = self.0.front().is_some_and(|(token, _)| *token == event.token());
        if is_this_one { self.0.pop_front().map(|(_, landed)| landed) } else { None }
    }
}

impl Worker {
    /// Reads from all connections to hosts that have something.
    pub(super) fn read_upstreams_ahead(&mut self, events: &Events) {
        self.read_ahead(events, |worker, owner| match owner {
            Owner::Upstream(key) => worker.ups.get(key)?.io_to_read_ahead(),
            _ => None,
        });
    }

    /// Reads from all clients' connections that have something.
    pub(super) fn read_downstreams_ahead(&mut self, events: &Events) {
        self.read_ahead(events, |worker, owner| match owner {
            Owner::Downstream(key) => worker.downs.get(key)?.io_to_read_ahead(),
            _ => None,
        });
    }

    fn read_ahead(&mut self, events: &Events, io_of: impl Fn(&Self, Owner) -> Option<&Io>) {
        self.reads_ahead.0.clear();
        self.scratch.forget_ahead();
        let mut scratch = std::mem::take(&mut self.scratch);
        for event in events {
            let token = event.token();
            let has_bytes = event.is_readable() || event.is_read_closed() || event.is_error();
            if has_bytes
                && let Some(io) = io_of(self, Owner::from_token(token.0 as u64))
                && let Some(landed) = io.read_ahead(&mut scratch)
            {
                self.reads_ahead.0.push_back((token, landed));
            }
        }
        self.scratch = scratch;
    }
}
