//! Topic compaction, carried out: metadata says what is due, the partition is read twice, the storage rewrites its
//! objects.
//!
//! ```text
//! due? (stream index) -> map the dirty part -> rewrite range by range (proved, swapped) -> note the clean end
//! ```
//! A crash anywhere leaves ranges that are rewritten or not; the next pass begins at the clean end that was noted and
//! finds nothing to do in what was done.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{PartitionId, StreamEpoch, StreamKind, failpoint};
use meta::Reply;
use meta::command::SetCleaning;
use storage::{Class, CompactError, Digest, Entry};
use tracing::{debug, error, info};

use super::Cleaner;
use super::cleaner::extent;
use super::floors;
use super::start::{StartError, refused};
use crate::compact::{
    AbortedTransaction, Builder, Due, Fate, Grown, KeyHash, LastOfProducer, Pass, Plan, plan,
};
use crate::config::TopicConfig;
use crate::partition::Partition;
use crate::read::{Isolation, ReadRequest};
use crate::time_index::TimeIndex;

/// Ranges of a stream index asked for at once.
const RANGES_MAX: usize = 1024;
/// Bytes of the log read at once while the keys are mapped.
const READ_BYTES: u64 = 1 << 20;
/// Times that a rewrite which lost against another change is tried again.
const LOST_TRIES_MAX: u32 = 3;

