//! `config.listener.v3.Listener` → [`ListenerConfig`].

use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::core::v3::TrafficDirection as ProtoDirection;
use api::envoy::config::core::v3::transport_socket::ConfigType as SocketType;
use api::envoy::config::listener::v3 as proto;
use api::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use api::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use prost::Message as _;
use proto::filter::ConfigType as FilterType;
use proto::filter_chain_match::ConnectionSourceType;
use proto::listener_filter::ConfigType as ListenerFilterType;
use tcp::tcp_proxy::ClusterSpecifier;
use telemetry::stats::Scope;

use super::access_logs;
use super::compile::Compile;
use super::fingerprint::Print;
use super::http;
use super::tls::TlsStore;
use super::values::{self, Place};
use crate::listener::config::{
    ConnectionLimit, FilterChain, FilterChainMatch, ListenAddress, ListenerConfig, ListenerFilter,
    SourceType, TerminalFilter, TrafficDirection,
};
use crate::listener::filter_chain::FilterChainIndex;
use crate::network::tls::DownstreamTls;
use crate::stream_info::AccessLogger;
use crate::tcp_proxy;

/// Envoy's `listener_filters_timeout`.
const LISTENER_FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// Envoy's idle timeout of a TCP proxy.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Accepts per loop turn unless configured: enough to empty a burst, few enough that others are served between.
const ACCEPTS_PER_TURN: u32 = 64;
/// Envoy's limit of a ClientHello, in bytes.
const MAX_CLIENT_HELLO: u32 = 16 << 10;

const HTTP_CONNECTION_MANAGER: &str =
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const TCP_PROXY: &str = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// A compiled listener with what its sockets need.
#[derive(Debug)]
pub struct CompiledListener {
    /// What the engine reads.
    pub config: ListenerConfig,
    /// How its sockets are made.
    pub socket: SocketOptions,
}

/// How a listener's sockets are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOptions {
    /// Accept IPv4 on an IPv6 socket.
    pub ipv4_compat: bool,
    /// Bind an address that is not there (yet).
    pub freebind: bool,
    /// The backlog's length.
    pub backlog: i32,
    /// The permissions of a Unix domain socket; the umask decides when zero.
    pub mode: u32,
}

/// Compiles a listener.
pub fn listener(
    cx: &mut Compile<'_>,
    tls: &mut TlsStore,
    message: &proto::Listener,
) -> Option<CompiledListener> {
    let before = cx.problems.len();
    let (address, socket) = cx.at("address", |cx| address(cx, message))?;
    let name: Arc<str> = if message.name.is_empty() {
        address.to_string().into()
    } else {
        message.name.as_str().into()
    };
    let stat_prefix: Arc<str> = match message.stat_prefix.as_str() {
        "" => address.to_string().replace(':', "_").into(),
        prefix => prefix.into(),
    };
    cx.direction = match message.traffic_direction() {
        ProtoDirection::Unspecified => TrafficDirection::Unspecified,
        ProtoDirection::Inbound => TrafficDirection::Inbound,
        ProtoDirection::Outbound => TrafficDirection::Outbound,
    };
    let mut around = Around { tls, stat_prefix: Arc::clone(&stat_prefix) };
    let filter_chains =
        cx.each("filter_chains", &message.filter_chains, |cx, chain| around.chain(cx, chain));
    let default_filter_chain = match &message.default_filter_chain {
        None => None,
        Some(chain) => cx.at("default_filter_chain", |cx| around.chain(cx, chain)),
    };
    if filter_chains.is_empty() && default_filter_chain.is_none() && cx.problems.len() == before {
        cx.problem_at("filter_chains", "a listener needs a filter chain");
    }
    let index = index(cx, &filter_chains);
    let listener_filters = cx.each("listener_filters", &message.listener_filters, listener_filter);
    let access_loggers = access_logs::access_logs(cx, &message.access_log, &stat_prefix);
    if cx.problems.len() > before {
        return None;
    }
    let limit = cx.env.listener_limits.get(&*name).copied();
    let scope = Scope::listener(&stat_prefix);
    let has_tls =
        filter_chains.iter().chain(&default_filter_chain).any(|chain| chain.tls.is_some());
    let config = ListenerConfig {
        stats: cx.env.registry.block(&scope),
        tls_stats: has_tls.then(|| cx.env.registry.block(&scope)),
        name,
        stat_prefix,
        address,
        filter_chains,
        default_filter_chain,
        index: index?,
        listener_filters,
        listener_filters_timeout: values::limit(
            message.listener_filters_timeout.as_ref(),
            Some(LISTENER_FILTERS_TIMEOUT),
        ),
        continue_on_listener_filters_timeout: message.continue_on_listener_filters_timeout,
        per_connection_buffer_limit: message
            .per_connection_buffer_limit_bytes
            .map_or(1 << 20, |limit| limit.value),
        connection_limit: limit.map(|limit| Arc::new(ConnectionLimit::new(limit))),
        traffic_direction: cx.direction,
        access_loggers,
        max_accepts_per_turn: message
            .max_connections_to_accept_per_socket_event
            .map_or(ACCEPTS_PER_TURN, |count| count.value),
    };
    Some(CompiledListener { config, socket })
}

