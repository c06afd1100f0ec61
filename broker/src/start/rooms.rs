//! Opening the rooms below, each with its share of what was made first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::metrics::Registry;
use common::{Clock, NodeId, Rng, Shutdown};
use tokio::task::JoinHandle as Task;

use super::identity::Identity;
use super::store::{self, OpenStore};
use super::{Exit, MetaThread, StartError};
use crate::budgets::Budgets;
use crate::config::Settings;
use crate::dynamic::Layers;
use crate::groups::{self, Groups};
use crate::metrics::Metrics;
use crate::place::DataDir;

/// What is made before anything is opened.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) rng: Rng,
    pub(super) registry: Registry,
    pub(super) metrics: Metrics,
    pub(super) budgets: Budgets,
    pub(super) node: NodeId,
    pub(super) shutdown: Shutdown,
    pub(super) http_shutdown: Shutdown,
    pub(super) meta_shutdown: Shutdown,
    pub(super) on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Parts {
    pub(super) fn new(settings: &Settings) -> Self {
        let registry = Registry::default();
        Self {
            clock: Clock::system(),
            rng: Rng::from_entropy(),
            metrics: Metrics::register(&registry),
            registry,
            budgets: Budgets::new(settings.memory.bytes_max.0),
            node: NodeId(settings.server.node_id),
            shutdown: Shutdown::new(),
            http_shutdown: Shutdown::new(),
            meta_shutdown: Shutdown::new(),
            on_fatal: Arc::new(end_process),
        }
    }
}

/// Ends the process at once: after a failed write nothing may be acknowledged any more, and only recovery at the next
/// start may decide what the log holds.
pub(crate) fn end_process(line: &str) {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if !ENDING.swap(true, Ordering::SeqCst) {
        eprintln!(
            "sluice: {line}; the process ends, recovery at the next start decides what the log holds"
        );
        std::process::exit(Exit::WRITE_FAILED.0);
    }
    // Another thread is ending the process: nothing may go on from here.
    loop {
        std::thread::park();
    }
}

pub(super) async fn start_meta(
    place: &DataDir,
    parts: &Parts,
) -> Result<(meta::Handle, MetaThread), StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Metadata(error.to_string());
    let store = meta_rocks::RocksStore::open(&place.meta()).map_err(|error| failed(&error))?;
    let deps = meta::Deps {
        clock: parts.clock.clone(),
        rng: parts.rng.fork(),
        transport: Box::new(meta::Alone),
        shutdown: parts.meta_shutdown.clone(),
        on_fatal: Arc::clone(&parts.on_fatal),
        metrics: meta::Metrics::register(&parts.registry),
    };
    let started = meta::start(Box::new(store), meta::Options::alone(), deps).await;
    let (handle, driver) = started.map_err(|error| failed(&error))?;
    Ok((handle, driver.run_on_thread("meta")?))
}

pub(super) async fn open_storage(
    settings: &Settings,
    parts: &Parts,
    place: &DataDir,
    store: &OpenStore,
    meta: &meta::Handle,
    identity: &Identity,
) -> Result<storage::Storage, StartError> {
    // Half of the budget is the tail cache, a sixth the block cache. A round begins at half of the tail cache at the
    // latest, so that it is read from memory and not back from the log.
    let memory = settings.memory.bytes_max.0;
    let mut options = storage::Options {
        upload_bytes_max: settings.upload.size_max.0.min(memory / 4),
        upload_age_max: settings.upload.age_max.0,
        tail_bytes_max: memory / 2,
        index_bytes_max: memory / 2,
        upload_window_bytes_max: (memory / 16).max(1 << 20),
        block_cache_bytes_max: memory / 6,
        compaction_enabled: settings.compaction.enabled,
        compaction_bytes_per_second: settings.compaction.bandwidth_max.0,
        compaction_object_bytes_max: settings.compaction.object_size_max.0,
        // A store takes 10,000 parts of an object: enough for any size at 5 MiB a part.
        compaction_part_bytes: (memory / 8).clamp(5 << 20, 64 << 20),
        delete_delay: settings.upkeep.delete_delay.0,
        delete_needs_snapshot: true,
        ..storage::Options::default()
    };
    options.sweep_interval = options.sweep_interval.min(options.delete_delay);
    if let Some(size) = settings.wal.size_max {
        options.wal.capacity_max = size.0;
    }
    let deps = storage::Deps {
        clock: parts.clock.clone(),
        rng: parts.rng.fork(),
        disk: Arc::new(wal::DirDisk::open(&place.wal())?),
        store: Arc::clone(&store.store),
        prefix: identity.prefix.clone(),
        meta: meta.clone(),
        budget: parts.budgets.memory.clone(),
        registry: parts.registry.clone(),
        node: parts.node,
        wal: identity.wal,
        on_fatal: Arc::clone(&parts.on_fatal),
    };
    storage::Storage::open(deps, options).await.map_err(|error| {
        use storage::OpenError::Recover;
        use wal::RecoverError::{Foreign, Missing};
        match error {
            error @ Recover(Missing { .. } | Foreign { .. }) => StartError::WalGone {
                source: error,
                wal: identity.wal,
                data_dir: place.path().to_owned(),
            },
            error => StartError::Storage(error),
        }
    })
}

