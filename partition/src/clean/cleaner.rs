//! The task that cleans the partitions of a broker.

use std::sync::Arc;
use std::time::Duration;

use common::{PartitionId, Rng, Shutdown, StreamEpoch, StreamKind};
use meta::Reply;
use meta::command::AdvanceRetention;
use parking_lot::Mutex;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::retention::{self, Extent, Facts, Passed, Verdict};
use super::start::{self, StartError};
use super::{floors, trim};
use crate::config::TopicConfig;
use crate::index::IndexKind;
use crate::partition::Partition;
use crate::registry::Partitions;

/// Ranges of a stream index looked at in one step.
const RANGES_MAX: usize = 256;
/// A wall clock that runs so much ahead of retention time is told of.
const JUMP_MS: i64 = 60_000;
/// Version of the index record that names what a sink will never get.
const SKIPPED_VERSION: u16 = 1;

/// Longest time between two looks for what is to be compacted.
const COMPACT_PAUSE_MAX: Duration = Duration::from_secs(15);

/// Visits every partition of this broker once in [`crate::Options::clean_interval`]. One task, owned by the broker.
pub struct Cleaner {
    pub(super) partitions: Partitions,
    pub(super) rng: Rng,
    clock: Mutex<RetentionClock>,
}

/// Retention time, as this process moves it.
#[derive(Default)]
struct RetentionClock {
    /// Monotonic time of the last round; `None` before the first.
    last: Option<Duration>,
    at_ms: Option<i64>,
    jumped: bool,
}

/// A partition to visit.
#[derive(Clone, Copy)]
struct Visit {
    id: PartitionId,
    epoch: StreamEpoch,
}

impl Cleaner {
    /// A cleaner of `partitions`.
    #[must_use]
    pub fn new(partitions: Partitions, rng: Rng) -> Self {
        Self { partitions, rng, clock: Mutex::default() }
    }

    /// Runs until `shutdown`. A round that is dropped half way is taken up by the next one. A long pass of compaction
    /// does not hold retention.
    pub async fn run(self, shutdown: Shutdown) {
        let pause = self.partitions.options().clean_interval;
        let retention = async {
            loop {
                sleep(pause).await;
                self.round().await;
            }
        };
        let compaction = async {
            loop {
                sleep(pause.min(COMPACT_PAUSE_MAX)).await;
                if let Some(now_ms) = self.advance().await {
                    self.compact_round(now_ms).await;
                }
            }
        };
        // Neither ends by itself.
        let both = async { tokio::join!(retention, compaction) };
        let _: Option<((), ())> = shutdown.run_until_cancelled(both).await;
    }

    /// One round of retention over all partitions. Failures are logged and left to the next round.
    pub async fn round(&self) {
        let Some(now_ms) = self.advance().await else { return };
        let image = self.partitions.shared().meta.image();
        for topic in image.topics.values() {
            let config = self.partitions.options().resolver.resolve(&image, topic);
            for (index, partition) in (0_u32..).zip(&topic.partitions) {
                if partition.leader != Some(self.partitions.shared().node) {
                    continue;
                }
                let id = PartitionId { topic: topic.number, index };
                let visit = Visit { id, epoch: partition.epoch };
                if let Err(error) = self.visit(visit, &config, now_ms).await {
                    debug!(partition = %id, %error, "cleaning is left to the next round");
                    self.partitions.metrics().clean_errors.inc();
                }
            }
        }
        self.partitions.metrics().clean_rounds.inc();
    }

    /// Moves retention time on by the monotonic time since the last round, and no further.
    ///
    /// Two callers at once share one step: the second finds that no time has passed.
    pub async fn advance(&self) -> Option<i64> {
        let shared = self.partitions.shared();
        let elapsed = shared.clock.elapsed();
        let now_ms = shared.clock.now_ms();
        // Taken before the question: a step that is not answered is not told again, so the time never runs too fast.
        let last = self.clock.lock().last.replace(elapsed);
        let since = elapsed.saturating_sub(last.unwrap_or(elapsed));
        let command = AdvanceRetention {
            node: shared.node.0,
            now_ms,
            elapsed_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            started: last.is_none(),
        };
        match shared.meta.propose(command).await {
            Ok(Reply::RetentionTime { at_ms }) => {
                let behind_ms = now_ms.saturating_sub(at_ms);
                shared.metrics.retention_behind.set(behind_ms / 1000);
                let jumped = behind_ms > JUMP_MS;
                let mut clock = self.clock.lock();
                if jumped && !clock.jumped {
                    warn!(
                        behind_ms,
                        "the wall clock runs ahead of the time that has passed; retention goes by the latter"
                    );
                }
                clock.jumped = jumped;
                clock.at_ms = clock.at_ms.max(Some(at_ms));
                clock.at_ms
            }
            other => {
                debug!(?other, "retention time stands still: metadata does not answer");
                shared.metrics.clean_errors.inc();
                None
            }
        }
    }

