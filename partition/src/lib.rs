//! The Kafka log on streams: offsets, the check of produced batches, producer state, leader epochs, the time index, the
//! gate, and one reader for fetches and sinks.
//!
//! ```text
//! validate (pure) -> Partition::append (mutex section) -> log ... durable -> gate -> high watermark -> answers
//! ```
//!
//! Two tasks live here, [`Partitions::run`] and [`Cleaner::run`]; the broker owns them. Everything else runs on the caller's task or, for the
//! gate, on the thread that completes a write of the log.

mod clean;
pub mod compact;
mod config;
mod epochs;
mod error;
mod gate;
mod index;
mod lookup;
mod metrics;
mod moving;
mod open;
mod options;
mod partition;
mod producers;
mod read;
mod records;
mod registry;
mod side;
mod snapshot;
mod state;
mod time_index;
mod validate;
mod wake;

pub use clean::{Cleaner, DeleteError, retention};
pub use config::{ResolveFn, Resolver, TimestampType, TopicConfig};
pub use epochs::{EpochEnd, EpochStart};
pub use error::{AppendError, Gone, OpenError, ReadError};
pub use index::{IndexKind, IndexRecord};
pub use lookup::{
    EARLIEST, EARLIEST_LOCAL, EpochCheck, LATEST, LATEST_TIERED, Listed, MAX_TIMESTAMP,
};
pub use metrics::Metrics;
pub use moving::{MoveError, SEALED_MAX};
pub use options::Options;
pub use partition::{Appended, IndexPosition, Offsets, OpenCut, Origin, Partition, ProducerFacts};
pub use producers::{BATCHES_MAX, BatchMemory, Producer, Producers, Sequenced, Verdict};
pub use read::{Aborted, Batches, Entries, IndexPage, Isolation, ReadRequest};
pub use records::{BatchError, BatchReader, Record};
pub use registry::{Deps, Partitions};
pub use state::{Damaged, Snapshot, StateKind};
pub use validate::{Checked, RecordError, Reject, Rules, validate};
pub use wake::{FetchWaiter, Pending, Subscription};
