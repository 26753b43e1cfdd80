//! Keeping workloads running: started, started again with growing pauses when they crash, stopped in order.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::addresses::{self, Holder};
use apiserver::control_socket::protocol::WorkloadState;
use apiserver::state_dir::StateDir;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use resources::store::Versioned;
use tokio::sync::watch;

use super::board::{Board, STATUS_PORT};
use super::child::Child;
use super::control_plane::ControlPlane;
use super::gateway;
use super::http_get::get;
use super::output::{Screen, WorkloadOutput, seconds};
use super::plan::Spec;
use super::{GatewayOptions, Options};
use crate::run::news::places;

/// Pause before a first restart; it doubles with every crash.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A workload that ran this long did not crash at its start: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(20);
/// Time that a workload may take to finish what it does.
const DRAIN: Duration = Duration::from_secs(30);
/// Time between two questions whether a workload is ready.
const ASK: Duration = Duration::from_millis(50);

/// What a workload is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    Drain,
    Kill,
}

/// What every workload's keeper needs.
struct Surroundings {
    directory: PathBuf,
    state: PathBuf,
    root_namespace: String,
    store: Arc<Versioned>,
    gateway: Option<GatewayOptions>,
    board: Arc<Board>,
    screen: Screen,
}

struct Running {
    spec: Spec,
    orders: watch::Sender<Order>,
}

impl Running {
    /// Whether it is of one of these groups, by namespace and name.
    fn is_of(&self, groups: &[(String, String)]) -> bool {
        let Spec { namespace, group, .. } = &self.spec;
        groups.iter().any(|(in_namespace, name)| (in_namespace, name) == (namespace, group))
    }

    /// Whether it runs as `spec` says and will go on: one that was told to stop does not, even if its row came back.
    fn goes_on_as(&self, spec: &Spec) -> bool {
        self.spec == *spec && *self.orders.borrow() == Order::Run
    }
}

/// Runs workloads. Its futures must be polled on a thread that lives as long as the process: see [`Child::start`].
pub struct Supervisor {
    surroundings: Arc<Surroundings>,
    running: BTreeMap<String, Running>,
    keepers: FuturesUnordered<Pin<Box<dyn Future<Output = String>>>>,
    /// What is started as soon as its predecessor of the same name ended.
    next: BTreeMap<String, Spec>,
}

impl Supervisor {
    /// A supervisor of nothing.
    pub fn new(
        options: &Options,
        state: &StateDir,
        board: Arc<Board>,
        screen: Screen,
        plane: &ControlPlane,
    ) -> Self {
        let surroundings = Surroundings {
            directory: options.directory.clone(),
            state: state.path().to_owned(),
            root_namespace: plane.root_namespace.clone(),
            store: Arc::clone(&plane.store),
            gateway: options.gateway,
            board,
            screen,
        };
        Self {
            surroundings: Arc::new(surroundings),
            running: BTreeMap::new(),
            keepers: FuturesUnordered::new(),
            next: BTreeMap::new(),
        }
    }

    /// Runs exactly these: what is new is started, what changed is started anew, what is not named is stopped, unless it
    /// is of one of the groups of which nothing is known for sure.
    pub fn run_these(&mut self, specs: Vec<Spec>, unclear: &[(String, String)]) {
        let wanted: BTreeMap<String, Spec> =
            specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        self.next.retain(|name, _| wanted.contains_key(name));
        for (name, running) in &self.running {
            let what = match wanted.get(name) {
                Some(spec) if running.goes_on_as(spec) => {
                    self.next.remove(name);
                    continue;
                }
                Some(_) => "is started anew: workloads.yaml runs it otherwise now",
                None if running.is_of(unclear) => continue,
                None => "is stopped: workloads.yaml does not run it any more",
            };
            if *running.orders.borrow() == Order::Run {
                self.surroundings.screen.say(&format!("{name} {what}"));
                running.orders.send_replace(Order::Drain);
            }
        }
        for (name, spec) in wanted {
            match self.running.get(&name) {
                None => self.start(spec),
                Some(running) if running.goes_on_as(&spec) => {}
                Some(_) => drop(self.next.insert(name, spec)),
            }
        }
    }

    fn start(&mut self, spec: Spec) {
        let (orders, heard) = watch::channel(Order::Run);
        let keeper = Keeper {
            spec: spec.clone(),
            orders: heard,
            surroundings: Arc::clone(&self.surroundings),
            last_words: String::new(),
        };
        self.surroundings.board.add(&spec);
        self.keepers.push(Box::pin(keeper.keep()));
        self.running.insert(spec.name.clone(), Running { spec, orders });
    }

    /// Lets workloads run until something happens that is worth a look. Cancel-safe.
    pub async fn keep_running(&mut self) {
        tokio::select! {
            () = self.surroundings.board.changed() => {}
            ended = next_end(&mut self.keepers) => self.ended(&ended),
        }
    }

    fn ended(&mut self, name: &str) {
        self.running.remove(name);
        self.surroundings.board.remove(name);
        if let Some(spec) = self.next.remove(name) {
            self.start(spec);
        }
    }

    /// Stops everything in order: first the gateway, so that nothing comes in, then the rest.
    pub async fn drain(&mut self) {
        self.next.clear();
        for gateway in [true, false] {
            for running in
                self.running.values().filter(|running| running.spec.is_gateway == gateway)
            {
                running.orders.send_replace(Order::Drain);
            }
            while self.running.values().any(|running| running.spec.is_gateway == gateway) {
                let ended = next_end(&mut self.keepers).await;
                self.ended(&ended);
            }
        }
    }

