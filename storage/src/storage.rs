//! The storage of one broker: its log, its streams, its objects.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use common::{Lsn, NodeId, PartitionId, Rng, Shutdown, StreamId, StreamKind, WalEpoch, WalId};
use meta::Reply;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::compact::{self, CompactError, Compactor, Filter, Rewritten};
use crate::core::Core;
use crate::error::{AppendError, OpenError, OpenPartitionError, ReadError, UploadError};
use crate::floors::Floors;
use crate::metrics::Metrics;
use crate::options::{Deps, Options};
use crate::read::{BlockCache, Indexes, Permits, ReadAhead, Reader};
use crate::sweep::{self, Sweeper};
use crate::takeover::Parts;
use crate::types::{Bounds, Class, DurableListener, NewEntry, Read};
use crate::upload::{Log, Uploader};

/// Offsets that a stream may run ahead of its committed end: after a declared loss it goes on that far behind, so no
/// offset is ever given twice.
pub const AHEAD_MAX: i64 = 1 << 32;

/// Kind of the log frames that hold entries.
const FRAME_ENTRY: u8 = 1;

/// The storage of one broker. Cheap to clone; all clones are the same storage.
///
/// Tasks of its own: the uploader, the compactor, the sweeper, from [`Storage::open`] to [`Storage::close`].
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    core: Arc<Core>,
    wal: wal::Wal,
    id: WalId,
    epoch: WalEpoch,
    node: NodeId,
    rng: Rng,
    reader: Reader,
    compactor: Arc<Compactor>,
    meta: meta::Handle,
    floors: Arc<Floors>,
    options: Options,
    // Every append lies below, so an upload through it is an upload of everything.
    appended: AtomicU64,
    shutdown: Shutdown,
    uploader: Mutex<Option<JoinHandle<()>>>,
    planner: Mutex<Option<JoinHandle<()>>>,
    sweeper: Mutex<Option<JoinHandle<()>>>,
    floor_ms: Arc<AtomicI64>,
}

impl Storage {
    /// Opens the storage: recovers the log above its committed LSN, has metadata record where the recovered part ends
    /// and issue the next epoch, opens the log under it, fills the tail cache and starts the uploader. May be
    /// interrupted anywhere and repeated.
    ///
    /// # Errors
    /// [`OpenError`] in one sentence; nothing has been written to the log then.
    pub async fn open(deps: Deps, options: Options) -> Result<Self, OpenError> {
        let facts = facts(&deps).await?;
        let identity = wal::Identity {
            wal: deps.wal,
            salt: facts.salt,
            epochs: facts.epochs.clone(),
            committed: facts.committed,
            fresh: facts.fresh,
        };
        let log = wal::Options { budget: deps.budget.clone(), ..options.wal.clone() };
        let recovered = wal::Wal::recover(deps.disk.clone(), &log, &identity).await?;
        let epoch = open_epoch(&deps, &recovered).await?;
        // A commit of the former life may have landed until then, and none can any more.
        let committed = self::facts(&deps).await?.committed;
        let core = Arc::new(Core::new(
            deps.budget.clone(),
            deps.clock.clone(),
            Metrics::register(&deps.registry),
            deps.on_fatal.clone(),
            &options,
            committed,
        ));
        for group in recovered.groups().iter().filter(|group| group.first() >= committed) {
            core.recovered(group);
        }
        core.durable.send_replace(recovered.end());
        let wal = wal::Wal::start(recovered, epoch, core.clone(), &deps.registry).await?;
        wal.trim(committed);
        Ok(Self::assemble(deps, options, core, wal, epoch))
    }

