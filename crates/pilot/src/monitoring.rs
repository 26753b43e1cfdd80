//! `/metrics`, `/ready`, `/version` and `/debug/syncz` over HTTP.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::plane::Plane;

/// Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until the control plane ends.
pub async fn serve(plane: Arc<Plane>, listener: TcpListener) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/ready", get(ready))
        .route("/version", get(version))
        .route("/debug/syncz", get(syncz))
        .with_state(Arc::clone(&plane));
    let stopping = async move { plane.stopping().await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopping).await {
        tracing::error!(%error, "monitoring ended");
    }
}

async fn metrics(State(plane): State<Arc<Plane>>) -> impl IntoResponse {
    let (services, virtual_services, connected) = plane.with_discovery(|discovery| {
        let context = discovery.context();
        (context.services.len(), context.virtual_services.len(), discovery.clients().count())
    });
    ([(CONTENT_TYPE, EXPOSITION)], plane.counters.exposition(connected, services, virtual_services))
}

async fn ready(State(plane): State<Arc<Plane>>) -> impl IntoResponse {
    match plane.phase().ready {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not every kind has been read yet\n"),
    }
}

async fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

async fn syncz(State(plane): State<Arc<Plane>>) -> impl IntoResponse {
    Json(plane.status())
}