#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Read(#[from] crate::error::ReadError),
    #[error(transparent)]
    Compact(#[from] crate::compact::Error),
    #[error(transparent)]
    Rewrite(#[from] CompactError),
    #[error("{0}")]
    Open(#[from] crate::error::OpenError),
}

impl Cleaner {
    /// One round of topic compaction over the partitions of this broker, at retention time `now_ms`. Failures are
    /// logged and left to the next round.
    pub async fn compact_round(&self, now_ms: i64) {
        let shared = self.partitions.shared();
        let image = shared.meta.image();
        for topic in image.topics.values() {
            let config = self.partitions.options().resolver.resolve(&image, topic);
            if !config.compacted {
                continue;
            }
            for (index, partition) in (0_u32..).zip(&topic.partitions) {
                if partition.leader != Some(shared.node) {
                    continue;
                }
                let id = PartitionId { topic: topic.number, index };
                if let Err(failure) = self.compact_one(id, &config, now_ms).await {
                    shared.metrics.compact_errors.inc();
                    match failure {
                        PassError::Compact(_)
                        | PassError::Rewrite(
                            CompactError::Unproved(_) | CompactError::Damaged(_),
                        ) => {
                            error!(partition = %id, %failure, "topic compaction was given up; nothing was changed");
                        }
                        failure => {
                            debug!(partition = %id, %failure, "topic compaction is left to the next round");
                        }
                    }
                }
            }
        }
    }

    async fn compact_one(
        &self,
        id: PartitionId,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Result<(), PassError> {
        let Some(found) = self.due(id, config, now_ms, i64::MAX).await? else { return Ok(()) };
        let partition = self.partitions.get(id).await?;
        let offsets = partition.offsets();
        let bound = offsets.last_stable.min(offsets.committed_end);
        let mut next = if found.until <= bound {
            Some(found)
        } else {
            self.due(id, config, now_ms, bound).await?
        };
        // Where the keys were too many for one map, the next pass goes on.
        while let Some(plan) = next {
            let end = self.pass(&partition, plan, config, now_ms).await?;
            let goes_on = end > plan.from && end < plan.until;
            next = goes_on.then_some(Plan { from: end, until: plan.until });
        }
        Ok(())
    }

    /// Judges by the stream index alone; `bound` is what the open partition adds.
    async fn due(
        &self,
        id: PartitionId,
        config: &TopicConfig,
        now_ms: i64,
        bound: i64,
    ) -> Result<Option<Plan>, PassError> {
        let shared = self.partitions.shared();
        let meta_failed = |error: meta::ReadError| StartError::Unavailable(error.to_string());
        let known = shared.meta.cleaning(id).await.map_err(meta_failed)?;
        let stream = id.stream(StreamKind::Data);
        let mut ranges = Vec::new();
        let (mut from, mut until) = (0, bound);
        let log_start = loop {
            let index = shared.meta.stream_index(stream, from, RANGES_MAX).await;
            let index = index.map_err(meta_failed)?;
            until = until.min(index.committed_end);
            ranges.extend(index.objects.iter().map(extent));
            match ranges.last() {
                Some(last) if index.more => from = last.end,
                _ => break index.start,
            }
        };
        let floors = floors::of(&shared.meta.image(), id, log_start);
        // Protected or not: the files of a cut must come out the same when they are written again.
        let until = floors.iter().map(|floor| floor.offset).fold(until, i64::min);
        Ok(plan(&Due {
            ranges: &ranges,
            clean_end: known.clean_end,
            until,
            now_ms,
            ratio_min_ppm: config.dirty_ratio_min_ppm,
            lag_min_ms: config.compaction_lag_min_ms,
            lag_max_ms: config.compaction_lag_max_ms,
            horizon_ms: known.horizon_ms,
        }))
    }

    /// One pass; returns the new clean end.
    async fn pass(
        &self,
        partition: &Arc<Partition>,
        plan: Plan,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Result<i64, PassError> {
        let shared = &partition.shared;
        let began = shared.clock.elapsed();
        let log_start = partition.kept_from();
        let keys_max = shared.options.compaction_keys_max;
        let hash = KeyHash::random(&self.rng);
        let aborted = self::aborted(partition, plan.from, plan.until);
        let mut builder = Builder::new(hash, &aborted, keys_max, plan.from, plan.until);
        let _memory = map_keys(partition, plan, &mut builder).await?;
        let (map, end) = builder.finish();
        failpoint::hit("partition.compact.mapped");
        let aborted = self::aborted(partition, log_start, end);
        let producers = partition.last_of_producers();
        let retention = config.delete_retention_ms;
        let mut pass = Pass::new(&map, end, &aborted, &producers, now_ms, retention);
        rewrite(partition, log_start, end, &mut pass).await?;
        self.note(partition, end, pass.horizon()).await?;
        failpoint::hit("partition.compact.noted");
        let (read, kept) = pass.counts();
        let metrics = &shared.metrics;
        metrics.compact_passes.inc();
        metrics.compact_records_read.inc_by(read);
        metrics.compact_records_dropped.inc_by(read.saturating_sub(kept));
        let took = shared.clock.elapsed().saturating_sub(began);
        info!(
            partition = %partition.id,
            topic = partition.topic_name,
            from = plan.from,
            end,
            keys = map.len(),
            read,
            kept,
            seconds = took.as_secs_f64(),
            "compacted"
        );
        Ok(end)
    }

    async fn note(
        &self,
        partition: &Partition,
        clean_end: i64,
        horizon: Option<i64>,
    ) -> Result<(), StartError> {
        let command = SetCleaning {
            topic: partition.id.topic,
            index: partition.id.index,
            epoch: partition.epoch.0,
            clean_end: Some(clean_end),
            horizon_ms: Some(horizon.unwrap_or(0)),
            hidden_below: None,
        };
        match partition.shared.meta.propose(command).await {
            Ok(Reply::CleaningSet) => Ok(()),
            other => Err(refused(other)),
        }
    }
}

fn aborted(partition: &Partition, from: i64, until: i64) -> Vec<AbortedTransaction> {
    let found = partition.aborted(from, until);
    let one = |one: &crate::read::Aborted| AbortedTransaction {
        first_offset: one.first_offset,
        producer_id: one.producer_id,
    };
    found.iter().map(one).collect()
}

/// Pass 1: the keys of the dirty part. Gives the memory that the map takes.
async fn map_keys(
    partition: &Partition,
    plan: Plan,
    builder: &mut Builder,
) -> Result<common::Reservation, PassError> {
    let mut memory = partition.shared.budget.force(builder.bytes());
    let mut at = plan.from;
    while at < plan.until {
        let read = read(partition, at).await?;
        for entry in &read.batches {
            if builder.batch(entry.base_offset, &entry.bytes)? == Grown::Full {
                return Ok(memory);
            }
        }
        if builder.bytes() > memory.bytes() {
            memory = partition.shared.budget.force(builder.bytes());
        }
        at = moved_on(at, read.next)?;
        builder.cross(at);
        tokio::task::yield_now().await;
    }
    Ok(memory)
}

async fn read(partition: &Partition, at: i64) -> Result<crate::read::Entries, PassError> {
    let request = ReadRequest {
        offset: at,
        bytes_max: READ_BYTES,
        at_least_one: true,
        isolation: Isolation::Uploaded,
        class: Class::Compaction,
    };
    Ok(partition.read_kept(request).await?)
}

fn moved_on(at: i64, next: i64) -> Result<i64, PassError> {
    if next > at {
        return Ok(next);
    }
    let reason = format!("reading at offset {at} does not move on");
    Err(crate::error::ReadError::Unavailable { reason }.into())
}

/// Pass 2: everything from the log start to `end`, range by range.
async fn rewrite(
    partition: &Arc<Partition>,
    log_start: i64,
    end: i64,
    pass: &mut Pass<'_>,
) -> Result<(), PassError> {
    let (storage, stream) = (&partition.shared.storage, partition.stream(StreamKind::Data));
    let epoch = StreamEpoch(partition.leader_epoch());
    let mut at = observe_head(partition, log_start, end, pass).await?;
    let mut lost = 0;
    while at < end {
        let mut filter = Rewrite { pass: pass.clone() };
        match storage.rewrite(stream, at..end, epoch, &mut filter).await {
            Ok(done) => {
                *pass = filter.pass;
                at = moved_on(at, done.range.end)?;
                storage.prefer_objects(stream, at.min(end));
                lost = 0;
                failpoint::hit("partition.compact.rewritten");
            }
            // Merging by the storage was faster: the same records lie in other objects now.
            Err(CompactError::Lost { .. }) if lost < LOST_TRIES_MAX => lost += 1,
            Err(CompactError::Nothing) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Its highest time may have been that of a record that is gone.
    let start = partition.offsets().log_start;
    let points_max = partition.shared.options.time_points_max;
    *partition.time_index.lock() = TimeIndex::new(start, points_max);
    Ok(())
}

/// The range that the log start lies in is not rewritten, but what it holds of transactions counts. Returns where the
/// first whole range begins.
async fn observe_head(
    partition: &Partition,
    log_start: i64,
    end: i64,
    pass: &mut Pass<'_>,
) -> Result<i64, PassError> {
    let stream = partition.stream(StreamKind::Data);
    let index = partition.shared.meta.stream_index(stream, log_start, 1).await;
    let index = index.map_err(|error| StartError::Unavailable(error.to_string()))?;
    let Some(first) = index.objects.first().filter(|first| first.start < log_start) else {
        return Ok(log_start);
    };
    let until = first.end.min(end);
    let mut at = log_start;
    while at < until {
        let read = read(partition, at).await?;
        for entry in read.batches.iter().filter(|entry| entry.base_offset < until) {
            pass.observe(entry.base_offset, &entry.bytes)?;
        }
        at = moved_on(at, read.next)?;
    }
    Ok(until)
}

/// The pass as the storage asks it.
struct Rewrite<'a> {
    pass: Pass<'a>,
}

impl storage::Filter for Rewrite<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<storage::Verdict, String> {
        let fate = self.pass.batch(entry.base_offset, &entry.bytes);
        Ok(match fate.map_err(|error| error.to_string())? {
            Fate::Keep => storage::Verdict::Keep,
            Fate::Drop => storage::Verdict::Drop,
            Fate::Replace { bytes, count, max_timestamp } => {
                storage::Verdict::Replace { bytes, count, max_timestamp }
            }
        })
    }

    fn prove(&mut self, input: &Digest, output: &Digest) -> Result<(), String> {
        // Batch by batch it was proved as it was decided; here the sums.
        if output.records > input.records || output.entries > input.entries {
            return Err("the output holds more than the input".to_owned());
        }
        Ok(())
    }
}

impl Partition {
    /// Where each producer that may still write stands.
    fn last_of_producers(&self) -> BTreeMap<i64, LastOfProducer> {
        let state = self.state.lock();
        let last = |producer: &crate::producers::Producer| LastOfProducer {
            last_offset: producer.batches.back().map(|batch| batch.last_offset),
            epoch: producer.epoch,
        };
        state.producers.iter().map(|(id, producer)| (id, last(producer))).collect()
    }
}
