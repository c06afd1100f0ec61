//! What can go wrong, one type per operation.

use std::fmt;
use std::io;

use common::{Lsn, StreamId, WalEpoch, WalId};

/// The log has failed, or could not be opened. The process ends; start-up recovery decides what the log holds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write or its sync failed.
    #[error("write of log group {lsn} ({bytes} bytes) failed: {source}")]
    Write {
        /// First LSN of the group.
        lsn: Lsn,
        /// Bytes of the write.
        bytes: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// A segment could not be made ready, for another reason than lack of space.
    #[error("preparing log segment {segment} failed: {source}")]
    Prepare {
        /// Number (first LSN) of the segment.
        segment: u64,
        /// What the disk said.
        source: io::Error,
    },
}

/// Why frames were not taken. None of the call's frames was.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No room now: no ready segment, or too much waits for the disk. [`crate::Listener::space`] follows.
    #[error("the write-ahead log is full; it has room again once more is uploaded")]
    Full,
    /// A frame that this log can never hold.
    #[error("a frame of {bytes} bytes is above the log's limit of {max}; lower max.message.bytes")]
    TooLarge {
        /// Payload bytes of the frame.
        bytes: u64,
        /// The limit.
        max: u64,
    },
    /// The log is closed or has failed.
    #[error("the write-ahead log is closed")]
    Closed,
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The position is trimmed, or its segment is in use for later groups.
    #[error("log group {lsn} has been trimmed")]
    Moved {
        /// What was asked for.
        lsn: Lsn,
    },
    /// The bytes there are not the group that was written.
    #[error("log group {lsn} is damaged: {what}")]
    Corrupt {
        /// What was asked for.
        lsn: Lsn,
        /// What is wrong.
        what: &'static str,
    },
    /// The disk refused.
    #[error("reading log group {lsn} failed: {source}")]
    Io {
        /// What was asked for.
        lsn: Lsn,
        /// What the disk said.
        source: io::Error,
    },
}

/// What is hit by damage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Header or frame table: all frames in the range.
    Range {
        /// First LSN.
        first: Lsn,
        /// Where the next readable group begins, if any does.
        end: Option<Lsn>,
    },
    /// One payload.
    Payload {
        /// Group that holds it.
        group: Lsn,
        /// Its stream, which names the partition.
        stream: StreamId,
        /// First offset.
        start: i64,
        /// End offset, exclusive.
        end: i64,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { first, end: Some(end) } => write!(f, "log positions [{first}, {end})"),
            Self::Range { first, end: None } => write!(f, "log positions from {first} on"),
            Self::Payload { group, stream, start, end } => {
                write!(f, "offsets [{start}, {end}) of {stream} in log group {group}")
            }
        }
    }
}

fn list(damage: &[Damage]) -> String {
    let parts: Vec<String> = damage.iter().map(Damage::to_string).collect();
    parts.join(", ")
}

/// Why a log cannot be used. Nothing was written to it.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There are no segments where metadata knows a log.
    #[error(
        "the directory of write-ahead log {wal} is empty, but the log has been in use; bring the directory back"
    )]
    Missing {
        /// The log.
        wal: WalId,
    },
    /// Segments of another log.
    #[error(
        "the directory holds write-ahead log {found}, not log {wal} that metadata knows; point --data-dir at the right one"
    )]
    Foreign {
        /// The log wanted.
        wal: WalId,
        /// The id found in the segments (the same number when only the salt differs).
        found: WalId,
    },
    /// Segments between the committed position and the end are not there.
    #[error("segments of write-ahead log {wal} are missing from position {at}; bring them back")]
    Gap {
        /// The log.
        wal: WalId,
        /// First position without a segment.
        at: Lsn,
    },
    /// Acknowledged bytes cannot be read whole.
    #[error("write-ahead log {wal} is damaged in the middle: {}; it is left as it is", list(.damage))]
    Damaged {
        /// The log.
        wal: WalId,
        /// What is hit.
        damage: Vec<Damage>,
    },
    /// The log ends before a position that an earlier start has already found in it.
    #[error(
        "write-ahead log {wal} ends at {found}, but epoch {epoch} began at {first}: acknowledged bytes are gone"
    )]
    Short {
        /// The log.
        wal: WalId,
        /// Where it ends now.
        found: Lsn,
        /// The epoch that metadata knows.
        epoch: WalEpoch,
        /// Its first position.
        first: Lsn,
    },
    /// A read failed, which proves nothing about the bytes.
    #[error("reading write-ahead log {wal} at {at} failed: {source}; the log is left as it is")]
    Read {
        /// The log.
        wal: WalId,
        /// Position of the read.
        at: Lsn,
        /// What the disk said.
        source: io::Error,
    },
    /// The directory cannot be listed or measured.
    #[error("the directory of write-ahead log {wal} cannot be read: {source}")]
    List {
        /// The log.
        wal: WalId,
        /// What the disk said.
        source: io::Error,
    },
}
