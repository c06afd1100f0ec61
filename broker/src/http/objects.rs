//! Objects as metadata knows them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use common::{ObjectId, PartitionId, StreamKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::status::unavailable;
use super::{Problem, Shared};
use crate::topics;

/// Most objects in one answer.
const LIMIT_MAX: usize = 10_000;

#[derive(Deserialize)]
pub(crate) struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let parts = shared.parts()?;
    let limit = page.limit.unwrap_or(1000).clamp(1, LIMIT_MAX);
    let after = page.after.map(ObjectId);
    let objects = parts.ctx.meta.objects(after, limit).await.map_err(unavailable)?;
    let more = objects.len() == limit;
    let objects: Vec<Value> = objects
        .iter()
        .map(|object| {
            json!({
                "object": object.id.0,
                "stage": object.stage,
                "key": storage::data_key(&parts.prefix, object.id).to_string(),
                "bytes": object.facts.as_ref().map(|facts| facts.bytes),
                "wal": object.wal.0,
                "first": object.lsns.0.0,
                "end": object.lsns.1.0,
            })
        })
        .collect();
    Ok(Json(json!({ "objects": objects, "more": more })))
}

#[derive(Deserialize)]
pub(crate) struct Place {
    topic: String,
    partition: i32,
    offset: i64,
}

pub(crate) async fn locate(
    State(shared): State<Arc<Shared>>,
    Query(place): Query<Place>,
) -> Result<Json<Value>, Problem> {
    let parts = shared.parts()?;
    let image = parts.ctx.meta.image();
    let missing = |what: String| Problem::new(StatusCode::NOT_FOUND, what);
    let topic = image
        .topic(&place.topic)
        .ok_or_else(|| missing(format!("unknown topic {:?}", place.topic)))?;
    let (id, _): (PartitionId, _) = topics::partition_of(topic, place.partition)
        .ok_or_else(|| missing(format!("{} has no partition {}", place.topic, place.partition)))?;
    let stream = id.stream(StreamKind::Data);
    let index = parts.ctx.meta.stream_index(stream, place.offset, 1).await.map_err(unavailable)?;
    let range =
        index.objects.first().filter(|range| (range.start..range.end).contains(&place.offset));
    Ok(Json(json!({
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "log_start": index.start,
        "committed_end": index.committed_end,
        "in": match range {
            Some(_) => "object",
            None if place.offset >= index.committed_end => "wal",
            None => "nothing",
        },
        "object": range.map(|range| json!({
            "object": range.object.0,
            "key": storage::data_key(&parts.prefix, range.object).to_string(),
            "start": range.start,
            "end": range.end,
            "bytes": range.bytes,
            "records": range.records,
        })),
    })))
}
