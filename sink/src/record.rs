//! What a sink reads: the records of a committed range, and a name for every offset that is none.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One data record of a committed transaction or of none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, UTC.
    pub timestamp: i64,
    /// The key; `None` for a null key.
    pub key: Option<Bytes>,
    /// The value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// Headers in their order, duplicates kept.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Record {
    /// Bytes of key, value and headers: what an estimate of the file's size starts from.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        let length = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers: usize =
            self.headers.iter().map(|(key, value)| key.len() + length(value)).sum();
        u64::try_from(length(&self.key) + length(&self.value) + headers).unwrap_or(u64::MAX)
    }
}

/// Why an offset has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HoleKind {
    /// A transaction marker or another control record.
    Control,
    /// Records of a transaction that was aborted.
    Aborted,
    /// Removed by topic compaction, or never given to a record.
    Compacted,
    /// Left out by a declared policy: deleted below the log start before it was written, or a batch whose inside
    /// disagrees with its header.
    Skipped,
    /// Named as lost by a declared loss of a log.
    Lost,
}

/// A run of offsets without rows, `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// First offset.
    pub start: i64,
    /// One past the last offset.
    pub end: i64,
    /// Why.
    pub kind: HoleKind,
}

/// The sequence that covers a range: every offset of it is a record or lies in a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// One record.
    Record(Record),
    /// A run of offsets without records.
    Hole(Hole),
}

impl Piece {
    /// First offset.
    #[must_use]
    pub fn start(&self) -> i64 {
        match self {
            Piece::Record(record) => record.offset,
            Piece::Hole(hole) => hole.start,
        }
    }

    /// One past the last offset.
    #[must_use]
    pub fn end(&self) -> i64 {
        match self {
            Piece::Record(record) => record.offset + 1,
            Piece::Hole(hole) => hole.end,
        }
    }
}

/// Appends `hole`, joined to the last one when it continues it.
pub(crate) fn push_hole(holes: &mut Vec<Hole>, hole: Hole) {
    if hole.start >= hole.end {
        return;
    }
    match holes.last_mut() {
        Some(last) if last.end == hole.start && last.kind == hole.kind => last.end = hole.end,
        _ => holes.push(hole),
    }
}

/// Offsets that `holes` cover.
pub(crate) fn holes_span(holes: &[Hole]) -> i64 {
    holes.iter().map(|hole| hole.end - hole.start).sum()
}