fn index(cx: &mut Compile<'_>, chains: &[Arc<FilterChain>]) -> Option<FilterChainIndex> {
    let built = FilterChainIndex::build(chains).map_err(|error| {
        let second = error.second;
        let message = format!("matches the same connections as filter_chains[{}]", error.first);
        cx.problem_at(&format!("filter_chains[{second}].filter_chain_match"), message);
    });
    built.ok()
}

fn address(
    cx: &mut Compile<'_>,
    message: &proto::Listener,
) -> Option<(ListenAddress, SocketOptions)> {
    use api::envoy::config::core::v3::address::Address as Kind;
    let kind = message.address.as_ref().and_then(|address| address.address.as_ref());
    let address = match values::address(cx, message.address.as_ref())? {
        Place::Tcp(address) => ListenAddress::Tcp(address),
        Place::Pipe(path) => ListenAddress::Pipe(path),
        Place::Name(name, _) => {
            cx.problem(format!("`{name}` is no IP address"));
            return None;
        }
    };
    let socket = SocketOptions {
        ipv4_compat: matches!(kind, Some(Kind::SocketAddress(socket)) if socket.ipv4_compat),
        freebind: message.freebind.is_some_and(|freebind| freebind.value),
        backlog: message
            .tcp_backlog_size
            .map_or(BACKLOG, |size| i32::try_from(size.value).unwrap_or(i32::MAX)),
        mode: match kind {
            Some(Kind::Pipe(pipe)) => pipe.mode,
            _ => 0,
        },
    };
    Some((address, socket))
}

/// The kernel cuts this to `net.core.somaxconn`, which is Envoy's default.
const BACKLOG: i32 = i32::MAX;

fn listener_filter(
    cx: &mut Compile<'_>,
    message: &proto::ListenerFilter,
) -> Option<ListenerFilter> {
    let any = match &message.config_type {
        Some(ListenerFilterType::TypedConfig(any)) => Some(any),
        _ => None,
    };
    let (name, bytes) = cx.extension("typed_config", any)?;
    match name.as_str() {
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
            let inspector: TlsInspector = cx.decode(&bytes)?;
            let max = inspector.max_client_hello_size.map_or(MAX_CLIENT_HELLO, |max| max.value);
            Some(ListenerFilter::TlsInspector { max_client_hello_size: max })
        }
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => {
            Some(ListenerFilter::HttpInspector)
        }
        _ => {
            cx.problem_at("typed_config", format!("{name} is no listener filter"));
            None
        }
    }
}

