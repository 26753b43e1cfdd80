//! An engine with one worker, and what tests give it.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use identity::chain::TrustRoots;
use identity::tls::{Certificate, Parameters, Validation};
use identity::{CertificateAuthority, CertificateRequest, PrivateKey};
use proxy::listener::config::{
    FilterChain, FilterChainMatch, ListenAddress, ListenerConfig, ListenerFilter, TerminalFilter,
};
use proxy::listener::filter_chain::FilterChainIndex;
use proxy::network::tls::{
    DownstreamTls, DownstreamTlsSettings, Secrets, UpstreamTls, UpstreamTlsSettings,
};
use proxy::stream_info::AccessLoggers;
use proxy::tcp_proxy::{Config, Destination};
use proxy::upstream::cluster::Cluster;
use proxy::upstream::config::{ClusterConfig, ClusterRef, UpstreamProtocol};
use proxy::upstream::host::{Host, HostAddress, HostOptions, HostSet};
use proxy::upstream::stats::ClusterBlocks;
use proxy::worker::{Ack, Change, ListenerId, Message, WorkerHandle, WorkerOptions, spawn};
use telemetry::stats::{Registry, Scope};

/// Nothing on loopback takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One worker and its registry.
pub struct Engine {
    worker: Option<WorkerHandle>,
    pub registry: Registry,
    slots: AtomicU32,
}

/// What a chain is made of.
pub struct Chain {
    pub criteria: FilterChainMatch,
    pub tls: Option<Arc<DownstreamTls>>,
    pub cluster: ClusterRef,
    pub idle_timeout: Option<Duration>,
    pub access_loggers: AccessLoggers,
}

impl Chain {
    pub fn to(cluster: ClusterRef) -> Self {
        Self {
            criteria: FilterChainMatch::default(),
            tls: None,
            cluster,
            idle_timeout: None,
            access_loggers: Vec::new(),
        }
    }
}

impl Engine {
    pub fn start() -> Self {
        let registry = Registry::new();
        let worker =
            spawn(WorkerOptions { index: 0, registry: registry.clone(), cpu: None }).unwrap();
        Self { worker: Some(worker), registry, slots: AtomicU32::new(0) }
    }

    pub fn send(&self, message: Message) {
        self.worker.as_ref().unwrap().mailbox.send(message);
    }

    /// A cluster of these hosts.
    pub fn cluster(&self, hosts: &[SocketAddr], tls: Option<Arc<UpstreamTls>>) -> ClusterRef {
        let name = format!("c{}", self.slots.load(Ordering::Relaxed));
        self.cluster_of(ClusterConfig::new(&name), hosts, tls)
    }

    /// As `cluster`, with a configuration.
    pub fn cluster_of(
        &self,
        config: ClusterConfig,
        hosts: &[SocketAddr],
        tls: Option<Arc<UpstreamTls>>,
    ) -> ClusterRef {
        let slot = self.slots.fetch_add(1, Ordering::Relaxed);
        let at = ClusterRef { slot, generation: 0 };
        let scope = Scope::cluster(Arc::clone(&config.stat_name));
        let mut stats = ClusterBlocks::new(&self.registry, &scope);
        if config.http.protocol != UpstreamProtocol::Http1 {
            stats = stats.with_http2(&self.registry, &scope);
        }
        let cluster = Cluster::new(config, stats);
        let hosts = hosts
            .iter()
            .map(|address| {
                let options = HostOptions { tls: tls.clone(), ..HostOptions::default() };
                Arc::new(Host::new(HostAddress::Tcp(*address), options))
            })
            .collect();
        let changes = [
            Change::Cluster(at, Some(Arc::new(cluster))),
            Change::Hosts(at, Arc::new(HostSet::new(hosts))),
        ];
        self.send(Message::Commit { changes: changes.into(), ack: None });
        at
    }

    /// Every listener's answers say that the connection ends.
    pub fn drain(&self) {
        self.send(Message::StartDrain { listeners: None });
        self.settle();
    }

    /// Closes every listener.
    pub fn stop_listening(&self) {
        let (ack, done) = acknowledgement();
        self.send(Message::StopListening { listeners: None, ack: Some(ack) });
        done.recv_timeout(PATIENCE).unwrap();
    }

    /// Waits until the worker has read its mail.
    pub fn settle(&self) {
        let (ack, done) = acknowledgement();
        self.send(Message::Commit { changes: Arc::new([]), ack: Some(ack) });
        done.recv_timeout(PATIENCE).unwrap();
    }

    /// A listener with TCP-proxy chains; says where it listens.
    pub fn listen(&self, filters: Vec<ListenerFilter>, chains: Vec<Chain>) -> SocketAddr {
        self.listen_logged(filters, chains, Vec::new())
    }

    /// The same, that tells these loggers of its connections.
    pub fn listen_logged(
        &self,
        filters: Vec<ListenerFilter>,
        chains: Vec<Chain>,
        access_loggers: AccessLoggers,
    ) -> SocketAddr {
        self.add_logged_listener(filters, access_loggers, |_| {
            chains.into_iter().map(|chain| self.tcp_chain(chain)).collect()
        })
    }

