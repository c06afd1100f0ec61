//! Cluster truth: commands, a pure `apply` over ordered keys, the image that brokers hold, and the raft group that
//! agrees on the order of commands.
//!
//! The state is an ordered map of keys; [`command::Command`] is everything that can change it; [`apply()`] says how.
//! [`start`] runs one voter over a [`MetaStore`] and gives a [`Handle`]. Nothing here knows Kafka's protocol, a log's
//! medium or an object store.

mod apply;
pub mod command;
pub mod conformance;
mod consensus;
pub mod facts;
mod frame;
#[cfg(test)]
mod golden_tests;
mod handle;
mod image;
mod inspect;
mod keys;
mod lease;
mod metrics;
mod record;
mod reply;
mod snapshot;
mod store;
pub mod testing;
mod view;

pub use apply::{
    LOST_SPAN, PARTITIONS_MAX, PRODUCER_BLOCK, SWAP_OBJECTS_MAX, SWAP_RANGES_MAX, apply,
};
pub use command::{Command, SinkState};
pub use consensus::{Alone, Deps, Driver, Fatal, Options, StartError, Transport, start};
pub use facts::{
    Cleaning, Deletion, LiveRange, Object, ObjectRange, ObjectStage, StreamIndex, WalFacts,
};
pub use frame::DecodeError;
pub use handle::{Handle, ProposeError, ReadError, Standing};
pub use image::{BrokerMeta, ClusterMeta, Image, PartitionMeta, SinkMeta, Topic};
pub use inspect::{Line, Summary, dump, summary};
pub use lease::{Lease, Leases};
pub use metrics::Metrics;
pub use reply::{Broken, LostRange, Reject, Reply};
pub use snapshot::{Cutter, Filler, Head, Part, SNAPSHOT_VERSION, SnapshotError};
pub use store::{Batch, Change, Frozen, MetaStore, Pair, Space, StoreError};
pub use view::{Overlay, StoreView, View, ViewError, Write};

/// The feature level that this build can do.
pub const FEATURE_LEVEL_MAX: u32 = 1;
