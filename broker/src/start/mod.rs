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
//! | cleaner ([`partition::Cleaner::run`]): retention, compaction | [`Running`] | until shutdown |
//! | Kafka listener and its connections | [`Running`] | from ready until drained |
//! | watch over the object store | [`Running`] | from ready until shutdown |
//! | keeper of metadata snapshots | [`Running`] | until shutdown |
//! | HTTP | [`Running`] | from before ready until everything else has ended |

mod address;
mod identity;
mod lifecycle;
mod rooms;
mod store;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use common::Shutdown;
use common::net::TcpListener;
use parking_lot::Mutex;
use tokio::task::JoinHandle as Task;
use tracing::{info, warn};

use crate::config::Settings;
use crate::context::Context;
use crate::http;
use crate::place::{DataDir, PlaceError};
use crate::server;
use identity::{Identity, Wanted};
use rooms::Parts;
pub(crate) use rooms::end_process;
pub use store::{OpenStore, open_local, open_url};

/// Longest that shutdown waits for HTTP requests in flight.
const HTTP_DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long a start waits for the lock of the data directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How often it tries.
const LOCK_RETRY: Duration = Duration::from_millis(10);

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
    /// The cluster was rebuilt from its bucket meanwhile: this process belongs to its former life.
    pub const FENCED: Exit = Exit(71);
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
    Probe(storage::ProbeError),
    /// A store without this cluster.
    #[error(
        "object store {store} holds nothing of cluster {cluster}, to which the data directory belongs; name the store that the cluster was created with"
    )]
    OtherStore {
        /// The store.
        store: String,
        /// The cluster.
        cluster: String,
    },
    /// A later life of the cluster exists.
    #[error(
        "cluster {cluster} was rebuilt from its store as incarnation {incarnation}; this data directory belongs to its former life and must not be started"
    )]
    Fenced {
        /// The cluster.
        cluster: String,
        /// The incarnation found.
        incarnation: u16,
    },
    /// A rebuild from the bucket.
    #[error("{0}")]
    Rebuild(String),
    /// The metadata store is empty in a directory that belongs to a cluster.
    #[error(
        "the metadata directory is empty although this data directory belongs to cluster {cluster}; put meta/ back, or keep this data directory aside and restore the cluster from its bucket with `sluice meta rebuild`"
    )]
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
    Storage(storage::OpenError),
    /// The log's directory was emptied, or it is another one's.
    #[error("{source}, or declare log {wal} lost: `sluice broker wal-lost {wal} --data-dir {}` says what that costs and begins a new one", data_dir.display())]
    WalGone {
        /// What recovery says.
        source: storage::OpenError,
        /// The log that metadata knows.
        wal: common::WalId,
        /// The data directory.
        data_dir: std::path::PathBuf,
    },
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
    store_watch: Task<()>,
    cleaner: Task<()>,
    keeper: Task<()>,
    http_task: Task<()>,
    meta_thread: MetaThread,
    _place: DataDir,
}

/// Starts a broker in this runtime.
///
/// # Errors
/// [`StartError`], one sentence with the remedy. Nothing of a failed start keeps running.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let settings = Arc::new(settings);
    let parts = Parts::new(&settings);
    let mut meta_thread = None;
    let started = open(&settings, &parts, &mut meta_thread).await;
    match (started, meta_thread) {
        (Ok(opened), Some(meta_thread)) => Ok(serve(&settings, parts, opened, meta_thread)),
        (Ok(_), None) => unreachable!("metadata was started"),
        (Err(error), thread) => {
            parts.shutdown.cancel();
            parts.http_shutdown.cancel();
            parts.meta_shutdown.cancel();
            if let Some(thread) = thread {
                joined(thread).await;
            }
            Err(error)
        }
    }
}

/// What is there when everything has been opened and nothing is served yet.
struct Opened {
    place: DataDir,
    kafka: TcpListener,
    kafka_at: SocketAddr,
    http_at: SocketAddr,
    http_shared: Arc<http::Shared>,
    http_task: Task<()>,
    advertised: (String, u16),
    store: OpenStore,
    meta: meta::Handle,
    identity: Identity,
    storage: storage::Storage,
}

async fn open(
    settings: &Arc<Settings>,
    parts: &Parts,
    meta_thread: &mut Option<MetaThread>,
) -> Result<Opened, StartError> {
    let mut place = place(&settings.store.data_dir).await?;
    let kafka = address::bind("listen", &settings.server.listen).await?;
    let http_listener = address::bind("http.listen", &settings.server.http_listen).await?;
    let (kafka_at, http_at) = (kafka.local_addr()?, http_listener.local_addr()?);
    let advertised = address::advertised(settings.server.advertise.as_deref(), kafka_at)?;
    let http_shared =
        http::Shared::new(parts.registry.clone(), parts.metrics.clone(), parts.budgets.clone());
    let stop = parts.http_shutdown.clone();
    let http_task = http::spawn(http_listener, Arc::clone(&http_shared), stop);
    let around = store::Around { clock: &parts.clock, rng: &parts.rng, registry: &parts.registry };
    let store = store::open(&settings.store, &place, &around)?;
    if settings.store.object_store.is_none() {
        remove_staged(place.path().join("objects"), &parts.clock);
    }
    let (meta, thread) = rooms::start_meta(&place, parts).await?;
    *meta_thread = Some(thread);
    let wanted = Wanted { node: parts.node, host: &advertised.0, port: advertised.1 };
    let identity = identity::establish(&meta, &mut place, &store, &parts.rng, &wanted).await?;
    lifecycle::check(store.s3.as_deref(), &identity.prefix, &parts.registry).await;
    info!(cluster = identity.cluster_id, node = parts.node.0, epoch = identity.epoch.0, "started");
    let storage = rooms::open_storage(settings, parts, &place, &store, &meta, &identity).await?;
    Ok(Opened {
        place,
        kafka,
        kafka_at,
        http_at,
        http_shared,
        http_task,
        advertised,
        store,
        meta,
        identity,
        storage,
    })
}

