//! The sweeper: deletes in the store what metadata has released or expired, and tells metadata so.
//!
//! ```text
//! expire (registrations that ran out) -> what is due -> delete, a few at a time -> tell metadata
//!          ^                                                                          |
//!          +------------------------------ period, or back-off after a failure -------+
//! ```
//! One task, owned by [`crate::Storage`]. May be interrupted anywhere and repeated: a delete of what is gone is a success,
//! and metadata forgets an object only when it is told. The delay is no safety: a reader that meets 404 asks metadata
//! again. It keeps that from happening often. What a snapshot of metadata in the bucket may still name is not deleted,
//! so that a rebuild finds every object it lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::metrics::{Counter, Gauge, Registry};
use common::{ObjectId, Rng, Shutdown, failpoint};
use futures::StreamExt;
use meta::{Deletion, ObjectStage, Reply};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::core::Core;
use crate::key::data_key;
use crate::options::Options;
use crate::upload::backoff;

/// Due deletes looked at in one go.
const PAGE: usize = 256;
/// Such pages in one pass; the rest waits for the next.
const PAGES_MAX: usize = 64;
/// Registrations expired by one command, and such commands in one pass.
const EXPIRED_MAX: u32 = 1000;
const EXPIRES_MAX: usize = 16;
/// Longest time of one delete.
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);
/// How far the wall clock may run ahead of the monotonic one between two passes.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// Metrics of deletion.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pending: Gauge,
    pending_bytes: Gauge,
    deleted: Counter,
    deleted_bytes: Counter,
    failures: Counter,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Self {
        let all = Self::default();
        registry.room("storage", |room| {
            room.register(
                "sweep_pending_objects",
                "Released or expired objects whose delete in the store waits",
                all.pending.clone(),
            );
            room.register(
                "sweep_pending_bytes",
                "Bytes of released objects whose delete in the store waits",
                all.pending_bytes.clone(),
            );
            room.register("sweep_deletes", "Deletes that the store has done", all.deleted.clone());
            room.register(
                "sweep_deleted_bytes",
                "Bytes of released objects that were deleted",
                all.deleted_bytes.clone(),
            );
            room.register("sweep_failures", "Deletes that failed", all.failures.clone());
        });
        all
    }
}

pub(crate) struct Sweeper {
    pub core: Arc<Core>,
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
    pub meta: meta::Handle,
    pub rng: Rng,
    pub options: Options,
    pub metrics: Metrics,
    /// What was released before this metadata time is named by no snapshot in the bucket any more.
    pub floor_ms: Arc<AtomicI64>,
}

