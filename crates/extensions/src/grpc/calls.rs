//! Statistics of calls, as Envoy names them: `cluster.<name>.grpc.<service>.<method>.*`, or without service and method.

use proxy::filter_manager::FilterContext;
use telemetry::stats::{Block, Counter, Registry, Scope};

use crate::block_cache::BlockCache;

telemetry::stat_set! {
    /// Calls of one method, or of all. Nothing is shown that was never counted.
    pub struct Calls {
        SUCCESS = lazy "success",
        FAILURE = lazy "failure",
        TOTAL = lazy "total",
        REQUEST_MESSAGE_COUNT = lazy "request_message_count",
        RESPONSE_MESSAGE_COUNT = lazy "response_message_count",
        STATUS_0 = lazy "0",
        STATUS_1 = lazy "1",
        STATUS_2 = lazy "2",
        STATUS_3 = lazy "3",
        STATUS_4 = lazy "4",
        STATUS_5 = lazy "5",
        STATUS_6 = lazy "6",
        STATUS_7 = lazy "7",
        STATUS_8 = lazy "8",
        STATUS_9 = lazy "9",
        STATUS_10 = lazy "10",
        STATUS_11 = lazy "11",
        STATUS_12 = lazy "12",
        STATUS_13 = lazy "13",
        STATUS_14 = lazy "14",
        STATUS_15 = lazy "15",
        STATUS_16 = lazy "16",
    }
}

telemetry::stat_set! {
    /// Times of the calls of one method, or of all.
    pub struct CallTimes {
        UPSTREAM_RQ_TIME = histogram(Milliseconds) "upstream_rq_time",
    }
}

/// Counters by status.
const STATUSES: [Counter<Calls>; 17] = [
    Calls::STATUS_0,
    Calls::STATUS_1,
    Calls::STATUS_2,
    Calls::STATUS_3,
    Calls::STATUS_4,
    Calls::STATUS_5,
    Calls::STATUS_6,
    Calls::STATUS_7,
    Calls::STATUS_8,
    Calls::STATUS_9,
    Calls::STATUS_10,
    Calls::STATUS_11,
    Calls::STATUS_12,
    Calls::STATUS_13,
    Calls::STATUS_14,
    Calls::STATUS_15,
    Calls::STATUS_16,
];

/// A method as its path has it: `service/method`, both not empty.
pub fn method_of(path: &[u8]) -> Option<&str> {
    let path = path.split(|byte| *byte == b'?').next()?;
    let method = std::str::from_utf8(path.strip_prefix(b"/")?).ok()?;
    let (service, name) = method.split_once('/')?;
    (!service.is_empty() && !name.is_empty() && !name.contains('/')).then_some(method)
}

/// Where calls are counted: `grpc` or `grpc-web`.
#[derive(Debug)]
pub struct CallCounters {
    protocol: &'static str,
    /// Dots in a service's name become underscores.
    replaces_dots: bool,
    calls: BlockCache<Calls>,
    times: BlockCache<CallTimes>,
}

impl CallCounters {
    /// Counts below `cluster.<name>.<protocol>`.
    pub fn new(registry: &Registry, protocol: &'static str, replaces_dots: bool) -> Self {
        let (calls, times) = (BlockCache::new(registry), BlockCache::new(registry));
        Self { protocol, replaces_dots, calls, times }
    }

    /// The counters of a method (or of all, for an empty one) towards the stream's cluster; `None` before it has one.
    pub fn of(&self, cx: &FilterContext<'_>, method: &str) -> Option<Block<Calls>> {
        let cluster = &cx.info.cluster.as_ref()?.config.stat_name;
        let make = |registry: &Registry| registry.block(&self.scope(cluster, method));
        Some(self.calls.find(cx.worker.index, |key| write_key(cluster, method, key), make))
    }

    /// Counts a call that has ended with this status, if it is one.
    pub fn ended(&self, cx: &FilterContext<'_>, method: &str, status: Option<&[u8]>) {
        let (Some(status), Some(block)) = (status, self.of(cx, method)) else { return };
        let recorder = &cx.worker.recorder;
        let number = std::str::from_utf8(status).ok().and_then(|text| text.parse::<usize>().ok());
        if let Some(counter) = number.and_then(|number| STATUSES.get(number)) {
            recorder.inc(&block, *counter);
        }
        recorder.inc(&block, if number == Some(0) { Calls::SUCCESS } else { Calls::FAILURE });
        recorder.inc(&block, Calls::TOTAL);
    }

    /// Records the time from the request's last byte to the answer's, both as the upstream saw them.
    pub fn took(&self, cx: &FilterContext<'_>, method: &str) {
        let timings = &cx.info.timings;
        let (sent, answered) = (timings.upstream_last_tx_ns, timings.upstream_last_rx_ns);
        let Some(cluster) = cx.info.cluster.as_ref().filter(|_| sent > 0 && answered >= sent)
        else {
            return;
        };
        let cluster = &cluster.config.stat_name;
        let make = |registry: &Registry| registry.block(&self.scope(cluster, method));
        let block = self.times.find(cx.worker.index, |key| write_key(cluster, method, key), make);
        cx.worker.recorder.record(
            &block,
            CallTimes::UPSTREAM_RQ_TIME,
            (answered - sent) / 1_000_000,
        );
    }

    fn scope(&self, cluster: &str, method: &str) -> Scope {
        let scope = Scope::cluster(cluster).text(self.protocol);
        let Some((service, method)) = method.split_once('/') else { return scope };
        let service =
            if self.replaces_dots { service.replace('.', "_") } else { service.to_owned() };
        scope.tag("envoy.grpc_bridge_service", service).tag("envoy.grpc_bridge_method", method)
    }
}

fn write_key(cluster: &str, method: &str, key: &mut Vec<u8>) {
    key.extend_from_slice(cluster.as_bytes());
    key.push(0);
    key.extend_from_slice(method.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_two_parts() {
        let table: &[(&[u8], Option<&str>)] = &[
            (b"/helloworld.Greeter/SayHello", Some("helloworld.Greeter/SayHello")),
            (b"/helloworld.Greeter/SayHello?x=/", Some("helloworld.Greeter/SayHello")),
            (b"/a/b/c", None),
            (b"/a/", None),
            (b"//b", None),
            (b"/a", None),
            (b"a/b", None),
            (b"", None),
        ];
        for (path, expected) in table {
            assert_eq!(method_of(path), *expected, "{:?}", String::from_utf8_lossy(path));
        }
    }
}