    async fn visit(
        &self,
        visit: Visit,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Result<(), StartError> {
        let ages = config.retention_ms >= 0 || config.retention_bytes >= 0;
        if config.deleted_by_age && ages {
            self.retain(visit, config, now_ms).await?;
        }
        if let Some(partition) = self.partitions.opened(visit.id) {
            partition.release_hidden().await?;
            trim::state(&partition).await?;
            trim::index(&partition).await?;
        }
        Ok(())
    }

    /// Retention of one partition.
    async fn retain(
        &self,
        visit: Visit,
        config: &TopicConfig,
        now_ms: i64,
    ) -> Result<(), StartError> {
        let shared = self.partitions.shared();
        let stream = visit.id.stream(StreamKind::Data);
        loop {
            let index = shared.meta.stream_index(stream, 0, RANGES_MAX).await;
            let index = index.map_err(|error| StartError::Unavailable(error.to_string()))?;
            let ranges: Vec<Extent> = index.objects.iter().map(extent).collect();
            let floors = floors::of(&shared.meta.image(), visit.id, index.start);
            let mut log_start = index.start;
            if !floors.is_empty() {
                // What is hidden already and held for a cut is not decided again.
                let known = shared.meta.cleaning(visit.id).await;
                let known = known.map_err(|error| StartError::Unavailable(error.to_string()))?;
                log_start = log_start.max(known.hidden_below);
            }
            let verdict = retention::decide(&Facts {
                log_start,
                ranges: &ranges,
                bytes: index.bytes,
                now_ms,
                retention_ms: config.retention_ms,
                retention_bytes: config.retention_bytes,
                floors: &floors,
            });
            self.tell(visit.id, &verdict);
            if verdict.start <= log_start {
                return Ok(());
            }
            let unprotected = floors.iter().any(|floor| floor.offset < verdict.start);
            if unprotected {
                self.pass_sinks(visit.id, &verdict).await?;
            } else {
                let open = self.partitions.opened(visit.id);
                start::move_data(shared, visit.id, visit.epoch, open.as_ref(), verdict.start)
                    .await?;
            }
            shared.metrics.retention_moves.inc();
            let all = ranges.last().is_some_and(|last| last.end <= verdict.start);
            // What a cut holds does not go now: looking again would find it again.
            if unprotected || !(index.more && all) {
                return Ok(());
            }
        }
    }

    fn tell(&self, id: PartitionId, verdict: &Verdict) {
        let metrics = self.partitions.metrics();
        if verdict.held_bytes > 0 {
            metrics.retention_held.inc_by(verdict.held_bytes);
        }
        for sink in &verdict.nearing {
            metrics.protect_nearing.inc();
            warn!(
                partition = %id,
                sink,
                "a sink is so far behind that its records will soon be deleted: \
                 sink.protect.size.max.bytes or sink.protect.age.max.ms is nearly reached"
            );
        }
    }

    /// Moves the start past what sinks have not cut: the ledger names it first.
    async fn pass_sinks(&self, id: PartitionId, verdict: &Verdict) -> Result<(), StartError> {
        let opened = self.partitions.get(id).await;
        let partition = opened.map_err(|error| StartError::Unavailable(error.to_string()))?;
        for passed in &verdict.passed {
            name_skipped(&partition, *passed).await?;
            self.partitions.metrics().protect_passed.inc();
            warn!(
                partition = %id,
                sink = passed.sink,
                start = passed.start,
                end = passed.end,
                "records that a sink had not cut are deleted by its own bound of protection"
            );
        }
        partition.remove_below(verdict.start).await
    }
}

pub(crate) fn extent(range: &meta::ObjectRange) -> Extent {
    let meta::ObjectRange { start, end, bytes, max_timestamp, .. } = *range;
    Extent { start, end, bytes, max_timestamp }
}

/// Writes into the ledger what a sink will never get, and waits until that is durable.
async fn name_skipped(partition: &Arc<Partition>, passed: Passed) -> Result<(), StartError> {
    let mut payload = Vec::with_capacity(24);
    payload.extend_from_slice(&passed.sink.to_le_bytes());
    payload.extend_from_slice(&passed.start.to_le_bytes());
    payload.extend_from_slice(&passed.end.to_le_bytes());
    let unavailable = |error: &dyn std::fmt::Display| StartError::Unavailable(error.to_string());
    let position = partition
        .append_index(IndexKind::SKIPPED, SKIPPED_VERSION, &payload)
        .map_err(|error| unavailable(&error))?;
    let uploaded = partition.shared.storage.upload_through(position.lsn).await;
    uploaded.map_err(|error| unavailable(&error))
}
