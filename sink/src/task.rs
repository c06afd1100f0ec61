//! The loop of one sink in one partition. Ends when it is told to; after a fault that may pass it opens again, after one
//! that does not it waits, visible, for an operator.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::{Budget, Clock, Reservation, Shutdown};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::config::Rules;
use crate::executor::{Boundary, Error, Executor, READ_BYTES};
use crate::metrics::Metrics;
use crate::planner::{CutPlan, Limits, Planner, RATIO_START_PPM};
use crate::status::{PartitionStatus, State};

/// First pause after a fault; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Memory of one file under construction: a row group, a file below the bound of a single put, batches.
const FILE_MEMORY_MAX: u64 = 40 << 20;
const FILE_MEMORY_MIN: u64 = 1 << 20;

/// Gives an executor over the partition as it is now.
#[async_trait]
pub(crate) trait Opener: Send + Sync {
    async fn open(&self) -> Result<Executor, Error>;
}

/// One task.
pub(crate) struct Task {
    pub opener: Box<dyn Opener>,
    pub rules: Rules,
    pub limits: Limits,
    /// Where the sink begins; `None` for the log start.
    pub origin: Option<i64>,
    pub floor: i64,
    pub clock: Clock,
    pub poll: Duration,
    pub budget: Budget,
    pub writers: Arc<Semaphore>,
    pub metrics: Metrics,
    pub status: Arc<Mutex<PartitionStatus>>,
    pub shutdown: Shutdown,
}

impl Task {
    /// Runs until shutdown. Dropping a step anywhere is what a crash does, so the token may interrupt any of them.
    pub(crate) async fn run(self) {
        let mut pause = PAUSE_MIN;
        loop {
            let before = self.status.lock().cuts;
            let outcome = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                outcome = self.session() => outcome,
            };
            let Err(error) = outcome else { return };
            self.metrics.errors.inc();
            if self.status.lock().cuts > before {
                pause = PAUSE_MIN;
            }
            let stopped = matches!(error, Error::Stop { .. });
            self.trouble(&error, stopped);
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                () = sleep(pause), if !stopped => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn trouble(&self, error: &Error, stopped: bool) {
        let mut status = self.status.lock();
        status.state = if stopped { State::Stopped } else { State::Retrying };
        status.problem = Some(error.to_string());
        let (topic, partition) = (&status.topic, status.partition);
        if stopped {
            tracing::error!(topic, partition, %error, "sink stopped");
        } else {
            tracing::warn!(topic, partition, %error, "sink tries again");
        }
    }

    /// From opening to the first fault.
    async fn session(&self) -> Result<(), Error> {
        let executor = self.opener.open().await?;
        let source = Arc::clone(&executor.source);
        let origin = self.origin.unwrap_or_else(|| source.view().log_start);
        let mut boundary = executor.open(origin, self.floor).await?;
        let mut planner = Planner::new(
            self.rules.clone(),
            self.limits,
            boundary.offset,
            boundary.closed_ms,
            RATIO_START_PPM,
        );
        observe(&mut planner, &boundary);
        self.status.lock().state = State::Running;
        loop {
            let view = source.view();
            while planner.position() < view.readable_end && !planner.is_full() {
                let at = planner.position();
                let chunk = source.read(at, view.readable_end, READ_BYTES).await?;
                let now_ms = self.clock.now_ms();
                chunk.pieces.iter().for_each(|piece| planner.push(piece, now_ms));
                if planner.position() <= at {
                    return Err(Error::Retry(format!("the log gave nothing at offset {at}")));
                }
                self.show(&planner, &boundary, source.view().high_watermark);
                tokio::task::yield_now().await;
            }
            planner.tick(self.clock.now_ms());
            if let Some(plan) = planner.take() {
                boundary = self.cut(&executor, plan, &boundary).await?;
                observe(&mut planner, &boundary);
                self.show(&planner, &boundary, source.view().high_watermark);
                continue;
            }
            self.show(&planner, &boundary, view.high_watermark);
            sleep(self.wait(&planner)).await;
        }
    }

    async fn cut(
        &self,
        executor: &Executor,
        plan: CutPlan,
        boundary: &Boundary,
    ) -> Result<Boundary, Error> {
        let largest = plan.files.iter().map(|file| file.raw_bytes).max().unwrap_or(0);
        let _memory = self.memory(largest).await;
        let _turn = self.writers.acquire().await.map_err(|_| Error::Retry("closing".to_owned()))?;
        let began = self.clock.elapsed();
        let (boundary, done) = executor.execute(plan, boundary).await?;
        self.metrics.cut_seconds.observe((self.clock.elapsed() - began).as_secs_f64());
        self.metrics.cuts.inc();
        self.metrics.files.inc_by(done.files);
        self.metrics.bytes.inc_by(done.bytes);
        self.metrics.rows.inc_by(done.rows);
        let mut status = self.status.lock();
        status.cuts += 1;
        status.files += done.files;
        status.bytes += done.bytes;
        status.rows += done.rows;
        drop(status);
        Ok(boundary)
    }

    /// Takes the memory of a file from the budget, waiting for it.
    async fn memory(&self, raw_bytes: u64) -> Reservation {
        let wanted = raw_bytes.saturating_mul(3).clamp(FILE_MEMORY_MIN, FILE_MEMORY_MAX);
        let wanted = wanted.min(self.budget.bytes_max() / 3);
        for _ in 0..200 {
            match self.budget.reserve(wanted) {
                Ok(reservation) => return reservation,
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
        // After ten seconds a full budget is one that caches hold: they shrink under what is forced.
        self.budget.force(wanted)
    }

    fn wait(&self, planner: &Planner) -> Duration {
        let until = planner.deadline().map(|at| at.saturating_sub(self.clock.now_ms()).max(1));
        let until = until.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        until.map_or(self.poll, |until| until.min(self.poll))
    }

    fn show(&self, planner: &Planner, boundary: &Boundary, high_watermark: i64) {
        let now_ms = self.clock.now_ms();
        let mut status = self.status.lock();
        let moved = status.boundary != Some(boundary.offset);
        status.boundary = Some(boundary.offset);
        status.end = high_watermark;
        status.lag = (high_watermark - boundary.offset).max(0);
        status.open_records = planner.open_records();
        status.waiting_since_ms = match status.waiting_since_ms {
            _ if status.lag == 0 => None,
            Some(since) if !moved => Some(since),
            _ => Some(now_ms),
        };
        status.freshness_ms = status.waiting_since_ms.map_or(0, |since| (now_ms - since).max(0));
        status.problem = None;
    }
}

fn observe(planner: &mut Planner, boundary: &Boundary) {
    // A tiny file is all footer: it says nothing about the next one.
    if let Some((bytes, raw_bytes)) = boundary.observed.filter(|(_, raw)| *raw >= 256 << 10) {
        let ppm = u128::from(bytes) * 1_000_000 / u128::from(raw_bytes.max(1));
        planner.set_ratio(u64::try_from(ppm).unwrap_or(RATIO_START_PPM));
    }
}

#[cfg(test)]
mod tests;
