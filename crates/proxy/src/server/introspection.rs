//! The server as the admin interface sees it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::control::Control;
use crate::admin::state::ListenerStatus;
use crate::admin::{
    AdminState, CertificateStatus, ClusterStatus, ConfigDump, DrainRequest, ServerState,
};
use crate::worker::mailbox::Message;

impl AdminState for Control {
    fn state(&self) -> ServerState {
        if self.is_draining() {
            ServerState::Draining
        } else if self.is_warm() {
            ServerState::Live
        } else if self.core.lock().snapshot.clusters_are_warm() {
            ServerState::Initializing
        } else {
            ServerState::PreInitializing
        }
    }

    fn version(&self) -> String {
        self.options.version.clone()
    }

    fn command_line_options(&self) -> serde_json::Value {
        self.options.command_line.clone()
    }

    fn node(&self) -> Bytes {
        let core = self.core.lock();
        self.bootstrap.encoded_introduction(&core.snapshot.environment().extensions)
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        self.addresses()
            .into_iter()
            .map(|(name, address)| ListenerStatus { name, addresses: vec![address] })
            .collect()
    }

    fn clusters(&self) -> Vec<ClusterStatus> {
        let core = self.core.lock();
        core.snapshot
            .clusters()
            .map(|(_, active)| ClusterStatus {
                cluster: Arc::clone(&active.cluster),
                hosts: Arc::clone(&active.hosts),
                eds_service_name: active.eds_service_name().cloned(),
                added_via_api: !active.version.is_static,
            })
            .collect()
    }

    fn certificates(&self) -> Vec<CertificateStatus> {
        self.core.lock().snapshot.certificates()
    }

    fn config_dump(&self) -> ConfigDump {
        let mut dump = self.core.lock().snapshot.dump();
        dump.bootstrap = Some(self.bootstrap.dump(self.started));
        dump
    }

    fn refresh(&self) {
        let connections = self.connections();
        self.counters.refresh(&self.core.lock(), connections);
    }

    fn unready(&self) -> Vec<(&'static str, Vec<String>)> {
        self.core.lock().snapshot.unready()
    }

    fn drain_listeners(&self, request: DrainRequest) {
        let listeners = request.inbound_only.then(|| self.inbound_listeners());
        if request.graceful || request.skip_exit {
            self.start_drain(listeners.clone());
        }
        if !request.graceful && !request.skip_exit {
            drop(self.close_listeners(listeners));
        }
    }

    fn fail_health_checks(&self, fail: bool) {
        self.draining.store(fail, Ordering::Relaxed);
        self.broadcast(|| Message::FailHealthChecks(fail));
    }

    fn quit(&self) {
        self.ask_to_quit();
    }
}
