//! The broker, its log and its metadata in numbers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use storage::StoreState;

use super::{Problem, Shared};

type Answer = Result<Json<Value>, Problem>;

pub(crate) fn unavailable(error: impl std::fmt::Display) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

pub(crate) async fn status(State(shared): State<Arc<Shared>>) -> Answer {
    let parts = shared.parts()?;
    let image = parts.ctx.meta.image();
    let (host, port) = &parts.ctx.advertised;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cluster_id": image.cluster.as_ref().map(|cluster| cluster.id.clone()),
        "incarnation": image.cluster.as_ref().map(|cluster| cluster.incarnation),
        "node": parts.ctx.node.0,
        "listen": parts.kafka.to_string(),
        "advertised": format!("{host}:{port}"),
        "object_store": parts.store_name,
        "object_store_state": store_state(parts.store.state()),
        "prefix": parts.prefix.to_string(),
        "topics": image.topics.len(),
        "sinks": image.sinks.len(),
    })))
}

fn store_state(state: StoreState) -> Value {
    match state {
        StoreState::Healthy | StoreState::Throttled => json!({ "state": state.name() }),
        StoreState::Down(cause) => json!({
            "state": state.name(), "cause": cause.name(), "remedy": cause.remedy(),
        }),
    }
}

pub(crate) async fn wal(State(shared): State<Arc<Shared>>) -> Answer {
    let parts = shared.parts()?;
    let facts = parts.ctx.meta.wals().await.map_err(unavailable)?;
    let logs: Vec<Value> = facts
        .iter()
        .map(|wal| {
            json!({
                "wal": wal.id.0,
                "node": wal.node.0,
                "committed": wal.committed.0,
                "closed": wal.closed,
                "epochs": wal.epochs.iter().map(|(epoch, first)| json!({
                    "epoch": epoch.0, "first": first.0,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    let own = parts.ctx.storage.occupancy();
    Ok(Json(json!({
        "logs": logs,
        "own": {
            "capacity": own.capacity,
            "bytes": own.bytes,
            "durable": own.durable.0,
            "trimmed": own.trimmed.0,
            "segments_live": own.segments_live,
            "segments_free": own.segments_free,
        },
    })))
}

pub(crate) async fn meta(State(shared): State<Arc<Shared>>) -> Answer {
    let parts = shared.parts()?;
    let handle = &parts.ctx.meta;
    let standing = *handle.standing().borrow();
    let image = handle.image();
    let checksum = handle.checksum().await.map_err(unavailable)?;
    Ok(Json(json!({
        "voter": standing.voter,
        "leader": standing.leader,
        "term": standing.term,
        "applied": image.applied,
        "checksum": format!("{checksum:08x}"),
        "feature_level": image.cluster.as_ref().map(|cluster| cluster.feature_level),
        "brokers": image.brokers.values().map(|broker| json!({
            "node": broker.node.0, "host": broker.host, "port": broker.port,
            "epoch": broker.epoch.0, "wal": broker.wal.map(|wal| wal.0),
        })).collect::<Vec<_>>(),
        "topics": image.topics.values().map(|topic| json!({
            "number": topic.number, "name": topic.name, "id": topic.id.to_string(),
            "partitions": topic.partitions.len(), "internal": topic.internal,
        })).collect::<Vec<_>>(),
    })))
}
