use super::sets::{
    Cluster, ClusterCodes, ClusterRareCodes, ClusterTimes, HttpConnManager, ListenerHttp, TcpProxy,
};
use super::*;

fn cluster(registry: &Registry, name: &str) -> Block<Cluster> {
    registry.block(&Scope::cluster(name))
}

#[test]
fn threads_count_apart_and_are_added_up() {
    let registry = Registry::new();
    let block = cluster(&registry, "a");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (registry, block) = (registry.clone(), block.clone());
            std::thread::spawn(move || {
                let recorder = registry.recorder();
                let local = recorder.local(&block);
                for _ in 0..1000 {
                    local.inc(Cluster::UPSTREAM_RQ_TOTAL);
                    recorder.gauge_add(&block, Cluster::UPSTREAM_RQ_ACTIVE, 2);
                    local.gauge_add(Cluster::UPSTREAM_RQ_ACTIVE, -3);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(registry.counter_value("cluster.a.upstream_rq_total"), Some(4000));
    assert_eq!(registry.gauge_value("cluster.a.upstream_rq_active"), Some(-4000));
}

#[test]
fn a_block_survives_as_long_as_someone_holds_it() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let old = cluster(&registry, "a");
    recorder.inc(&old, Cluster::UPSTREAM_RQ_TOTAL);
    let new = cluster(&registry, "a");
    assert_eq!(old, new);
    drop(old);
    recorder.inc(&new, Cluster::UPSTREAM_RQ_TOTAL);
    assert_eq!(registry.counter_value("cluster.a.upstream_rq_total"), Some(2));
    drop(new);
    assert_eq!(registry.counter_value("cluster.a.upstream_rq_total"), None);
}

#[test]
fn a_reused_slot_does_not_inherit_numbers() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let a = cluster(&registry, "a");
    recorder.add(&a, Cluster::UPSTREAM_RQ_TOTAL, 7);
    let orphan = recorder.local(&a);
    drop(a);
    let b = cluster(&registry, "b");
    orphan.inc(Cluster::UPSTREAM_RQ_TOTAL);
    assert_eq!(registry.counter_value("cluster.b.upstream_rq_total"), Some(0));
    recorder.inc(&b, Cluster::UPSTREAM_RQ_TOTAL);
    assert_eq!(registry.counter_value("cluster.b.upstream_rq_total"), Some(1));
}

#[test]
fn counters_reset_and_gauges_stay() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let block = cluster(&registry, "a");
    recorder.add(&block, Cluster::UPSTREAM_RQ_TOTAL, 7);
    recorder.gauge_set(&block, Cluster::UPSTREAM_CX_ACTIVE, 3);
    registry.reset_counters();
    recorder.inc(&block, Cluster::UPSTREAM_RQ_TOTAL);
    assert_eq!(registry.counter_value("cluster.a.upstream_rq_total"), Some(1));
    assert_eq!(registry.gauge_value("cluster.a.upstream_cx_active"), Some(3));
}

#[test]
fn used_only_shows_a_gauge_that_went_back_to_zero() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let block = cluster(&registry, "a");
    recorder.gauge_add(&block, Cluster::UPSTREAM_CX_ACTIVE, 1);
    recorder.gauge_add(&block, Cluster::UPSTREAM_CX_ACTIVE, -1);
    let selection = Selection { used_only: true, ..Selection::default() };
    let text = Snapshot::take(&registry).to_text(&selection, HistogramView::Summary);
    assert_eq!(text, "cluster.a.upstream_cx_active: 0\n");
}

