//! One partition: the single writer's mutex section, and what it guards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Poll, Waker};

use common::{Clock, Lsn, NodeId, PartitionId, StreamEpoch, StreamId, StreamKind, failpoint};
use parking_lot::{Mutex, MutexGuard};
use storage::{NewEntry, Storage};
use uuid::Uuid;

use crate::config::TopicConfig;
use crate::epochs::{EpochStart, Epochs};
use crate::error::{AppendError, Gone};
use crate::index::{self, IndexKind};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::producers::{Producer, Producers, Verdict};
use crate::snapshot;
use crate::state::{Snapshot, StateKind};
use crate::time_index::TimeIndex;
use crate::validate::Checked;
use crate::wake::{FetchWaiter, Pending, Subscription, Wakers};

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's Produce request: sequences are checked.
    Client,
    /// A coordinator or this broker itself: control batches are allowed, sequences are not checked.
    Coordinator,
}

/// A batch that was queued, or the original of a repeated one.
#[derive(Debug)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// First offset behind the batch.
    pub end_offset: i64,
    /// Time answered to the client, -1 under create time.
    pub log_append_time: i64,
    /// First offset that can be read.
    pub log_start: i64,
    /// The batch was a repeat and nothing was appended.
    pub duplicate: bool,
    /// Completes when the batch is durable and has passed the gate. Nothing may be answered before.
    pub done: Pending,
}

/// Offsets of a partition, as far as they passed the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// First offset that can be read.
    pub log_start: i64,
    /// Everything below lies in objects.
    pub committed_end: i64,
    /// Bound of `read_committed`; equals the high watermark while no transaction is open.
    pub last_stable: i64,
    /// Everything below is durable and may be shown.
    pub high_watermark: i64,
    /// The next offset to be assigned. May run ahead of durability: never shown to a client.
    pub end: i64,
}

/// A producer as DescribeProducers tells it: only what is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerFacts {
    /// Id of the producer.
    pub producer_id: i64,
    /// Epoch of its newest durable batch.
    pub epoch: i16,
    /// Last sequence of that batch.
    pub last_sequence: i32,
    /// Wall time of its last append.
    pub last_append_ms: i64,
    /// Last offset of that batch.
    pub last_offset: i64,
}

/// Where an index record was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexPosition {
    /// Its offset in the index stream.
    pub offset: i64,
    /// Its position on the log: durable once the log is durable above it.
    pub lsn: Lsn,
}

/// What all partitions of a broker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub storage: Storage,
    pub meta: meta::Handle,
    pub node: NodeId,
    pub clock: Clock,
    pub metrics: Metrics,
    pub options: Options,
    pub budget: common::Budget,
}

/// An open partition. Its streams grow only through it.
pub struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) topic_name: String,
    pub(crate) topic_id: Uuid,
    pub(crate) epoch: StreamEpoch,
    pub(crate) shared: Arc<Shared>,
    // Sections are short and never held over an await; the log's durable call-back takes it too.
    pub(crate) state: Mutex<State>,
    // Held for look-ups in memory only.
    pub(crate) time_index: Mutex<TimeIndex>,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Partition({}-{} epoch {})", self.topic_name, self.id.index, self.epoch)
    }
}

#[derive(Debug)]
pub(crate) struct State {
    pub gone: Option<Gone>,
    /// Image index at which the gate was last looked up.
    pub gate_seen: u64,
    /// The start of this epoch stands in the index.
    pub announced: bool,
    pub data_end: i64,
    pub index_end: i64,
    pub state_end: i64,
    pub high_watermark: i64,
    pub log_start: i64,
    pub epochs: Epochs,
    /// Where this epoch begins or would begin.
    pub current: EpochStart,
    pub producers: Producers,
    pub in_flight: VecDeque<InFlight>,
    pub batches_since_snapshot: u64,
    pub index_since_snapshot: u64,
    pub waiters: BTreeMap<u64, FetchWaiter>,
    pub next_waiter: u64,
    pub config: Arc<TopicConfig>,
    pub memory: Option<common::Reservation>,
    /// Producers counted in the gauge.
    pub producers_counted: i64,
}

/// A queued batch that is not durable yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    position: Lsn,
    start: i64,
    end: i64,
    max_timestamp: i64,
    bytes: u64,
    wakers: Wakers,
}

impl Partition {
    /// The id.
    #[must_use]
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Name of its topic.
    #[must_use]
    pub fn topic_name(&self) -> &str {
        &self.topic_name
    }

