//! The built-in sink: a partition's log becomes Parquet files, each record exactly once, provable from the bucket alone.
//!
//! A cut is decided purely ([`Planner`]), made durable in the partition's `index` stream ([`Ledger`]), turned into files
//! that are a function of it, and completed by the create-only put of its [`Manifest`] ([`Executor`]). [`Runner`] owns
//! one task per sink and partition; [`verify`] needs neither broker nor ledger.

mod blocks;
mod columns;
mod config;
mod executor;
mod file;
mod hash;
mod infer;
mod layout;
mod ledger;
mod log;
mod manifest;
mod metrics;
mod parquet_file;
mod planner;
mod record;
mod rowhash;
mod runner;
mod schedule;
mod schema;
mod source;
mod status;
mod store;
mod task;
#[cfg(test)]
mod testing;
pub mod verify;

pub use blocks::Blocks;
pub use config::{
    Codec, DEFAULT_FILE_AGE_MS, DEFAULT_FILE_BYTES, FILE_SIZE_BYTES_MAX, Fault, Faults, KEYS, Key,
    Protect, Rules, Schedule, SinkConfig, check_name,
};
pub use executor::{Boundary, Done, Error, Executor, Identity};
pub use hash::{Hash, NotAHash};
pub use infer::{DEPTH_MAX, FIELDS_MAX, Facts, PATHS_MAX};
pub use layout::Layout;
pub use ledger::{AccessError, Cut, Damaged, Ledger, WRITER};
pub use manifest::{File, Manifest};
pub use metrics::Metrics;
pub use planner::{CutPlan, FilePlan, Limits, Planner, RATIO_START_PPM, Reading, Rule};
pub use record::{Hole, HoleKind, Piece, Record};
pub use runner::{Deps, OpenBucket, Options, ProbeError, Runner};
pub use schema::{Member, Raw, Schema, Type, Value};
pub use source::{Chunk, Source, View};
pub use status::{PartitionStatus, State};
pub use store::{SINGLE_PUT_MAX, Unfit, probe};
