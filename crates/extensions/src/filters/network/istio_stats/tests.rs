use proxy::listener::config::TrafficDirection;
use proxy::snapshot::node::NodeInfo;
use proxy::stream_info::StreamInfo;
use telemetry::stats::{Registry, Selection, Snapshot};

use super::*;

#[test]
fn a_connection_counts_when_it_opens_and_when_it_ends() {
    let registry = Registry::new();
    let node = NodeInfo::default();
    let context = CompileContext {
        registry: &registry,
        node: &node,
        direction: TrafficDirection::Inbound,
        stat_prefix: "x",
    };
    let stats = compile(&[], &context).unwrap();
    let info = StreamInfo { bytes_sent: 7, bytes_received: 5, ..StreamInfo::default() };
    let record = LogRecord {
        worker: 1,
        now_ns: 0,
        info: &info,
        request: None,
        response: None,
        response_trailers: None,
    };
    let line = |metric: &str| {
        let text = Snapshot::take(&registry).to_prometheus(&Selection::default());
        text.lines().find(|line| line.starts_with(metric)).unwrap_or_default().to_owned()
    };
    stats.opened(&record);
    stats.opened(&record);
    assert!(line("istio_tcp_connections_opened_total").ends_with(" 2"));
    assert!(line("istio_tcp_connections_closed_total").ends_with(" 0"));
    stats.log(&record);
    assert!(line("istio_tcp_connections_closed_total").ends_with(" 1"));
    assert!(line("istio_tcp_sent_bytes_total").ends_with(" 7"));
    let received = line("istio_tcp_received_bytes_total");
    assert!(received.ends_with(" 5"));
    assert!(
        received.contains(
            "request_protocol=\"tcp\",response_flags=\"-\",connection_security_policy=\"none\""
        ),
        "{received}"
    );
}