pub(super) fn start_keeper(
    settings: &Settings,
    parts: &Parts,
    store: &OpenStore,
    storage: &storage::Storage,
    meta: &meta::Handle,
    identity: &Identity,
) -> Task<()> {
    let interval = settings.upkeep.snapshot_interval.0;
    let defaults = storage::KeeperOptions::default();
    let spacing = defaults.spacing.min(interval);
    let options = storage::KeeperOptions { interval, spacing, ..defaults };
    let storage = storage.clone();
    let deps = storage::KeeperDeps {
        clock: parts.clock.clone(),
        rng: parts.rng.fork(),
        store: Arc::clone(&store.store),
        prefix: identity.prefix.clone(),
        meta: meta.clone(),
        on_floor: Arc::new(move |time_ms| storage.set_delete_floor(time_ms)),
        registry: parts.registry.clone(),
        on_fenced: Arc::new(end_fenced),
    };
    tokio::spawn(storage::SnapshotKeeper::new(deps, options).run(parts.shutdown.clone()))
}

/// Ends the process of a former life of the cluster: what it acknowledges from now on nobody will ever see.
fn end_fenced(line: &str) {
    eprintln!("sluice: {line}; keep this data directory aside");
    std::process::exit(Exit::FENCED.0);
}

/// The follower of the image, and the cleaner.
pub(super) type PartitionTasks = (Task<()>, Task<()>);

pub(super) fn start_partitions(
    settings: &Arc<Settings>,
    parts: &Parts,
    meta: &meta::Handle,
    storage: &storage::Storage,
) -> (partition::Partitions, PartitionTasks) {
    let deps = partition::Deps {
        storage: storage.clone(),
        meta: meta.clone(),
        // The only broker: nobody else takes its partitions.
        lease: meta::Lease::unlimited(parts.clock.clone()),
        node: parts.node,
        clock: parts.clock.clone(),
        registry: parts.registry.clone(),
        budget: parts.budgets.memory.clone(),
    };
    let (node, known) = (parts.node, Arc::clone(settings));
    let resolve = move |image: &meta::Image, topic: &meta::Topic| {
        Layers::of(image, node, &known, Some(&topic.configs)).effective()
    };
    let options = partition::Options {
        resolver: partition::Resolver(Arc::new(resolve)),
        clean_interval: Duration::from_millis(settings.cleaning.check_interval_ms),
        compaction_keys_max: usize::try_from(settings.cleaning.keys_max).unwrap_or(usize::MAX),
        ..partition::Options::default()
    };
    let partitions = partition::Partitions::new(deps, options);
    let follower = tokio::spawn(partitions.clone().run(parts.shutdown.clone()));
    let cleaner = partition::Cleaner::new(partitions.clone(), parts.rng.fork());
    let cleaner = tokio::spawn(cleaner.run(parts.shutdown.clone()));
    (partitions, (follower, cleaner))
}

pub(super) fn start_groups(
    settings: &Settings,
    parts: &Parts,
    meta: &meta::Handle,
    storage: &storage::Storage,
    partitions: &partition::Partitions,
) -> Groups {
    let groups = &settings.groups;
    Groups::start(groups::Deps {
        meta: meta.clone(),
        storage: storage.clone(),
        partitions: partitions.clone(),
        clock: parts.clock.clone(),
        rng: parts.rng.fork(),
        node: parts.node,
        registry: parts.registry.clone(),
        settings: coordinator::Settings {
            session_timeout_min_ms: groups.session_timeout_ms_min,
            session_timeout_max_ms: groups.session_timeout_ms_max,
            initial_rebalance_delay_ms: i32::try_from(groups.initial_rebalance_delay_ms)
                .unwrap_or(i32::MAX),
            group_size_max: usize::try_from(groups.size_max).unwrap_or(usize::MAX),
            offset_metadata_max: usize::try_from(groups.offset_metadata_bytes_max).unwrap_or(0),
            offsets_retention_ms: i64::from(groups.offsets_retention_minutes) * 60_000,
            ..coordinator::Settings::default()
        },
        offsets_partitions: u32::try_from(groups.offsets_partitions).unwrap_or(50),
        shutdown: parts.shutdown.clone(),
    })
}

pub(super) fn start_sinks(
    settings: &Arc<Settings>,
    parts: &Parts,
    store: &OpenStore,
    partitions: &partition::Partitions,
    storage: &storage::Storage,
    meta: &meta::Handle,
    identity: &Identity,
) -> sink::Runner {
    let (buckets, remote) = (Arc::clone(settings), store.remote.clone());
    let deps = sink::Deps {
        partitions: partitions.clone(),
        storage: storage.clone(),
        meta: meta.clone(),
        node: parts.node,
        store: Arc::clone(&store.store),
        prefix: identity.prefix.clone(),
        open_bucket: Arc::new(move |bucket| {
            let (store, _) = store::s3(&buckets.store, &format!("s3://{bucket}"))
                .map_err(|error| error.to_string())?;
            Ok(Arc::new(remote.beside(store)))
        }),
        clock: parts.clock.clone(),
        rng: parts.rng.fork(),
        budget: parts.budgets.memory.clone(),
        registry: parts.registry.clone(),
    };
    sink::Runner::start(deps, sink::Options::default())
}
