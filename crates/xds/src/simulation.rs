//! A client against a server through lost connections, delays and rejections, from a seed. Whatever happened on the way,
//! when the network is quiet the client holds exactly what the server has for it.
//!
//! On the way two things must hold at every step: a route that the client holds never names a cluster that it does not
//! hold, and what the client rejected is not sent again on the same stream.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::Update;
use crate::nack::Rejection;
use crate::resource_type::ResourceType::{self, *};
use crate::{DeltaClient, DeltaServer, Resource, ResourceSource};

/// Content that the client's application refuses.
const POISON: &str = "poison";

/// The mesh: clusters with endpoints, a listener, and one route configuration whose virtual hosts each name a cluster.
#[derive(Default)]
struct World {
    contents: BTreeMap<(ResourceType, Arc<str>), String>,
}

impl ResourceSource for World {
    fn names(&mut self, kind: ResourceType) -> Vec<Arc<str>> {
        self.contents.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.clone()).collect()
    }

    fn names_in(&mut self, kind: ResourceType, collection: &str) -> Vec<Arc<str>> {
        let prefix = format!("{collection}/");
        self.names(kind).into_iter().filter(|name| name.starts_with(&prefix)).collect()
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<Resource> {
        let content = self.contents.get(&(kind, Arc::from(name)))?;
        Some(Resource::new(name, kind.type_url(), content.clone().into_bytes()))
    }
}

struct Simulation {
    rng: StdRng,
    world: World,
    server: Option<DeltaServer>,
    client: DeltaClient,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
    /// Responses that the application has not judged yet; it judges them in any order.
    unjudged: Vec<(u32, Update)>,
    stream: u32,
    /// What the application runs with.
    applied: BTreeMap<(ResourceType, Arc<str>), String>,
    /// (type, name, content) that the application refused on this stream.
    refused: HashSet<(ResourceType, Arc<str>, String)>,
    poisoning: bool,
}

