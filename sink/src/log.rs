//! Log and ledger over a partition of this broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use common::StreamKind;
use partition::{
    AppendError, BatchReader, IndexKind, IndexRecord, Isolation, OpenCut, OpenError, Partition,
    Partitions, ReadError, ReadRequest,
};
use storage::{Class, Entry, Storage};

use crate::ledger::{AccessError, Cut, Ledger};
use crate::record::{Hole, HoleKind, Piece, Record};
use crate::source::{Chunk, Source, View};

/// Bytes of the index stream read at a time in search of the last cut.
const SCAN_BYTES: u64 = 1 << 20;
/// Version of the index record that carries a cut.
const INDEX_VERSION: u16 = 1;
/// How long a cut waits for its round before the wait is shown as a fault.
const UPLOAD_PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// One open partition, as a sink uses it.
pub(crate) struct PartitionLog {
    partition: Arc<Partition>,
    storage: Storage,
    meta: meta::Handle,
    /// The lowest log start seen by a read of this session.
    planned_under: AtomicI64,
}

fn retry(error: impl std::fmt::Display) -> AccessError {
    AccessError::Retry(error.to_string())
}

fn read_error(error: ReadError) -> AccessError {
    match error {
        ReadError::Corrupt { .. } => AccessError::Stop(error.to_string()),
        ReadError::Gone(_) | ReadError::OutOfRange { .. } | ReadError::Unavailable { .. } => {
            retry(error)
        }
    }
}

fn storage_error(error: storage::ReadError) -> AccessError {
    match error {
        storage::ReadError::Unavailable(_)
        | storage::ReadError::NotOpen(_)
        | storage::ReadError::BelowStart { .. } => retry(error),
        other => AccessError::Stop(other.to_string()),
    }
}

impl PartitionLog {
    /// Opens the partition if it is not open yet.
    pub(crate) async fn open(
        partitions: &Partitions,
        storage: &Storage,
        meta: &meta::Handle,
        id: common::PartitionId,
    ) -> Result<Self, AccessError> {
        let partition = partitions.get(id).await.map_err(|error| match error {
            OpenError::Corrupt { .. } => AccessError::Stop(error.to_string()),
            _ => retry(error),
        })?;
        let planned_under = AtomicI64::new(i64::MAX);
        Ok(Self { partition, storage: storage.clone(), meta: meta.clone(), planned_under })
    }

    /// Reads batches and names every offset of `[from, next)`.
    async fn pieces(
        &self,
        from: i64,
        until: i64,
        bytes_max: u64,
        kept: bool,
    ) -> Result<Chunk, AccessError> {
        let mut chunk = Chunk { pieces: Vec::new(), next: from };
        let request = ReadRequest {
            offset: from,
            bytes_max,
            at_least_one: true,
            isolation: Isolation::Uploaded,
            class: Class::Sink,
        };
        let read = if kept {
            self.partition.read_kept(request).await
        } else {
            self.partition.read_entries(request).await
        };
        let read = read.map_err(read_error)?;
        for entry in &read.batches {
            if entry.base_offset >= until {
                break;
            }
            if entry.base_offset > chunk.next {
                self.gap(chunk.next, entry.base_offset, &mut chunk.pieces).await?;
            }
            self.batch(entry, chunk.next, until, &mut chunk.pieces);
            chunk.next = chunk.next.max(entry.end_offset().min(until));
        }
        // `next` may have crossed a hole behind the last batch.
        let crossed = read.next.min(until);
        if chunk.next < crossed {
            self.gap(chunk.next, crossed, &mut chunk.pieces).await?;
            chunk.next = crossed;
        }
        Ok(chunk)
    }

