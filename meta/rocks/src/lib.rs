//! The metadata store on a disk: RocksDB with two column families, `log` and `state`.
//!
//! It holds what [`meta::MetaStore`] asks for: one batch is one write of RocksDB's own log, over both families; a synced
//! write syncs that log and with it all earlier writes; after a power cut RocksDB keeps a prefix of its log. Calls block,
//! so the driver runs on a thread of its own.

mod options;
mod snapshot;
mod store;

#[cfg(test)]
mod tests;

pub use store::RocksStore;