impl Simulation {
    fn new(seed: u64) -> Simulation {
        let mut client = DeltaClient::new(Node::default());
        client.subscribe_all(Cluster);
        client.subscribe_all(Listener);
        client.subscribe(RouteConfiguration, "80");
        client.subscribe(VirtualHost, "80");
        let mut world = World::default();
        world.contents.insert((Listener, "l".into()), "0".into());
        world.contents.insert((RouteConfiguration, "80".into()), "0".into());
        Simulation {
            rng: StdRng::seed_from_u64(seed),
            world,
            server: None,
            client,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            unjudged: Vec::new(),
            stream: 0,
            applied: BTreeMap::new(),
            refused: HashSet::new(),
            poisoning: true,
        }
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 => self.write(),
            20..22 => self.disconnect(),
            22..30 => self.connect(),
            30..45 => drop(self.client_speaks()),
            45..60 => drop(self.server_hears()),
            60..72 => drop(self.server_speaks()),
            72..86 => drop(self.client_hears()),
            _ => drop(self.application_judges()),
        }
        self.check_make_before_break();
    }

    /// Someone applies YAML: all that belongs together changes at once, as one change set.
    fn write(&mut self) {
        let mut changed = Vec::new();
        let n = self.rng.random_range(0..4);
        let cluster: Arc<str> = Arc::from(format!("c{n}"));
        let host: Arc<str> = Arc::from(format!("80/h{n}"));
        let content = match self.rng.random_range(0..8) {
            0 if self.poisoning => format!("{POISON}{}", self.rng.random_range(0..3)),
            _ => self.rng.random_range(0..5).to_string(),
        };
        match self.rng.random_range(0..5) {
            0 => {
                // The service goes: its virtual host with it.
                for (kind, name) in
                    [(VirtualHost, &host), (Cluster, &cluster), (Endpoints, &cluster)]
                {
                    self.world.contents.remove(&(kind, name.clone()));
                    changed.push((kind, name.clone()));
                }
            }
            1 => self.set(Listener, "l".into(), content, &mut changed),
            2 if self.world.contents.contains_key(&(Cluster, cluster.clone())) => {
                self.set(Endpoints, cluster, content, &mut changed);
            }
            _ => {
                self.set(Cluster, cluster.clone(), content.clone(), &mut changed);
                self.set(Endpoints, cluster, "0".into(), &mut changed);
                self.set(VirtualHost, host, content, &mut changed);
            }
        }
        if let Some(server) = &mut self.server {
            for (kind, name) in &changed {
                server.changed(*kind, name);
            }
            if self.rng.random_range(0..20) == 0 {
                ResourceType::ALL.into_iter().for_each(|kind| server.changed_all(kind));
            }
        }
    }

    fn set(
        &mut self,
        kind: ResourceType,
        name: Arc<str>,
        content: String,
        changed: &mut Vec<(ResourceType, Arc<str>)>,
    ) {
        self.world.contents.insert((kind, name.clone()), content);
        changed.push((kind, name));
    }

    fn connect(&mut self) {
        if self.server.is_none() {
            self.server = Some(DeltaServer::new());
            self.client.connected();
            self.refused.clear();
            self.stream += 1;
        }
    }

    fn disconnect(&mut self) {
        self.server = None;
        self.client.disconnected();
        self.to_server.clear();
        self.to_client.clear();
    }

    fn client_speaks(&mut self) -> bool {
        let request = self.client.poll_request();
        let spoke = request.is_some();
        self.to_server.extend(request);
        spoke
    }

    fn server_hears(&mut self) -> bool {
        let (Some(server), Some(request)) = (&mut self.server, self.to_server.pop_front()) else {
            return false;
        };
        server.on_request(request).unwrap();
        true
    }

    fn server_speaks(&mut self) -> bool {
        let Some(response) =
            self.server.as_mut().and_then(|server| server.next_response(&mut self.world))
        else {
            return false;
        };
        // Over the wire, as any client sees it.
        self.to_client.push_back(
            DeltaDiscoveryResponse::decode(response.encode_to_vec().as_slice()).unwrap(),
        );
        true
    }

    fn client_hears(&mut self) -> bool {
        let Some(response) = self.to_client.pop_front() else { return false };
        let update = self.client.receive(response).unwrap();
        for resource in &update.changed {
            let told = (update.id.kind, resource.name.clone(), text(resource));
            assert!(!self.refused.contains(&told), "sent again after it was refused: {told:?}");
        }
        if update.id.kind == Cluster {
            // Endpoints are wanted before the clusters are answered.
            update
                .changed
                .iter()
                .for_each(|resource| self.client.subscribe(Endpoints, &*resource.name));
        }
        self.unjudged.push((self.stream, update));
        true
    }

    fn application_judges(&mut self) -> bool {
        if self.unjudged.is_empty() {
            return false;
        }
        let at = self.rng.random_range(0..self.unjudged.len());
        // Within one type, order is kept: the application is one.
        let kind = self.unjudged[at].1.id.kind;
        let at = self.unjudged.iter().position(|(_, update)| update.id.kind == kind).unwrap();
        let (stream, update) = self.unjudged.remove(at);
        let mut rejections = Vec::new();
        for resource in &update.changed {
            let content = text(resource);
            if kind != Endpoints && content.starts_with(POISON) {
                if stream == self.stream && self.server.is_some() {
                    self.refused.insert((kind, resource.name.clone(), content));
                }
                rejections.push(Rejection { name: resource.name.clone(), reason: "poison".into() });
            } else if kind != Endpoints || self.client.is_subscribed(Endpoints, &resource.name) {
                self.applied.insert((kind, resource.name.clone()), content);
            }
        }
        for name in &update.removed {
            self.applied.remove(&(kind, name.clone()));
            if kind == Cluster {
                self.client.unsubscribe(Endpoints, name);
                self.applied.remove(&(Endpoints, name.clone()));
            }
        }
        self.client.answer(&update.id, rejections);
        true
    }

    /// A virtual host `80/hN` routes to cluster `cN`. Where clusters are never refused, none may go first.
    fn check_make_before_break(&self) {
        if self.poisoning {
            return;
        }
        for (kind, name) in self.applied.keys() {
            if *kind == VirtualHost {
                let cluster: Arc<str> = Arc::from(name.replace("80/h", "c"));
                assert!(
                    self.applied.contains_key(&(Cluster, cluster.clone())),
                    "{name} routes to {cluster}, which is gone"
                );
            }
        }
    }

    /// Lets everything arrive until nobody has anything to say.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..10_000 {
            let mut busy = self.client_speaks();
            busy |= self.server_hears();
            busy |= self.server_speaks();
            busy |= self.client_hears();
            busy |= self.application_judges();
            self.check_make_before_break();
            if !busy {
                return;
            }
        }
        panic!("the two never fall silent");
    }

    fn check_converged(&mut self) {
        let held: BTreeSet<(ResourceType, Arc<str>, String)> = ResourceType::ALL
            .into_iter()
            .flat_map(|kind| {
                self.client
                    .held(kind)
                    .map(move |(name, version)| (kind, name.clone(), version.to_owned()))
            })
            .collect();
        let mut wanted = BTreeSet::new();
        for (kind, name) in self.world.contents.keys().cloned().collect::<Vec<_>>() {
            let resource = self.world.resource(kind, &name).unwrap();
            wanted.insert((kind, name, resource.version().to_string()));
        }
        assert_eq!(held, wanted);
        assert_eq!(self.applied, self.world.contents);
        assert!(self.server.as_ref().unwrap().is_synced());
    }
}

fn text(resource: &crate::client::Received) -> String {
    String::from_utf8(resource.body.clone().unwrap().value).unwrap()
}

/// Rejections on the way; at the end everything is made good again.
#[test]
fn client_and_server_always_converge() {
    for seed in 0..400 {
        let mut simulation = Simulation::new(seed);
        (0..400).for_each(|_| simulation.step());
        simulation.poisoning = false;
        let poisoned: Vec<_> = simulation
            .world
            .contents
            .iter()
            .filter(|(_, content)| content.starts_with(POISON))
            .map(|(key, _)| key.clone())
            .collect();
        for (kind, name) in poisoned {
            simulation.world.contents.insert((kind, name.clone()), "healed".into());
            if let Some(server) = &mut simulation.server {
                server.changed(kind, &name);
            }
        }
        // Routes that were accepted while their cluster was refused are no fault of the order.
        simulation.poisoning = true;
        simulation.settle();
        simulation.poisoning = false;
        simulation.check_make_before_break();
        simulation.check_converged();
    }
}

/// Without rejections, no step on the way leaves a route without its cluster.
#[test]
fn nothing_breaks_before_it_is_made() {
    for seed in 1_000..1_400 {
        let mut simulation = Simulation::new(seed);
        simulation.poisoning = false;
        for _ in 0..600 {
            simulation.step();
        }
        simulation.settle();
        simulation.check_converged();
    }
}
