//! How listeners change and drain: connections of chains that stay are rebound, others end gently.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::ActiveListener;
use super::chain::ActiveChain;
use super::config::ListenerConfig;
use crate::arena::Key;
use crate::network::downstream::{Downstream, Kind};
use crate::worker::{ListenerId, Worker};

impl Worker {
    /// New configuration for a listener; its socket stays.
    pub(crate) fn update_listener(
        &mut self,
        id: ListenerId,
        config: Arc<ListenerConfig>,
        drain: Duration,
    ) {
        let Some(key) = self.listener_key(id) else { return };
        let chains: Vec<_> =
            config.filter_chains.iter().map(|chain| self.activate(&config, chain)).collect();
        let default_chain =
            config.default_filter_chain.as_ref().map(|chain| self.activate(&config, chain));
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.chains.clone_from(&chains);
            listener.default_chain.clone_from(&default_chain);
            listener.config = config;
        }
        for down_key in self.connections_of(key) {
            let Some(down) = self.downs.get_mut(down_key) else { continue };
            let Some(old) = &down.chain else { continue };
            let same = chains
                .iter()
                .chain(&default_chain)
                .find(|chain: &&Rc<ActiveChain>| {
                    chain.config.fingerprint == old.config.fingerprint
                        && chain.config.name == old.config.name
                })
                .cloned();
            match same {
                Some(chain) => {
                    if let (Kind::Http(http), super::chain::ActiveTerminal::Http(state)) =
                        (&mut down.kind, &chain.terminal)
                    {
                        http.state = Rc::clone(state);
                    }
                    down.chain = Some(chain);
                }
                None => self.drain_downstream(down_key, Some(drain)),
            }
        }
    }

    /// A listener's connections end gently; within `limit`, if there is one.
    pub(crate) fn drain_listener(&mut self, key: Key<ActiveListener>, limit: Option<Duration>) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        listener.draining = true;
        for down_key in self.connections_of(key) {
            self.drain_downstream(down_key, limit);
        }
        self.forget_empty_listener(key);
    }

    pub(crate) fn connections_of(&self, key: Key<ActiveListener>) -> Vec<Key<Downstream>> {
        self.downs
            .iter()
            .filter(|(_, down)| down.listener == key)
            .map(|(down_key, _)| down_key)
            .collect()
    }

    fn drain_downstream(&mut self, key: Key<Downstream>, limit: Option<Duration>) {
        let deadline = self.clock.after(limit);
        let Some(down) = self.downs.get_mut(key) else { return };
        down.close_deadline_ns = down.close_deadline_ns.min(deadline);
        self.drain_connection(key);
        self.arm_downstream(key);
    }
}
