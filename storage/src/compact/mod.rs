//! Object compaction: what many small ranges hold moves into few large objects, entry for entry.
//!
//! ```text
//! plan (pure) -> read blocks -> write blocks, in parts -> prove -> swap in metadata (fenced, all or nothing)
//! ```
//! Whatever happens before the swap leaves an object that nothing names: its id expires and it is deleted. A swap that
//! loses a race (log start moved, topic deleted, other owner, another swap) is given up without harm.
//!
//! One task, `compactor`, owned by [`crate::Storage`] and ended by its close. [`crate::Storage::rewrite`] is the same
//! machinery for callers that decide about entries: topic compaction.

mod commit;
#[cfg(test)]
mod day_tests;
mod digest;
mod job;
mod metrics;
mod output;
mod plan;
mod source;
mod task;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use common::metrics::Registry;
use common::{ObjectId, Rng, StreamEpoch, StreamId, WalEpoch, WalId};
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Duration, Instant, sleep_until};

use crate::core::Core;
use crate::object::Kind;
use crate::options::Options;
use crate::types::Entry;
pub use digest::Digest;
use job::{Job, Part};
use metrics::Metrics;
pub(crate) use task::Task;

/// What becomes of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays, byte for byte.
    Keep,
    /// It goes; its offsets become a hole.
    Drop,
    /// Other bytes take its place, under the same base offset and span.
    Replace {
        /// The new payload.
        bytes: Bytes,
        /// Records in it, at most the entry's span.
        count: u64,
        /// Highest timestamp in it, milliseconds since 1970, or -1.
        max_timestamp: i64,
    },
}

/// Decides about the entries of a rewrite. An error gives the rewrite up; nothing has changed then.
pub trait Filter: Send {
    /// What becomes of `entry`. Called once for each entry that lies inside the asked offsets, ascending.
    ///
    /// # Errors
    /// When the entry cannot be judged.
    fn entry(&mut self, entry: &Entry) -> Result<Verdict, String>;

    /// Called when the output is durable, before it is committed: `input` and `output` were counted from what was read
    /// and from what was written, over the whole rewritten range. The machinery has checked that the output is what the
    /// verdicts say.
    ///
    /// # Errors
    /// When the result must not be committed.
    fn prove(&mut self, input: &Digest, output: &Digest) -> Result<(), String>;
}

/// What a rewrite did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// The offsets `[start, end)` whose objects were replaced: the asked ones, widened to whole ranges of the index.
    pub range: Range<i64>,
    /// The new objects.
    pub objects: Vec<ObjectId>,
    /// What was read.
    pub input: Digest,
    /// What was written.
    pub output: Digest,
}

/// Why nothing was replaced. Readers see what they saw before.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompactError {
    /// No whole range of objects lies there.
    #[error("no object holds anything there that could be rewritten")]
    Nothing,
    /// Another change was faster; plan again.
    #[error("{detail}")]
    Lost {
        /// One word, for a metric.
        reason: &'static str,
        /// What happened.
        detail: String,
    },
    /// An input cannot be proved intact; an operator must look.
    #[error("{0}")]
    Damaged(String),
    /// The output is not what it should be, or the filter refused: a bug.
    #[error("a rewrite could not be proved and was given up: {0}")]
    Unproved(String),
    /// The store or metadata does not answer; try again.
    #[error("storage is not reachable, try again: {0}")]
    Unavailable(String),
    /// The storage is closed.
    #[error("storage is closed")]
    Closed,
}

impl CompactError {
    /// One word, for a metric.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Lost { reason, .. } => reason,
            Self::Damaged(_) => "damaged",
            Self::Unproved(_) => "unproved",
            Self::Unavailable(_) => "unavailable",
            Self::Closed => "closed",
        }
    }
}

