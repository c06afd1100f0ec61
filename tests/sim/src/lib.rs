//! The whole system in a deterministic simulation.

pub mod disk;
pub mod edges;
pub mod meta_store;
pub mod store;
pub mod trigger;
