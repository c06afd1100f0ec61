//! The log as a sink sees it.

use async_trait::async_trait;

use crate::ledger::AccessError;
use crate::record::Piece;

/// What of a partition a sink may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// First offset that is still there.
    pub log_start: i64,
    /// One past the last offset that may be cut: in objects, and decided (below the last stable offset).
    pub readable_end: i64,
    /// One past the last offset that consumers see.
    pub high_watermark: i64,
}

/// A part of a range, every offset of it named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Records and holes, in order; they tile `[asked from, next)`.
    pub pieces: Vec<Piece>,
    /// Where to go on.
    pub next: i64,
}

/// Reads committed records of one partition.
#[async_trait]
pub trait Source: Send + Sync {
    /// The bounds as they are now.
    fn view(&self) -> View;

    /// Pieces from `from` on, below `until`, of about `bytes_max` bytes; at least one when `from < until`.
    async fn read(&self, from: i64, until: i64, bytes_max: u64) -> Result<Chunk, AccessError>;

    /// As [`Self::read`], for the files of a cut that the ledger holds: what has been deleted for readers since is still
    /// there.
    async fn read_cut(&self, from: i64, until: i64, bytes_max: u64) -> Result<Chunk, AccessError> {
        self.read(from, until, bytes_max).await
    }
}