    fn assemble(
        deps: Deps,
        options: Options,
        core: Arc<Core>,
        wal: wal::Wal,
        epoch: WalEpoch,
    ) -> Self {
        let floors = Arc::new(Floors::default());
        let uploader = Uploader {
            core: core.clone(),
            log: Log::Open(wal.clone()),
            store: deps.store.clone(),
            prefix: deps.prefix.clone(),
            meta: deps.meta.clone(),
            rng: deps.rng.fork(),
            options: options.clone(),
            id: deps.wal,
            epoch,
            floors: floors.clone(),
        };
        let reader = Reader {
            core: core.clone(),
            wal: wal.clone(),
            store: deps.store.clone(),
            prefix: deps.prefix.clone(),
            cache: BlockCache::new(options.block_cache_bytes_max),
            indexes: Indexes::new(deps.meta.clone()),
            ahead: ReadAhead::default(),
            permits: Permits::new(&options),
            options: options.clone(),
        };
        let compactor = Arc::new(Compactor::new(compact::Parts {
            core: core.clone(),
            store: deps.store.clone(),
            prefix: deps.prefix.clone(),
            meta: deps.meta.clone(),
            rng: deps.rng.fork(),
            options: options.clone(),
            id: deps.wal,
            epoch,
            registry: deps.registry.clone(),
        }));
        let floor_ms = Arc::new(AtomicI64::new(i64::MIN));
        let sweeper = sweeper(&deps, &options, &core, &floor_ms);
        let shutdown = Shutdown::new();
        let task = tokio::spawn(uploader.run(shutdown.clone()));
        let uploader = Mutex::new(Some(task));
        let planner = options.compaction_enabled.then(|| {
            let task = compact::Task::new(compactor.clone());
            tokio::spawn(task.run(shutdown.clone()))
        });
        let planner = Mutex::new(planner);
        let sweeper = Mutex::new(Some(tokio::spawn(sweeper.run(shutdown.clone()))));
        let (meta, id, node, rng) = (deps.meta, deps.wal, deps.node, deps.rng);
        let appended = AtomicU64::new(core.durable.borrow().0);
        let inner = Inner {
            core,
            wal,
            id,
            epoch,
            node,
            rng,
            reader,
            compactor,
            meta,
            floors,
            options,
            appended,
            shutdown,
            uploader,
            planner,
            sweeper,
            floor_ms,
        };
        Self(Arc::new(inner))
    }

    /// The log.
    #[must_use]
    pub fn wal_id(&self) -> WalId {
        self.0.id
    }

    pub(crate) fn parts(&self) -> Parts {
        let inner = &self.0;
        Parts {
            node: inner.node,
            meta: inner.meta.clone(),
            store: inner.reader.store.clone(),
            prefix: inner.reader.prefix.clone(),
            rng: inner.rng.fork(),
            options: inner.options.clone(),
            budget: inner.core.budget.clone(),
            clock: inner.core.clock.clone(),
        }
    }

    /// The epoch under which the log is open.
    #[must_use]
    pub fn wal_epoch(&self) -> WalEpoch {
        self.0.epoch
    }

    /// Opens the three streams of a partition: what lies in objects by metadata, what lies above by the log. `listener`
    /// is told of durability from then on.
    ///
    /// # Errors
    /// [`OpenPartitionError`]; a gap between objects and log refuses the partition.
    pub async fn open_partition(
        &self,
        id: PartitionId,
        epoch: common::StreamEpoch,
        listener: Arc<dyn DurableListener>,
    ) -> Result<(), OpenPartitionError> {
        let inner = &self.0;
        if inner.core.is_closed() {
            return Err(OpenPartitionError::Closed);
        }
        if !inner.meta.image().topics.contains_key(&id.topic) {
            return Err(OpenPartitionError::Unknown(id));
        }
        // In one read: ends that another owner has written are no place to go on from, however old the image here is.
        let read = inner.meta.read(move |view| {
            let mut known = Vec::with_capacity(StreamKind::ALL.len());
            for kind in StreamKind::ALL {
                let index = meta::facts::stream_index(view, id.stream(kind), 0, 0)?;
                known.push((id.stream(kind), index.start, index.committed_end));
            }
            Ok((meta::facts::partition(view, id)?, known))
        });
        let (owner, known) =
            read.await.map_err(|error| OpenPartitionError::Meta(error.to_string()))?;
        let owner = owner.ok_or(OpenPartitionError::Unknown(id))?;
        if owner.epoch != epoch || owner.wal != Some(inner.id) {
            return Err(OpenPartitionError::NotOwner(id));
        }
        inner.core.table.update(id, |state| {
            if state.sealed && epoch <= state.epoch {
                return Err(OpenPartitionError::Sealed(id));
            }
            for (stream, start, committed) in known {
                state.load(stream, start, committed)?;
            }
            state.epoch = state.epoch.max(epoch);
            state.opened = true;
            state.sealed = false;
            state.listener = Some(listener);
            Ok(())
        })
    }

    /// Closes a partition: nothing is appended to it or read from it here any more. What it has in the log is still
    /// uploaded.
    pub fn close_partition(&self, id: PartitionId) {
        let core = &self.0.core;
        let Some(slot) = core.table.get(id) else { return };
        {
            let mut state = slot.state.lock();
            state.opened = false;
            state.listener = None;
        }
        core.prune(id, core.tail.horizon());
    }

