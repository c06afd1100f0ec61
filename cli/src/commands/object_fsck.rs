//! `sluice object fsck`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use common::Interval;
use serde_json::Value;

use crate::args::{Http as At, StoreFlags};
use crate::http::Http;
use crate::output::{Failure, Output};
use crate::place;

/// How to check, and where.
pub struct Flags {
    pub grace: Interval,
    pub quick: bool,
    pub data_dir: Option<PathBuf>,
    pub object_store: Option<String>,
}

pub async fn run(flags: &Flags, at: &At, out: &Output) -> Result<ExitCode, Failure> {
    let report = match &flags.data_dir {
        Some(data_dir) => offline(flags, data_dir).await,
        None => {
            let path = format!(
                "/v1/objects/fsck?grace_ms={}&quick={}",
                flags.grace.0.as_millis(),
                flags.quick
            );
            async { Http::new(&at.http)?.get(&path).await }.await
        }
    };
    let report = report.map_err(Failure::unchecked)?;
    if out.is_json() {
        out.json(&report);
    } else {
        show(&report, out);
    }
    Ok(ExitCode::from(u8::from(report["findings_total"] != 0)))
}

fn show(report: &Value, out: &Output) {
    let findings = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
    if !findings.is_empty() {
        let columns = ["kind", "place", "detail"];
        let row = |one: &Value| columns.iter().map(|key| one[*key].clone()).collect();
        out.rows(&columns, findings.iter().map(row).collect());
    }
    out.line(format!(
        "{} objects of {} bytes, {} ranges of {} streams; {} objects of {} bytes wait for their delete or commit",
        report["objects"],
        report["bytes"],
        report["ranges"],
        report["streams"],
        report["pending"],
        report["pending_bytes"],
    ));
    if report["left_behind"] != 0 {
        out.line(format!("{} objects were left alone by a rebuild", report["left_behind"]));
    }
    out.line(match report["findings_total"].as_u64() {
        Some(0) => "proved: the bucket holds what metadata says".to_owned(),
        total => format!("disproved: {} findings", total.unwrap_or_default()),
    });
}

async fn offline(flags: &Flags, data_dir: &Path) -> anyhow::Result<Value> {
    let id = place::cluster_id(data_dir)
        .ok_or_else(|| anyhow!("{} is no data directory of a cluster", data_dir.display()))?;
    let store = StoreFlags {
        data_dir: data_dir.to_owned(),
        object_store: flags.object_store.clone(),
        cluster: Some(id),
    };
    let cluster = place::cluster(&store).await?;
    let path = data_dir.join("meta");
    let local = meta_rocks::RocksStore::open_read_only(&path)
        .with_context(|| format!("{} cannot be opened", path.display()))?;
    let image = meta::Image::build(&meta::StoreView(&local), 0)?;
    let options = storage::FsckOptions {
        grace: flags.grace.0,
        now_ms: common::Clock::system().now_ms(),
        incarnation: image.cluster.map_or(0, |cluster| cluster.incarnation),
        read_indexes: !flags.quick,
        requests_max: 4,
    };
    let facts = storage::Offline::new(Box::new(local));
    let report = storage::fsck(&*cluster.store, &cluster.prefix, &facts, &options).await?;
    Ok(broker::fsck_report(&report))
}