    /// Stops everything at once.
    pub async fn kill(&mut self) {
        self.next.clear();
        for running in self.running.values() {
            running.orders.send_replace(Order::Kill);
        }
        while !self.running.is_empty() {
            let ended = next_end(&mut self.keepers).await;
            self.ended(&ended);
        }
    }
}

/// The name of the next workload that ended for good; never if none runs.
async fn next_end(keepers: &mut FuturesUnordered<Pin<Box<dyn Future<Output = String>>>>) -> String {
    match keepers.next().await {
        Some(name) => name,
        None => std::future::pending().await,
    }
}

/// Keeps one workload running.
struct Keeper {
    spec: Spec,
    orders: watch::Receiver<Order>,
    surroundings: Arc<Surroundings>,
    /// The last lines that were shown, without their numbers: times and ports differ each time.
    last_words: String,
}

impl Keeper {
    /// Runs it until it is told to stop; gives its name.
    async fn keep(mut self) -> String {
        let output = match self.surroundings.screen.workload(&self.spec.name) {
            Ok(output) => output,
            Err(error) => {
                self.say(&format!("its log cannot be written: {error}"));
                return self.spec.name;
            }
        };
        let mut pause = FIRST_PAUSE;
        while *self.orders.borrow() == Order::Run {
            let begun = Instant::now();
            output.begin();
            let how = self.run_once(&output).await;
            if *self.orders.borrow() != Order::Run {
                break;
            }
            if begun.elapsed() > STEADY {
                pause = FIRST_PAUSE;
            }
            self.tell_crash(&how, &output, pause);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.orders.changed() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.set(|status| status.state = WorkloadState::Stopped);
        self.spec.name
    }

    fn say(&self, text: &str) {
        self.surroundings.screen.say(&format!("{} {text}", self.spec.name));
    }

    fn set(&self, change: impl FnOnce(&mut apiserver::control_socket::protocol::WorkloadStatus)) {
        self.surroundings.board.change(&self.spec.name, change);
    }

    /// Says how a process ended, with its last lines unless the one before ended with the same.
    fn tell_crash(&mut self, how: &str, output: &WorkloadOutput, pause: Duration) {
        self.set(|status| {
            status.state = WorkloadState::Waiting;
            status.pid = None;
            status.synced = None;
            status.restarts += 1;
            status.last_exit = Some(how.to_owned());
        });
        let last = output.last_lines();
        let mut text = format!("{how}; starting again in {}", seconds(pause));
        let words: String = last.concat().chars().filter(|c| !c.is_ascii_digit()).collect();
        if !last.is_empty() && self.last_words != words {
            text.push_str(". Its last lines:");
            for line in &last {
                text.push_str("\n    ");
                text.push_str(line);
            }
            self.last_words = words;
        }
        self.say(&text);
    }

    /// One process, from its start to its end; says how it ended.
    async fn run_once(&mut self, output: &WorkloadOutput) -> String {
        let begun = Instant::now();
        let (directory, state) = (&self.surroundings.directory, &self.surroundings.state);
        let mut child = match Child::start(&self.spec, directory, state, output) {
            Ok(child) => child,
            Err(error) => return format!("cannot be started: {error}"),
        };
        self.set(|status| {
            status.state = WorkloadState::Starting;
            status.pid = child.id();
        });
        let mut ready = false;
        let mut orders = self.orders.clone();
        loop {
            tokio::select! {
                ended = child.wait() => return how_it_ended(ended),
                _ = orders.changed() => return self.end(child).await,
                address = self.wait_until_ready(), if !ready => {
                    ready = true;
                    self.tell_ready(address, begun.elapsed());
                }
            }
        }
    }

    async fn wait_until_ready(&self) -> Ipv4Addr {
        let holder = Holder {
            namespace: self.spec.namespace.clone(),
            group: self.spec.group.clone(),
            instance: Some(self.spec.instance.clone()),
        };
        let here = &self.surroundings;
        loop {
            let address =
                addresses::of(&*here.store, &here.root_namespace, &holder).await.ok().flatten();
            if let Some(address) = address {
                self.set(|status| status.address = Some(address.into()));
                let path = "/healthz/workload";
                if let Ok((200, _)) = get((address, STATUS_PORT).into(), path).await {
                    return address;
                }
            }
            tokio::time::sleep(ASK).await;
        }
    }

    fn tell_ready(&self, address: Ipv4Addr, time: Duration) {
        self.set(|status| status.state = WorkloadState::Running);
        let here = &self.surroundings;
        let places = match self.spec.is_gateway {
            true => gateway::urls(&here.store, here.gateway.as_ref()).join(" and "),
            false => places(address.into(), &self.spec.ports),
        };
        let time = seconds(time);
        match places.as_str() {
            "" => self.say(&format!("is ready ({time})")),
            places => self.say(&format!("is ready at {places} ({time})")),
        }
    }

    /// Ends a process: it may finish what it does, unless it takes too long or somebody is in a hurry.
    async fn end(&mut self, mut child: Child) -> String {
        if *self.orders.borrow() == Order::Drain {
            child.terminate();
            let hurry = async {
                // An order that cannot come any more is none.
                if self.orders.wait_for(|order| *order == Order::Kill).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                ended = child.wait() => return how_it_ended(ended),
                () = tokio::time::sleep(DRAIN) => {}
                () = hurry => {}
            }
        }
        child.kill();
        how_it_ended(child.wait().await)
    }
}

fn how_it_ended(ended: std::io::Result<std::process::ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match ended {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("is lost: {error}"),
    }
}