    /// Seals an open partition: its streams end where they end now, and their ends are returned, by kind. What it has in
    /// the log is still read and uploaded. It is not opened here again under the same epoch. The caller holds the
    /// partition's mutex, so that no append is under way.
    #[must_use]
    pub fn seal_partition(&self, id: PartitionId) -> Option<[i64; 3]> {
        let slot = self.0.core.table.get(id)?;
        let mut state = slot.state.lock();
        state.sealed |= state.opened;
        let ends = [0, 1, 2].map(|kind: usize| state.streams[kind].bounds.end);
        state.opened.then_some(ends)
    }

    /// Takes a seal back. Only when nothing that relies on it can take effect any more.
    pub fn unseal_partition(&self, id: PartitionId) {
        if let Some(slot) = self.0.core.table.get(id) {
            slot.state.lock().sealed = false;
        }
    }

    /// Appends entries of one partition, in order. Returns the position of the last: durable when the log's durable LSN
    /// is above it. The caller holds the partition's mutex, so that no other append comes between. Nothing is written
    /// before [`Self::kick`] or until a group is full.
    ///
    /// # Errors
    /// [`AppendError`]; the streams are as before.
    ///
    /// # Panics
    /// When `entries` is empty, belongs to more than one partition, or an entry has no span.
    pub fn append(&self, entries: &[NewEntry<'_>]) -> Result<Lsn, AppendError> {
        let core = &self.0.core;
        if core.is_closed() {
            return Err(AppendError::Closed);
        }
        if core.tail.index_bytes() >= self.0.options.index_bytes_max {
            core.metrics.index_full.inc();
            return Err(AppendError::Full);
        }
        let partition = entries.first().expect("an append has entries").stream.partition;
        let slot = core.table.get(partition).ok_or(AppendError::NotOpen(partition))?;
        let ends = check(&mut slot.state.lock(), partition, entries)?;
        let header = |entry: &NewEntry<'_>| wal::FrameHeader {
            kind: FRAME_ENTRY,
            flags: 0,
            stream: entry.stream,
            epoch: entry.epoch,
            base_offset: entry.base_offset,
            span: entry.span,
            count: entry.count,
            max_timestamp: entry.max_timestamp,
            key_id: 0,
        };
        // Almost always one or two entries.
        let frames: Vec<_> = entries
            .iter()
            .map(|entry| wal::Frame { header: header(entry), parts: entry.parts })
            .collect();
        // Without the lock: the disk thread takes it to tell what became durable. The caller's mutex keeps the order.
        let position = self.0.wal.append(&frames).map_err(|error| match error {
            wal::AppendError::Full => AppendError::Full,
            wal::AppendError::TooLarge { .. } => AppendError::TooLarge,
            wal::AppendError::Closed => AppendError::Closed,
        })?;
        self.0.appended.fetch_max(position.group.0 + 1, Ordering::AcqRel);
        let mut state = slot.state.lock();
        for (bounds, end) in state.streams.iter_mut().map(|stream| &mut stream.bounds).zip(ends) {
            bounds.end = bounds.end.max(end);
        }
        Ok(position.group)
    }

    /// Sends what was appended on its way to the disk; once for each request.
    pub fn kick(&self) {
        self.0.wal.kick();
    }

