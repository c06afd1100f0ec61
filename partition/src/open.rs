//! Opening a partition: the newest snapshot, then batch headers from there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::{PartitionId, StreamEpoch, StreamKind};
use parking_lot::Mutex;
use protocol::batch::Header;
use storage::{Bounds, Class, Entry};

use crate::config::TopicConfig;
use crate::epochs::{EpochStart, Epochs};
use crate::error::{Gone, OpenError};
use crate::index::IndexKind;
use crate::partition::{Partition, Shared, State};
use crate::producers::Producers;
use crate::read::corrupt;
use crate::snapshot;
use crate::state::StateKind;
use crate::time_index::TimeIndex;
use crate::validate::sequenced;

/// Opens partition `id` under the epoch that the image gives it. Cancel safe: a dropped opening closes its streams.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    id: PartitionId,
) -> Result<Arc<Partition>, OpenError> {
    let image = shared.meta.image();
    let unknown = OpenError::Unknown { topic: id.topic, index: id.index };
    let topic = image.topics.get(&id.topic).ok_or_else(|| unknown.clone())?;
    let index = usize::try_from(id.index).map_err(|_| unknown.clone())?;
    let meta = topic.partitions.get(index).ok_or(unknown)?;
    if meta.leader != Some(shared.node) {
        return Err(Gone::NotLeader.into());
    }
    let config = Arc::new(shared.options.resolver.resolve(&image, topic));
    let partition = Arc::new(Partition {
        id,
        topic_name: topic.name.clone(),
        topic_id: topic.id,
        epoch: meta.epoch,
        is_coordinated: topic.internal,
        shared: Arc::clone(shared),
        state: Mutex::new(empty(shared, meta.epoch, config, image.applied)),
        time_index: Mutex::new(TimeIndex::new(0, shared.options.time_points_max)),
    });
    let listener: Arc<dyn storage::DurableListener> = partition.clone();
    shared.storage.open_partition(id, meta.epoch, listener).await.map_err(open_error)?;
    shared.metrics.open.inc();
    let mut opening = Opening { partition: &partition, done: false };
    load(&partition).await?;
    partition.gate()?;
    opening.done = true;
    drop(opening);
    Ok(partition)
}

/// Closes the streams again unless the opening succeeded.
struct Opening<'a> {
    partition: &'a Partition,
    done: bool,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.partition.close(Gone::NotLeader);
            self.partition.shared.storage.close_partition(self.partition.id);
        }
    }
}

fn empty(shared: &Shared, epoch: StreamEpoch, config: Arc<TopicConfig>, gate_seen: u64) -> State {
    State {
        gone: None,
        gate_seen,
        announced: false,
        data_end: 0,
        index_end: 0,
        state_end: 0,
        high_watermark: 0,
        log_start: 0,
        epochs: Epochs::default(),
        current: EpochStart { epoch: epoch.0, start_offset: 0 },
        producers: Producers::new(shared.options.producers_max),
        in_flight: VecDeque::new(),
        batches_since_snapshot: 0,
        index_since_snapshot: 0,
        waiters: BTreeMap::new(),
        next_waiter: 0,
        config,
        memory: None,
        marks: BTreeMap::new(),
        cuts: BTreeMap::new(),
        producers_counted: 0,
    }
}

async fn load(partition: &Arc<Partition>) -> Result<(), OpenError> {
    let [data, state, index] = settled_bounds(partition).await?;
    {
        let mut known = partition.state.lock();
        known.data_end = data.end;
        known.index_end = index.end;
        known.state_end = state.end;
        known.high_watermark = data.end;
        known.log_start = data.start;
    }
    *partition.time_index.lock() =
        TimeIndex::new(data.start, partition.shared.options.time_points_max);
    let hidden_below = partition.shared.meta.cleaning(partition.id).await;
    let hidden_below = hidden_below
        .map_err(|error| OpenError::Unavailable { reason: error.to_string() })?
        .hidden_below;
    partition.see_start(hidden_below);
    let (mut epochs, index_replayed) = load_epochs(partition, index).await?;
    let (producers, data_replayed) = load_producers(partition, data).await?;
    let mut known = partition.state.lock();
    known.current = EpochStart { epoch: partition.epoch.0, start_offset: data.end };
    if let Some(last) = epochs.starts().last().filter(|last| last.epoch == partition.epoch.0) {
        known.announced = true;
        known.current = *last;
    }
    epochs.truncate_below(known.log_start);
    known.epochs = epochs;
    known.producers = producers;
    known.batches_since_snapshot = data_replayed;
    known.index_since_snapshot = index_replayed;
    partition.account_producers(&mut known, 0);
    Ok(())
}

