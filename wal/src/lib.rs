//! The write-ahead log: acknowledged bytes, in groups, on one directory of preallocated segments.
//!
//! It knows streams and frames, and nothing of Kafka. [`Wal::append`] copies frames into the open group; [`Wal::kick`]
//! sends the group to the disk when the in-flight window has room; the [`Listener`] hears of each group, in order, once
//! it and all before it are durable. [`Wal::recover`] is the only code that decides what the log holds.
//!
//! Threads: the disk's own (`wal-writer-N`, `wal-reader-N`, `wal-prepare`, owned and joined by [`DirDisk`]). Tasks: one
//! per open log, which publishes `acked_lsn` when the log falls quiet, retries a failed preparation, and ends with it.

mod append;
mod builder;
pub mod disk;
mod error;
mod format;
mod group;
mod idle;
mod inspect;
mod log;
mod metrics;
mod options;
mod pool;
mod read;
mod recover;
mod scan;
mod segments;
mod state;

pub use append::Position;
pub use disk::{AlignedBuf, DirDisk, Disk, Done, SegmentFile, Space};
pub use error::{AppendError, Damage, Error, ReadError, RecoverError};
pub use format::{BLOCK, MAGIC, VERSION};
pub use group::{Frame, FrameHeader, FrameMeta, Group};
pub use inspect::{Inspector, Item, Unreadable};
pub use log::{Listener, Occupancy, Wal};
pub use metrics::Metrics;
pub use options::{FRAME_BYTES_MAX, Options, WINDOW_GROUPS_MAX};
pub use recover::{Identity, Recovered, Report};