#[test]
fn text_is_envoys() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let times = registry.block::<ClusterTimes>(&Scope::cluster("a:b"));
    let codes = registry.block::<ClusterCodes>(&Scope::cluster("a:b"));
    let rare = registry.block::<ClusterRareCodes>(&Scope::cluster("a:b"));
    let local = recorder.local(&times);
    [0, 3, 3, 9].into_iter().for_each(|ms| local.record(ClusterTimes::UPSTREAM_RQ_TIME, ms));
    for status in [200, 418] {
        recorder.local(&codes).response(status, |index| {
            recorder.local(&rare).inc_member(ClusterRareCodes::UPSTREAM_RQ_CODE, index)
        });
    }
    registry.set_text(&Scope::new().text("cluster_manager").text("cds"), "version_text", "v\"1");
    let selection = Selection { used_only: true, ..Selection::default() };
    assert_eq!(
        Snapshot::take(&registry).to_text(&selection, HistogramView::Summary),
        "cluster_manager.cds.version_text: \"v\\\"1\"\n\
         cluster.a_b.upstream_rq_200: 1\n\
         cluster.a_b.upstream_rq_2xx: 1\n\
         cluster.a_b.upstream_rq_418: 1\n\
         cluster.a_b.upstream_rq_4xx: 1\n\
         cluster.a_b.upstream_rq_completed: 2\n\
         cluster.a_b.upstream_rq_time: P0(nan,0) P25(nan,0) P50(nan,3.5) P75(nan,5) P90(nan,8) P95(nan,9) P99(nan,9.8) \
         P99.5(nan,9.9) P99.9(nan,9.98) P100(nan,10)\n"
            .replace("P90(nan,8) P95(nan,9) P99(nan,9.8) P99.5(nan,9.9) P99.9(nan,9.98)", &quantile_tail(&registry))
    );
    let disjoint = Snapshot::take(&registry).to_text(&selection, HistogramView::Disjoint);
    assert!(
        disjoint.contains("upstream_rq_time: B0.5(0,1) B1(0,0) B5(0,2) B10(0,1) B25(0,0)"),
        "{disjoint}"
    );
    assert!(disjoint.contains("B600000(0,0) B1.8e+06(0,0) B3.6e+06(0,0)"), "{disjoint}");
}

/// The quantiles whose decimals depend on floating-point rounding.
fn quantile_tail(registry: &Registry) -> String {
    let read = registry.histogram_value("cluster.a_b.upstream_rq_time").unwrap();
    let shown: Vec<String> = [0.9, 0.95, 0.99, 0.995, 0.999]
        .iter()
        .map(|q| {
            let value = read.quantile(*q).unwrap();
            assert!((6.0..=10.0).contains(&value));
            format!("P{}(nan,{value})", q * 100.0)
        })
        .collect();
    shown.join(" ")
}

#[test]
fn never_recorded_histograms_say_so() {
    let registry = Registry::new();
    let _block = registry.block::<ClusterTimes>(&Scope::cluster("a"));
    let text = Snapshot::take(&registry).to_text(&Selection::default(), HistogramView::Summary);
    assert!(text.contains("cluster.a.upstream_rq_time: No recorded values\n"));
}

#[test]
fn selection_by_kind_and_name() {
    let registry = Registry::new();
    let _block = cluster(&registry, "a");
    let admits = |name: &str| name.contains("rq_total") || name.contains("rq_active");
    let shown = |kind| {
        Snapshot::take(&registry).to_text(
            &Selection { kind, name: Some(&admits), used_only: false },
            HistogramView::Summary,
        )
    };
    assert_eq!(shown(KindFilter::Counters), "cluster.a.upstream_rq_total: 0\n");
    assert_eq!(shown(KindFilter::Gauges), "cluster.a.upstream_rq_active: 0\n");
    assert_eq!(shown(KindFilter::Histograms), "");
}

