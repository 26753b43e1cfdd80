//! Steps 2 to 4 of a connection: its first bytes are looked at, its chain is chosen, its TLS handshake is made.

use std::rc::Rc;
use std::sync::Arc;

use telemetry::stats::sets::Listener as Stat;

use super::downstream::{CloseReason, Downstream, Kind};
use super::tls::session::TlsSession;
use super::tls::{ServerSide, info, stats};
use crate::arena::Key;
use crate::listener::chain::ActiveChain;
use crate::listener::filter_chain::ConnectionFacts;
use crate::listener::inspection::{Findings, Inspected, Inspection};
use crate::worker::Worker;

/// A connection in its TLS handshake.
#[derive(Debug)]
pub struct Handshake {
    /// What it is made with.
    pub side: Arc<ServerSide>,
    /// It must be done by then.
    pub deadline_ns: u64,
}

impl Worker {
    /// Looks at the first bytes if any listener filter wants to, else chooses the chain at once.
    pub(super) fn begin_inspection(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let Some(listener) = self.listeners.get(down.listener) else { return };
        if listener.config.listener_filters.is_empty() {
            return self.choose_chain(key, &Findings::default());
        }
        listener.stats.0.gauge_add(Stat::DOWNSTREAM_PRE_CX_ACTIVE, 1);
        let deadline_ns = self.clock.after(listener.config.listener_filters_timeout);
        down.kind = Kind::Inspecting(Box::new(Inspection::new(deadline_ns)));
        self.arm_downstream(key);
    }

    /// More bytes have come for the listener filters.
    pub(super) fn inspect(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let Some(listener) = self.listeners.get(down.listener) else { return };
        let Kind::Inspecting(inspection) = &mut down.kind else { return };
        match inspection.look(&listener.config.listener_filters, down.io.input.as_slice()) {
            Inspected::NeedInput => {}
            Inspected::Done => {
                let findings = inspection.findings().clone();
                self.leave_inspection(key);
                self.choose_chain(key, &findings);
            }
            Inspected::Refused(reason) => {
                listener.stats.0.inc(Stat::DOWNSTREAM_LISTENER_FILTER_ERROR);
                tracing::debug!(listener = %listener.config.name, reason, "a connection is refused");
                self.close_downstream(key, CloseReason::Local);
            }
        }
    }

    /// The client has sent all it will before the filters had enough: they are content with what there is.
    pub(super) fn inspection_ended(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get(key) else { return };
        if let Some(listener) = self.listeners.get(down.listener) {
            listener.stats.0.inc(Stat::DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE);
        }
        self.close_downstream(key, CloseReason::Remote);
    }

    /// The filters' time is over.
    pub(super) fn inspection_timed_out(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get(key) else { return };
        let Kind::Inspecting(inspection) = &down.kind else { return };
        let Some(listener) = self.listeners.get(down.listener) else { return };
        listener.stats.0.inc(Stat::DOWNSTREAM_PRE_CX_TIMEOUT);
        if !listener.config.continue_on_listener_filters_timeout {
            return self.close_downstream(key, CloseReason::Local);
        }
        let findings = inspection.findings().clone();
        self.leave_inspection(key);
        self.choose_chain(key, &findings);
    }

    fn leave_inspection(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        down.kind = Kind::Lingering;
        self.inspection_closed(key);
    }

    /// No listener filter looks at the connection any more.
    pub(super) fn inspection_closed(&mut self, key: Key<Downstream>) {
        if let Some(down) = self.downs.get(key)
            && let Some(listener) = self.listeners.get(down.listener)
        {
            listener.stats.0.gauge_add(Stat::DOWNSTREAM_PRE_CX_ACTIVE, -1);
        }
    }

