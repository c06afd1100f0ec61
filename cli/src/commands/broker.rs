//! `sluice broker`.

use std::path::Path;
use std::process::ExitCode;

use common::WalId;
use serde_json::{Value, json};

use crate::args::Broker;
use crate::output::{Failure, Output};

/// Lost ranges printed one by one.
const SHOWN_MAX: usize = 1000;

pub async fn run(command: Broker, out: &Output) -> Result<ExitCode, Failure> {
    let Broker::WalLost { id, data_dir, yes } = command;
    match (id, yes) {
        (Some(id), true) => declare(WalId(id), &data_dir, out).await,
        (id, _) => show(id.map(WalId), &data_dir, out).await,
    }
}

async fn show(id: Option<WalId>, data_dir: &Path, out: &Output) -> Result<ExitCode, Failure> {
    let logs = broker::lost_wals(data_dir).await.map_err(failed)?;
    let mut rows = Vec::new();
    for log in logs.iter().filter(|log| id.is_none_or(|id| log.wal.id == id)) {
        let row = |topic: &str, partition: Value, end: Value| {
            vec![Value::from(log.wal.id.0), log.wal.node.0.into(), topic.into(), partition, end]
        };
        rows.extend(
            log.partitions
                .iter()
                .map(|(topic, index, end)| row(topic, (*index).into(), (*end).into())),
        );
        if log.partitions.is_empty() {
            rows.push(row("-", Value::Null, Value::Null));
        }
    }
    if rows.is_empty() {
        return Err(Failure::failed(anyhow::anyhow!("no open log of that number is known here")));
    }
    out.rows(&["wal", "node", "topic", "partition", "lost_from"], rows);
    out.line(
        "declaring a log lost gives up what lies at and above LOST FROM; repeat with its number and --yes",
    );
    Ok(ExitCode::SUCCESS)
}

async fn declare(id: WalId, data_dir: &Path, out: &Output) -> Result<ExitCode, Failure> {
    let loss = broker::declare_wal_lost(data_dir, id).await.map_err(failed)?;
    let aside = loss.aside.as_ref().map(|path| path.display().to_string());
    if out.is_json() {
        out.json(&json!({ "wal": id.0, "lost": ranges(&loss.lost), "aside": aside }));
        return Ok(ExitCode::SUCCESS);
    }
    out.rows(&["stream", "start", "end"], loss.lost.iter().take(SHOWN_MAX).map(row).collect());
    out.line(format!("log {id} is closed for ever; the next start begins a new one"));
    if let Some(aside) = aside {
        out.line(format!("its old directory lies in {aside}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn row(lost: &meta::LostRange) -> Vec<Value> {
    vec![lost.stream.to_string().into(), lost.start.into(), lost.end.into()]
}

/// Lost ranges as JSON.
pub fn ranges(lost: &[meta::LostRange]) -> Value {
    let range = |lost: &meta::LostRange| json!({ "stream": lost.stream.to_string(), "start": lost.start, "end": lost.end });
    lost.iter().map(range).collect()
}

fn failed(error: broker::StartError) -> Failure {
    Failure::failed(anyhow::Error::new(error))
}