    /// Everything below is durable in the log.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        *self.0.core.durable.borrow()
    }

    /// A receiver of the durable LSN.
    #[must_use]
    pub fn subscribe_durable(&self) -> watch::Receiver<Lsn> {
        self.0.core.durable.subscribe()
    }

    /// A receiver that changes whenever an append refused as [`AppendError::Full`] or [`AppendError::TooFarAhead`] may
    /// succeed. Subscribe before the append that is refused.
    #[must_use]
    pub fn wal_space(&self) -> watch::Receiver<u64> {
        self.0.core.space.subscribe()
    }

    /// How full the log is.
    #[must_use]
    pub fn occupancy(&self) -> wal::Occupancy {
        self.0.wal.occupancy()
    }

    /// The bounds of a stream of an open partition.
    #[must_use]
    pub fn bounds(&self, stream: StreamId) -> Option<Bounds> {
        let slot = self.0.core.table.get(stream.partition)?;
        let mut state = slot.state.lock();
        state.opened.then(|| state.stream(stream.kind).bounds)
    }

    /// Moves the start of a stream forward for readers here; metadata has been told by the caller. Never backwards.
    pub fn set_start(&self, stream: StreamId, start: i64) {
        self.0.core.table.with(stream, |state| {
            state.bounds.start = state.bounds.start.max(start);
        });
    }

    /// Has readers find what lies below `end` in objects, even while the log still has it in memory: after a rewrite of
    /// those objects. Only what is committed is passed over.
    pub fn prefer_objects(&self, stream: StreamId, end: i64) {
        self.0.core.table.with(stream, |state| {
            let end = end.min(state.bounds.committed_end);
            while state.runs.front().is_some_and(|run| run.end <= end) {
                state.runs.pop_front();
            }
        });
        self.0.reader.indexes.forget(stream);
    }

    /// Reads whole entries that overlap `[from, until)`, up to `bytes_max` bytes, at least one if there is any; only
    /// what is durable. Without entries `next` may still have moved, past a hole or a lost range. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError`]; what cannot be proved intact is refused by name.
    pub async fn read(
        &self,
        stream: StreamId,
        from: i64,
        until: i64,
        bytes_max: u64,
        class: Class,
    ) -> Result<Read, ReadError> {
        self.0.reader.read(stream, from, until, bytes_max, class).await
    }

    /// Reads the newest entries that end at or below `before`, ascending, up to about `bytes_max` bytes (the oldest of
    /// them may pass it), at least one if there is any.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_back(
        &self,
        stream: StreamId,
        before: i64,
        bytes_max: u64,
    ) -> Result<Read, ReadError> {
        self.0.reader.read_back(stream, before, bytes_max).await
    }

    /// Rewrites the objects that hold `range` of `stream`, below its committed end: `filter` keeps, drops or replaces
    /// each entry that lies inside, offsets stay as they are. The range is widened to whole ranges of the stream index
    /// (entries outside of it are kept) and narrowed to those that begin at or above the log start, and to as many as one
    /// job takes; [`Rewritten::range`] says what was done. `epoch` is the partition's, under which the caller owns it.
    /// Waits for its turn: one job at a time. A drop leaves an object that expires.
    ///
    /// # Errors
    /// [`CompactError`]; nothing has changed for any reader then, unless metadata did not answer.
    pub async fn rewrite(
        &self,
        stream: StreamId,
        range: std::ops::Range<i64>,
        epoch: common::StreamEpoch,
        filter: &mut dyn Filter,
    ) -> Result<Rewritten, CompactError> {
        self.0.compactor.rewrite(stream, range, epoch, filter).await
    }

    /// Forces upload rounds until everything at or below `lsn` lies in committed objects, and waits for it, for as long
    /// as the store fails. Cancel safe; the rounds go on.
    ///
    /// # Errors
    /// When the storage is closed meanwhile.
    pub async fn upload_through(&self, lsn: Lsn) -> Result<(), UploadError> {
        let core = &self.0.core;
        let mut covered = core.covered.subscribe();
        core.forced.fetch_max(lsn.0.saturating_add(1), Ordering::AcqRel);
        self.0.wal.kick();
        core.upload.notify_one();
        loop {
            if *covered.borrow_and_update() > lsn {
                return Ok(());
            }
            if core.is_closed() {
                return Err(UploadError::Closed);
            }
            tokio::select! {
                biased;
                () = core.stopped.cancelled() => return Err(UploadError::Closed),
                changed = covered.changed() => changed.map_err(|_| UploadError::Closed)?,
            }
        }
    }

    /// As [`Self::upload_through`], of everything appended by now.
    ///
    /// # Errors
    /// When the storage is closed meanwhile.
    pub async fn upload_appended(&self) -> Result<(), UploadError> {
        match self.0.appended.load(Ordering::Acquire).checked_sub(1) {
            Some(last) => self.upload_through(Lsn(last)).await,
            None => Ok(()),
        }
    }

    /// Everything below lies in committed objects, or holds nothing to upload.
    #[must_use]
    pub fn committed(&self) -> Lsn {
        *self.0.core.covered.borrow()
    }

    /// Hands over the floor of a sink's partition; the next upload commit carries it to metadata.
    pub fn carry_floor(&self, sink: u64, partition: u32, floor: i64) {
        self.0.floors.note(sink, partition, floor);
    }

    /// Allows deletes of objects that were released before `time_ms` of metadata time: no snapshot of metadata that is
    /// kept in the bucket lists them as live. Only with [`Options::delete_needs_snapshot`].
    pub fn set_delete_floor(&self, time_ms: i64) {
        self.0.floor_ms.fetch_max(time_ms, Ordering::AcqRel);
    }

    /// Gives back at least `bytes` of cache memory, as far as there is any: for askers whom the budget has refused.
    pub fn release_memory(&self, bytes: u64) {
        let core = &self.0.core;
        let before = core.tail.cached_bytes();
        let evicted = core.tail.evict(bytes);
        core.forget(&evicted);
        let given = before.saturating_sub(core.tail.cached_bytes());
        if given < bytes {
            self.0.reader.cache.shrink(bytes - given);
        }
    }

    /// Closes the storage: one last round for what waits, as long as the store answers within `close_timeout`; then the
    /// uploader and the log. What could not be uploaded stays in the log.
    pub async fn close(&self) {
        let inner = &self.0;
        inner.wal.kick();
        let appended = inner.appended.load(Ordering::Acquire);
        if appended > 0 && !inner.core.is_closed() {
            let last = self.upload_through(Lsn(appended - 1));
            if timeout(inner.options.close_timeout, last).await.is_err() {
                tracing::warn!("the last upload round did not end in time; the log keeps the rest");
            }
        }
        inner.core.closed.store(true, Ordering::Release);
        inner.core.stopped.cancel();
        inner.shutdown.cancel();
        let tasks = [
            ("uploader", &inner.uploader),
            ("compactor", &inner.planner),
            ("sweeper", &inner.sweeper),
        ];
        for (name, task) in tasks.map(|(name, task)| (name, task.lock().take())) {
            if let Some(task) = task
                && let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "the {name} ended by a panic");
            }
        }
        inner.wal.close().await;
    }
}