    /// A listener whose chains are made for its statistics' prefix; says where it listens.
    pub fn add_listener(
        &self,
        listener_filters: Vec<ListenerFilter>,
        chains: impl FnOnce(&str) -> Vec<Arc<FilterChain>>,
    ) -> SocketAddr {
        self.add_logged_listener(listener_filters, Vec::new(), chains)
    }

    fn add_logged_listener(
        &self,
        listener_filters: Vec<ListenerFilter>,
        access_loggers: AccessLoggers,
        chains: impl FnOnce(&str) -> Vec<Arc<FilterChain>>,
    ) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stat_prefix = address.to_string().replace(':', "_");
        let chains = chains(&stat_prefix);
        let config = ListenerConfig {
            name: "test".into(),
            stats: self.registry.block(&Scope::listener(&stat_prefix)),
            tls_stats: None,
            stat_prefix: stat_prefix.into(),
            address: ListenAddress::Tcp(address),
            index: FilterChainIndex::build(&chains).unwrap(),
            filter_chains: chains,
            default_filter_chain: None,
            listener_filters,
            listener_filters_timeout: Some(PATIENCE),
            continue_on_listener_filters_timeout: false,
            per_connection_buffer_limit: 64 * 1024,
            connection_limit: None,
            traffic_direction: Default::default(),
            access_loggers,
            max_accepts_per_turn: 8,
        };
        let id = ListenerId(u64::from(address.port()));
        let socket = Some(listener.into());
        self.send(Message::AddListener { id, config: Arc::new(config), socket, ack: None });
        address
    }

    fn tcp_chain(&self, chain: Chain) -> Arc<FilterChain> {
        let config = Config {
            stat_prefix: "tcp".into(),
            stats: self.registry.block(&Scope::tcp("tcp")),
            destination: Destination::Cluster(chain.cluster),
            idle_timeout: chain.idle_timeout,
            max_connect_attempts: 1,
            max_downstream_connection_duration: None,
            access_loggers: chain.access_loggers,
        };
        filter_chain(chain.criteria, chain.tls, TerminalFilter::Tcp(Arc::new(config)))
    }
}

/// A chain that ends in `terminal`.
pub fn filter_chain(
    criteria: FilterChainMatch,
    tls: Option<Arc<DownstreamTls>>,
    terminal: TerminalFilter,
) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        name: "".into(),
        criteria,
        fingerprint: 0,
        tls,
        transport_socket_connect_timeout: None,
        terminal,
    })
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            worker.mailbox.send(Message::Shutdown);
            worker.join();
        }
    }
}

fn acknowledgement() -> (Arc<Ack>, std::sync::mpsc::Receiver<()>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let ack = Ack::new(move || {
        let _ = sender.lock().unwrap().send(());
    });
    (ack, receiver)
}

/// Waits until something is so.
#[expect(clippy::disallowed_methods, reason = "the pause between two looks at the condition")]
pub fn wait_until(is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never came to that");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Connects with patience for reads.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Serves every connection with `serve`, in a thread of its own.
pub fn backend(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Everything until the end.
pub fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

/// An authority and what it vouches for.
pub struct Authority(CertificateAuthority);

impl Authority {
    pub fn new() -> Self {
        Self(CertificateAuthority::self_signed("test", std::time::SystemTime::now()).unwrap())
    }

    pub fn certificate(&self, name: &str) -> Certificate {
        let key = PrivateKey::generate().unwrap();
        let request = CertificateRequest::of_own_key(&key).unwrap();
        let now = std::time::SystemTime::now();
        let issued = self.0.issue_server(&request, &[name], Duration::from_secs(600), now).unwrap();
        Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap()
    }

    pub fn validation(&self) -> Validation {
        let roots = Some(TrustRoots::from_pem(self.0.root_pem()).unwrap());
        Validation { roots, ..Validation::default() }
    }

    pub fn server(&self, names: &[&str]) -> Arc<DownstreamTls> {
        self.server_speaking(&[], names)
    }

    /// A server that agrees to these protocols by ALPN.
    pub fn server_speaking(&self, protocols: &[&str], names: &[&str]) -> Arc<DownstreamTls> {
        let alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let parameters = Parameters { alpn, ..Parameters::default() };
        let settings = DownstreamTlsSettings { parameters, ..DownstreamTlsSettings::default() };
        let context = DownstreamTls::new(settings);
        let certificates = names.iter().map(|name| self.certificate(name)).collect();
        context.set(context.prepare(Secrets { certificates, validation: None }).unwrap());
        Arc::new(context)
    }

    pub fn client(&self, sni: &str) -> Arc<UpstreamTls> {
        let settings = UpstreamTlsSettings {
            sni: Some(sni.into()),
            match_server_name: true,
            ..UpstreamTlsSettings::default()
        };
        let context = UpstreamTls::new(settings);
        let secrets = Secrets { certificates: Vec::new(), validation: Some(self.validation()) };
        context.set(context.prepare(secrets).unwrap());
        Arc::new(context)
    }
}