/// What the chains of one listener have around them.
struct Around<'a> {
    tls: &'a mut TlsStore,
    stat_prefix: Arc<str>,
}

impl Around<'_> {
    fn chain(
        &mut self,
        cx: &mut Compile<'_>,
        message: &proto::FilterChain,
    ) -> Option<Arc<FilterChain>> {
        let outer = std::mem::take(&mut cx.read);
        let criteria = match &message.filter_chain_match {
            None => Some(FilterChainMatch::default()),
            Some(criteria) => cx.at("filter_chain_match", |cx| chain_match(cx, criteria)),
        };
        let tls = self.transport(cx, message);
        let terminal = self.terminal(cx, message);
        let print = std::mem::replace(&mut cx.read, outer);
        cx.read.add(print.finish());
        Some(Arc::new(FilterChain {
            name: message.name.as_str().into(),
            criteria: criteria?,
            fingerprint: fingerprint(cx, message, print),
            tls: tls?,
            transport_socket_connect_timeout: values::limit(
                message.transport_socket_connect_timeout.as_ref(),
                None,
            ),
            terminal: terminal?,
        }))
    }

    /// TLS, or none for plaintext; nothing at all when it does not compile.
    fn transport(
        &mut self,
        cx: &mut Compile<'_>,
        message: &proto::FilterChain,
    ) -> Option<Option<Arc<DownstreamTls>>> {
        let Some(socket) = &message.transport_socket else { return Some(None) };
        let any = socket.config_type.as_ref().map(|SocketType::TypedConfig(any)| any);
        cx.at("transport_socket", |cx| {
            let (name, bytes) = cx.extension("typed_config", any)?;
            cx.at("typed_config", |cx| match name.as_str() {
                "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext" => {
                    self.tls.server(cx, &bytes).map(Some)
                }
                "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => Some(None),
                _ => {
                    cx.problem(format!("{name} is no transport socket of a listener"));
                    None
                }
            })
        })
    }

    /// The last filter ends the chain; those before it only watch the connection.
    fn terminal(
        &mut self,
        cx: &mut Compile<'_>,
        message: &proto::FilterChain,
    ) -> Option<TerminalFilter> {
        let Some((last, others)) = message.filters.split_last() else {
            let rule =
                "a filter chain needs a terminal filter: http_connection_manager or tcp_proxy";
            cx.problem_at("filters", rule);
            return None;
        };
        let observers = cx.each("filters", others, |cx, filter| observer(cx, filter));
        cx.at(&format!("filters[{}]", others.len()), |cx| {
            let (name, bytes) = cx.extension("typed_config", typed_config(last))?;
            cx.at("typed_config", |cx| match name.as_str() {
                HTTP_CONNECTION_MANAGER => {
                    if !others.is_empty() {
                        cx.problem(
                            "filters before an HTTP connection manager are not supported yet",
                        );
                    }
                    http::manager(cx, &bytes, &self.stat_prefix).map(TerminalFilter::Http)
                }
                TCP_PROXY => {
                    let mut config = tcp_proxy(cx, &bytes)?;
                    config.access_loggers.splice(..0, observers);
                    Some(TerminalFilter::Tcp(Arc::new(config)))
                }
                _ => {
                    cx.problem(format!("{name} does not end a filter chain"));
                    None
                }
            })
        })
    }
}

fn typed_config(filter: &proto::Filter) -> Option<&api::google::protobuf::Any> {
    match &filter.config_type {
        Some(FilterType::TypedConfig(any)) => Some(any),
        _ => None,
    }
}

/// A filter that only watches.
fn observer(cx: &mut Compile<'_>, filter: &proto::Filter) -> Option<Arc<dyn AccessLogger>> {
    let (name, bytes) = cx.extension("typed_config", typed_config(filter))?;
    let Some(row) = cx.env.extensions.connection_observer(&name) else {
        cx.problem(format!("`{}` must be the last filter of its chain", filter.name));
        return None;
    };
    cx.at("typed_config", |cx| {
        let compiled = (row.compile)(&bytes, &cx.context(""));
        compiled.map_err(|problems| cx.problems_under(problems)).ok()
    })
}