impl Storage {
    /// Stops at once, as a crash would: no last round, nothing is appended any more. What is durable stays.
    pub fn abandon(&self) {
        self.0.core.closed.store(true, Ordering::Release);
        self.0.core.stopped.cancel();
        self.0.shutdown.cancel();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A storage dropped without a close (a test's crash) leaves no task behind.
        self.shutdown.cancel();
    }
}

async fn facts(deps: &Deps) -> Result<meta::WalFacts, OpenError> {
    let facts = deps.meta.wal(deps.wal).await;
    let facts = facts.map_err(|error| OpenError::Meta(error.to_string()))?;
    facts.ok_or(OpenError::UnknownWal(deps.wal))
}

async fn open_epoch(deps: &Deps, recovered: &wal::Recovered) -> Result<WalEpoch, OpenError> {
    let command = meta::command::OpenWal {
        wal: deps.wal.0,
        node: deps.node.0,
        recovered_end: recovered.end().0,
        cut: recovered.cut(),
    };
    match deps.meta.propose(command).await {
        Ok(Reply::WalOpened { epoch, first }) if first == recovered.end() => Ok(epoch),
        Ok(Reply::Rejected(reject)) => Err(OpenError::Refused(reject)),
        Ok(other) => Err(OpenError::Meta(format!("unexpected answer {other:?}"))),
        Err(error) => Err(OpenError::Meta(error.to_string())),
    }
}

fn sweeper(deps: &Deps, options: &Options, core: &Arc<Core>, floor_ms: &Arc<AtomicI64>) -> Sweeper {
    Sweeper {
        core: core.clone(),
        store: deps.store.clone(),
        prefix: deps.prefix.clone(),
        meta: deps.meta.clone(),
        rng: deps.rng.fork(),
        options: options.clone(),
        metrics: sweep::Metrics::register(&deps.registry),
        floor_ms: floor_ms.clone(),
    }
}

/// Checks entries against the ends of their streams; the ends after them.
fn check(
    state: &mut crate::streams::SlotState,
    partition: PartitionId,
    entries: &[NewEntry<'_>],
) -> Result<[i64; 3], AppendError> {
    if !state.opened || state.sealed {
        return Err(AppendError::NotOpen(partition));
    }
    let (open, mut ends) = (state.epoch, [0; 3]);
    for (end, stream) in ends.iter_mut().zip(&state.streams) {
        *end = stream.bounds.end;
    }
    for entry in entries {
        let (stream, base_offset) = (entry.stream, entry.base_offset);
        assert_eq!(stream.partition, partition, "an append belongs to one partition");
        assert!(entry.span > 0 && entry.count <= entry.span, "an entry covers its records");
        if entry.epoch < open {
            return Err(AppendError::StaleEpoch { stream, open, got: entry.epoch });
        }
        let committed_end = state.stream(stream.kind).bounds.committed_end;
        let end = &mut ends[stream.kind as usize];
        if base_offset != *end {
            return Err(AppendError::OutOfOrder { stream, end: *end, base_offset });
        }
        let after = base_offset.checked_add_unsigned(entry.span);
        let after = after.filter(|after| *after <= committed_end.saturating_add(AHEAD_MAX));
        *end = after.ok_or(AppendError::TooFarAhead { stream, committed_end })?;
    }
    Ok(ends)
}
