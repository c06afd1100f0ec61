//! The keeper: puts a snapshot of metadata into the bucket when one is due, and deletes the old ones.
//!
//! Due are: the first one after a start (so one at least for every epoch that the start has raised), one after a change
//! of topics, sinks, configurations or owners, one after so many commands, one after so long. Before each the bucket is
//! asked for a higher incarnation: one found there ends this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::metrics::{Counter, Gauge, Registry};
use common::{Clock, Rng, Shutdown, failpoint};
use futures::TryStreamExt;
use meta::{Cutter, Head, Image};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{Found, Name, get, name_of, put_once, root};
use crate::options::OnFatal;
use crate::probe::highest_incarnation;

/// How often it is asked whether a snapshot is due.
const POLL: Duration = Duration::from_millis(500);
/// A snapshot may take this part of the time at most: after one that took long, the next waits.
const SHARE: u32 = 20;
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What a keeper works with.
#[derive(Clone)]
pub struct KeeperDeps {
    /// Time.
    pub clock: Clock,
    /// Randomness, for names.
    pub rng: Rng,
    /// The object store.
    pub store: Arc<dyn ObjectStore>,
    /// `<prefix>/<cluster id>` in the store.
    pub prefix: Path,
    /// Metadata.
    pub meta: meta::Handle,
    /// Told the metadata time before which no kept snapshot lists a released object as live; see
    /// [`crate::Storage::set_delete_floor`].
    pub on_floor: Arc<dyn Fn(i64) + Send + Sync>,
    /// The process's metrics.
    pub registry: Registry,
    /// Called with one line when a later life of the cluster is found: ends the process.
    pub on_fenced: OnFatal,
}

/// Settings of a keeper.
#[derive(Clone, Debug)]
pub struct KeeperOptions {
    /// Longest time between two snapshots while anything changes (`meta.snapshot.interval`).
    pub interval: Duration,
    /// Shortest time between two.
    pub spacing: Duration,
    /// So many commands make one due.
    pub commands_max: u64,
    /// Snapshots kept.
    pub keep: usize,
    /// Bytes of a part; one is held in memory.
    pub part_bytes: usize,
}

impl Default for KeeperOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(300),
            spacing: Duration::from_secs(5),
            commands_max: 10_000,
            keep: 3,
            part_bytes: 8 << 20,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Metrics {
    taken: Counter,
    bytes: Gauge,
    failures: Counter,
    time: Gauge,
}

impl Metrics {
    fn register(registry: &Registry) -> Self {
        let all = Self::default();
        registry.room("storage", |room| {
            room.register("meta_snapshots", "Snapshots of metadata put", all.taken.clone());
            room.register("meta_snapshot_bytes", "Bytes of the last one", all.bytes.clone());
            room.register(
                "meta_snapshot_failures",
                "Snapshots of metadata that could not be put",
                all.failures.clone(),
            );
            room.register(
                "meta_snapshot_time_seconds",
                "When the last one was put, seconds since 1970",
                all.time.clone(),
            );
        });
        all
    }
}

/// The last snapshot of this process.
struct Last {
    image: Arc<Image>,
    applied: u64,
    at: Duration,
    took: Duration,
}

/// Puts snapshots. One task, [`SnapshotKeeper::run`].
pub struct SnapshotKeeper {
    deps: KeeperDeps,
    options: KeeperOptions,
    metrics: Metrics,
    /// Metadata time of the heads seen in the bucket.
    times: BTreeMap<Name, i64>,
}

impl SnapshotKeeper {
    /// A keeper that has not begun.
    #[must_use]
    pub fn new(deps: KeeperDeps, options: KeeperOptions) -> Self {
        let metrics = Metrics::register(&deps.registry);
        Self { deps, options, metrics, times: BTreeMap::new() }
    }