    /// Names the offsets between two batches.
    async fn gap(&self, start: i64, end: i64, out: &mut Vec<Piece>) -> Result<(), AccessError> {
        let stream = self.partition.stream(StreamKind::Data);
        let lost = self.meta.stream_index(stream, start, 1).await.map_err(retry)?.lost;
        let mut at = start;
        for (from, to) in lost {
            let (from, to) = (from.max(at), to.min(end));
            if from < to {
                push_hole(out, at, from, HoleKind::Compacted);
                push_hole(out, from, to, HoleKind::Lost);
                at = to;
            }
        }
        push_hole(out, at, end, HoleKind::Compacted);
        Ok(())
    }

    /// The records of a batch within `[from, until)`. One whose inside disagrees with its header is skipped as a unit.
    fn batch(&self, entry: &Entry, from: i64, until: i64, out: &mut Vec<Piece>) {
        let (start, end) = (entry.base_offset.max(from), entry.end_offset().min(until));
        let kept = out.len();
        if let Err(reason) = records(entry, start, end, out) {
            out.truncate(kept);
            tracing::warn!(partition = %self.partition.id(), base_offset = entry.base_offset, reason,
                "batch cannot be read; its offsets are named as skipped");
            push_hole(out, start, end, HoleKind::Skipped);
        }
    }

    /// Waits until an index record lies in objects.
    async fn in_objects(&self, index_offset: i64) -> Result<(), AccessError> {
        let stream = self.partition.stream(StreamKind::Index);
        let committed = self.storage.bounds(stream).map_or(0, |bounds| bounds.committed_end);
        if index_offset < committed {
            return Ok(());
        }
        // The record is durable, so its position lies below the durable end of the log.
        self.upload(common::Lsn(self.storage.durable().0.saturating_sub(1))).await
    }

    /// Forces a round and waits for it. Gives up from time to time, so that a store out of reach becomes visible.
    async fn upload(&self, lsn: common::Lsn) -> Result<(), AccessError> {
        match tokio::time::timeout(UPLOAD_PATIENCE, self.storage.upload_through(lsn)).await {
            Ok(done) => done.map_err(retry),
            Err(_) => Err(retry(
                "the cut waits for its upload round; the object store is slow or out of reach",
            )),
        }
    }
}

fn push_hole(out: &mut Vec<Piece>, start: i64, end: i64, kind: HoleKind) {
    if start >= end {
        return;
    }
    match out.last_mut() {
        Some(Piece::Hole(last)) if last.end == start && last.kind == kind => last.end = end,
        _ => out.push(Piece::Hole(Hole { start, end, kind })),
    }
}

fn records(entry: &Entry, start: i64, end: i64, out: &mut Vec<Piece>) -> Result<(), String> {
    let reader = BatchReader::open(&entry.bytes).map_err(|error| error.to_string())?;
    if reader.is_control() {
        push_hole(out, start, end, HoleKind::Control);
        return Ok(());
    }
    let mut at = start;
    for record in reader.records() {
        let record = record.map_err(|error| error.to_string())?;
        if record.offset < start || record.offset >= end {
            continue;
        }
        if record.offset < at {
            return Err(format!("offset {} comes again", record.offset));
        }
        push_hole(out, at, record.offset, HoleKind::Compacted);
        let owned = |part: Option<&[u8]>| part.map(|part| reader.slice(part));
        out.push(Piece::Record(Record {
            offset: record.offset,
            timestamp: record.timestamp,
            key: owned(record.key),
            value: owned(record.value),
            headers: record.headers.map(|(key, value)| (reader.slice(key), owned(value))).collect(),
        }));
        at = record.offset + 1;
    }
    push_hole(out, at, end, HoleKind::Compacted);
    Ok(())
}

#[async_trait]
impl Source for PartitionLog {
    fn view(&self) -> View {
        let offsets = self.partition.offsets();
        View {
            log_start: offsets.log_start,
            readable_end: offsets.last_stable.min(offsets.committed_end),
            high_watermark: offsets.high_watermark,
        }
    }

