//! The broker process: listeners, connections, one file per Kafka API, HTTP, configuration and start-up.
//!
//! Entry point: [`start()`] takes [`config::Settings`] and yields [`Running`].

mod api;
mod budgets;
pub mod config;
mod context;
mod dynamic;
mod groups;
mod http;
mod metrics;
mod offline;
mod place;
mod server;
mod start;
mod topics;

pub use api::{Request, Response};
pub use context::Context;
pub use http::fsck_report;
pub use offline::{LostWal, Rebuild, Rebuilt, WalLoss, declare_wal_lost, lost_wals, rebuild};
pub use place::{DataDir, PlaceError};
pub use start::{Exit, OpenStore, Running, StartError, open_local, open_url, start};
