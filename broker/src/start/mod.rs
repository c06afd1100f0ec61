//! Starting and stopping a broker.
//!
//! Order: data directory and its lock, listeners (bound, not yet accepting), object store, metadata (its own thread),
//! identity, log recovery and streams, partitions, groups, sinks, HTTP, and last the Kafka listener accepts. Stopping is
//! the reverse: requests in flight are answered, groups and sinks end, partitions write their snapshots, a last upload
//! round runs, metadata ends.
//!
//! | task or thread | owner | life |
//! |---|---|---|
//! | `meta` thread | [`Running`] | whole life; joined last |
//! | follower of the image ([`partition::Partitions::run`]) | [`Running`] | until shutdown |
//! | Kafka listener and its connections | [`Running`] | from ready until drained |
//! | HTTP | [`Running`] | from before ready until everything else has ended |

mod address;
mod identity;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::metrics::Registry;
use common::{Budget, Clock, NodeId, Rng, Shutdown};
use parking_lot::Mutex;
use tokio::task::JoinHandle as Task;
use tracing::{info, warn};

use crate::config::Settings;
use crate::context::Context;
use crate::groups::{self, Groups};
use crate::http;
use crate::metrics::Metrics;
use crate::place::{DataDir, PlaceError};
use crate::server;
use identity::{Identity, Wanted};
pub use store::{OpenStore, open_local, open_url};

/// Exit codes of a broker process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit(pub i32);

impl Exit {
    /// Stopped as asked.
    pub const DONE: Exit = Exit(0);
    /// Refused to start.
    pub const REFUSED: Exit = Exit(1);
    /// A write or sync of the log or of metadata failed, or this broker was fenced: only the next start's recovery may
    /// decide what the log holds.
    pub const WRITE_FAILED: Exit = Exit(70);
}

