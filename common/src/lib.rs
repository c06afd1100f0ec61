//! The vocabulary every room shares: ids and positions, units, clock, seeded randomness, the network alias, shutdown,
//! checksums, fail points, the memory budget and the metrics registry.
//!
//! Nothing here knows Kafka, a disk or an object store. Clock, randomness and network enter the system only through this
//! crate, so that the whole of it runs in a deterministic simulation.

mod budget;
mod checksum;
mod clock;
pub mod failpoint;
mod ids;
pub mod metrics;
pub mod net;
mod rng;
pub mod threads;
mod units;

pub use budget::{Budget, Exhausted, Reservation};
pub use checksum::{Crc32c, crc32c};
pub use clock::Clock;
pub use ids::{
    IdSpace, Lsn, NodeEpoch, NodeId, ObjectId, PartitionId, StreamEpoch, StreamId, StreamKind,
    WalEpoch, WalId,
};
pub use rng::Rng;
/// The token that tells a component to drain and stop.
pub use tokio_util::sync::CancellationToken as Shutdown;
pub use units::{ByteSize, Interval, ParseError};
