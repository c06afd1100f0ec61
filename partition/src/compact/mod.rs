//! Topic compaction, decided: which records of a log with `cleanup.policy=compact` stay. Pure: values in, values out.
//! The rules are those of Kafka's `Cleaner`; the objects are rewritten by the storage, the task is
//! [`crate::Cleaner`].
//!
//! ```text
//! log start            clean end                     new clean end      last stable, uploaded, floors of sinks
//!     |--one a key---------|--------dirty------------------|---not yet------|
//!                          pass 1: key -> last offset  --->|
//!     pass 2: drop what has a later offset ---------------->|
//! ```

mod due;
mod filter;
mod hash;
mod map;
mod proof;
mod transactions;

#[cfg(test)]
mod model_tests;

pub use due::{Due, Plan, plan};
pub use filter::{Fate, LastOfProducer, Pass};
pub use hash::KeyHash;
pub use map::{Builder, Grown, OffsetMap};
pub use transactions::AbortedTransaction;

use crate::records::BatchError;

/// A pass cannot go on; nothing of it was committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A stored batch cannot be read.
    #[error("the batch at offset {offset} cannot be read: {reason}")]
    Batch {
        /// Its base offset.
        offset: i64,
        /// Why.
        reason: String,
    },
    /// What would be written is not what may be written.
    #[error("the compacted batch at offset {offset} is not right: {reason}")]
    Unproved {
        /// Its base offset.
        offset: i64,
        /// What is wrong.
        reason: &'static str,
    },
}

pub(crate) fn unreadable(offset: i64, error: &BatchError) -> Error {
    Error::Batch { offset, reason: error.to_string() }
}