    /// Step 3.
    fn choose_chain(&mut self, key: Key<Downstream>, found: &Findings) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let Some(listener) = self.listeners.get(down.listener) else { return };
        let protocols: smallvec::SmallVec<[&[u8]; 8]> =
            found.application_protocols.iter().map(Vec::as_slice).collect();
        let facts = ConnectionFacts {
            local: down.info.local_address,
            direct_remote: down.info.direct_remote_address,
            remote: down.info.remote_address,
            server_name: found.server_name.as_deref().unwrap_or_default(),
            is_tls: found.is_tls,
            application_protocols: &protocols,
        };
        let chain = match listener.config.index.find(&facts) {
            Some(index) => listener.chains.get(index).cloned(),
            None => listener.default_chain.clone(),
        };
        let Some(chain) = chain else {
            listener.stats.0.inc(Stat::NO_FILTER_CHAIN_MATCH);
            return self.close_downstream(key, CloseReason::Local);
        };
        // Nobody else knows of the connection yet, so what is known of it can still be added to.
        if let Some(info) = Rc::get_mut(&mut down.info) {
            info.filter_chain_name = Arc::clone(&chain.config.name);
            info.requested_server_name = found.server_name.as_deref().map(Into::into);
        }
        self.serve(key, chain, &found.application_protocols);
    }

    /// The chain is chosen: step 4.
    fn serve(&mut self, key: Key<Downstream>, chain: Rc<ActiveChain>, offered: &[Vec<u8>]) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let tls = chain.config.tls.clone();
        let timeout = chain.config.transport_socket_connect_timeout;
        down.chain = Some(chain);
        let Some(tls) = tls else {
            self.enter_terminal(key);
            if self.downs.get(key).is_some_and(|down| !down.io.input.is_empty()) {
                self.deliver_pending(key);
            }
            return;
        };
        // As Envoy: a secret that has not come yet closes the connection rather than letting it wait.
        let Some(side) = tls.current() else {
            tracing::debug!(
                "a TLS connection is closed: its certificate has not been received yet"
            );
            return self.close_downstream(key, CloseReason::Local);
        };
        let deadline_ns = self.clock.after(timeout);
        let begun = TlsSession::server(side.accepting(offered))
            .and_then(|session| down.io.secure(session, &mut self.buffers));
        down.kind = Kind::Handshaking(Box::new(Handshake { side, deadline_ns }));
        match begun {
            Ok(()) => self.mark_downstream(key),
            Err(failure) => {
                tracing::debug!(%failure, "TLS handshake failed");
                // Best effort: the alert tells the client why.
                let _ = down.io.flush(&mut self.buffers);
                return self.close_downstream(key, CloseReason::Local);
            }
        }
        self.arm_downstream(key);
    }

    /// The handshake is done: what it came to is noted, and the chain's filters begin.
    pub(super) fn downstream_secured(&mut self, key: Key<Downstream>) {
        let now = self.clock.now_ns();
        let Some(down) = self.downs.get_mut(key) else { return };
        let Kind::Handshaking(handshake) = std::mem::replace(&mut down.kind, Kind::Lingering)
        else {
            return;
        };
        if let (Some(session), Some(info)) = (down.io.tls(), Rc::get_mut(&mut down.info)) {
            let secrets = &handshake.side.secrets;
            if info.requested_server_name.is_none() {
                info.requested_server_name = session.server_name().map(Into::into);
            }
            let presented = secrets.presented(info.requested_server_name.as_deref());
            let tls = info::of(session.state(), secrets, presented);
            if let Some(listener) = self.listeners.get(down.listener) {
                stats::handshake(&self.cx.recorder, listener.config.tls_stats.as_ref(), &tls);
            }
            info.tls = Some(Arc::new(tls));
            info.handshake_done_ns = now;
        }
        self.mark_downstream(key);
        self.enter_terminal(key);
    }

    /// The handshake takes too long.
    pub(super) fn handshake_timed_out(&mut self, key: Key<Downstream>) {
        if let Some(down) = self.downs.get(key)
            && let Some(listener) = self.listeners.get(down.listener)
        {
            listener.stats.0.inc(Stat::DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT);
        }
        self.close_downstream(key, CloseReason::Local);
    }

    /// The connection ends in its handshake.
    pub(super) fn handshake_closed(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get(key) else { return };
        if let Some(failure) = down.io.tls_failure() {
            tracing::debug!(peer = ?down.info.remote_address, %failure, "TLS handshake failed");
        }
    }

    /// A connection is about to be closed: if TLS is why, that is counted.
    pub(super) fn count_tls_failure(&self, down: &Downstream) {
        if let Some(failure) = down.io.tls_failure()
            && let Some(listener) = self.listeners.get(down.listener)
        {
            let block = listener.config.tls_stats.as_ref();
            stats::failure(&self.cx.recorder, block, Some(failure));
        }
    }
}