/// Chains with the same fingerprint serve the same: the encoded chain (maps in order), what it read from files, and the
/// direction of its listener.
fn fingerprint(cx: &Compile<'_>, message: &proto::FilterChain, mut print: Print) -> u128 {
    let chain = cx.env.schema.message("envoy.config.listener.v3.FilterChain");
    match chain {
        Some(chain) => {
            print.add(api::canonical::encode(&cx.env.schema, chain, &message.encode_to_vec()))
        }
        None => print.add(message.encode_to_vec()),
    }
    print.add(cx.direction as u8);
    print.finish().0
}

fn chain_match(
    cx: &mut Compile<'_>,
    message: &proto::FilterChainMatch,
) -> Option<FilterChainMatch> {
    let port = message.destination_port.map(|port| port.value);
    let names = cx.each("server_names", &message.server_names, |cx, name| {
        if name.strip_prefix("*.").unwrap_or(name).contains('*') {
            cx.problem("a `*` may only stand for the first labels, as in `*.example.com`");
            return None;
        }
        Some(name.to_ascii_lowercase())
    });
    Some(FilterChainMatch {
        destination_port: port.and_then(|port| u16::try_from(port).ok()),
        prefix_ranges: cx.each("prefix_ranges", &message.prefix_ranges, values::cidr),
        server_names: names,
        transport_protocol: message.transport_protocol.clone(),
        application_protocols: message.application_protocols.clone(),
        direct_source_prefix_ranges: cx.each(
            "direct_source_prefix_ranges",
            &message.direct_source_prefix_ranges,
            values::cidr,
        ),
        source_type: match message.source_type() {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_prefix_ranges: cx.each(
            "source_prefix_ranges",
            &message.source_prefix_ranges,
            values::cidr,
        ),
        source_ports: message
            .source_ports
            .iter()
            .filter_map(|port| u16::try_from(*port).ok())
            .collect(),
    })
}

fn tcp_proxy(cx: &mut Compile<'_>, bytes: &[u8]) -> Option<tcp_proxy::Config> {
    use crate::tcp_proxy::config::Destination;
    use crate::upstream::config::WeightedClusters;
    let message: tcp::TcpProxy = cx.decode(bytes)?;
    let before = cx.problems.len();
    // A missing cluster passes, as in Envoy: connections are closed until it comes.
    cx.validate_clusters = false;
    let destination = match message.cluster_specifier.as_ref()? {
        ClusterSpecifier::Cluster(name) => Some(Destination::Cluster(cx.cluster("cluster", name))),
        ClusterSpecifier::WeightedClusters(weighted) => cx.at("weighted_clusters", |cx| {
            let entries = cx.each("clusters", &weighted.clusters, |cx, entry| {
                Some((cx.cluster("name", &entry.name), entry.weight))
            });
            let clusters = WeightedClusters::new(entries);
            if clusters.is_none() {
                cx.problem_at("clusters", "the weights add up to nothing");
            }
            clusters.map(Destination::Weighted)
        }),
    };
    let config = tcp_proxy::Config {
        stat_prefix: message.stat_prefix.as_str().into(),
        stats: cx.env.registry.block(&Scope::tcp(&message.stat_prefix)),
        destination: destination?,
        idle_timeout: values::limit(message.idle_timeout.as_ref(), Some(TCP_IDLE_TIMEOUT)),
        max_connect_attempts: message.max_connect_attempts.map_or(1, |attempts| attempts.value),
        max_downstream_connection_duration: values::limit(
            message.max_downstream_connection_duration.as_ref(),
            None,
        ),
        access_loggers: access_logs::access_logs(cx, &message.access_log, &message.stat_prefix),
    };
    (cx.problems.len() == before).then_some(config)
}
