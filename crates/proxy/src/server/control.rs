//! Where every change of configuration meets: discovery, DNS, deadlines, the admin interface.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use super::Options;
use super::counters::Counters;
use super::discovery_counters::DiscoveryCounters;
use super::dns::Resolutions;
use super::health::HealthChecks;
use super::sockets::Sockets;
use crate::bootstrap::{Bootstrap, Node};
use crate::config_sync::sink::{
    Applied, ConfigSink, GrpcTarget, ResourceKind, Subscriptions, Update,
};
use crate::listener::config::ListenAddress;
use crate::snapshot::{Effects, ListenerEffect, Snapshot};
use crate::upstream::host::Host;
use crate::worker::{Ack, ListenerId, Mailbox, Message, WorkerGauges};

/// The main thread's state. Its lock is held while a change is prepared and handed to the workers, never across an
/// `await`, so that changes reach every worker in one order.
pub struct Control {
    pub(super) core: Mutex<Core>,
    pub(super) bootstrap: Bootstrap,
    pub(super) options: Options,
    pub(super) gauges: Vec<Arc<WorkerGauges>>,
    pub(super) counters: Counters,
    pub(super) discovery: DiscoveryCounters,
    pub(super) started: SystemTime,
    began: Instant,
    initialized: AtomicBool,
    pub(super) draining: AtomicBool,
    subscriptions: watch::Sender<Arc<Subscriptions>>,
    warm: watch::Sender<bool>,
    deadlines: Notify,
    quit: watch::Sender<bool>,
}

/// What changes.
pub struct Core {
    /// Everything that is configured.
    pub snapshot: Snapshot,
    /// Every socket.
    pub sockets: Sockets,
    /// Every worker.
    pub mailboxes: Vec<Mailbox>,
    /// Names that are being resolved.
    pub resolutions: Resolutions,
    /// Hosts that are being checked.
    pub health: HealthChecks,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// Resolves when every worker has done something.
#[derive(Debug)]
pub struct Done(oneshot::Receiver<()>);

impl Done {
    pub(super) fn new() -> (Arc<Ack>, Self) {
        let (sender, receiver) = oneshot::channel();
        // A receiver that is gone does not want to know.
        let tell = move || {
            let _ = sender.send(());
        };
        (Ack::new(tell), Self(receiver))
    }

    pub(super) async fn wait(self) {
        // An error would mean that a worker has ended; then there is nothing to wait for either.
        let _ = self.0.await;
    }
}

impl Control {
    pub(super) fn new(
        snapshot: Snapshot,
        sockets: Sockets,
        mailboxes: Vec<Mailbox>,
        gauges: Vec<Arc<WorkerGauges>>,
        bootstrap: Bootstrap,
        options: Options,
    ) -> Arc<Self> {
        let subscriptions = watch::Sender::new(Arc::new(snapshot.subscriptions()));
        let counters = Counters::new(&snapshot.environment().registry, mailboxes.len());
        let registry = &snapshot.environment().registry;
        let discovery = DiscoveryCounters::new(registry, counters.recorder().clone());
        discovery.follow(&snapshot, &subscriptions.borrow());
        Arc::new(Self {
            core: Mutex::new(Core {
                snapshot,
                sockets,
                mailboxes,
                resolutions: Resolutions::default(),
                health: HealthChecks::default(),
            }),
            bootstrap,
            options,
            gauges,
            counters,
            discovery,
            started: SystemTime::now(),
            began: Instant::now(),
            initialized: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            subscriptions,
            warm: watch::Sender::new(false),
            deadlines: Notify::new(),
            quit: watch::Sender::new(false),
        })
    }

    /// Takes an update and hands what is good to the workers.
    fn apply(self: &Arc<Self>, update: &Update) -> (Applied, Done) {
        let mut core = self.core.lock();
        let began = Instant::now();
        let Core { snapshot, sockets, .. } = &mut *core;
        let rejected = snapshot.apply(update, sockets, began);
        let names: Vec<String> = rejected.iter().map(|refused| refused.name.clone()).collect();
        if update.kind == ResourceKind::Listener {
            self.counters.listeners_rejected(names.len() as u64);
        }
        self.counters.unknown_fields(core.snapshot.take_unknown_fields());
        let done = self.commit(&mut core);
        self.discovery.update(update, &names, began.elapsed());
        (Applied { rejected }, done)
    }

