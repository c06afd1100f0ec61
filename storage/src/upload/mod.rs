//! Upload rounds: a durable prefix of the log becomes one object and one metadata commit; then the log is trimmed.
//!
//! ```text
//! plan -> register id -> build and put (durable) -> commit -> trim
//!   ^          ^               |                      |
//!   |          +-- id expired -+----------------------+
//!   +------------- the store fails: wait, try again, for ever
//! ```
//! One task, `uploader`, owned by [`crate::Storage`] and ended by its close. A round that is dropped half way leaves an
//! object that nothing names; its id expires and metadata has it deleted.

mod build;
mod log;
mod plan;
mod put;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Lsn, ObjectId, Rng, Shutdown, WalEpoch, WalId, failpoint};
use meta::{Reject, Reply};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, warn};

use crate::core::Core;
use crate::object::Summary;
use crate::options::Options;
pub(crate) use log::Log;
use plan::Plan;
pub(crate) use put::{Parts, same_object};

/// Why an attempt failed, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Try again after a pause.
    #[error("{0}")]
    Again(String),
    /// Try again with a new object id.
    #[error("{0}")]
    NewId(String),
    /// Try again with a smaller round.
    #[error("{0}")]
    Smaller(String),
    /// The process must end.
    #[error("{0}")]
    Fatal(String),
}

pub(crate) struct Uploader {
    pub core: Arc<Core>,
    pub log: Log,
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
    pub meta: meta::Handle,
    pub rng: Rng,
    pub options: Options,
    pub id: WalId,
    pub epoch: WalEpoch,
    pub floors: Arc<crate::floors::Floors>,
}

/// A registered object id and when it stops being usable.
#[derive(Clone, Copy)]
struct Registered {
    object: ObjectId,
    until: Instant,
}

