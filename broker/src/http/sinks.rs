//! Sinks: created, listed, described, deleted. What is checked here is everything that a user can get wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path as Name, State};
use axum::http::StatusCode;
use meta::command::{CreateSink, DeleteSink, PartitionOffset};
use meta::{Reject, Reply, SinkMeta, SinkState, Topic};
use partition::Isolation;
use serde::Deserialize;
use serde_json::{Value, json};
use sink::{Layout, SinkConfig};

use super::status::unavailable;
use super::{Parts, Problem, Shared};
use crate::topics;

type Answer = Result<Json<Value>, Problem>;

#[derive(Deserialize)]
pub(crate) struct New {
    name: String,
    topic: String,
    /// `earliest`, `latest` or an offset.
    start: Option<String>,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

pub(crate) async fn create(State(shared): State<Arc<Shared>>, Json(new): Json<New>) -> Answer {
    let parts = shared.parts()?;
    let invalid = |why: String| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why);
    sink::check_name(&new.name).map_err(invalid)?;
    let config = SinkConfig::parse(&new.config).map_err(|faults| invalid(faults.to_string()))?;
    let image = parts.ctx.meta.image();
    let topic = image.topic(&new.topic).cloned().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("unknown topic {:?}; create it first", new.topic),
        )
    })?;
    if topic.internal {
        return Err(invalid(format!("{} is a topic of the broker itself", topic.name)));
    }
    let starts = starts(parts, &topic, new.start.as_deref().unwrap_or("earliest")).await?;
    let root = root(parts, &config, &new.name, &topic.name);
    parts.sinks.probe(&new.name, &config).await.map_err(|error| invalid(error.to_string()))?;
    let command = CreateSink {
        name: new.name.clone(),
        topic: topic.id.as_bytes().to_vec(),
        config: new.config,
        starts,
        root: root.clone(),
        now_ms: parts.ctx.clock.now_ms(),
    };
    match parts.ctx.meta.propose(command).await.map_err(unavailable)? {
        Reply::SinkCreated { id } => {
            Ok(Json(json!({ "name": new.name, "id": id, "topic": topic.name, "root": root })))
        }
        Reply::Rejected(reject) => Err(refused(&reject)),
        other => Err(unavailable(format!("unexpected reply of metadata: {other:?}"))),
    }
}

/// The first offset in each partition; none for the log starts.
async fn starts(
    parts: &Parts,
    topic: &Topic,
    start: &str,
) -> Result<Vec<PartitionOffset>, Problem> {
    let fixed = match start {
        "earliest" => return Ok(Vec::new()),
        "latest" => None,
        text => Some(text.parse::<i64>().ok().filter(|offset| *offset >= 0).ok_or_else(|| {
            let why = format!("start {text:?} is not earliest, latest or an offset");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)
        })?),
    };
    let mut starts = Vec::with_capacity(topic.partitions.len());
    for index in 0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX) {
        let Some((id, _)) = topics::partition_of(topic, index) else { continue };
        let offset = match fixed {
            Some(offset) => offset,
            None => {
                let partition = parts.ctx.partitions.get(id).await.map_err(unavailable)?;
                let latest =
                    partition.list_offset(partition::LATEST, Isolation::ReadCommitted).await;
                latest.map_err(unavailable)?.offset
            }
        };
        starts.push(PartitionOffset { partition: id.index, offset });
    }
    Ok(starts)
}

/// The place of the files: store and prefix.
fn root(parts: &Parts, config: &SinkConfig, name: &str, topic: &str) -> String {
    let prefix = parts.sinks.prefix(name, config);
    let layout = Layout::new(&prefix, config, name, topic, 0);
    match &config.bucket {
        Some(bucket) => format!("s3://{bucket}/{}", layout.root()),
        None => format!("{}/{}", base(&parts.store_name), layout.root()),
    }
}

/// The store without the cluster's prefix, which keys carry.
fn base(store: &str) -> String {
    match store.strip_prefix("s3://") {
        Some(rest) => format!("s3://{}", rest.split('/').next().unwrap_or(rest)),
        None => store.to_owned(),
    }
}

fn refused(reject: &Reject) -> Problem {
    let status = match reject {
        Reject::SinkExists(_) | Reject::SinkOverlaps { .. } => StatusCode::CONFLICT,
        Reject::UnknownSink(_) | Reject::UnknownTopic => StatusCode::NOT_FOUND,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Problem::new(status, reject.to_string())
}

fn shown(sink: &SinkMeta) -> Value {
    json!({
        "name": sink.name,
        "id": sink.id,
        "topic": sink.topic_name,
        "topic_id": sink.topic_id.to_string(),
        "generation": sink.generation,
        "state": match sink.state {
            SinkState::Running => "running",
            SinkState::Paused => "paused",
        },
        "root": sink.root,
        "config": sink.config,
    })
}

pub(crate) async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let image = shared.parts()?.ctx.meta.image();
    let sinks: Vec<Value> = image.sinks.values().map(|sink| shown(sink)).collect();
    Ok(Json(json!({ "sinks": sinks })))
}

fn find(parts: &Parts, name: &str) -> Result<Arc<SinkMeta>, Problem> {
    parts
        .ctx
        .meta
        .image()
        .sinks
        .get(name)
        .cloned()
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("there is no sink {name:?}")))
}

pub(crate) async fn describe(
    State(shared): State<Arc<Shared>>,
    Name(name): Name<String>,
) -> Answer {
    let parts = shared.parts()?;
    let sink = find(parts, &name)?;
    let mut shown = shown(&sink);
    shown["partitions"] = serde_json::to_value(parts.sinks.status(sink.id)).map_err(unavailable)?;
    Ok(Json(shown))
}

pub(crate) async fn delete(State(shared): State<Arc<Shared>>, Name(name): Name<String>) -> Answer {
    let parts = shared.parts()?;
    let sink = find(parts, &name)?;
    match parts.ctx.meta.propose(DeleteSink { name: name.clone() }).await.map_err(unavailable)? {
        Reply::SinkDeleted { .. } => Ok(Json(json!({ "name": name, "root": sink.root }))),
        Reply::Rejected(reject) => Err(refused(&reject)),
        other => Err(unavailable(format!("unexpected reply of metadata: {other:?}"))),
    }
}