    /// Id of its topic.
    #[must_use]
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The leader epoch under which it is open here.
    #[must_use]
    pub fn leader_epoch(&self) -> i32 {
        self.epoch.0
    }

    /// The stream that holds `kind`.
    #[must_use]
    pub fn stream(&self, kind: StreamKind) -> StreamId {
        self.id.stream(kind)
    }

    /// The topic's settings as of now.
    #[must_use]
    pub fn config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.state.lock().config)
    }

    /// Queues `batch` on the log: stamps offset and leader epoch, notes the sequence. Durable, and answerable, only
    /// when [`Appended::done`] completes; the caller has to call `Storage::kick` once per request. Order of calls is
    /// order of offsets.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was queued then.
    pub fn append(
        self: &Arc<Self>,
        batch: &Checked,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        let result = self.append_inner(batch, origin);
        if let Err(error) = &result
            && !error.waits_for_space()
        {
            self.shared.metrics.reject(error.code());
        }
        result
    }

    /// As [`Self::append`], waiting while the log is full. The order among several waiters is not kept: callers that
    /// need it await one append before the next. Cancel safe: nothing is queued unless it returns.
    ///
    /// # Errors
    /// See [`AppendError`]; the two that ask for space only when `patience` has passed.
    pub async fn append_waiting(
        self: &Arc<Self>,
        batch: &Checked,
        origin: Origin,
        patience: std::time::Duration,
    ) -> Result<Appended, AppendError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.append(batch, origin) {
                Err(error) if error.waits_for_space() => {
                    self.shared.storage.kick();
                    let space = self.shared.storage.wal_space();
                    if tokio::time::timeout_at(deadline, space).await.is_err() {
                        self.shared.metrics.reject(error.code());
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    fn append_inner(
        self: &Arc<Self>,
        batch: &Checked,
        origin: Origin,
    ) -> Result<Appended, AppendError> {
        let now_ms = self.shared.clock.now_ms();
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        let sequenced = batch.sequenced().filter(|_| origin == Origin::Client);
        if let Some(sequenced) = &sequenced {
            match state.producers.check(sequenced) {
                Verdict::Append => {}
                Verdict::Duplicate(original) => {
                    return Ok(self.duplicate(&state, original));
                }
                Verdict::Fenced { current } => {
                    return Err(AppendError::InvalidProducerEpoch {
                        producer_id: sequenced.producer_id,
                        epoch: sequenced.epoch,
                        current,
                    });
                }
                Verdict::OutOfOrder { expected } => {
                    return Err(AppendError::OutOfOrderSequence {
                        producer_id: sequenced.producer_id,
                        epoch: sequenced.epoch,
                        first_sequence: sequenced.first_sequence,
                        expected,
                    });
                }
            }
        }
        let base_offset = state.data_end;
        let position = self.queue(&mut state, batch)?;
        let end = state.data_end;
        state.in_flight.push_back(InFlight {
            position,
            start: base_offset,
            end,
            max_timestamp: batch.max_timestamp(),
            bytes: batch.len() as u64,
            wakers: Wakers::default(),
        });
        if let Some(sequenced) = &sequenced {
            let log_append_time = batch.log_append_time();
            let forgotten = state.producers.note(sequenced, base_offset, log_append_time, now_ms);
            self.account_producers(&mut state, forgotten);
        }
        self.count_append(batch);
        state.batches_since_snapshot += 1;
        if state.batches_since_snapshot >= self.shared.options.snapshot_batches_max
            || state.index_since_snapshot >= self.shared.options.snapshot_index_max
        {
            // A log that is full takes the snapshot with a later batch.
            let _ = self.queue_snapshots(&mut state);
        }
        Ok(Appended {
            base_offset,
            end_offset: end,
            log_append_time: batch.log_append_time(),
            log_start: state.log_start,
            duplicate: false,
            done: Pending::new(Arc::clone(self), end),
        })
    }

    fn count_append(&self, batch: &Checked) {
        let metrics = &self.shared.metrics;
        metrics.appends.inc();
        metrics.append_records.inc_by(batch.count());
        metrics.append_bytes.inc_by(batch.len() as u64);
    }

    /// Queues the batch, behind the start of the epoch if that is still missing.
    fn queue(&self, state: &mut State, batch: &Checked) -> Result<Lsn, AppendError> {
        let start = EpochStart { epoch: self.epoch.0, start_offset: state.data_end };
        let index_head = index::head(IndexKind::LEADER_EPOCH, snapshot::VERSION);
        let index_body = snapshot::encode_epoch_start(start);
        let index_parts: [&[u8]; 2] = [&index_head, &index_body];
        let announce = self.entry(StreamKind::Index, state.index_end, &index_parts);
        let stamped = batch.stamp(state.data_end, self.epoch.0);
        let data_parts = stamped.parts();
        let data = NewEntry {
            span: batch.span(),
            count: batch.count(),
            max_timestamp: batch.max_timestamp(),
            ..self.entry(StreamKind::Data, state.data_end, &data_parts)
        };
        let queued = if state.announced {
            self.shared.storage.append(&[data])
        } else {
            self.shared.storage.append(&[announce, data])
        };
        let position = queued.map_err(|error| append_error(&error, batch.len()))?;
        if !state.announced {
            state.announced = true;
            state.epochs.assign(start);
            state.index_end += 1;
            state.index_since_snapshot += 1;
        }
        state.data_end += i64::try_from(batch.span()).expect("a batch spans less than 2^31");
        Ok(position)
    }

    fn entry<'a>(
        &self,
        kind: StreamKind,
        base_offset: i64,
        parts: &'a [&'a [u8]],
    ) -> NewEntry<'a> {
        NewEntry {
            stream: self.id.stream(kind),
            epoch: self.epoch,
            base_offset,
            span: 1,
            count: 1,
            max_timestamp: -1,
            parts,
        }
    }

    fn duplicate(
        self: &Arc<Self>,
        state: &State,
        original: crate::producers::BatchMemory,
    ) -> Appended {
        self.shared.metrics.duplicates.inc();
        let end = original.last_offset + 1;
        // A test plants this to see the simulation find an answer that leaves before its record is durable.
        let waits_for = if failpoint::planted("duplicate-early") { 0 } else { end };
        Appended {
            base_offset: original.base_offset,
            end_offset: end,
            log_append_time: original.log_append_time,
            log_start: state.log_start,
            duplicate: true,
            done: Pending::new(Arc::clone(self), waits_for),
        }
    }

    /// Appends a fact to the index stream. Durable when the log is durable above the position; in objects when
    /// `Storage::upload_through` of it has returned.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was queued then.
    pub fn append_index(
        &self,
        kind: IndexKind,
        version: u16,
        payload: &[u8],
    ) -> Result<IndexPosition, AppendError> {
        if payload.len() > index::PAYLOAD_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes: payload.len() });
        }
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        let head = index::head(kind, version);
        let parts: [&[u8]; 2] = [&head, payload];
        let offset = state.index_end;
        let entry = self.entry(StreamKind::Index, offset, &parts);
        let queued = self.shared.storage.append(&[entry]);
        let lsn = queued.map_err(|error| append_error(&error, payload.len()))?;
        state.index_end += 1;
        state.index_since_snapshot += 1;
        Ok(IndexPosition { offset, lsn })
    }

    /// Queues a snapshot of someone else's state into the state stream, for example the groups of a coordinator
    /// partition as they are after replaying the records below `valid_for`.
    ///
    /// # Errors
    /// See [`AppendError`]; an incomplete snapshot is passed over by readers.
    ///
    /// # Panics
    /// When `valid_for` lies above the data end.
    pub fn append_state(
        &self,
        kind: StateKind,
        version: u16,
        valid_for: i64,
        payload: bytes::Bytes,
    ) -> Result<Lsn, AppendError> {
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        assert!(valid_for <= state.data_end, "a snapshot of records that do not exist");
        self.queue_state(&mut state, &Snapshot { kind, version, valid_for, payload })
    }

    fn queue_state(&self, state: &mut State, snapshot: &Snapshot) -> Result<Lsn, AppendError> {
        let mut position = Lsn(0);
        for frame in snapshot.frames(state.state_end) {
            let parts: [&[u8]; 1] = [&frame];
            let entry = self.entry(StreamKind::State, state.state_end, &parts);
            let queued = self.shared.storage.append(&[entry]);
            position = queued.map_err(|error| append_error(&error, frame.len()))?;
            state.state_end += 1;
        }
        Ok(position)
    }

    /// Queues producers and epochs as they are now, pending batches included: the snapshot lies behind them on the
    /// log, so it is durable only if they are.
    fn queue_snapshots(&self, state: &mut State) -> Result<(), AppendError> {
        let expiry = self.shared.options.producer_expiry_ms;
        let before = self.shared.clock.now_ms().saturating_sub(expiry);
        state.producers.expire(before, state.high_watermark);
        self.account_producers(state, 0);
        let producers = Snapshot {
            kind: StateKind::PRODUCERS,
            version: snapshot::VERSION,
            valid_for: state.data_end,
            payload: snapshot::encode_producers(&state.producers),
        };
        let epochs = Snapshot {
            kind: StateKind::EPOCHS,
            version: snapshot::VERSION,
            valid_for: state.index_end,
            payload: snapshot::encode_epochs(&state.epochs),
        };
        self.queue_state(state, &epochs)?;
        self.queue_state(state, &producers)?;
        failpoint::hit("partition.snapshot.queued");
        state.batches_since_snapshot = 0;
        state.index_since_snapshot = 0;
        self.shared.metrics.snapshots.inc();
        Ok(())
    }

    /// Queues a snapshot if anything changed since the last one. For a clean close: the next opening replays nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn snapshot(&self) -> Result<(), AppendError> {
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        if state.batches_since_snapshot + state.index_since_snapshot > 0 {
            self.queue_snapshots(&mut state)?;
        }
        Ok(())
    }

    pub(crate) fn account_producers(&self, state: &mut State, forgotten: usize) {
        let metrics = &self.shared.metrics;
        metrics.producers_evicted.inc_by(forgotten as u64);
        let count = i64::try_from(state.producers.len()).expect("capped far below 2^63");
        if count == state.producers_counted {
            return;
        }
        let all = metrics.producers.inc_by(count - state.producers_counted)
            + (count - state.producers_counted);
        state.producers_counted = count;
        if u64::try_from(all).unwrap_or(0) > self.shared.options.producers_total_max as u64
            && state.producers.forget_oldest()
        {
            metrics.producers_evicted.inc();
            metrics.producers.dec();
            state.producers_counted -= 1;
        }
        let bytes = state.producers.len() as u64 * PRODUCER_MEMORY_BYTES;
        let held = state.memory.as_ref().map_or(0, common::Reservation::bytes);
        if bytes > held || bytes < held / 2 {
            let rounded = bytes.next_multiple_of(16 * PRODUCER_MEMORY_BYTES);
            state.memory = Some(self.shared.budget.force(rounded));
        }
    }

    /// Durable producers by ascending id.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerFacts> {
        let state = self.state.lock();
        let high_watermark = state.high_watermark;
        let facts = |(producer_id, producer): (i64, &Producer)| {
            producer.newest_below(high_watermark).map(|batch| ProducerFacts {
                producer_id,
                epoch: batch.epoch,
                last_sequence: batch.last_sequence,
                last_append_ms: producer.last_append_ms,
                last_offset: batch.last_offset,
            })
        };
        state.producers.iter().filter_map(facts).collect()
    }

    /// Offsets as of now.
    #[must_use]
    pub fn offsets(&self) -> Offsets {
        let data = self.shared.storage.bounds(self.id.stream(StreamKind::Data));
        let mut state = self.state.lock();
        if let Some(bounds) = &data {
            state.log_start = state.log_start.max(bounds.start);
        }
        Offsets {
            log_start: state.log_start,
            committed_end: data.map_or(state.log_start, |bounds| bounds.committed_end),
            last_stable: state.high_watermark,
            high_watermark: state.high_watermark,
            end: state.data_end,
        }
    }

    /// Everything below the high watermark passed the gate already; this asks whether an answer may leave *now*.
    ///
    /// # Errors
    /// [`Gone`] when the partition is not served here any more.
    pub fn gate(&self) -> Result<(), Gone> {
        self.check_gate(&mut self.state.lock())
    }

    /// A wait for everything below `end`.
    pub fn wait_durable(self: &Arc<Self>, end: i64) -> Pending {
        Pending::new(Arc::clone(self), end)
    }

    /// Subscribes a fetch: it is woken once per group that moves the high watermark, and when the partition is gone.
    /// Subscribe first, read second, wait third. At the bound of waiters it is woken at once.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, waiter: &FetchWaiter) -> Subscription {
        let mut state = self.state.lock();
        let key = state.next_waiter;
        state.next_waiter += 1;
        if state.gone.is_some() || state.waiters.len() >= self.shared.options.waiters_max {
            if state.gone.is_none() {
                self.shared.metrics.waiters_refused.inc();
            }
            waiter.notify();
        } else {
            state.waiters.insert(key, waiter.clone());
        }
        Subscription::new(Arc::clone(self), key)
    }

    pub(crate) fn unsubscribe(&self, key: u64) {
        self.state.lock().waiters.remove(&key);
    }

    pub(crate) fn set_config(&self, config: Arc<TopicConfig>) {
        self.state.lock().config = config;
    }

    /// The gate: this broker still owns the partition under the epoch it was opened with.
    pub(crate) fn check_gate(&self, state: &mut MutexGuard<'_, State>) -> Result<(), Gone> {
        if let Some(gone) = state.gone {
            return Err(gone);
        }
        let image = self.shared.meta.image();
        if image.applied == state.gate_seen {
            return Ok(());
        }
        match owned(&image, self.id, self.shared.node, self.epoch) {
            Ok(()) => {
                state.gate_seen = image.applied;
                Ok(())
            }
            Err(gone) => {
                self.end(state, gone);
                Err(gone)
            }
        }
    }

    /// Ends the partition: whoever waits is answered with `gone`.
    pub(crate) fn close(&self, gone: Gone) {
        self.end(&mut self.state.lock(), gone);
    }

    fn end(&self, state: &mut MutexGuard<'_, State>, gone: Gone) {
        if state.gone.is_some() {
            return;
        }
        state.gone = Some(gone);
        let mut wakers = Vec::new();
        for waiting in std::mem::take(&mut state.in_flight) {
            waiting.wakers.drain(&mut wakers);
        }
        let fetches = std::mem::take(&mut state.waiters);
        self.shared.metrics.gate_refused.inc_by(wakers.len() as u64);
        self.shared.metrics.open.dec();
        self.shared.metrics.producers.dec_by(state.producers_counted);
        state.producers_counted = 0;
        // Waking only schedules: no waiter runs inside this section.
        wakers.into_iter().for_each(Waker::wake);
        fetches.into_values().for_each(|fetch| fetch.notify());
    }

    pub(crate) fn poll_durable(&self, end: i64, waker: &Waker) -> Poll<Result<(), Gone>> {
        let mut state = self.state.lock();
        if state.high_watermark >= end {
            return Poll::Ready(Ok(()));
        }
        if let Some(gone) = state.gone {
            return Poll::Ready(Err(gone));
        }
        let at = state.in_flight.partition_point(|waiting| waiting.end < end);
        let waiting = state.in_flight.get_mut(at).expect("what is not durable is in flight");
        waiting.wakers.add(waker);
        Poll::Pending
    }
}

