//! What is done to a cluster while no broker runs: rebuild its metadata from the bucket, declare a log lost.

mod rebuild;
mod wal_lost;

use std::path::Path;

use common::{Clock, Rng, Shutdown};

use crate::start::{StartError, end_process};

pub use rebuild::{Rebuild, Rebuilt, rebuild};
pub use wal_lost::{LostWal, WalLoss, declare_wal_lost, lost_wals};

/// A voter over a store, for a few commands.
struct Voter {
    meta: meta::Handle,
    shutdown: Shutdown,
    thread: std::thread::JoinHandle<Result<(), meta::Fatal>>,
}

impl Voter {
    async fn start(
        store: Box<dyn meta::MetaStore>,
        clock: &Clock,
        rng: &Rng,
    ) -> Result<Self, StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Metadata(error.to_string());
        let shutdown = Shutdown::new();
        let deps = meta::Deps {
            clock: clock.clone(),
            rng: rng.fork(),
            transport: Box::new(meta::Alone),
            shutdown: shutdown.clone(),
            on_fatal: std::sync::Arc::new(end_process),
            metrics: meta::Metrics::default(),
        };
        let started = meta::start(store, meta::Options::alone(), deps).await;
        let (meta, driver) = started.map_err(|error| failed(&error))?;
        let thread = driver.run_on_thread("meta")?;
        Ok(Self { meta, shutdown, thread })
    }

    /// Ends the voter; what it said is durable.
    async fn stop(self) -> Result<(), StartError> {
        self.shutdown.cancel();
        while !self.thread.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        match self.thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StartError::Metadata(error.to_string())),
            Err(_) => Err(StartError::Metadata("its thread ended badly".to_owned())),
        }
    }
}

fn rocks(path: &Path) -> Result<Box<dyn meta::MetaStore>, StartError> {
    let store = meta_rocks::RocksStore::open(path);
    let store = store.map_err(|error| StartError::Metadata(error.to_string()))?;
    Ok(Box::new(store))
}
