//! The raft group: one voter in the embedded default, three or five in a cluster.

mod codec;
mod driver;
pub(crate) mod dump;
mod log;
mod options;
mod transport;

pub use driver::{Driver, Fatal, start};
pub use options::{Deps, Options, StartError};
pub use transport::{Alone, Transport};

pub(crate) use log::{applied, entries_held};

#[cfg(test)]
mod tests;