impl Uploader {
    /// Runs until `shutdown` or a fatal failure.
    pub async fn run(self, shutdown: Shutdown) {
        loop {
            if self.core.is_closed() {
                return;
            }
            self.cover();
            let due = self.due();
            if due.is_some_and(|at| at <= Instant::now()) {
                let result = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    result = self.round() => result,
                };
                if let Err(line) = result {
                    self.core.fatal(&line);
                    return;
                }
                continue;
            }
            // The lag is shown in seconds; nothing else needs a tick.
            let tick = Instant::now() + Duration::from_secs(if due.is_some() { 1 } else { 3600 });
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.core.upload.notified() => {}
                () = sleep_until(due.map_or(tick, |at| at.min(tick))) => {}
            }
        }
    }

    /// When the next round begins, as far as is known.
    fn due(&self) -> Option<Instant> {
        let pending = self.core.tail.pending();
        let now = self.core.clock.elapsed();
        let age = pending.oldest.map(|at| now.saturating_sub(at));
        self.core.metrics.lag(age.unwrap_or_default());
        self.core.metrics.pending(pending.bytes);
        let age = age?;
        let forced = self.core.forced.load(Ordering::Acquire);
        if pending.bytes >= self.options.upload_bytes_max
            || (forced > 0 && pending.durable.0 >= forced)
        {
            return Some(Instant::now());
        }
        Some(Instant::now() + self.options.upload_age_max.saturating_sub(age))
    }

    /// Answers a forced upload that needs no round any more.
    fn cover(&self) {
        let forced = self.core.forced.load(Ordering::Acquire);
        if forced == 0 {
            return;
        }
        let lsn = Lsn(forced - 1);
        if *self.core.durable.borrow() > lsn && self.core.tail.is_covered(lsn) {
            self.advance(Lsn(forced));
            // A later request in between stays.
            let _ =
                self.core.forced.compare_exchange(forced, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    fn advance(&self, covered: Lsn) {
        self.core.covered.send_if_modified(|at| {
            let moves = covered > *at;
            *at = (*at).max(covered);
            moves
        });
    }

    /// One round, repeated until it is committed.
    ///
    /// # Errors
    /// The line with which the process must end.
    pub async fn round(&self) -> Result<(), String> {
        let mut failures = 0;
        let mut ranges_max = self.options.upload_ranges_max;
        let mut plan = self.plan(ranges_max);
        let mut registered: Option<Registered> = None;
        loop {
            match self.attempt(&mut plan, &mut registered, failures).await {
                Ok(()) => return Ok(()),
                Err(Failure::Fatal(line)) => return Err(line),
                Err(Failure::NewId(reason)) => {
                    debug!(reason, "upload goes on under a new object id");
                    registered = None;
                }
                Err(Failure::Smaller(reason)) => {
                    warn!(
                        reason,
                        ranges = plan.ranges,
                        "the round is too large, half of it will be tried"
                    );
                    ranges_max = plan.ranges / 2;
                    plan = self.plan(ranges_max);
                    registered = None;
                }
                Err(Failure::Again(reason)) => {
                    warn!(reason, failures, "upload failed, it will be tried again");
                }
            }
            failures += 1;
            self.pause(failures).await;
            if !plan.still_holds(&self.core.tail) {
                // Another layout is another object: never two contents under one id.
                plan = self.plan(ranges_max);
                registered = None;
            }
        }
    }

    fn plan(&self, ranges_max: u64) -> Plan {
        Plan::new(&self.core.tail, self.meta.image(), &self.options, ranges_max)
    }

    async fn attempt(
        &self,
        plan: &mut Plan,
        registered: &mut Option<Registered>,
        failures: u32,
    ) -> Result<(), Failure> {
        let id = match *registered {
            Some(id) if id.until > Instant::now() => id,
            _ => {
                if failures > 0 {
                    self.core.metrics.ids_renewed.inc();
                }
                *registered.insert(self.register().await?)
            }
        };
        let started = Instant::now();
        let put = self.put(plan, id.object, failures > 0).await;
        let summary = put.inspect_err(|_| self.core.metrics.error("put"))?;
        self.core.metrics.put_latency.observe(started.elapsed().as_secs_f64());
        self.core.metrics.objects_put.inc();
        self.core.metrics.objects_put_bytes.inc_by(summary.bytes);
        failpoint::hit("storage.object.put");
        let started = Instant::now();
        let committed = self.commit(plan, id.object, &summary).await?;
        self.core.metrics.commit_latency.observe(started.elapsed().as_secs_f64());
        self.core.metrics.rounds.inc();
        failpoint::hit("storage.commit");
        self.finish(plan, &summary, committed);
        failpoint::hit("storage.trimmed");
        Ok(())
    }

    async fn register(&self) -> Result<Registered, Failure> {
        let ttl = self.options.object_ttl;
        // Counted from before the question, and with a margin for the commit.
        let until = Instant::now() + ttl * 3 / 4;
        let command = meta::command::RegisterObject {
            wal: self.id.0,
            epoch: self.epoch.0,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            now_ms: self.core.clock.now_ms(),
        };
        match self.meta.propose(command).await {
            Ok(Reply::ObjectRegistered { object, .. }) => Ok(Registered { object, until }),
            Ok(Reply::Rejected(reject)) => Err(Failure::Fatal(format!(
                "metadata refuses uploads of write-ahead log {}: {reject}",
                self.id
            ))),
            Ok(other) => Err(unexpected("RegisterObject", &other)),
            Err(error) => Err(self.meta_failed("register", &error)),
        }
    }

    fn meta_failed(&self, operation: &'static str, error: &meta::ProposeError) -> Failure {
        self.core.metrics.error(operation);
        Failure::Again(format!("metadata does not answer: {error}"))
    }

    async fn commit(
        &self,
        plan: &Plan,
        object: ObjectId,
        summary: &Summary,
    ) -> Result<Lsn, Failure> {
        let command = self.command(plan, object, summary);
        let mut failures = 0;
        loop {
            // The outcome of a failed proposal is unknown; the command is idempotent by its object id.
            let reply = match self.meta.propose(command.clone()).await {
                Ok(reply) => reply,
                Err(error @ meta::ProposeError::TooLarge { .. }) => {
                    self.core.metrics.error("commit");
                    return Err(Failure::Smaller(error.to_string()));
                }
                Err(error) => {
                    let failure = self.meta_failed("commit", &error);
                    warn!(reason = %failure, object = %object, "commit is not answered, it will be repeated");
                    failures += 1;
                    self.pause(failures).await;
                    continue;
                }
            };
            return match reply {
                Reply::UploadCommitted { committed, refused, .. } => {
                    if !refused.is_empty() {
                        debug!(
                            ?refused,
                            "partitions were deleted before their upload was committed"
                        );
                    }
                    self.floors.committed(&command.floors);
                    Ok(committed)
                }
                Reply::Rejected(reject @ (Reject::ObjectExpired(_) | Reject::UnknownObject(_))) => {
                    self.core.metrics.error("commit");
                    Err(Failure::NewId(reject.to_string()))
                }
                Reply::Rejected(reject) => {
                    self.core.metrics.error("commit");
                    error!(%reject, object = %object, "metadata refused an upload");
                    Err(Failure::Fatal(format!(
                        "metadata refused the upload of write-ahead log {}: {reject}; nothing was trimmed",
                        self.id
                    )))
                }
                other => Err(unexpected("CommitUpload", &other)),
            };
        }
    }

    fn command(
        &self,
        plan: &Plan,
        object: ObjectId,
        summary: &Summary,
    ) -> meta::command::CommitUpload {
        let range = |stream: &crate::object::StreamSummary| meta::command::StreamRange {
            bytes: stream.bytes,
            records: stream.records,
            max_timestamp: stream.max_timestamp,
            ..meta::command::StreamRange::of(
                stream.stream,
                stream.start,
                stream.end,
                stream.epoch.0,
            )
        };
        meta::command::CommitUpload {
            object: object.0,
            wal: self.id.0,
            epoch: self.epoch.0,
            first: plan.first.0,
            end: plan.end.0,
            facts: Some(meta::command::ObjectFacts {
                bytes: summary.bytes,
                format: u32::from(crate::object::VERSION),
                index_at: summary.index_at,
                store: 0,
                footer_crc: summary.footer_crc,
            }),
            ranges: summary.streams.iter().map(range).collect(),
            floors: self.floors.pending(),
            now_ms: self.core.clock.now_ms(),
            left_out: plan.left_out(),
        }
    }

    /// Takes note of a commit everywhere, then trims the log.
    fn finish(&self, plan: &Plan, summary: &Summary, committed: Lsn) {
        for stream in &summary.streams {
            self.core.table.with(stream.stream, |state| {
                let bounds = &mut state.bounds;
                bounds.committed_end = bounds.committed_end.max(stream.end);
            });
        }
        self.core.tail.commit(committed);
        let horizon = self.core.tail.horizon();
        for partition in &plan.touched {
            self.core.prune(*partition, horizon);
        }
        self.core.metrics.pending(self.core.tail.pending_bytes());
        self.log.trim(committed);
        self.advance(committed);
        // Room above the committed end counts as room in the log: appenders may be waiting for it.
        self.core.space.send_modify(|count| *count = count.wrapping_add(1));
    }

    async fn pause(&self, failures: u32) {
        sleep(backoff(&self.options, &self.rng, failures)).await;
    }
}

fn unexpected(command: &str, reply: &Reply) -> Failure {
    Failure::Fatal(format!("metadata answered {command} with {reply:?}"))
}

/// The pause after so many failures: doubles up to the maximum, jittered over its upper half.
pub(crate) fn backoff(options: &Options, rng: &Rng, failures: u32) -> Duration {
    let factor = 1_u32 << failures.saturating_sub(1).min(16);
    let full = options.backoff_min.saturating_mul(factor).min(options.backoff_max);
    let half = full / 2;
    half + Duration::from_micros(rng.below(u64::try_from(half.as_micros()).unwrap_or(u64::MAX)))
}
