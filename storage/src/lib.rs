//! Streams over a write-ahead log, caches and objects: append, upload, read.
//!
//! A stream is an append-only sequence of entries with 64-bit offsets. Entries are acknowledged by the log, read from
//! its buffers while they are fresh, and kept in objects: a durable prefix of the log becomes one object and one
//! metadata commit, then the log is trimmed. Nothing here knows Kafka.
//!
//! Entry point: [`Storage`].

mod compact;
mod core;
mod error;
mod floors;
mod fsck;
mod key;
mod metrics;
pub mod object;
mod options;
mod probe;
mod read;
mod remote;
mod snapshot;
mod storage;
mod streams;
mod sweep;
mod tail;
mod takeover;
mod types;
mod upload;

pub use compact::{CompactError, Digest, Filter, Rewritten, Verdict};
pub use error::{AppendError, OpenError, OpenPartitionError, ReadError, UploadError};
pub use fsck::{Facts, Finding, FsckError, FsckOptions, FsckReport, Offline, fsck};
pub use key::{data_key, incarnation_key};
pub use options::{Deps, OnFatal, Options};
pub use probe::{Claim, ProbeError, claim_incarnation, highest_incarnation, probe};
pub use remote::{Cause, Remote, RemoteOptions, StoreState};
pub use snapshot::{
    AdoptError, Adopted, KeeperDeps, KeeperOptions, Left, RestoreError, Restored, SnapshotKeeper,
    adopt, restore,
};
pub use storage::{AHEAD_MAX, Storage};
pub use takeover::{TakeOverError, TakenOver};
pub use types::{Bounds, Class, DurableListener, Entry, NewEntry, Read};
