//! Cleaning: retention, DeleteRecords, topic compaction, and the trimming of what explains data that is gone.
//!
//! Decisions are pure functions over values ([`retention`], [`crate::compact`]); [`Cleaner`] is the one task that asks
//! metadata for the values and carries the decisions out. It works from the stream index, so that an idle partition is
//! judged without being opened.

mod cleaner;
mod compaction;
mod delete;
mod floors;
pub mod retention;
mod start;
mod trim;

pub use cleaner::Cleaner;
pub use delete::DeleteError;