#[test]
fn prometheus_is_envoys() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let listener_http = registry.block::<ListenerHttp>(&Scope::listener_http("0.0.0.0_80", "in"));
    let codes = registry.block::<ClusterCodes>(&Scope::cluster("b.c"));
    let times = registry.block::<ClusterTimes>(&Scope::cluster("quote\"\\"));
    recorder.local(&listener_http).response(200);
    recorder.local(&listener_http).response(503);
    recorder.local(&codes).response(204, |_| unreachable!());
    recorder.record(&times, ClusterTimes::UPSTREAM_RQ_TIME, 7);
    let selection = Selection { used_only: true, ..Selection::default() };
    let text = Snapshot::take(&registry).to_prometheus(&selection);
    let expected = r##"# HELP envoy_cluster_upstream_rq cluster.upstream_rq
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code="204",envoy_cluster_name="b.c"} 1
# HELP envoy_cluster_upstream_rq_completed cluster.upstream_rq_completed
# TYPE envoy_cluster_upstream_rq_completed counter
envoy_cluster_upstream_rq_completed{envoy_cluster_name="b.c"} 1
# HELP envoy_cluster_upstream_rq_xx cluster.upstream_rq
# TYPE envoy_cluster_upstream_rq_xx counter
envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="b.c"} 1
# HELP envoy_listener_http_downstream_rq_completed listener.http.downstream_rq_completed
# TYPE envoy_listener_http_downstream_rq_completed counter
envoy_listener_http_downstream_rq_completed{envoy_http_conn_manager_prefix="in",envoy_listener_address="0.0.0.0_80"} 2
# HELP envoy_listener_http_downstream_rq_xx listener.http.downstream_rq_2xx
# TYPE envoy_listener_http_downstream_rq_xx counter
envoy_listener_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="in",envoy_listener_address="0.0.0.0_80"} 1
envoy_listener_http_downstream_rq_xx{envoy_response_code_class="5",envoy_http_conn_manager_prefix="in",envoy_listener_address="0.0.0.0_80"} 1
# HELP envoy_cluster_upstream_rq_time cluster.upstream_rq_time, in milliseconds
# TYPE envoy_cluster_upstream_rq_time histogram
envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="quote\"\\",le="0.5"} 0
"##;
    assert!(text.starts_with(expected), "{text}");
    let all = Snapshot::take(&registry).to_prometheus(&Selection::default());
    assert!(
        all.contains("downstream_rq_xx{envoy_response_code_class=\"1\"")
            && !all.contains("envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"1\"")
    );
    assert!(text.contains(
        "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"quote\\\"\\\\\",le=\"10\"} 1\n"
    ));
    assert!(text.contains("le=\"3600000\"} 1\n"));
    let how = Exposition { summaries: true, texts: true };
    registry.set_text(&Scope::new().text("lds"), "version_text", "v1");
    let summary = Snapshot::take(&registry).to_prometheus_as(&selection, how);
    assert!(summary.contains("# TYPE envoy_cluster_upstream_rq_time summary\n"), "{summary}");
    assert!(summary.contains("quantile=\"0.5\"} "), "{summary}");
    assert!(!summary.contains("_bucket"), "{summary}");
    assert!(summary.ends_with("envoy_lds_version_text{text_value=\"v1\"} 0\n"), "{summary}");
    assert!(text.ends_with(
        "le=\"+Inf\"} 1\nenvoy_cluster_upstream_rq_time_sum{envoy_cluster_name=\"quote\\\"\\\\\"} 7\n\
         envoy_cluster_upstream_rq_time_count{envoy_cluster_name=\"quote\\\"\\\\\"} 1\n"
    ));
}

#[test]
fn custom_metrics_have_labels_in_order_and_no_prefix() {
    crate::stat_set! {
        struct Requests { TOTAL = counter "istio_requests_total" }
    }
    let registry = Registry::new();
    let labels = [("reporter", "source".into()), ("destination_app", "a b".into())];
    let block = registry.block::<Requests>(&Scope::custom(labels));
    registry.recorder().inc(&block, Requests::TOTAL);
    let snapshot = Snapshot::take(&registry);
    assert_eq!(
        snapshot.to_prometheus(&Selection::default()),
        "# HELP istio_requests_total Istio's istio_requests_total\n\
         # TYPE istio_requests_total counter\n\
         istio_requests_total{reporter=\"source\",destination_app=\"a b\"} 1\n"
    );
    assert_eq!(
        snapshot.to_text(&Selection::default(), HistogramView::Summary),
        "istio_requests_total.reporter.source.destination_app.a b: 1\n"
    );
}