    async fn read(&self, from: i64, until: i64, bytes_max: u64) -> Result<Chunk, AccessError> {
        let view = self.view();
        // The oldest log start that a plan is made under: a cut of what has been deleted since is refused.
        self.planned_under.fetch_min(view.log_start, Ordering::AcqRel);
        if from < view.log_start {
            let mut chunk = Chunk { pieces: Vec::new(), next: until.min(view.log_start) };
            push_hole(&mut chunk.pieces, from, chunk.next, HoleKind::Skipped);
            return Ok(chunk);
        }
        self.pieces(from, until, bytes_max, false).await
    }

    async fn read_cut(&self, from: i64, until: i64, bytes_max: u64) -> Result<Chunk, AccessError> {
        let kept = self.partition.kept_from();
        if from < kept {
            // Deleted before the cut was made, and named so by it.
            let mut chunk = Chunk { pieces: Vec::new(), next: until.min(kept) };
            push_hole(&mut chunk.pieces, from, chunk.next, HoleKind::Skipped);
            return Ok(chunk);
        }
        self.pieces(from, until, bytes_max, true).await
    }
}

#[async_trait]
impl Ledger for PartitionLog {
    /// Searches backwards from the end: the last cut is among the newest records.
    async fn last(
        &self,
        sink_id: u64,
        generation: u32,
        from: i64,
    ) -> Result<Option<Cut>, AccessError> {
        let stream = self.partition.stream(StreamKind::Index);
        let bounds = self.storage.bounds(stream).unwrap_or_default();
        if bounds.end > bounds.durable_end {
            // One of them may be a cut: it is decided once it is durable.
            return Err(retry("records of the ledger are on their way to the disk"));
        }
        let mut before = bounds.durable_end;
        while before > bounds.start {
            let read = self.storage.read_back(stream, before, SCAN_BYTES).await;
            let read = read.map_err(storage_error)?;
            let Some(first) = read.entries.first() else { break };
            before = first.base_offset;
            for entry in read.entries.iter().rev() {
                let record = IndexRecord::decode(entry.base_offset, &entry.bytes)
                    .map_err(|damaged| AccessError::Stop(damaged.to_string()))?;
                if record.kind != IndexKind::CUT {
                    continue;
                }
                let cut = Cut::decode(&record.payload)
                    .map_err(|damaged| AccessError::Stop(damaged.to_string()))?;
                if (cut.sink_id, cut.generation) == (sink_id, generation) && cut.end >= from {
                    // Open until its manifest was found or put.
                    self.partition.note_cut(sink_id, Some(cut.start));
                    self.in_objects(record.offset).await?;
                    return Ok(Some(cut));
                }
            }
        }
        self.partition.note_cut(sink_id, None);
        Ok(None)
    }

    async fn append(&self, cut: &Cut) -> Result<(), AccessError> {
        let bytes = cut.encode();
        let mut space = self.storage.wal_space();
        let position = loop {
            let open = OpenCut {
                sink: cut.sink_id,
                start: cut.start,
                planned_under: self.planned_under.load(Ordering::Acquire),
            };
            match self.partition.append_cut(open, INDEX_VERSION, &bytes) {
                Ok(Some(position)) => break position,
                Ok(None) => {
                    return Err(retry(
                        "records were deleted while the cut was planned; it is planned anew",
                    ));
                }
                Err(error) if error.waits_for_space() => {
                    self.storage.kick();
                    space.changed().await.map_err(retry)?;
                }
                Err(error @ AppendError::TooLarge { .. }) => {
                    return Err(AccessError::Stop(error.to_string()));
                }
                Err(error) => return Err(retry(error)),
            }
        };
        self.upload(position.lsn).await
    }

    async fn move_floor(&self, sink_id: u64, floor: i64) -> Result<(), AccessError> {
        self.partition.note_cut(sink_id, None);
        self.storage.carry_floor(sink_id, self.partition.id().index, floor);
        Ok(())
    }
}
