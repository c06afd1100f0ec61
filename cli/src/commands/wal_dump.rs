//! Reading a log's directory without opening it for writing.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;
use wal::{DirDisk, FrameMeta, Inspector, Item, Unreadable};

use crate::output::Output;

const COLUMNS: [&str; 10] =
    ["segment", "epoch", "group", "acked", "stream", "base", "span", "count", "bytes", "state"];

/// Prints up to `limit` frames of the log in `data_dir`. Groups behind a cut are shown too: only metadata knows them
/// apart.
pub async fn run(data_dir: &Path, limit: usize, out: &Output) -> anyhow::Result<()> {
    let path = data_dir.join("wal");
    let opened =
        || format!("{} cannot be read; name the data directory with --data-dir", path.display());
    let disk = DirDisk::open_read_only(&path).with_context(opened)?;
    let mut inspector = Inspector::open(Arc::new(disk), None).with_context(opened)?;
    let mut segment = 0;
    let mut rows = Vec::new();
    let mut more = false;
    while let Some(item) = inspector.next().await.with_context(opened)? {
        if rows.len() >= limit {
            more = true;
            break;
        }
        if let Item::Segment(found) = &item {
            segment = found.number;
        }
        push(segment, &item, &mut rows);
    }
    out.rows(&COLUMNS, rows);
    if more {
        out.line(format!("stopped after {limit} lines; --limit shows more"));
    }
    Ok(())
}

fn push(segment: u64, item: &Item, rows: &mut Vec<Vec<Value>>) {
    match item {
        Item::Segment(_) | Item::Gap { why: Unreadable::Zero, .. } => {}
        Item::Gap { first, end, why } => {
            let what = match why {
                Unreadable::Zero | Unreadable::Other => "no group",
                Unreadable::Header => "damaged group header",
            };
            rows.push(row(segment, Value::Null, first.0, Value::Null, end.0 - first.0, what));
        }
        Item::Group { epoch, first, end, acked, bytes, roll, frames, table_intact, .. } => {
            let (epoch, acked) = (Value::from(epoch.0), Value::from(acked.0));
            if *roll || frames.is_empty() {
                let what = match (*roll, *table_intact) {
                    (true, _) => "end of segment",
                    (false, true) => "empty",
                    (false, false) => "damaged frame table",
                };
                let bytes = if *roll { end.0 - first.0 } else { *bytes };
                rows.push(row(segment, epoch, first.0, acked, bytes, what));
                return;
            }
            for (frame, intact) in frames {
                let what = if *intact { "good" } else { "damaged payload" };
                let mut line = row(segment, epoch.clone(), first.0, acked.clone(), 0, what);
                fill(&mut line, frame);
                rows.push(line);
            }
        }
    }
}

fn row(segment: u64, epoch: Value, first: u64, acked: Value, bytes: u64, what: &str) -> Vec<Value> {
    let none = Value::Null;
    vec![
        segment.into(),
        epoch,
        first.into(),
        acked,
        none.clone(),
        none.clone(),
        none.clone(),
        none,
        bytes.into(),
        what.into(),
    ]
}

fn fill(line: &mut [Value], frame: &FrameMeta) {
    let header = &frame.header;
    line[4] = header.stream.to_string().into();
    line[5] = header.base_offset.into();
    line[6] = header.span.into();
    line[7] = header.count.into();
    line[8] = (frame.range.end - frame.range.start).into();
}
