//! The whole system in a deterministic simulation.

pub mod store;
pub mod meta_store;
