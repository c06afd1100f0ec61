//! Reading a partition: one reader for fetches and sinks.

use bytes::{Bytes, BytesMut};
use common::StreamKind;
use storage::{Class, Entry};

use crate::error::{Gone, ReadError};
use crate::index::{IndexKind, IndexRecord};
use crate::partition::Partition;
use crate::state::{Finder, Frame, Snapshot, StateKind};

/// Slices smaller than this are joined into one, so that an answer has few of them.
const SLICE_BYTES_MIN: usize = 4096;

/// What a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Everything below the high watermark.
    ReadUncommitted,
    /// Everything below the last stable offset.
    ReadCommitted,
    /// Everything that lies in objects and is stable: what a sink may cut.
    Uploaded,
}

/// A read of whole batches.
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The batch that holds this offset comes first.
    pub offset: i64,
    /// Bytes wanted at most.
    pub bytes_max: u64,
    /// Return the first batch even when it is larger (KIP-74).
    pub at_least_one: bool,
    /// What may be seen.
    pub isolation: Isolation,
    /// Whose share of the machine it uses.
    pub class: Class,
}

/// An aborted transaction in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aborted {
    /// Its producer.
    pub producer_id: i64,
    /// Its first offset.
    pub first_offset: i64,
}

/// What a fetch answers.
#[derive(Clone, Debug, Default)]
pub struct Batches {
    /// The batches back to back, in few slices.
    pub slices: Vec<Bytes>,
    /// Bytes in the slices.
    pub bytes: u64,
    /// Everything below may be shown.
    pub high_watermark: i64,
    /// Bound of `read_committed`.
    pub last_stable: i64,
    /// First offset that can be read.
    pub log_start: i64,
    /// Aborted transactions in the range; asked for by `read_committed` only.
    pub aborted: Vec<Aborted>,
    /// Where to read on.
    pub next: i64,
}

/// A page of index records.
#[derive(Clone, Debug, Default)]
pub struct IndexPage {
    /// Records of the kind asked for, ascending.
    pub records: Vec<IndexRecord>,
    /// Where to read on; equal to the durable end of the index stream when all was seen.
    pub next: i64,
    /// True when the durable end was reached.
    pub done: bool,
}

