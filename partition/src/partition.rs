//! One partition: the single writer's mutex section, and what it guards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use common::{Clock, Lsn, NodeId, PartitionId, StreamEpoch, StreamId, StreamKind, failpoint};
use parking_lot::Mutex;
use storage::{NewEntry, Storage};
use uuid::Uuid;

use crate::config::TopicConfig;
use crate::epochs::{EpochStart, Epochs};
use crate::error::{AppendError, Gone};
use crate::index::{self, IndexKind};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::producers::{BatchMemory, Producer, Producers, Sequenced, Verdict};
use crate::snapshot;
use crate::state::{Mark, StateKind};
use crate::time_index::TimeIndex;
use crate::validate::Checked;
use crate::wake::{FetchWaiter, Pending, Wakers};

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

/// A cut of a sink that is to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenCut {
    /// The sink.
    pub sink: u64,
    /// First offset of the cut.
    pub start: i64,
    /// The lowest log start that was in force while it was planned.
    pub planned_under: i64,
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
pub(crate) struct Shared {
    pub storage: Storage,
    pub meta: meta::Handle,
    pub lease: meta::Lease,
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
    /// A coordinator keeps its image in the state stream.
    pub(crate) is_coordinated: bool,
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
    /// Snapshots in the state stream, oldest first, as far as this opening wrote or read them.
    pub marks: BTreeMap<StateKind, Vec<Mark>>,
    /// First offset of the open cut of each sink that has told since the opening; `None` when it has no open cut.
    pub cuts: BTreeMap<u64, Option<i64>>,
    /// Producers counted in the gauge.
    pub producers_counted: i64,
}

/// A queued batch that is not durable yet.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub position: Lsn,
    pub start: i64,
    pub end: i64,
    pub max_timestamp: i64,
    pub bytes: u64,
    pub wakers: Wakers,
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
        // Subscribed before the append that is refused: room made in between is not missed.
        let mut space = self.shared.storage.wal_space();
        loop {
            match self.append(batch, origin) {
                Err(error) if error.waits_for_space() => {
                    self.shared.storage.kick();
                    let room = tokio::time::timeout_at(deadline, space.changed()).await;
                    if !matches!(room, Ok(Ok(()))) {
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
        if let Some(original) = judge(&state, sequenced.as_ref())? {
            return Ok(self.duplicate(&state, original));
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

    pub(crate) fn entry<'a>(
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

    fn duplicate(self: &Arc<Self>, state: &State, original: BatchMemory) -> Appended {
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

    pub(crate) fn set_config(&self, config: Arc<TopicConfig>) {
        self.state.lock().config = config;
    }
}

/// The original when the batch is a repeat.
fn judge(state: &State, batch: Option<&Sequenced>) -> Result<Option<BatchMemory>, AppendError> {
    let Some(batch) = batch else { return Ok(None) };
    let Sequenced { producer_id, epoch, first_sequence, .. } = *batch;
    match state.producers.check(batch) {
        Verdict::Append => Ok(None),
        Verdict::Duplicate(original) => Ok(Some(original)),
        Verdict::Fenced { current } => {
            Err(AppendError::InvalidProducerEpoch { producer_id, epoch, current })
        }
        Verdict::OutOfOrder { expected } => {
            Err(AppendError::OutOfOrderSequence { producer_id, epoch, first_sequence, expected })
        }
    }
}

pub(crate) fn append_error(error: &storage::AppendError, bytes: usize) -> AppendError {
    use storage::AppendError as Storage;
    match error {
        Storage::Full => AppendError::Full,
        Storage::TooLarge => AppendError::TooLarge { bytes },
        Storage::TooFarAhead { .. } => AppendError::TooFarAhead,
        Storage::StaleEpoch { .. } | Storage::NotOpen(_) => AppendError::Gone(Gone::NotLeader),
        Storage::Closed => AppendError::Gone(Gone::Stopping),
        Storage::OutOfOrder { .. } => {
            panic!("the partition is the only writer of its streams: {error}")
        }
    }
}
