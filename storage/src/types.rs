//! What goes into a stream and what comes out.

use bytes::Bytes;
use common::{Lsn, StreamEpoch, StreamId};

/// An entry to append. Its payload is `parts` back to back, copied once, into the log's group buffer.
#[derive(Clone, Copy, Debug)]
pub struct NewEntry<'a> {
    /// The stream. All entries of one append belong to one partition.
    pub stream: StreamId,
    /// The partition's epoch under which the caller owns it.
    pub epoch: StreamEpoch,
    /// First offset; must be the end of the stream.
    pub base_offset: i64,
    /// Offsets covered, 1 or more.
    pub span: u64,
    /// Records inside, at most `span`.
    pub count: u64,
    /// Highest timestamp inside, milliseconds since 1970, or -1.
    pub max_timestamp: i64,
    /// The payload.
    pub parts: &'a [&'a [u8]],
}

/// An entry that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// First offset.
    pub base_offset: i64,
    /// Offsets covered.
    pub span: u64,
    /// Records inside.
    pub count: u64,
    /// Highest timestamp inside, milliseconds since 1970, or -1.
    pub max_timestamp: i64,
    /// Epoch of the stream when it was appended.
    pub epoch: StreamEpoch,
    /// The payload.
    pub bytes: Bytes,
}

impl Entry {
    /// The offset after the entry.
    #[must_use]
    pub fn end_offset(&self) -> i64 {
        self.base_offset.saturating_add_unsigned(self.span)
    }
}

/// The answer to a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Whole entries, by offset.
    pub entries: Vec<Entry>,
    /// Where to read on. Past the last entry, and past any hole behind it: with no entries it may still have moved.
    pub next: i64,
    slices: Vec<Bytes>,
}

impl Read {
    /// The payloads of all entries as few slices: entries whose bytes lie back to back share one. Put back to back the
    /// slices are the payloads of `entries`, in order.
    #[must_use]
    pub fn slices(&self) -> &[Bytes] {
        &self.slices
    }

    /// Bytes of all payloads.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.slices.iter().map(|slice| slice.len() as u64).sum()
    }

    pub(crate) fn at(next: i64) -> Self {
        Self { next, ..Self::default() }
    }

    /// Adds entries whose payloads lie back to back in `slice`.
    pub(crate) fn push_run(&mut self, entries: impl IntoIterator<Item = Entry>, slice: Bytes) {
        self.entries.extend(entries);
        if !slice.is_empty() {
            self.slices.push(slice);
        }
        self.next = self.next.max(self.entries.last().map_or(self.next, Entry::end_offset));
    }
}

/// The bounds of a stream, half-open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// First offset that readers may see.
    pub start: i64,
    /// Everything below lies in committed objects.
    pub committed_end: i64,
    /// Everything below is durable in the log or in objects.
    pub durable_end: i64,
    /// Where the next entry goes.
    pub end: i64,
}

/// Who reads. Each class has its own share of the store's requests in flight, so that one does not starve another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Consumers at the end of the log, and opening of partitions.
    Tail,
    /// Consumers behind.
    CatchUp,
    /// Sinks.
    Sink,
    /// Compaction and checks.
    Compaction,
}

impl Class {
    /// All classes, in the order of their numbers.
    pub const ALL: [Class; 4] = [Class::Tail, Class::CatchUp, Class::Sink, Class::Compaction];
}

/// Told when what a partition appended has become durable.
pub trait DurableListener: Send + Sync + 'static {
    /// Everything positioned below `lsn` is durable. Called at most once per group of the log, in LSN order, on the
    /// thread that completed the write: must be short and must not block.
    fn durable(&self, lsn: Lsn);
}
