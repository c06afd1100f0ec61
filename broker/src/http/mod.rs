//! HTTP on `http.listen`: metrics, health, and `/v1` for the command line.
//!
//! | path | what |
//! |---|---|
//! | `GET /metrics` | OpenMetrics text |
//! | `GET /healthz` | 200 while the process serves HTTP |
//! | `GET /readyz` | 200 once the log is recovered, the store has answered and the Kafka listener is open; else 503 and why. An outage of the store later on is said, and stays 200 |
//! | `GET /v1/status` | cluster, broker, addresses |
//! | `GET /v1/wal`, `GET /v1/meta` | the log and metadata in numbers |
//! | `GET /v1/objects`, `GET /v1/objects/locate` | objects, and which one holds an offset |
//! | `GET /v1/objects/fsck` | compares the bucket with metadata |
//! | `GET/POST /v1/sinks`, `GET/DELETE /v1/sinks/{name}` | sinks |
//!
//! Errors are `{"error": "one sentence"}` with a status that says whose fault it is.

mod objects;
mod sinks;
mod status;

pub use objects::fsck_report;

use std::sync::{Arc, OnceLock};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use common::Shutdown;
use common::metrics::Registry;
use common::net::TcpListener;
use object_store::path::Path;
use serde_json::json;
use storage::StoreState;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::Context;
use crate::budgets::Budgets;
use crate::metrics::Metrics;

/// What the routes share. The broker's parts are put in when they are open.
pub(crate) struct Shared {
    pub registry: Registry,
    pub metrics: Metrics,
    pub budgets: Budgets,
    parts: OnceLock<Parts>,
}

/// What exists once the broker serves.
pub(crate) struct Parts {
    pub ctx: Arc<Context>,
    pub store: storage::Remote,
    pub store_name: String,
    /// `<prefix>/<cluster id>`.
    pub prefix: Path,
    pub kafka: std::net::SocketAddr,
    pub sinks: sink::Runner,
}

impl Shared {
    pub(crate) fn new(registry: Registry, metrics: Metrics, budgets: Budgets) -> Arc<Self> {
        Arc::new(Self { registry, metrics, budgets, parts: OnceLock::new() })
    }

    /// The broker serves from now on.
    pub(crate) fn serve(&self, parts: Parts) {
        if self.parts.set(parts).is_err() {
            warn!("a broker is started once");
        }
    }

    pub(crate) fn parts(&self) -> Result<&Parts, Problem> {
        self.parts.get().ok_or_else(|| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the broker is still starting")
        })
    }
}

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}

/// Serves until `shutdown`.
pub(crate) fn spawn(
    listener: TcpListener,
    shared: Arc<Shared>,
    shutdown: Shutdown,
) -> JoinHandle<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/v1/status", get(status::status))
        .route("/v1/wal", get(status::wal))
        .route("/v1/meta", get(status::meta))
        .route("/v1/objects", get(objects::list))
        .route("/v1/objects/locate", get(objects::locate))
        .route("/v1/objects/fsck", get(objects::fsck))
        .route("/v1/sinks", get(sinks::list).post(sinks::create))
        .route("/v1/sinks/{name}", get(sinks::describe).delete(sinks::delete))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "no such path; see /v1/status"))
        .with_state(shared);
    tokio::spawn(async move {
        let served = axum::serve(listener, router)
            .with_graceful_shutdown(async move { shutdown.cancelled().await })
            .await;
        if let Err(error) = served {
            warn!(%error, "the HTTP listener ended");
        }
    })
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    shared.metrics.refresh(&shared.budgets);
    if let Ok(parts) = shared.parts() {
        // Renews `sluice_storage_store_state`.
        let _ = parts.store.state();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.registry.render())
}

async fn ready(State(shared): State<Arc<Shared>>) -> Result<&'static str, Problem> {
    let parts = shared.parts()?;
    let not_yet = |why: String| Problem::new(StatusCode::SERVICE_UNAVAILABLE, why);
    if parts.ctx.shutdown.is_cancelled() {
        return Err(not_yet("the broker is stopping".to_owned()));
    }
    // An outage of the store is a state that clients are to sit out here: produce and hot reads go on.
    Ok(match parts.store.state() {
        StoreState::Healthy => "ready\n",
        StoreState::Throttled => "ready; the object store throttles\n",
        StoreState::Down(_) => "ready; the object store is down\n",
    })
}