    /// Runs until `shutdown`. A snapshot that is dropped half way leaves parts that the next one deletes.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut last: Option<Last> = None;
        let mut failures = 0_u32;
        loop {
            let pause = POLL.saturating_mul(1 << failures.min(7)).min(BACKOFF_MAX);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
            let due = match self.due(last.as_ref()).await {
                Ok(due) => due,
                Err(reason) => {
                    warn!(reason, "metadata does not say whether a snapshot is due");
                    false
                }
            };
            if !due {
                continue;
            }
            let began = self.deps.clock.elapsed();
            let image = self.deps.meta.image();
            let taken = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                taken = self.take() => taken,
            };
            match taken {
                Ok(head) => {
                    failures = 0;
                    let at = self.deps.clock.elapsed();
                    let took = at.saturating_sub(began);
                    last = Some(Last { image, applied: head.applied, at, took });
                }
                Err(reason) => {
                    failures += 1;
                    self.metrics.failures.inc();
                    warn!(
                        reason,
                        failures, "a snapshot of metadata was not put, it will be tried again"
                    );
                }
            }
        }
    }

    async fn due(&self, last: Option<&Last>) -> Result<bool, String> {
        let Some(last) = last else { return Ok(true) };
        let applied = self.deps.meta.applied().await.map_err(|error| error.to_string())?;
        let age = self.deps.clock.elapsed().saturating_sub(last.at);
        if applied == last.applied
            || age < self.options.spacing.max(last.took.saturating_mul(SHARE))
        {
            return Ok(false);
        }
        let many = applied.saturating_sub(last.applied) >= self.options.commands_max;
        let image = self.deps.meta.image();
        Ok(many || age >= self.options.interval || !same_catalog(&image, &last.image))
    }

    /// Puts one snapshot.
    ///
    /// # Errors
    /// What went wrong; nothing that was there is harmed.
    pub async fn take(&mut self) -> Result<Head, String> {
        self.check_incarnation().await?;
        let frozen = self.deps.meta.freeze().await;
        let (applied, frozen) = frozen.map_err(|error| error.to_string())?;
        let cluster = self.deps.meta.image().cluster.clone().ok_or("no cluster yet")?;
        let nonce = u32::try_from(self.deps.rng.next_u64() >> 32).unwrap_or(0);
        let name = Name { incarnation: cluster.incarnation, applied, nonce };
        let mut cutter = Cutter::new(frozen, applied);
        let (store, prefix) = (&*self.deps.store, &self.deps.prefix);
        let mut number = 0;
        while let Some(part) =
            cutter.part(self.options.part_bytes).map_err(|error| error.to_string())?
        {
            put_once(store, &name.part(prefix, number), Bytes::from(part)).await?;
            number += 1;
        }
        let head = cutter.finish(self.deps.clock.now_ms());
        failpoint::hit("meta.snapshot.put");
        put_once(store, &name.head(prefix), Bytes::from(head.to_bytes())).await?;
        let bytes: u64 = head.parts.iter().map(|part| part.bytes).sum();
        self.metrics.taken.inc();
        self.metrics.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.metrics.time.set(head.taken_ms / 1000);
        info!(snapshot = %name, keys = head.keys, bytes, "metadata is in the bucket");
        self.times.insert(name, head.time_ms);
        self.retain(name).await?;
        Ok(head)
    }

    async fn check_incarnation(&self) -> Result<(), String> {
        let cluster = self.deps.meta.image().cluster.clone().ok_or("no cluster yet")?;
        let next = cluster.incarnation.saturating_add(1);
        let found = highest_incarnation(&*self.deps.store, &self.deps.prefix, next).await;
        if let Some(found) = found.map_err(|error| error.to_string())? {
            let line = format!(
                "cluster {} was rebuilt from its store as incarnation {found}; this broker belongs to incarnation {} and must not go on",
                cluster.id, cluster.incarnation
            );
            (self.deps.on_fenced)(&line);
            return Err(line);
        }
        Ok(())
    }

    /// Deletes what is older than the newest snapshots, heads first, and allows deletes that none of those forbids.
    async fn retain(&mut self, newest: Name) -> Result<(), String> {
        let (store, prefix) = (&*self.deps.store, &self.deps.prefix);
        let failed = |error: Error| format!("old snapshots of metadata cannot be deleted: {error}");
        let listed: Vec<_> = store.list(Some(&root(prefix))).try_collect().await.map_err(failed)?;
        let (mut heads, mut parts) = (Vec::new(), Vec::new());
        for meta in listed {
            match name_of(prefix, &meta.location) {
                Some(Found::Head(name)) if name <= newest => heads.push(name),
                Some(Found::Part(name)) if name <= newest => parts.push((name, meta.location)),
                _ => {}
            }
        }
        heads.sort_unstable();
        heads.reverse();
        let kept = heads.get(..self.options.keep.max(1)).unwrap_or(&heads).to_vec();
        for old in heads.iter().skip(kept.len()) {
            delete(store, &old.head(prefix)).await.map_err(failed)?;
        }
        for (_, key) in parts.iter().filter(|(name, _)| !kept.contains(name)) {
            delete(store, key).await.map_err(failed)?;
        }
        self.times.retain(|name, _| kept.contains(name));
        let mut floor = i64::MAX;
        for name in &kept {
            let time = match self.times.get(name) {
                Some(time) => *time,
                None => {
                    let bytes = get(store, &name.head(prefix)).await.map_err(failed)?;
                    // One that cannot be read is of no use to a rebuild either.
                    let time = Head::parse(&bytes).map_or(i64::MAX, |head| head.time_ms);
                    self.times.insert(*name, time);
                    time
                }
            };
            floor = floor.min(time);
        }
        (self.deps.on_floor)(floor);
        Ok(())
    }
}

async fn delete(store: &dyn ObjectStore, key: &Path) -> Result<(), Error> {
    match store.delete(key).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// True when nothing has changed of what a rebuild could not find in objects.
fn same_catalog(a: &Image, b: &Image) -> bool {
    Arc::ptr_eq(&a.topics, &b.topics)
        && Arc::ptr_eq(&a.sinks, &b.sinks)
        && Arc::ptr_eq(&a.broker_configs, &b.broker_configs)
        && Arc::ptr_eq(&a.group_configs, &b.group_configs)
}
