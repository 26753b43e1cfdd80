//! The data-plane engine, in the order of a request's journey:
//!
//! * [`worker`]: one thread, one event loop, one mailbox; the only module that knows the poller
//! * [`listener`]: 1 accept, 2 listener filters, 3 filter-chain match
//! * [`network`]: 4 a connection is a transport under a codec, 5 network filters
//! * [`tcp_proxy`]: the L4 terminal
//! * [`http`]: 6 connection manager, 7 one request's state machine, 8 request headers made safe
//! * [`route_table`]: 9 virtual host and route search
//! * [`filter_manager`]: 10, 11 the HTTP filter chain, both ways
//! * [`router`]: 12 cluster choice, timeouts, retries
//! * [`upstream`]: 13 clusters, 14 load balancing, 15 pools, 16 one attempt on one pooled stream
//! * [`stream_info`]: 17 what happened
//! * [`access_log`]: 18 lines about it, and the format language
//! * [`admin`]: what the process does and says of itself
//!
//! What these stand on: [`arena`] (connections and streams under generation keys), [`buffer`] (memory only while bytes
//! wait), [`timer_wheel`], [`string_matcher`].
//!
//! Configuration's way to them, on the main thread:
//!
//! * [`config_sync`]: over discovery, or from files
//! * [`bootstrap`]: from the command line's file
//! * [`server`]: the process around the workers: sockets, names, health checks, drains
//! * [`snapshot`]: protobuf compiled to what workers read; warming; publishing

pub mod worker;

pub mod listener;

pub mod network;

pub mod tcp_proxy;

pub mod http;

pub mod route_table;

pub mod filter_manager;

pub mod router;

pub mod upstream;

pub mod stream_info;

pub mod access_log;

pub mod admin;

pub mod arena;

pub mod buffer;

pub mod timer_wheel;

pub mod string_matcher;

pub mod config_sync;

pub mod bootstrap;

pub mod server;

pub mod snapshot;
