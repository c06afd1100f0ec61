//! Objects as metadata knows them.

use std::sync::Arc;
use std::time::Duration;

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
    let bounds = parts.ctx.storage.bounds(stream);
    let durable_end = bounds.map(|bounds| bounds.durable_end);
    let in_log = place.offset >= index.committed_end;
    let lost = index.lost.iter().find(|(start, end)| (*start..*end).contains(&place.offset));
    let range =
        index.objects.first().filter(|range| (range.start..range.end).contains(&place.offset));
    Ok(Json(json!({
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "log_start": index.start,
        "committed_end": index.committed_end,
        "durable_end": durable_end,
        "in": match range {
            Some(_) => "object",
            None if lost.is_some() => "lost",
            None if in_log && durable_end.is_none_or(|end| place.offset < end) => "wal",
            None if in_log => "not yet written",
            None => "nothing",
        },
        "wal": in_log.then(|| json!({
            "start": index.committed_end,
            "end": durable_end,
        })),
        "lost": lost.map(|(start, end)| json!({ "start": start, "end": end })),
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

#[derive(Deserialize)]
pub(crate) struct Fsck {
    grace_ms: Option<u64>,
    quick: Option<bool>,
}

/// Compares the bucket with metadata.
pub(crate) async fn fsck(
    State(shared): State<Arc<Shared>>,
    Query(asked): Query<Fsck>,
) -> Result<Json<Value>, Problem> {
    let parts = shared.parts()?;
    let image = parts.ctx.meta.image();
    let options = storage::FsckOptions {
        grace: Duration::from_millis(asked.grace_ms.unwrap_or(3_600_000)),
        now_ms: parts.ctx.clock.now_ms(),
        incarnation: image.cluster.as_ref().map_or(0, |cluster| cluster.incarnation),
        read_indexes: !asked.quick.unwrap_or(false),
        requests_max: 4,
    };
    let report = storage::fsck(&parts.store, &parts.prefix, &parts.ctx.meta, &options).await;
    Ok(Json(fsck_report(&report.map_err(unavailable)?)))
}

/// What `sluice object fsck` prints.
#[must_use]
pub fn fsck_report(report: &storage::FsckReport) -> Value {
    json!({
        "objects": report.objects,
        "bytes": report.bytes,
        "pending": report.pending,
        "pending_bytes": report.pending_bytes,
        "left_behind": report.left_behind,
        "streams": report.streams,
        "ranges": report.ranges,
        "findings_total": report.findings_total,
        "findings": report.findings.iter().map(|one| json!({
            "kind": one.kind, "place": one.place, "detail": one.detail,
        })).collect::<Vec<_>>(),
    })
}
