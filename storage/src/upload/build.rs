//! From groups of the log to the pieces of an object.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use common::{Lsn, StreamEpoch, StreamId};

use super::plan::Plan;
use super::{Failure, Uploader};
use crate::object::{BLOCK_BYTES_TARGET, EntryPart, WriteError, Writer};
use crate::tail::TailGroup;

/// The entries of one stream in a window.
struct Part {
    start: i64,
    end: i64,
    epoch: StreamEpoch,
    // Index of the group in the window, and positions in its sorted order.
    runs: Vec<(usize, std::ops::Range<u32>)>,
}

impl Uploader {
    /// Writes the blocks of one window.
    pub(super) async fn window(
        &self,
        plan: &mut Plan,
        window: usize,
        writer: &mut Writer,
        out: &mut Vec<Bytes>,
    ) -> Result<(), Failure> {
        let mut groups = Vec::with_capacity(plan.windows[window].len());
        for first in &plan.windows[window] {
            groups.push(self.group(*first).await?);
        }
        for (stream, part) in self.parts(plan, &groups)? {
            let start = self.start_of(plan, stream);
            write_stream(stream, &part, start, &groups, writer, out).map_err(|error| {
                self.core.metrics.error("build");
                match error {
                    WriteError::Checksum { .. } => {
                        // Memory is wrong; the log may be right: read it again.
                        groups.iter().for_each(|group| self.core.tail.drop_buffer(group.first()));
                        Failure::Again(error.to_string())
                    }
                    WriteError::Gap { .. } => Failure::Fatal(error.to_string()),
                }
            })?;
        }
        Ok(())
    }

    async fn group(&self, first: Lsn) -> Result<Arc<TailGroup>, Failure> {
        if let Some(group) = self.core.tail.get(first) {
            return Ok(group);
        }
        let group = self.log.read_group(first).await.map_err(|error| {
            self.core.metrics.error("wal_read");
            match error {
                wal::ReadError::Moved { .. } => Failure::Fatal(format!(
                    "write-ahead log no longer holds group {first}, which was never uploaded"
                )),
                error => Failure::Again(format!("cannot read the write-ahead log: {error}")),
            }
        })?;
        self.core.metrics.groups_read_back.inc();
        Ok(Arc::new(TailGroup::new(group, &self.core.budget)))
    }

    /// The log start of `stream`, as the plan first saw it.
    fn start_of(&self, plan: &mut Plan, stream: StreamId) -> i64 {
        let now = || self.core.table.with(stream, |state| state.bounds.start).unwrap_or(0);
        *plan.starts.entry(stream).or_insert_with(now)
    }

    fn parts(
        &self,
        plan: &mut Plan,
        groups: &[Arc<TailGroup>],
    ) -> Result<BTreeMap<StreamId, Part>, Failure> {
        let mut parts: BTreeMap<StreamId, Part> = BTreeMap::new();
        for (index, group) in groups.iter().enumerate() {
            for (stream, run) in group.runs() {
                plan.touched.insert(stream.partition);
                if plan.is_deleted(stream.partition) {
                    continue;
                }
                let positions = run.first..run.first + run.count;
                let epoch = positions.clone().map(|position| group.meta(position).epoch).max();
                let fresh = Part {
                    start: run.start,
                    end: run.start,
                    epoch: StreamEpoch(0),
                    runs: Vec::new(),
                };
                let part = parts.entry(stream).or_insert(fresh);
                if part.end != run.start {
                    return Err(Failure::Fatal(format!(
                        "write-ahead log holds stream {stream} up to {} and then from {}",
                        part.end, run.start
                    )));
                }
                part.end = run.end;
                part.epoch = part.epoch.max(epoch.unwrap_or_default());
                part.runs.push((index, positions));
            }
        }
        Ok(parts)
    }
}

/// Writes the entries of one stream, a block at a time, so that only one block's handles are held.
fn write_stream(
    stream: StreamId,
    part: &Part,
    log_start: i64,
    groups: &[Arc<TailGroup>],
    writer: &mut Writer,
    out: &mut Vec<Bytes>,
) -> Result<(), WriteError> {
    let mut block: Vec<EntryPart> = Vec::new();
    let (mut start, mut bytes) = (part.start, 0_u64);
    for (index, positions) in &part.runs {
        for position in positions.clone() {
            let meta = groups[*index].meta(position);
            if meta.end_offset() <= log_start {
                continue;
            }
            bytes += u64::from(meta.length);
            if bytes > BLOCK_BYTES_TARGET && !block.is_empty() {
                writer.stream(stream, start..meta.base_offset, part.epoch, &block, out)?;
                block.clear();
                (start, bytes) = (meta.base_offset, u64::from(meta.length));
            }
            block.push(EntryPart { meta, payload: groups[*index].payload(position) });
        }
    }
    writer.stream(stream, start..part.end, part.epoch, &block, out)
}
