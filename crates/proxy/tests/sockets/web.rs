//! HTTP on the engine: what tests configure, and a client and a backend that show every byte.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proxy::http::config::{HttpConnectionManager, RouteSource};
use proxy::http::stats::HttpBlocks;
use proxy::listener::config::TerminalFilter;
use proxy::network::tls::DownstreamTls;
use proxy::route_table::config::{
    Criteria, PathMatch, RouteConfig, TableConfig, VirtualHostConfig,
};
use proxy::route_table::{Action, RouteAction, RouteTable, VirtualHost};
use proxy::router::config::{ClusterChoice, RoutePolicy};
use proxy::upstream::config::ClusterRef;

use crate::engine::{Engine, connect, filter_chain};

/// A route to a cluster for everything.
pub fn route(cluster: ClusterRef, policy: RoutePolicy) -> RouteSource {
    route_for(PathMatch::Prefix("/".into()), cluster, policy)
}

/// A route to a cluster for what matches.
pub fn route_for(path: PathMatch, cluster: ClusterRef, policy: RoutePolicy) -> RouteSource {
    let action = RouteAction { policy, ..RouteAction::new(ClusterChoice::Cluster(cluster)) };
    let criteria = Criteria::path(path);
    let route = RouteConfig::new(criteria, Action::Route(Box::new(action)));
    let host = VirtualHost::compile(VirtualHostConfig {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHostConfig::default()
    });
    let table = RouteTable::new(TableConfig::default(), vec![host.unwrap()]).unwrap();
    RouteSource::Inline(Arc::new(table))
}

impl Engine {
    /// An HTTP listener; `adjust` changes Envoy's defaults.
    pub fn serve_http(
        &self,
        routes: RouteSource,
        adjust: impl FnOnce(&mut HttpConnectionManager),
    ) -> SocketAddr {
        self.serve_https(None, routes, adjust)
    }

    /// As `serve_http`, over TLS if there is any.
    pub fn serve_https(
        &self,
        tls: Option<Arc<DownstreamTls>>,
        routes: RouteSource,
        adjust: impl FnOnce(&mut HttpConnectionManager),
    ) -> SocketAddr {
        self.add_listener(Vec::new(), |prefix| {
            let stats = HttpBlocks::new(&self.registry, prefix, "web");
            let mut http = HttpConnectionManager::new("web", stats, routes);
            adjust(&mut http);
            vec![filter_chain(Default::default(), tls, TerminalFilter::Http(Arc::new(http)))]
        })
    }

    /// The value of a counter by Envoy's name.
    pub fn counter(&self, name: &str) -> u64 {
        self.registry.counter_value(name).unwrap_or(0)
    }
}

/// A message as it was read: its head as text, its body whole.
#[derive(Debug)]
pub struct Message1 {
    pub head: String,
    pub body: Vec<u8>,
}

impl Message1 {
    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").skip(1);
        lines.filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// Reads one message with `content-length`, chunked or no body; `None` at the end of the connection.
pub fn read_message(stream: &mut TcpStream) -> Option<Message1> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ if head.is_empty() => return None,
            other => panic!("{other:?} within {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let head = String::from_utf8(head).unwrap();
    let mut message = Message1 { head: head.trim_end().to_owned(), body: Vec::new() };
    if message.header("transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(&read_line(stream), 16).unwrap();
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk).unwrap();
            read_line(stream);
            message.body.extend(chunk);
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = message.header("content-length") {
        message.body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut message.body).unwrap();
    }
    Some(message)
}

fn read_line(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

/// A client's connection.
pub struct Client(pub TcpStream);

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self(connect(address))
    }

    /// Sends a GET and reads the answer.
    pub fn get(&mut self, path: &str) -> Message1 {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n"));
        self.read()
    }

    pub fn send(&mut self, bytes: &str) {
        self.0.write_all(bytes.as_bytes()).unwrap();
    }

    pub fn read(&mut self) -> Message1 {
        read_message(&mut self.0).expect("an answer")
    }
}

/// A backend that answers each request with what `answer` says: `None` closes the connection instead.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

impl Backend {
    pub fn new(
        answer: impl Fn(usize, &Message1) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        let (connections, requests) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (connection_count, request_count) = (Arc::clone(&connections), Arc::clone(&requests));
        let address = crate::engine::backend(move |mut stream| {
            connection_count.fetch_add(1, Ordering::SeqCst);
            while let Some(request) = read_message(&mut stream) {
                let number = request_count.fetch_add(1, Ordering::SeqCst);
                match answer(number, &request) {
                    Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                    None => return,
                }
            }
        });
        Self { address, connections, requests }
    }

    /// Answers everything with 200 and the request's head.
    pub fn echo() -> Self {
        Self::new(|_, request| Some(ok(&request.head)))
    }
}

/// A 200 with a body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A response without a body.
pub fn status(status: u16) -> String {
    format!("HTTP/1.1 {status} Any\r\ncontent-length: 0\r\n\r\n")
}