    /// Puts into use whatever has become ready.
    pub(super) fn settle(self: &Arc<Self>) {
        self.commit(&mut self.core.lock());
    }

    /// What DNS says of a cluster's names, after so many look-ups, of which so many failed.
    pub(super) fn resolved(
        self: &Arc<Self>,
        cluster: &str,
        addresses: HashMap<String, Vec<IpAddr>>,
        lookups: u64,
        failures: u64,
    ) {
        let mut core = self.core.lock();
        let is_new = core.snapshot.resolved(cluster, addresses);
        if let Some(block) = core.snapshot.membership(cluster) {
            self.counters.resolved(block, lookups, failures, is_new);
        }
        self.commit(&mut core);
    }

    /// Every host of a cluster has been checked once.
    pub(super) fn health_checked(self: &Arc<Self>, cluster: &str) {
        let mut core = self.core.lock();
        core.snapshot.health_checked(cluster);
        self.commit(&mut core);
    }

    /// A host has failed its checks; if `closing`, its connections are closed.
    pub(super) fn host_failed(self: &Arc<Self>, cluster: &str, closing: Option<Arc<Host>>) {
        let mut core = self.core.lock();
        if let Some(host) = closing {
            core.mailboxes.iter().for_each(|it| it.send(Message::CloseHost(Arc::clone(&host))));
        }
        core.snapshot.host_failed(cluster);
        self.commit(&mut core);
    }

    fn commit(self: &Arc<Self>, core: &mut Core) -> Done {
        let effects = core.snapshot.settle(Instant::now());
        let (ack, done) = Done::new();
        self.publish(core, effects, &ack);
        if let Some(wanted) = core.snapshot.new_subscriptions() {
            self.subscriptions.send_if_modified(|current| {
                let changed = **current != wanted;
                if changed {
                    self.discovery.follow(&core.snapshot, &wanted);
                    *current = Arc::new(wanted);
                }
                changed
            });
        }
        let is_warm = core.snapshot.is_warm();
        let changed =
            self.warm.send_if_modified(|warm| std::mem::replace(warm, is_warm) != is_warm);
        if changed && is_warm && !self.initialized.swap(true, Ordering::Relaxed) {
            self.counters.initialized(self.began);
        }
        self.deadlines.notify_one();
        done
    }

    fn publish(self: &Arc<Self>, core: &mut Core, effects: Effects, ack: &Arc<Ack>) {
        self.counters.clusters(effects.clusters);
        self.counters.memberships(&effects.memberships);
        for (kind, name) in &effects.unanswered {
            self.discovery.timed_out(*kind, Some(name));
        }
        for kind in &effects.silent {
            self.discovery.timed_out(*kind, None);
        }
        if !effects.changes.is_empty() {
            let changes: Arc<[_]> = effects.changes.into();
            for mailbox in &core.mailboxes {
                mailbox.send(Message::Commit {
                    changes: Arc::clone(&changes),
                    ack: Some(Arc::clone(ack)),
                });
            }
        }
        for effect in effects.listeners {
            self.counters.listener(&effect, core.mailboxes.len() as u64);
            self.publish_listener(core, effect, ack);
        }
        for (cluster, task) in effects.dns {
            core.resolutions.change(cluster, task, self);
        }
        for task in effects.health {
            core.health.change(task, &core.snapshot.environment().registry, self);
        }
    }

    fn publish_listener(&self, core: &mut Core, effect: ListenerEffect, ack: &Arc<Ack>) {
        let drain = self.options.drain_time;
        let Core { sockets, mailboxes, .. } = core;
        match effect {
            ListenerEffect::Add(id, config) => {
                tracing::info!("listener {} serves on {}", config.name, sockets.describe(id));
                let mut sockets = sockets.listen(id).into_iter();
                for mailbox in mailboxes.iter() {
                    let (config, ack) = (Arc::clone(&config), Some(Arc::clone(ack)));
                    mailbox.send(Message::AddListener {
                        id,
                        config,
                        socket: sockets.next().flatten(),
                        ack,
                    });
                }
            }
            ListenerEffect::Update(id, config) => {
                for mailbox in mailboxes.iter() {
                    let (config, ack) = (Arc::clone(&config), Some(Arc::clone(ack)));
                    mailbox.send(Message::UpdateListener { id, config, drain, ack });
                }
            }
            ListenerEffect::Remove(id) => {
                // The workers' copies are the last ones, so that each can accept what is left before it closes.
                sockets.close(id);
                for mailbox in mailboxes.iter() {
                    mailbox.send(Message::RemoveListener { id, drain, ack: None });
                }
            }
        }
    }