impl Partition {
    /// Reads whole batches for a fetch. Log start, deletion and ownership are checked behind the read as well.
    ///
    /// An offset between the high watermark and the end gives no batches. Cancel safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read(&self, request: ReadRequest) -> Result<Batches, ReadError> {
        self.gate()?;
        let (offsets, bound) = self.bound(request.isolation);
        self.check_range(request.offset)?;
        let mut batches = Batches {
            high_watermark: offsets.high_watermark,
            last_stable: offsets.last_stable,
            next: request.offset,
            ..Batches::default()
        };
        if request.offset < bound {
            let stream = self.stream(StreamKind::Data);
            let storage = &self.shared.storage;
            let mut at = request.offset;
            let read = loop {
                let read = storage.read(stream, at, bound, request.bytes_max, request.class).await;
                let read = read.map_err(|error| self.read_error(error))?;
                // A client never learns `next` from an empty answer, so a hole is crossed here, a lost range above all:
                // what lies behind it may be in another place than the hole.
                if !read.entries.is_empty() || read.next <= at || read.next >= bound {
                    break read;
                }
                at = read.next;
            };
            let first = read.entries.first().map_or(0, |entry| entry.bytes.len() as u64);
            if request.at_least_one || first <= request.bytes_max {
                batches.bytes = read.bytes();
                batches.slices = join_small(read.slices());
                batches.next = read.next;
            }
        }
        self.gate()?;
        batches.log_start = self.check_range(request.offset)?;
        Ok(batches)
    }

    /// Reads whole batches one by one: the entries keep offsets, counts and timestamps. For sinks and scans. An empty
    /// answer with a `next` above the offset crossed a hole.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_entries(&self, request: ReadRequest) -> Result<Entries, ReadError> {
        self.check_range(request.offset)?;
        let read = self.read_kept(request).await?;
        self.check_range(request.offset)?;
        Ok(read)
    }

    /// As [`Self::read_entries`], also below the log start as long as the bytes are kept: for the open cut of a sink.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_kept(&self, request: ReadRequest) -> Result<Entries, ReadError> {
        self.gate()?;
        let (_, bound) = self.bound(request.isolation);
        if request.offset >= bound {
            return Ok(Entries { batches: Vec::new(), next: request.offset, bound });
        }
        let read = self
            .shared
            .storage
            .read(
                self.stream(StreamKind::Data),
                request.offset,
                bound,
                request.bytes_max,
                request.class,
            )
            .await
            .map_err(|error| self.read_error(error))?;
        self.gate()?;
        Ok(Entries { batches: read.entries, next: read.next, bound })
    }

    fn bound(&self, isolation: Isolation) -> (crate::partition::Offsets, i64) {
        let offsets = self.offsets();
        let bound = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
            Isolation::Uploaded => offsets.last_stable.min(offsets.committed_end),
        };
        (offsets, bound)
    }

    /// Aborted transactions with records in `[from, until)`. None exist while transactions are not served.
    #[must_use]
    pub fn aborted(&self, _from: i64, _until: i64) -> Vec<Aborted> {
        Vec::new()
    }

    /// Reads durable index records of `kind` from index offset `from` on, over about `bytes_max` bytes of the stream.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_index(
        &self,
        kind: IndexKind,
        from: i64,
        bytes_max: u64,
    ) -> Result<IndexPage, ReadError> {
        self.gate()?;
        let stream = self.stream(StreamKind::Index);
        let bounds = self.shared.storage.bounds(stream).ok_or(Gone::NotLeader)?;
        let from = from.max(bounds.start);
        if from >= bounds.durable_end {
            return Ok(IndexPage { next: from, done: true, ..IndexPage::default() });
        }
        let end = bounds.durable_end;
        let read = self.shared.storage.read(stream, from, end, bytes_max, Class::Tail).await;
        let read = read.map_err(|error| self.read_error(error))?;
        let mut page =
            IndexPage { next: read.next, done: read.next >= end, ..IndexPage::default() };
        for entry in &read.entries {
            let record = IndexRecord::decode(entry.base_offset, &entry.bytes)
                .map_err(|damaged| corrupt(entry.base_offset, &damaged))?;
            if record.kind == kind {
                page.records.push(record);
            }
        }
        Ok(page)
    }

    /// The newest durable snapshot of `kind` with `valid_for` at most `valid_for_max`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn read_state(
        &self,
        kind: StateKind,
        valid_for_max: i64,
    ) -> Result<Option<Snapshot>, ReadError> {
        let stream = self.stream(StreamKind::State);
        let bounds = self.shared.storage.bounds(stream).ok_or(Gone::NotLeader)?;
        let mut before = bounds.durable_end;
        let mut finder = Finder::new(kind, valid_for_max);
        while before > bounds.start {
            let bytes_max = self.shared.options.scan_bytes_max;
            let read = self.shared.storage.read_back(stream, before, bytes_max).await;
            let read = read.map_err(|error| self.read_error(error))?;
            let Some(first) = read.entries.first() else { break };
            before = first.base_offset;
            for entry in read.entries.iter().rev() {
                let found = Frame::decode(&entry.bytes)
                    .and_then(|frame| finder.push(entry.base_offset, frame))
                    .map_err(|damaged| corrupt(entry.base_offset, &damaged))?;
                if let Some(found) = found {
                    self.mark(&found, entry.base_offset);
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The log start, if `offset` can be read.
    pub(crate) fn check_range(&self, offset: i64) -> Result<i64, ReadError> {
        let offsets = self.offsets();
        if offset < offsets.log_start || offset > offsets.end {
            // The end a client is told is the durable one.
            let (log_start, end) = (offsets.log_start, offsets.high_watermark);
            return Err(ReadError::OutOfRange { offset, log_start, end });
        }
        Ok(offsets.log_start)
    }

    pub(crate) fn read_error(&self, error: storage::ReadError) -> ReadError {
        use storage::ReadError as Storage;
        match error {
            Storage::NotOpen(_) => ReadError::Gone(self.gate().err().unwrap_or(Gone::NotLeader)),
            Storage::BelowStart { offset, start, .. } => ReadError::OutOfRange {
                offset,
                log_start: start,
                end: self.offsets().high_watermark,
            },
            Storage::Corrupt { start, .. }
            | Storage::Missing { start, .. }
            | Storage::CorruptLog { start, .. } => {
                ReadError::Corrupt { offset: start, reason: error.to_string() }
            }
            Storage::Uncovered { offset, .. } => {
                ReadError::Corrupt { offset, reason: error.to_string() }
            }
            Storage::Unavailable(reason) => ReadError::Unavailable { reason },
        }
    }
}

/// Batches one by one.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// The batches, ascending. Offsets between two of them were never written or have been lost or compacted.
    pub batches: Vec<Entry>,
    /// Where to read on.
    pub next: i64,
    /// The bound that the isolation gave when the read began.
    pub bound: i64,
}

pub(crate) fn corrupt(offset: i64, damaged: &dyn std::fmt::Display) -> ReadError {
    ReadError::Corrupt { offset, reason: damaged.to_string() }
}

/// Joins neighbours below [`SLICE_BYTES_MIN`] by copying; longer slices stay as they are.
fn join_small(slices: &[Bytes]) -> Vec<Bytes> {
    let mut out: Vec<Bytes> = Vec::with_capacity(slices.len());
    let mut small: Vec<&Bytes> = Vec::new();
    for slice in slices {
        if slice.len() < SLICE_BYTES_MIN {
            small.push(slice);
        } else {
            flush(&mut small, &mut out);
            out.push(slice.clone());
        }
    }
    flush(&mut small, &mut out);
    out
}

fn flush(small: &mut Vec<&Bytes>, out: &mut Vec<Bytes>) {
    match small.as_slice() {
        [] => {}
        [one] => out.push((*one).clone()),
        many => {
            let mut joined = BytesMut::with_capacity(many.iter().map(|slice| slice.len()).sum());
            many.iter().for_each(|slice| joined.extend_from_slice(slice));
            out.push(joined.freeze());
        }
    }
    small.clear();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_slices_are_joined_and_long_ones_are_not_copied() {
        let long = Bytes::from(vec![7; SLICE_BYTES_MIN]);
        let small = |byte: u8| Bytes::from(vec![byte; 3]);
        let joined = join_small(&[small(1), small(2), long.clone(), small(3)]);
        assert_eq!(joined.len(), 3);
        assert_eq!(joined[0].as_ref(), [1, 1, 1, 2, 2, 2]);
        assert_eq!(joined[1].as_ptr(), long.as_ptr());
        assert_eq!(joined[2], small(3));
        assert!(join_small(&[]).is_empty());
    }
}