/// Bounds of the three streams once all that was queued on them is durable. Only a partition that was closed and is
/// opened again within a group's time has to wait.
async fn settled_bounds(partition: &Partition) -> Result<[Bounds; 3], OpenError> {
    const TRIES_MAX: u32 = 2_000;
    let storage = &partition.shared.storage;
    for _ in 0..TRIES_MAX {
        let [data, state, index] =
            StreamKind::ALL.map(|kind| storage.bounds(partition.stream(kind)));
        let (Some(data), Some(state), Some(index)) = (data, state, index) else {
            return Err(Gone::NotLeader.into());
        };
        let bounds = [data, state, index];
        if bounds.iter().all(|bounds| bounds.durable_end == bounds.end) {
            return Ok(bounds);
        }
        storage.kick();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(OpenError::Unavailable { reason: "what was queued before does not become durable".into() })
}

async fn load_epochs(
    partition: &Arc<Partition>,
    bounds: Bounds,
) -> Result<(Epochs, u64), OpenError> {
    let found = partition.read_state(StateKind::EPOCHS, bounds.end).await?;
    let (mut epochs, mut at) = match found {
        Some(found) => {
            let epochs = snapshot::decode_epochs(found.version, &found.payload);
            (epochs.map_err(|damaged| corrupt(found.valid_for, &damaged))?, found.valid_for)
        }
        None => (Epochs::default(), bounds.start),
    };
    let replayed = bounds.end.abs_diff(at);
    let bytes_max = partition.shared.options.scan_bytes_max;
    while at < bounds.end {
        let page = partition.read_index(IndexKind::LEADER_EPOCH, at, bytes_max).await?;
        for record in page.records {
            let start = snapshot::decode_epoch_start(&mut record.payload.clone());
            epochs.assign(start.map_err(|damaged| corrupt(record.offset, &damaged))?);
        }
        at = progress(at, page.next)?;
    }
    Ok((epochs, replayed))
}

async fn load_producers(
    partition: &Arc<Partition>,
    bounds: Bounds,
) -> Result<(Producers, u64), OpenError> {
    let options = &partition.shared.options;
    let mut producers = Producers::new(options.producers_max);
    let mut at = bounds.start;
    if let Some(found) = partition.read_state(StateKind::PRODUCERS, bounds.end).await? {
        snapshot::decode_producers(found.version, &found.payload, &mut producers)
            .map_err(|damaged| corrupt(found.valid_for, &damaged))?;
        at = found.valid_for.max(bounds.start);
    }
    let stream = partition.stream(StreamKind::Data);
    let now_ms = partition.shared.clock.now_ms();
    let mut replayed = 0;
    while at < bounds.end {
        let storage = &partition.shared.storage;
        let read = storage.read(stream, at, bounds.end, options.scan_bytes_max, Class::Tail).await;
        let read = read.map_err(|error| partition.read_error(error))?;
        for entry in &read.entries {
            replay(entry, now_ms, &mut producers)?;
            replayed += 1;
        }
        at = progress(at, read.next)?;
    }
    Ok((producers, replayed))
}

fn progress(at: i64, next: i64) -> Result<i64, OpenError> {
    if next > at {
        return Ok(next);
    }
    Err(OpenError::Unavailable { reason: format!("reading at offset {at} does not move on") })
}

fn replay(entry: &Entry, now_ms: i64, producers: &mut Producers) -> Result<(), OpenError> {
    let header = Header::parse(&entry.bytes).map_err(|error| corrupt(entry.base_offset, &error))?;
    if let Some(sequenced) = sequenced(&header) {
        let log_append_time =
            if header.attributes.append_time() { header.max_timestamp } else { -1 };
        producers.note(&sequenced, entry.base_offset, log_append_time, now_ms);
    }
    Ok(())
}

fn open_error(error: storage::OpenPartitionError) -> OpenError {
    use storage::OpenPartitionError as Storage;
    match error {
        Storage::Unknown(id) => OpenError::Unknown { topic: id.topic, index: id.index },
        Storage::Gap { .. } => OpenError::Corrupt { reason: error.to_string() },
        Storage::Meta(reason) => OpenError::Unavailable { reason },
        Storage::Sealed(_) | Storage::NotOwner(_) => Gone::NotLeader.into(),
        Storage::Closed => Gone::Stopping.into(),
    }
}