/// Bytes charged to the memory budget for one producer: its batches and its places in two maps.
const PRODUCER_MEMORY_BYTES: u64 = 384;

impl storage::DurableListener for Partition {
    fn durable(&self, lsn: Lsn) {
        let mut wakers = Vec::new();
        let fetches: Vec<FetchWaiter> = {
            let mut state = self.state.lock();
            if state.in_flight.front().is_none_or(|first| first.position >= lsn)
                || self.check_gate(&mut state).is_err()
            {
                return;
            }
            let mut times = self.time_index.lock();
            while state.in_flight.front().is_some_and(|first| first.position < lsn) {
                let durable = state.in_flight.pop_front().expect("just seen");
                state.high_watermark = durable.end;
                let InFlight { start, end, max_timestamp, bytes, .. } = durable;
                times.note(start, end, max_timestamp, bytes);
                durable.wakers.drain(&mut wakers);
            }
            state.waiters.values().cloned().collect()
        };
        wakers.into_iter().for_each(Waker::wake);
        fetches.iter().for_each(FetchWaiter::notify);
    }
}

/// Whether `node` owns partition `id` under `epoch`.
pub(crate) fn owned(
    image: &meta::Image,
    id: PartitionId,
    node: NodeId,
    epoch: StreamEpoch,
) -> Result<(), Gone> {
    let topic = image.topics.get(&id.topic).ok_or(Gone::Deleted)?;
    let index = usize::try_from(id.index).map_err(|_| Gone::Deleted)?;
    let partition = topic.partitions.get(index).ok_or(Gone::Deleted)?;
    if partition.leader == Some(node) && partition.epoch == epoch {
        Ok(())
    } else {
        Err(Gone::NotLeader)
    }
}

fn append_error(error: &storage::AppendError, bytes: usize) -> AppendError {
    use storage::AppendError as Storage;
    match error {
        Storage::Full => AppendError::Full,
        Storage::TooLarge => AppendError::TooLarge { bytes },
        Storage::TooFarAhead { .. } => AppendError::TooFarAhead,
        Storage::StaleEpoch { .. } | Storage::NotOpen(_) => AppendError::Gone(Gone::NotLeader),
        Storage::Closed => AppendError::Gone(Gone::Stopping),
        Storage::OutOfOrder { .. } => panic!("the partition is the only writer of its streams: {error}"),
    }
}