/// Runs jobs. Shared by the task and by callers of [`crate::Storage::rewrite`].
pub(crate) struct Compactor {
    pub core: Arc<Core>,
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
    pub meta: meta::Handle,
    pub rng: Rng,
    pub options: Options,
    pub id: WalId,
    pub epoch: WalEpoch,
    pub metrics: Metrics,
    /// Jobs at a time; each holds a part and a few blocks.
    jobs: Semaphore,
    /// Requests in flight.
    requests: Semaphore,
    /// When the bytes read so far are paid for.
    paid: Mutex<Option<Instant>>,
}

/// The parts of a compactor.
pub(crate) struct Parts {
    pub core: Arc<Core>,
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
    pub meta: meta::Handle,
    pub rng: Rng,
    pub options: Options,
    pub id: WalId,
    pub epoch: WalEpoch,
    pub registry: Registry,
}

impl Compactor {
    pub fn new(parts: Parts) -> Self {
        let Parts { core, store, prefix, meta, rng, options, id, epoch, registry } = parts;
        let metrics = Metrics::register(&registry);
        let jobs = Semaphore::new(options.compaction_jobs_max.max(1));
        let requests = Semaphore::new(options.compaction_requests_max.max(1));
        let paid = Mutex::new(None);
        Self { core, store, prefix, meta, rng, options, id, epoch, metrics, jobs, requests, paid }
    }

    async fn permit(&self) -> SemaphorePermit<'_> {
        self.requests.acquire().await.expect("this semaphore is never closed")
    }

    /// Keeps the bytes read below `compaction_bytes_per_second`, with bursts of a quarter second.
    async fn pace(&self, bytes: u64) {
        let rate = self.options.compaction_bytes_per_second.max(1);
        let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let now = Instant::now();
        let paid = {
            let mut paid = self.paid.lock();
            let next = paid.unwrap_or(now).max(now) + cost;
            *paid = Some(next);
            next
        };
        if paid > now + Duration::from_millis(250) {
            sleep_until(paid).await;
        }
    }

    /// See [`crate::Storage::rewrite`].
    pub async fn rewrite(
        &self,
        stream: StreamId,
        range: Range<i64>,
        epoch: StreamEpoch,
        filter: &mut dyn Filter,
    ) -> Result<Rewritten, CompactError> {
        let _slot = self.jobs.acquire().await.expect("this semaphore is never closed");
        let inputs = self.inputs(stream, range.clone()).await?;
        let whole = inputs[0].start..inputs[inputs.len() - 1].end;
        let part = Part { stream, epoch, inputs };
        let object_bytes_max = self.options.compaction_object_bytes_max;
        let job = Job { kind: Kind::Stream, parts: vec![part], object_bytes_max };
        let done = self.run(&job, Some((range, filter))).await?;
        let (input, output) = done.digests[0];
        Ok(Rewritten { range: whole, objects: done.objects, input, output })
    }

    /// The ranges of `stream` that overlap `range`, without one that begins below the log start.
    async fn inputs(
        &self,
        stream: StreamId,
        range: Range<i64>,
    ) -> Result<Vec<meta::ObjectRange>, CompactError> {
        const PAGE: usize = 1024;
        let mut inputs: Vec<meta::ObjectRange> = Vec::new();
        let mut from = range.start;
        loop {
            let page = self.meta.stream_index(stream, from, PAGE).await;
            let page = page.map_err(|error| CompactError::Unavailable(error.to_string()))?;
            for found in page.objects {
                if found.start < page.start || found.end <= range.start {
                    continue;
                }
                let follows = inputs.last().is_none_or(|last| last.end == found.start);
                if found.start >= range.end || !follows {
                    return if inputs.is_empty() { Err(CompactError::Nothing) } else { Ok(inputs) };
                }
                from = found.end;
                inputs.push(found);
                if inputs.len() >= self.options.compaction_ranges_max {
                    return Ok(inputs);
                }
            }
            if !page.more {
                return if inputs.is_empty() { Err(CompactError::Nothing) } else { Ok(inputs) };
            }
        }
    }
}