impl Sweeper {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let (mut now_ms, mut at) = (self.core.clock.now_ms(), self.core.clock.elapsed());
        let mut failures = 0;
        loop {
            let pause = if failures == 0 {
                self.options.sweep_interval
            } else {
                backoff(&self.options, &self.rng, failures).max(self.options.sweep_interval)
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
            // A wall clock that jumps ahead deletes nothing before its time.
            let elapsed = self.core.clock.elapsed();
            let most = millis(elapsed.saturating_sub(at) + AHEAD_MAX);
            now_ms = self.core.clock.now_ms().min(now_ms.saturating_add(most)).max(now_ms);
            at = elapsed;
            let pass = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                pass = self.pass(now_ms) => pass,
            };
            match pass {
                Ok(()) => failures = 0,
                Err(reason) => {
                    failures += 1;
                    warn!(reason, failures, "deletion in the store goes on later");
                }
            }
        }
    }

    async fn pass(&self, now_ms: i64) -> Result<(), String> {
        self.plant().await;
        self.expire(now_ms).await?;
        let (mut waiting, mut bytes, mut failed) = (0_i64, 0_u64, None);
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let page = self.meta.deletions(after, now_ms, PAGE).await;
            let page = page.map_err(|error| error.to_string())?;
            let (ready, rest): (Vec<_>, Vec<_>) =
                page.iter().copied().partition(|one| self.is_ready(one, now_ms));
            let mut left = rest;
            let mut done = Vec::with_capacity(ready.len());
            let mut deletes = futures::stream::iter(ready)
                .map(|one| async move { (one, self.delete(one.object).await) })
                .buffered(self.options.sweep_deletes_max.max(1));
            while let Some((one, result)) = deletes.next().await {
                match result {
                    Ok(()) => done.push(one),
                    Err(reason) => {
                        self.metrics.failures.inc();
                        failed.get_or_insert(reason);
                        left.push(one);
                    }
                }
            }
            self.tell(&done, now_ms).await?;
            waiting += i64::try_from(left.len()).unwrap_or(i64::MAX);
            bytes += left.iter().map(|one| one.bytes).sum::<u64>();
            after = page.last().copied();
            if page.len() < PAGE {
                break;
            }
        }
        if waiting > 0 && self.options.delete_needs_snapshot {
            // The next snapshots have to be of a later time, also when nothing else happens.
            self.tick(now_ms).await?;
        }
        self.metrics.pending.set(waiting);
        self.metrics.pending_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        failed.map_or(Ok(()), Err)
    }

    fn is_ready(&self, one: &Deletion, now_ms: i64) -> bool {
        if one.stage == ObjectStage::Expired {
            return true;
        }
        let over = one.due_ms.saturating_add(millis(self.options.delete_delay)) <= now_ms;
        let unnamed = !self.options.delete_needs_snapshot
            || one.due_ms < self.floor_ms.load(Ordering::Acquire);
        over && unnamed
    }

    async fn expire(&self, now_ms: i64) -> Result<(), String> {
        for _ in 0..EXPIRES_MAX {
            // Without work no command: an idle cluster writes nothing.
            let due = self.meta.housekeeping_due(now_ms).await;
            if !due.map_err(|error| error.to_string())? {
                return Ok(());
            }
            self.tick(now_ms).await?;
        }
        Ok(())
    }

    /// Tells metadata the time and has it expire what is due.
    async fn tick(&self, now_ms: i64) -> Result<(), String> {
        let command = meta::command::ExpireObjects { now_ms, objects_max: EXPIRED_MAX };
        match self.meta.propose(command).await {
            Ok(Reply::ObjectsExpired { objects, .. }) => debug!(?objects, "expired"),
            Ok(other) => return Err(format!("metadata answered ExpireObjects with {other:?}")),
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }

    async fn delete(&self, object: ObjectId) -> Result<(), String> {
        let key = data_key(&self.prefix, object);
        match timeout(DELETE_TIMEOUT, self.store.delete(&key)).await {
            Ok(Ok(()) | Err(Error::NotFound { .. })) => Ok(()),
            Ok(Err(error)) => Err(format!("{key} cannot be deleted: {error}")),
            Err(_) => Err(format!("deleting {key} took too long")),
        }
    }

    async fn tell(&self, done: &[Deletion], now_ms: i64) -> Result<(), String> {
        if done.is_empty() {
            return Ok(());
        }
        failpoint::hit("storage.sweep.deleted");
        self.metrics.deleted.inc_by(done.len() as u64);
        self.metrics.deleted_bytes.inc_by(done.iter().map(|one| one.bytes).sum());
        let objects = done.iter().map(|one| one.object.0).collect();
        let command = meta::command::ObjectsDeleted { objects, now_ms };
        match self.meta.propose(command).await {
            Ok(Reply::ObjectsForgotten { .. }) => Ok(()),
            Ok(other) => Err(format!("metadata answered ObjectsDeleted with {other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A bug for tests to find: whatever is not committed counts as an orphan.
    async fn plant(&self) {
        if !failpoint::planted("early-delete") {
            return;
        }
        for object in self.meta.objects(None, 1000).await.unwrap_or_default() {
            if object.stage == ObjectStage::Registered {
                let _ = self.store.delete(&data_key(&self.prefix, object.id)).await;
            }
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
