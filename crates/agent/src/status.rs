//! The workload's status port, :15020 as in Istio: readiness, and one place to scrape.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use crate::certificates::WorkloadCertificate;
use crate::engine::Engine;
use crate::health::Health;
use crate::relay::RelayState;

/// What the status port tells about.
#[derive(Clone)]
pub(crate) struct Sources {
    pub(crate) engine: Engine,
    pub(crate) certificate: watch::Receiver<Option<Arc<WorkloadCertificate>>>,
    pub(crate) relay: watch::Receiver<RelayState>,
    /// The engine accepts on every port of the workload.
    pub(crate) served: watch::Receiver<bool>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) quit: Arc<Notify>,
}

/// The status port while it is open.
pub(crate) struct StatusServer {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StatusServer {
    pub(crate) async fn open(address: SocketAddr, sources: Sources) -> io::Result<StatusServer> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route("/healthz/ready", get(ready))
            .route("/healthz/workload", get(healthy))
            .route("/stats/prometheus", get(prometheus))
            .route("/metrics", get(prometheus))
            .route("/quitquitquit", post(quit))
            .with_state(sources);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the status port failed");
            }
        });
        Ok(StatusServer { address, task })
    }
}

/// 200 when the workload has its certificate, hears the control plane and serves its configuration; else 503 and why.
async fn ready(State(sources): State<Sources>) -> Response {
    answer(why_unready(&sources).await)
}

/// 200 when the workload gets requests: its sidecar is ready, and its application accepts connections; else 503 and why.
async fn healthy(State(sources): State<Sources>) -> Response {
    let sidecar = why_unready(&sources).await;
    answer(sidecar.or_else(|| match &*sources.health.borrow() {
        Health::Healthy => None,
        Health::Unhealthy(reason) => Some(reason.clone()),
        Health::Leaving => Some("it is about to stop".to_owned()),
    }))
}

fn answer(trouble: Option<String>) -> Response {
    match trouble {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n").into_response(),
    }
}

async fn why_unready(sources: &Sources) -> Option<String> {
    Some(if sources.certificate.borrow().is_none() {
        "no certificate yet".to_owned()
    } else if sources.relay.borrow().streams == 0 {
        let error = sources.relay.borrow().last_error.clone();
        format!(
            "no stream to the control plane: {}",
            error.unwrap_or_else(|| "not connected yet".to_owned())
        )
    } else if !sources.engine.is_ready().await {
        "the proxy has no configuration yet".to_owned()
    } else if !*sources.served.borrow() {
        "the proxy does not serve the workload's ports yet".to_owned()
    } else {
        return None;
    })
}

/// The agent's own numbers, then the engine's. Without the engine the agent's still come.
async fn prometheus(State(sources): State<Sources>) -> Response {
    let mut text = own_metrics(&sources, SystemTime::now());
    match sources.engine.prometheus().await {
        Ok(engine) => text.push_str(&String::from_utf8_lossy(&engine)),
        Err(error) => tracing::warn!(%error, "scraped without the engine's numbers"),
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn quit(State(sources): State<Sources>) -> &'static str {
    sources.quit.notify_one();
    "OK\n"
}

fn own_metrics(sources: &Sources, now: SystemTime) -> String {
    let mut text = String::new();
    let relay = sources.relay.borrow().clone();
    let mut gauge = |name: &str, help: &str, labels: &str, value: f64| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{labels} {value}");
    };
    gauge(
        "istio_agent_xds_proxy_streams",
        "Discovery streams open to the control plane.",
        "",
        relay.streams as f64,
    );
    if let Some(certificate) = sources.certificate.borrow().as_ref() {
        let left = certificate
            .not_after
            .duration_since(now)
            .map_or_else(|late| -late.duration().as_secs_f64(), |d| d.as_secs_f64());
        let ends =
            certificate.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let label = r#"{resource_name="default"}"#;
        gauge(
            "istio_agent_cert_expiry_seconds",
            "Seconds until the certificate ends.",
            label,
            left,
        );
        gauge(
            "istio_agent_cert_expiration_timestamp",
            "When the certificate ends, in Unix seconds.",
            label,
            ends,
        );
    }
    text
}
