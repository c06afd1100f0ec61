//! Settings of a broker: one plain struct per component, each key with its unit, default and range.
//!
//! Layers, each overriding the one before: the defaults here, the file, `SLUICE__SECTION__KEY` variables, flags. Keys
//! with a name of Kafka's take Kafka's value syntax; ours carry the unit in the value (`64MiB`, `250ms`).

mod components;
mod load;
mod nearest;

pub use components::{
    Cleaning, Groups, LogFormat, Logging, Memory, Server, Settings, Store, Topics, Upload,
    Validate, Wal,
};
pub use load::{Fault, Faults, Loaded, Origin, Shown, Sources, load};
pub(crate) use nearest::nearest;
