//! `sluice meta`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::args::{Http as At, MetaDump, StoreFlags};
use crate::http::Http;
use crate::output::{Failure, Output};
use crate::place;

/// Prints the state of a store that is opened read-only.
pub fn dump(args: &MetaDump, out: &Output) -> Result<ExitCode, Failure> {
    let path = args.data_dir.join("meta");
    let store = meta_rocks::RocksStore::open_read_only(&path).with_context(|| {
        format!("{} cannot be opened; name the data directory with --data-dir", path.display())
    })?;
    let summary = meta::summary(&store).map_err(Failure::failed)?;
    if args.summary {
        out.document(&serde_json::to_value(&summary).unwrap_or(Value::Null));
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    let row = |line: meta::Line| vec![line.kind.into(), line.name.into(), line.value.into()];
    meta::dump(&store, |line| rows.push(row(line))).map_err(Failure::failed)?;
    out.rows(&["kind", "name", "value"], rows);
    out.line(format!(
        "applied {}, term {}, {} keys, checksum {:08x}",
        summary.applied, summary.term, summary.keys, summary.checksum
    ));
    Ok(ExitCode::SUCCESS)
}

pub async fn status(at: &At, out: &Output) -> anyhow::Result<()> {
    let status = Http::new(&at.http)?.get("/v1/meta").await?;
    if out.is_json() {
        out.json(&status);
        return Ok(());
    }
    let count = |key: &str| status[key].as_array().map_or(0, Vec::len);
    out.document(&json!({
        "leader": status["leader"],
        "term": status["term"],
        "applied": status["applied"],
        "checksum": status["checksum"],
        "feature_level": status["feature_level"],
        "brokers": count("brokers"),
        "topics": count("topics"),
    }));
    Ok(())
}

/// Restores a cluster from its bucket.
pub async fn rebuild(
    object_store: &str,
    cluster: Option<String>,
    data_dir: PathBuf,
    out: &Output,
) -> Result<ExitCode, Failure> {
    let flags = StoreFlags {
        data_dir: PathBuf::new(),
        object_store: Some(object_store.to_owned()),
        cluster,
    };
    let cluster = place::cluster(&flags).await?;
    let cluster = cluster.prefix.filename().unwrap_or_default().to_owned();
    let wanted = broker::Rebuild { store: place::open(&flags)?, cluster, data_dir };
    let done = broker::rebuild(&wanted).await;
    let done = done.map_err(|error| Failure::failed(anyhow::Error::new(error)))?;
    let left: Vec<Value> = done
        .adopted
        .left
        .iter()
        .map(|left| json!({ "key": left.key, "reason": left.reason }))
        .collect();
    if out.is_json() {
        out.json(&json!({
            "cluster": wanted.cluster,
            "incarnation": done.incarnation,
            "snapshot": done.snapshot,
            "taken_ms": done.taken_ms,
            "skipped": done.skipped,
            "topics": done.topics,
            "adopted": done.adopted.objects,
            "left": left,
            "lost": super::broker::ranges(&done.adopted.lost),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    for skipped in &done.skipped {
        out.line(format!("damaged and passed over: snapshot {skipped}"));
    }
    out.line(format!(
        "cluster {} lives on as incarnation {} in {}: snapshot {}, {} topics, {} newer objects",
        wanted.cluster,
        done.incarnation,
        wanted.data_dir.display(),
        done.snapshot,
        done.topics,
        done.adopted.objects
    ));
    for left in &done.adopted.left {
        out.line(format!("left alone: {}: {}", left.key, left.reason));
    }
    out.line(format!(
        "{} streams go on behind a lost range; what was acknowledged and not uploaded before the loss is gone: \
         at most the last upload.age.max or upload.size.max of each log while the store answered",
        done.adopted.lost.len()
    ));
    out.line("the former broker is fenced; start this one with `sluice serve --data-dir`");
    Ok(ExitCode::SUCCESS)
}