/// Why a broker does not start. One sentence each, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// An address.
    #[error("{key} = {address:?} {reason}")]
    Listen {
        /// The key to change.
        key: &'static str,
        /// Its value.
        address: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The object store's settings.
    #[error("object.store = {store:?} cannot be opened: {reason}")]
    Store {
        /// The store.
        store: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The object store itself.
    #[error(transparent)]
    Probe(#[from] storage::ProbeError),
    /// A store without this cluster.
    #[error("object store {store} holds nothing of cluster {cluster}, to which the data directory belongs; name the store that the cluster was created with")]
    OtherStore {
        /// The store.
        store: String,
        /// The cluster.
        cluster: String,
    },
    /// A later life of the cluster exists.
    #[error("cluster {cluster} was rebuilt from its store as incarnation {incarnation}; this data directory belongs to its former life and must not be started")]
    Fenced {
        /// The cluster.
        cluster: String,
        /// The incarnation found.
        incarnation: u16,
    },
    /// The metadata store is empty in a directory that belongs to a cluster.
    #[error("the metadata directory is empty although this data directory belongs to cluster {cluster}; put meta/ back, or keep this data directory aside and start with a new one")]
    MetaEmpty {
        /// The cluster.
        cluster: String,
    },
    /// The metadata store.
    #[error("the metadata store cannot be used: {0}")]
    Metadata(String),
    /// A rule of metadata.
    #[error("metadata refuses this broker: {0}")]
    Refused(meta::Reject),
    /// Log and streams.
    #[error("{0}")]
    Storage(#[from] storage::OpenError),
    /// The system.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// A broker that serves.
pub struct Running {
    /// Address of the Kafka listener.
    pub kafka: SocketAddr,
    /// Address of the HTTP listener.
    pub http: SocketAddr,
    /// What clients are told.
    pub advertised: (String, u16),
    /// The cluster.
    pub cluster_id: String,
    /// The data directory.
    pub data_dir: std::path::PathBuf,
    /// The object store, as a person would call it.
    pub store: String,
    shutdown: Shutdown,
    http_shutdown: Shutdown,
    meta_shutdown: Shutdown,
    ctx: Arc<Context>,
    sinks: sink::Runner,
    server: Task<()>,
    follower: Task<()>,
    http_task: Task<()>,
    meta_thread: JoinHandle<Result<(), meta::Fatal>>,
    _place: DataDir,
}

/// Starts a broker in this runtime.
///
/// # Errors
/// [`StartError`], one sentence with the remedy. Nothing of a failed start keeps running but threads that end with the
/// process.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let settings = Arc::new(settings);
    let parts = Parts::new(&settings);
    let mut place = DataDir::open(&settings.store.data_dir)?;
    let kafka = address::bind("listen", &settings.server.listen).await?;
    let http_listener = address::bind("http.listen", &settings.server.http_listen).await?;
    let (kafka_at, http_at) = (kafka.local_addr()?, http_listener.local_addr()?);
    let advertised = address::advertised(settings.server.advertise.as_deref(), kafka_at)?;
    let http_shared = http::Shared::new(
        parts.registry.clone(),
        parts.metrics.clone(),
        parts.memory.clone(),
        parts.requests.clone(),
    );
    let http_shutdown = Shutdown::new();
    let http_task = http::spawn(http_listener, Arc::clone(&http_shared), http_shutdown.clone());
    let store = store::open(&settings.store, &place)?;

    let (meta, meta_thread) = start_meta(&place, &parts).await?;
    let wanted = Wanted { node: parts.node, host: &advertised.0, port: advertised.1 };
    let identity = identity::establish(&meta, &mut place, &store, &parts.rng, &wanted).await?;
    info!(cluster = identity.cluster_id, node = parts.node.0, epoch = identity.epoch.0, "started");
    let storage = open_storage(&settings, &parts, &place, &store, &meta, &identity).await?;
    let (partitions, follower) = start_partitions(&parts, &meta, &storage);
    let groups = start_groups(&settings, &parts, &meta, &storage, &partitions);
    let sinks =
        start_sinks(&settings, &parts, &store, &partitions, &storage, &meta, &identity);
    let ctx = Arc::new(Context {
        settings: Arc::clone(&settings),
        clock: parts.clock.clone(),
        rng: parts.rng.clone(),
        node: parts.node,
        advertised: advertised.clone(),
        meta,
        storage,
        partitions,
        groups,
        producer_ids: Arc::new(Mutex::new(0..0)),
        metrics: parts.metrics.clone(),
        shutdown: parts.shutdown.clone(),
    });
    http_shared.serve(http::Parts {
        ctx: Arc::clone(&ctx),
        store: Arc::clone(&store.store),
        store_name: store.name.clone(),
        prefix: identity.prefix.clone(),
        kafka: kafka_at,
        sinks: sinks.clone(),
    });
    let server = server::run(kafka, Arc::clone(&ctx), parts.requests.clone(), parts.memory.clone());
    let server = tokio::spawn(server);
    Ok(Running {
        kafka: kafka_at,
        http: http_at,
        advertised,
        cluster_id: identity.cluster_id,
        data_dir: place.path().to_owned(),
        store: store.name,
        shutdown: parts.shutdown,
        http_shutdown,
        meta_shutdown: parts.meta_shutdown,
        ctx,
        sinks,
        server,
        follower,
        http_task,
        meta_thread,
        _place: place,
    })
}

/// What is made before anything is opened.
struct Parts {
    clock: Clock,
    rng: Rng,
    registry: Registry,
    metrics: Metrics,
    memory: Budget,
    requests: Budget,
    node: NodeId,
    shutdown: Shutdown,
    meta_shutdown: Shutdown,
    on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Parts {
    fn new(settings: &Settings) -> Self {
        let registry = Registry::default();
        let memory = settings.memory.bytes_max.0;
        Self {
            clock: Clock::system(),
            rng: Rng::from_entropy(),
            metrics: Metrics::register(&registry),
            registry,
            memory: Budget::new(memory),
            // A quarter of the memory for requests being read; larger frames come one at a time.
            requests: Budget::new(memory / 4),
            node: NodeId(settings.server.node_id),
            shutdown: Shutdown::new(),
            meta_shutdown: Shutdown::new(),
            on_fatal: Arc::new(end_process),
        }
    }
}

/// Ends the process at once: after a failed write nothing may be acknowledged any more, and only recovery at the next
/// start may decide what the log holds.
fn end_process(line: &str) {
    static ENDING: AtomicBool = AtomicBool::new(false);
    if !ENDING.swap(true, Ordering::SeqCst) {
        eprintln!("sluice: {line}; the process ends, recovery at the next start decides what the log holds");
        std::process::exit(Exit::WRITE_FAILED.0);
    }
    // Another thread is ending the process: nothing may go on from here.
    loop {
        std::thread::park();
    }
}

async fn start_meta(
    place: &DataDir,
    parts: &Parts,
) -> Result<(meta::Handle, JoinHandle<Result<(), meta::Fatal>>), StartError> {
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

async fn open_storage(
    settings: &Settings,
    parts: &Parts,
    place: &DataDir,
    store: &OpenStore,
    meta: &meta::Handle,
    identity: &Identity,
) -> Result<storage::Storage, StartError> {
    let mut options = storage::Options {
        upload_bytes_max: settings.upload.size_max.0,
        upload_age_max: settings.upload.age_max.0,
        ..storage::Options::default()
    };
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
        budget: parts.memory.clone(),
        registry: parts.registry.clone(),
        node: parts.node,
        wal: identity.wal,
        on_fatal: Arc::clone(&parts.on_fatal),
    };
    Ok(storage::Storage::open(deps, options).await?)
}

fn start_partitions(
    parts: &Parts,
    meta: &meta::Handle,
    storage: &storage::Storage,
) -> (partition::Partitions, Task<()>) {
    let deps = partition::Deps {
        storage: storage.clone(),
        meta: meta.clone(),
        node: parts.node,
        clock: parts.clock.clone(),
        registry: parts.registry.clone(),
        budget: parts.memory.clone(),
    };
    let partitions = partition::Partitions::new(deps, partition::Options::default());
    let follower = tokio::spawn(partitions.clone().run(parts.shutdown.clone()));
    (partitions, follower)
}

fn start_groups(
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

fn start_sinks(
    settings: &Arc<Settings>,
    parts: &Parts,
    store: &OpenStore,
    partitions: &partition::Partitions,
    storage: &storage::Storage,
    meta: &meta::Handle,
    identity: &Identity,
) -> sink::Runner {
    let buckets = Arc::clone(settings);
    let deps = sink::Deps {
        partitions: partitions.clone(),
        storage: storage.clone(),
        meta: meta.clone(),
        node: parts.node,
        store: Arc::clone(&store.store),
        prefix: identity.prefix.clone(),
        open_bucket: Arc::new(move |bucket| {
            let opened = store::open_url(&buckets.store, &format!("s3://{bucket}"));
            opened.map(|opened| opened.store).map_err(|error| error.to_string())
        }),
        clock: parts.clock.clone(),
        rng: parts.rng.fork(),
        budget: parts.memory.clone(),
        registry: parts.registry.clone(),
    };
    sink::Runner::start(deps, sink::Options::default())
}

impl Running {
    /// Begins to drain. [`Self::finish`] waits for the end.
    pub fn stop(&self) {
        self.shutdown.cancel();
    }

    /// Waits until everything has stopped: answers are out, snapshots written, the last upload round is done.
    pub async fn finish(self) -> Exit {
        self.shutdown.cancel();
        if let Err(error) = self.server.await {
            warn!(%error, "the listener ended badly");
        }
        if let Err(error) = self.follower.await {
            warn!(%error, "the follower of the image ended badly");
        }
        self.ctx.groups.close().await;
        self.sinks.close().await;
        self.ctx.partitions.close_all().await;
        self.ctx.storage.close().await;
        self.http_shutdown.cancel();
        if let Err(error) = self.http_task.await {
            warn!(%error, "the HTTP listener ended badly");
        }
        drop(self.ctx);
        self.meta_shutdown.cancel();
        // The thread ends as soon as its runtime sees the token; this must not block a worker for long.
        while !self.meta_thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        match self.meta_thread.join() {
            Ok(Ok(())) => Exit::DONE,
            Ok(Err(_)) | Err(_) => Exit::WRITE_FAILED,
        }
    }
}
