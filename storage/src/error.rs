//! What can go wrong, one type per operation.

use common::{Lsn, ObjectId, PartitionId, StreamEpoch, StreamId};

/// Why a storage did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log could not be recovered.
    #[error("{0}")]
    Recover(#[from] wal::RecoverError),
    /// The log could not be opened for writing.
    #[error("cannot open the write-ahead log: {0}")]
    Wal(#[from] wal::Error),
    /// Metadata does not know the log.
    #[error("metadata knows no write-ahead log {0}; its directory belongs to another cluster")]
    UnknownWal(common::WalId),
    /// Metadata refused to open the log.
    #[error("{0}")]
    Refused(meta::Reject),
    /// Metadata could not be asked.
    #[error("metadata is not reachable: {0}")]
    Meta(String),
}

/// Why a partition did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenPartitionError {
    /// Metadata does not know the partition, or knows it no longer.
    #[error("partition {0} is not known to metadata")]
    Unknown(PartitionId),
    /// Between objects and log, offsets are missing: nothing is served over the gap.
    #[error(
        "stream {stream} is committed up to {committed}, but the log goes on at {found}; \
         restore the log's directory or declare it lost"
    )]
    Gap {
        /// The stream.
        stream: StreamId,
        /// Its committed end.
        committed: i64,
        /// Where the log goes on.
        found: i64,
    },
    /// Another broker owns it, or this one under another epoch.
    #[error("partition {0} is not this broker's under the epoch it is opened with")]
    NotOwner(PartitionId),
    /// It was sealed under this epoch, to be served by another broker.
    #[error("partition {0} was sealed here under this epoch: it moves to another broker")]
    Sealed(PartitionId),
    /// Metadata could not be asked; try again.
    #[error("metadata is not reachable: {0}")]
    Meta(String),
    /// The storage is closed.
    #[error("storage is closed")]
    Closed,
}

/// Why nothing was appended. The streams are as before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The log is full until uploads make room: wait with [`crate::Storage::wal_space`], then refuse as retriable.
    #[error("the write-ahead log is full until uploads make room")]
    Full,
    /// The entry cannot fit the log at all.
    #[error("an entry of this size does not fit the write-ahead log; lower max.message.bytes")]
    TooLarge,
    /// The stream has too many offsets above its committed end; wait for uploads.
    #[error(
        "stream {stream} would pass its committed end {committed_end} by 2^32 offsets; wait for uploads"
    )]
    TooFarAhead {
        /// The stream.
        stream: StreamId,
        /// Its committed end.
        committed_end: i64,
    },
    /// The entry does not begin at the end of its stream: the caller's broken invariant.
    #[error("stream {stream} ends at {end}, entry begins at {base_offset}")]
    OutOfOrder {
        /// The stream.
        stream: StreamId,
        /// Its end.
        end: i64,
        /// Where the entry begins.
        base_offset: i64,
    },
    /// The entry's epoch is below the one the partition is open under.
    #[error("stream {stream} is open under epoch {open}, entry has {got}")]
    StaleEpoch {
        /// The stream.
        stream: StreamId,
        /// The epoch it is open under.
        open: StreamEpoch,
        /// The entry's.
        got: StreamEpoch,
    },
    /// The partition is not open here.
    #[error("partition {0} is not open on this broker")]
    NotOpen(PartitionId),
    /// The storage is closed, or its log has failed.
    #[error("storage is closed")]
    Closed,
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The partition is not open here.
    #[error("partition {0} is not open on this broker")]
    NotOpen(PartitionId),
    /// The offset lies below the log start, perhaps since the read began.
    #[error("offset {offset} of stream {stream} lies below the log start {start}")]
    BelowStart {
        /// The stream.
        stream: StreamId,
        /// The offset asked for.
        offset: i64,
        /// The log start.
        start: i64,
    },
    /// An object's bytes are wrong: the range is refused, an operator must look.
    #[error(
        "object {object} is damaged: {reason}; stream {stream}, offsets [{start}, {end}) are refused"
    )]
    Corrupt {
        /// The object.
        object: ObjectId,
        /// The stream.
        stream: StreamId,
        /// First refused offset.
        start: i64,
        /// Offset after the last refused one.
        end: i64,
        /// What is wrong.
        reason: String,
    },
    /// An object that metadata lists is not in the store: the range is refused, an operator must look.
    #[error(
        "object {object} is missing from the store; stream {stream}, offsets [{start}, {end}) are refused"
    )]
    Missing {
        /// The object.
        object: ObjectId,
        /// The stream.
        stream: StreamId,
        /// First refused offset.
        start: i64,
        /// Offset after the last refused one.
        end: i64,
    },
    /// No object covers the offset although it lies below the committed end.
    #[error(
        "no object covers offset {offset} of stream {stream}, which is committed up to {committed_end}"
    )]
    Uncovered {
        /// The stream.
        stream: StreamId,
        /// The offset.
        offset: i64,
        /// The committed end.
        committed_end: i64,
    },
    /// The log's own bytes are wrong: the range is refused, an operator must look.
    #[error(
        "write-ahead log is damaged at {lsn}: {reason}; stream {stream}, offsets [{start}, {end}) are refused"
    )]
    CorruptLog {
        /// The group.
        lsn: Lsn,
        /// The stream.
        stream: StreamId,
        /// First refused offset.
        start: i64,
        /// Offset after the last refused one.
        end: i64,
        /// What is wrong.
        reason: String,
    },
    /// The store or metadata does not answer; try again.
    #[error("storage is not reachable, try again: {0}")]
    Unavailable(String),
}

/// Why an upload was not waited for to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// The storage is closing, or has failed.
    #[error("storage is closed")]
    Closed,
}