#[test]
fn an_idle_cluster_costs_less_than_a_kilobyte() {
    // What is held per cluster before anything happens: the scope's parts and the blocks; cells come with first use.
    let registry = Registry::new();
    let block = cluster(&registry, "outbound|9080|v1|reviews.default.svc.cluster.local");
    let mut cells = Vec::new();
    assert!(!block.data.read(&mut cells), "no cells before first use");
    registry.recorder().inc(&block, Cluster::UPSTREAM_CX_TOTAL);
    assert!(block.data.read(&mut cells));
    let used =
        [Cluster::TEMPLATE, ClusterTimes::TEMPLATE, ClusterCodes::TEMPLATE].map(Template::cells);
    let bytes = used.iter().sum::<usize>() * 8;
    assert!(bytes < 1600, "{bytes} bytes of cells per used cluster and worker");
}

#[test]
fn promtool_accepts_the_output() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let _tcp = registry.block::<TcpProxy>(&Scope::tcp("t"));
    let http = registry.block::<HttpConnManager>(&Scope::http("in\ngress"));
    let times = registry.block::<ClusterTimes>(&Scope::cluster("ü"));
    recorder.local(&http).response(200);
    recorder.record(&times, ClusterTimes::UPSTREAM_RQ_TIME, 4_000_000);
    let text = Snapshot::take(&registry).to_prometheus(&Selection::default());
    let child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: promtool is not installed");
        return;
    };
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    // 0 is clean and 3 means style remarks (Envoy's names have them); 1 is a parse error.
    assert!(
        matches!(output.status.code(), Some(0 | 3)),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn kept_blocks_stay_until_there_are_too_many_that_nobody_uses() {
    let registry = Registry::new();
    let recorder = registry.recorder();
    let held = cluster(&registry, "held");
    registry.keep(&held);
    let count = || registry.blocks().len();
    for i in 0..4095 {
        let block = cluster(&registry, &format!("c{i}"));
        recorder.inc(&block, Cluster::UPSTREAM_RQ_TOTAL);
        registry.keep(&block);
    }
    assert_eq!(count(), 4096);
    assert_eq!(registry.counter_value("cluster.c7.upstream_rq_total"), Some(1));
    // The first look only remembers what had values; the one that never had any is held.
    let used = cluster(&registry, "used");
    registry.keep(&used);
    assert_eq!(count(), 4097);
    registry.inner.kept.lock().sweep_at = 0;
    recorder.inc(&used, Cluster::UPSTREAM_RQ_TOTAL);
    registry.keep(&cluster(&registry, "last"));
    assert_eq!(count(), 3, "held, used and last are left");
}

#[test]
fn a_lazy_gauge_shows_once_written() {
    crate::stat_set! {
        struct Limits { LEFT = lazy_gauge "left", OPEN = gauge "open" }
    }
    let registry = Registry::new();
    let block = registry.block::<Limits>(&Scope::cluster("c"));
    assert_eq!(registry.gauge_value("cluster.c.left"), None);
    assert_eq!(registry.gauge_value("cluster.c.open"), Some(0));
    let recorder = registry.recorder();
    recorder.gauge_set(&block, Limits::LEFT, 0);
    assert_eq!(registry.gauge_value("cluster.c.left"), Some(0));
    recorder.gauge_set(&block, Limits::LEFT, 7);
    recorder.gauge_add(&block, Limits::OPEN, 1);
    registry.reset_counters();
    assert_eq!(registry.gauge_value("cluster.c.left"), Some(7));
    assert_eq!(registry.gauge_value("cluster.c.open"), Some(1));
}