    /// Looks again whenever something that waits goes on without.
    pub(super) fn spawn_settler(self: &Arc<Self>) {
        let control = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(deadline) = Self::next_deadline(&control) {
                Self::sleep(&control, deadline).await;
                let Some(control) = control.upgrade() else { return };
                let due = deadline.is_some_and(|deadline| deadline <= Instant::now());
                if due {
                    control.settle();
                }
            }
        });
    }

    /// The next deadline, if the server is still there.
    fn next_deadline(control: &Weak<Self>) -> Option<Option<Instant>> {
        Some(control.upgrade()?.core.lock().snapshot.next_deadline())
    }

    async fn sleep(control: &Weak<Self>, deadline: Option<Instant>) {
        let Some(control) = control.upgrade() else { return };
        match deadline {
            Some(deadline) => {
                let sleep = tokio::time::sleep_until(deadline.into());
                tokio::select! { () = sleep => {}, () = control.deadlines.notified() => {} }
            }
            None => control.deadlines.notified().await,
        }
    }

    /// Is anything asked of discovery?
    pub(super) fn discovers(&self) -> bool {
        !self.subscriptions.borrow().wanted.is_empty()
    }

    pub(super) async fn wait_until_warm(&self) {
        let mut warm = self.warm.subscribe();
        // The sender lives as long as `self`, so this ends only with a value.
        let _ = warm.wait_for(|warm| *warm).await;
    }

    pub(super) fn is_warm(&self) -> bool {
        *self.warm.borrow()
    }

    pub(super) async fn wait_until_quit(&self) {
        let mut quit = self.quit.subscribe();
        let mut panics: Vec<_> =
            self.gauges.iter().map(|worker| Box::pin(worker.wait_for_panic())).collect();
        let first_panic = std::future::poll_fn(|cx| {
            let is_over = panics.iter_mut().any(|panic| panic.as_mut().poll(cx).is_ready());
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            _ = quit.wait_for(|quit| *quit) => {}
            () = first_panic => {}
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.gauges.iter().any(|worker| worker.has_panicked())
    }

    pub(super) fn ask_to_quit(&self) {
        self.quit.send_replace(true);
    }

    /// Every listener that serves, by name, with the address it is bound to.
    pub(super) fn addresses(&self) -> Vec<(Arc<str>, ListenAddress)> {
        let core = self.core.lock();
        let bound = |id: ListenerId| core.sockets.address(id);
        core.snapshot
            .listeners()
            .filter_map(|(name, listener)| Some((Arc::clone(name), bound(listener.id)?)))
            .collect()
    }

    /// Sends every worker a message.
    pub(super) fn broadcast(&self, message: impl Fn() -> Message) {
        self.core.lock().mailboxes.iter().for_each(|mailbox| mailbox.send(message()));
    }

    /// Is the server ending?
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// A handle by which configuration is changed. Cheap to clone; it does not keep the server alive.
#[derive(Debug, Clone)]
pub struct ConfigHandle {
    control: Weak<Control>,
    subscriptions: watch::Receiver<Arc<Subscriptions>>,
}

impl ConfigHandle {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::downgrade(control), subscriptions: control.subscriptions.subscribe() }
    }
}

impl ConfigSink for ConfigHandle {
    fn node(&self) -> Node {
        let Some(control) = self.control.upgrade() else { return Node::default() };
        let core = control.core.lock();
        control.bootstrap.introduction(&core.snapshot.environment().extensions)
    }

    fn subscriptions(&self) -> watch::Receiver<Arc<Subscriptions>> {
        self.subscriptions.clone()
    }

    async fn apply(&self, update: Update) -> Applied {
        let Some(control) = self.control.upgrade() else { return Applied::default() };
        let (applied, done) = control.apply(&update);
        drop(control);
        done.wait().await;
        applied
    }

    fn connected(&self, only: Option<ResourceKind>, is_connected: bool) {
        if let Some(control) = self.control.upgrade() {
            control.discovery.connected(only, is_connected);
        }
    }

    async fn grpc_target(&self, cluster: &str) -> Option<GrpcTarget> {
        self.control.upgrade()?.core.lock().snapshot.grpc_target(cluster)
    }
}
