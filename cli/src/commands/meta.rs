//! `sluice meta`.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::args::{Http as At, MetaDump};
use crate::http::Http;
use crate::output::{Failure, Output};

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