/// Removes what interrupted puts have left in the local store, beside the start.
fn remove_staged(objects: std::path::PathBuf, clock: &common::Clock) {
    let now = u64::try_from(clock.now_ms()).unwrap_or(0);
    let before = std::time::UNIX_EPOCH + Duration::from_millis(now);
    let walk = move || {
        let removed = DataDir::remove_staged(&objects, before);
        if removed > 0 {
            info!(removed, "staged files of interrupted puts are gone");
        }
    };
    if let Err(error) = common::threads::spawn("staged", walk) {
        warn!(%error, "staged files of interrupted puts stay");
    }
}

/// Opens the data directory. The lock of a process that was killed may outlive it for a moment, while the kernel ends its
/// writes.
async fn place(path: &std::path::Path) -> Result<DataDir, PlaceError> {
    let until = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match DataDir::open(path) {
            Err(PlaceError::InUse { .. }) if tokio::time::Instant::now() < until => {
                tokio::time::sleep(LOCK_RETRY).await;
            }
            opened => return opened,
        }
    }
}

/// Starts what serves, the Kafka listener last.
fn serve(
    settings: &Arc<Settings>,
    parts: Parts,
    opened: Opened,
    meta_thread: MetaThread,
) -> Running {
    let Opened { place, store, meta, identity, storage, .. } = opened;
    let (partitions, (follower, cleaner)) =
        rooms::start_partitions(settings, &parts, &meta, &storage);
    let groups = rooms::start_groups(settings, &parts, &meta, &storage, &partitions);
    let sinks =
        rooms::start_sinks(settings, &parts, &store, &partitions, &storage, &meta, &identity);
    let keeper = rooms::start_keeper(settings, &parts, &store, &storage, &meta, &identity);
    let ctx = Arc::new(Context {
        settings: Arc::clone(settings),
        clock: parts.clock.clone(),
        rng: parts.rng.clone(),
        node: parts.node,
        advertised: opened.advertised.clone(),
        meta,
        storage,
        partitions,
        groups,
        producer_ids: Arc::new(Mutex::new(0..0)),
        metrics: parts.metrics.clone(),
        budgets: parts.budgets.clone(),
        shutdown: parts.shutdown.clone(),
    });
    opened.http_shared.serve(http::Parts {
        ctx: Arc::clone(&ctx),
        store: store.remote.clone(),
        store_name: store.name.clone(),
        prefix: identity.prefix.clone(),
        kafka: opened.kafka_at,
        sinks: sinks.clone(),
    });
    let key = storage::incarnation_key(&identity.prefix, 1);
    let store_watch = store::watch(store.remote.clone(), key, parts.shutdown.clone());
    let store_watch = tokio::spawn(store_watch);
    let server = tokio::spawn(server::run(opened.kafka, Arc::clone(&ctx)));
    Running {
        kafka: opened.kafka_at,
        http: opened.http_at,
        advertised: opened.advertised,
        cluster_id: identity.cluster_id,
        data_dir: place.path().to_owned(),
        store: store.name,
        shutdown: parts.shutdown,
        http_shutdown: parts.http_shutdown,
        meta_shutdown: parts.meta_shutdown,
        ctx,
        sinks,
        server,
        follower,
        store_watch,
        cleaner,
        keeper,
        http_task: opened.http_task,
        meta_thread,
        _place: place,
    }
}

type MetaThread = JoinHandle<Result<(), meta::Fatal>>;

/// Waits for the thread of metadata without blocking a worker.
async fn joined(thread: MetaThread) -> Exit {
    while !thread.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    match thread.join() {
        Ok(Ok(())) => Exit::DONE,
        Ok(Err(_)) | Err(_) => Exit::WRITE_FAILED,
    }
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
        if let Err(error) = self.store_watch.await {
            warn!(%error, "the watch over the object store ended badly");
        }
        if let Err(error) = self.cleaner.await {
            warn!(%error, "the cleaner ended badly");
        }
        if let Err(error) = self.keeper.await {
            warn!(%error, "the keeper of metadata snapshots ended badly");
        }
        self.ctx.groups.close().await;
        self.sinks.close().await;
        self.ctx.partitions.close_all().await;
        self.ctx.storage.close().await;
        self.http_shutdown.cancel();
        // A client that keeps its connection busy does not hold the broker.
        let _ = tokio::time::timeout(HTTP_DRAIN_MAX, self.http_task).await;
        drop(self.ctx);
        self.meta_shutdown.cancel();
        joined(self.meta_thread).await
    }
}
