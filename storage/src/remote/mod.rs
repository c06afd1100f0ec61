//! The object store as everything here uses it: each request has a deadline, is tried again within one budget for the
//! whole process, and is counted; an answer that got lost is looked up before it is believed.
//!
//! ```text
//! caller -> Remote: admit (down?) -> attempt (deadline, metered) -> hedge a slow read -> classify
//!                     ^                                                                 |
//!                     +------ jittered pause, one token of the retry budget <-----------+
//! ```
//! The store below is to be opened without retries of its own: they would hide what the store says, and multiply.
//!
//! | fault | what happens |
//! |---|---|
//! | 5xx, reset, time-out, throttling | tried again with pauses, as long as there are tokens; then the caller's error |
//! | body stops or is cut short | the attempt ends at its deadline, the next one starts over |
//! | slow read | a second request after the time that nearly all reads take; the first answer counts |
//! | 409 of a create | nothing was written: tried again, unless something stands there |
//! | 412 of a create after a try of ours | what stands there is compared; if it is ours the put succeeded |
//! | answer of a completed multipart upload lost | the object is looked up; its size decides |
//! | store down | reads are refused quickly, one a second tries; writes keep trying at their caller's pace |
//!
//! Nothing here holds bytes beyond those of the requests in flight, which the callers bound.

mod cause;
mod get;
mod health;
mod meter;
mod put;
mod tokens;
mod upload;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::metrics::Registry;
use common::{Clock, Rng};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::timeout;

pub use cause::Cause;
use cause::TooLong;
pub use health::StoreState;
use health::{Admission, Health};
use meter::{Kind, Meter};
use tokens::Tokens;

/// Latencies are kept as a moving estimate of what nearly all reads take.
const SLOW_MICROS_FIRST: u64 = 500_000;

/// Settings of a [`Remote`].
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// An attempt counts as failed after this time, plus the time its bytes take at `rate_min`.
    pub attempt_timeout: Duration,
    /// Bytes a second below which a body counts as stuck.
    pub rate_min: u64,
    /// Attempts of one request.
    pub tries_max: u32,
    /// No attempt of a request begins later than this after its first.
    pub patience: Duration,
    /// First pause before a retry; doubles, jittered.
    pub backoff_min: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// Retries that all requests together may make in a burst.
    pub retry_tokens_max: u32,
    /// Retries a second that all requests together may make in the long run; each success adds a tenth of one.
    pub retries_per_second: f64,
    /// One read in so many may be sent a second time because it is slow; 0 is none.
    pub hedge_one_in: u32,
    /// Reads are never sent a second time before this.
    pub hedge_delay_min: Duration,
    /// Ranges less than this apart are one request.
    pub gap_bytes_max: u64,
    /// Longest that a read waits for its turn to try a store that is down.
    pub down_wait_max: Duration,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(8),
            rate_min: 1 << 20,
            tries_max: 4,
            patience: Duration::from_secs(12),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            retry_tokens_max: 50,
            retries_per_second: 2.0,
            hedge_one_in: 20,
            hedge_delay_min: Duration::from_millis(50),
            gap_bytes_max: 128 << 10,
            down_wait_max: Duration::from_secs(2),
        }
    }
}

/// An object store with deadlines, one retry budget, metering and a state. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Remote(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn ObjectStore>,
    options: RemoteOptions,
    clock: Clock,
    rng: Rng,
    meter: Meter,
    health: Health,
    retries: Tokens,
    hedges: Tokens,
    // What nearly all reads take, in microseconds.
    slow_micros: AtomicU64,
}

/// Where a request stands between its attempts.
struct Attempts {
    made: u32,
    began: Duration,
}

impl Remote {
    /// Wraps `store`. Its metrics are registered once for each call: one [`Remote`] for a process, others by
    /// [`Self::beside`].
    #[must_use]
    pub fn new(
        store: Arc<dyn ObjectStore>,
        options: RemoteOptions,
        clock: Clock,
        rng: Rng,
        registry: &Registry,
    ) -> Self {
        let meter = Meter::register(registry);
        Self::assemble(store, options, clock, rng, meter)
    }

    /// Another store (a sink's bucket) that is counted and budgeted by itself but shares this one's metrics.
    #[must_use]
    pub fn beside(&self, store: Arc<dyn ObjectStore>) -> Self {
        let inner = &self.0;
        let mut meter = inner.meter.clone();
        meter.state = common::metrics::Gauge::default();
        let (options, clock) = (inner.options.clone(), inner.clock.clone());
        Self::assemble(store, options, clock, inner.rng.clone(), meter)
    }

    fn assemble(
        store: Arc<dyn ObjectStore>,
        options: RemoteOptions,
        clock: Clock,
        rng: Rng,
        meter: Meter,
    ) -> Self {
        let share = f64::from(options.hedge_one_in.max(1)).recip();
        let inner = Inner {
            store,
            health: Health::new(clock.clone()),
            retries: Tokens::new(f64::from(options.retry_tokens_max), options.retries_per_second),
            hedges: Tokens::new(2.0_f64.max(20.0 * share), 0.0),
            slow_micros: AtomicU64::new(SLOW_MICROS_FIRST),
            options,
            clock,
            rng,
            meter,
        };
        Self(Arc::new(inner))
    }

    /// What the store is, as far as the last requests tell.
    #[must_use]
    pub fn state(&self) -> StoreState {
        let state = self.0.health.state();
        self.0.meter.state.set(state.number());
        state
    }

    /// Looks once whether the store answers, without retries; for a state that nothing else would renew.
    pub async fn look(&self, key: &Path) {
        let head = self.0.store.head(key);
        let _ = self.0.attempt(Kind::Head, 0, head).await;
    }
}

impl Inner {
    /// One attempt: counted, with a deadline for `bytes` bytes.
    async fn attempt<T>(
        &self,
        kind: Kind,
        bytes: u64,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let limit = self.deadline(bytes);
        let started = self.clock.elapsed();
        self.meter.sent(kind);
        let flight = Flight::new(&self.meter);
        let result = match timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(too_long(limit, kind.name())),
        };
        drop(flight);
        match &result {
            Ok(_) => {
                self.answered();
                self.meter.took(kind, self.clock.elapsed().saturating_sub(started));
            }
            Err(error) => self.failed(kind, Cause::of(error)),
        }
        result
    }

    fn deadline(&self, bytes: u64) -> Duration {
        let body = Duration::from_secs(bytes / self.options.rate_min.max(1));
        self.options.attempt_timeout + body
    }

    fn answered(&self) {
        self.retries.give(0.1);
        self.health.answered();
        self.meter.state.set(self.health.state().number());
    }

    fn failed(&self, kind: Kind, cause: Cause) {
        self.meter.failed(kind, cause);
        if cause.is_answer() {
            self.health.answered();
        } else if cause != Cause::Unsupported {
            self.health.failed(cause);
        }
        self.meter.state.set(self.health.state().number());
    }

    fn begin(&self) -> Attempts {
        Attempts { made: 0, began: self.clock.elapsed() }
    }

    /// Pauses before another attempt. False when there is to be none.
    async fn again(&self, attempts: &mut Attempts, cause: Cause) -> bool {
        attempts.made += 1;
        let most = match cause {
            // The credentials may have been renewed meanwhile: once.
            Cause::Denied | Cause::Credentials => 2.min(self.options.tries_max),
            _ => self.options.tries_max,
        };
        if !cause.is_passing() || attempts.made >= most {
            return false;
        }
        let pause = self.pause(attempts.made);
        let waited = self.clock.elapsed().saturating_sub(attempts.began);
        if waited + pause > self.options.patience {
            return false;
        }
        if !self.retries.take(self.clock.elapsed()) {
            self.meter.retries_refused.inc();
            return false;
        }
        self.meter.retries.inc();
        tokio::time::sleep(pause).await;
        true
    }

    /// Doubles with each failure up to the maximum; the upper three quarters are jittered.
    fn pause(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.saturating_sub(1).min(16);
        let full = self.options.backoff_min.saturating_mul(factor).min(self.options.backoff_max);
        let jitter = u64::try_from(full.as_micros()).unwrap_or(u64::MAX) / 4 * 3;
        full / 4 + Duration::from_micros(self.rng.below(jitter))
    }

    /// Repeats `work` while that may help.
    async fn repeat<T, F: Future<Output = Result<T>>>(
        &self,
        kind: Kind,
        bytes: u64,
        work: impl Fn() -> F,
    ) -> Result<T> {
        let mut attempts = self.begin();
        loop {
            let error = match self.attempt(kind, bytes, work()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !self.again(&mut attempts, Cause::of(&error)).await {
                return Err(plain(error));
            }
        }
    }

    /// Lets a read through, or refuses it because the store is down.
    async fn admit(&self) -> Result<()> {
        let mut state = self.health.subscribe();
        let deadline = self.clock.elapsed() + self.options.down_wait_max;
        loop {
            let wait = match self.health.admit() {
                Admission::Go => return Ok(()),
                Admission::Wait(wait) => wait,
            };
            let left = deadline.saturating_sub(self.clock.elapsed());
            if left.is_zero() {
                self.meter.refused_down.inc();
                let StoreState::Down(cause) = self.health.state() else { continue };
                let text =
                    format!("the object store is down ({}); {}", cause.name(), cause.remedy());
                return Err(Error::Generic { store: "Remote", source: text.into() });
            }
            let _ = timeout(wait.min(left), state.changed()).await;
        }
    }
}

/// One request in flight.
struct Flight<'a>(&'a Meter);

impl<'a> Flight<'a> {
    fn new(meter: &'a Meter) -> Self {
        meter.in_flight.inc();
        Self(meter)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

fn too_long(limit: Duration, what: &'static str) -> Error {
    let source = Box::new(TooLong { seconds: limit.as_secs(), what });
    Error::Generic { store: "Remote", source }
}

/// A missing bucket is an outage, not a missing object.
fn plain(error: Error) -> Error {
    match error {
        Error::NotFound { source, .. } if source.to_string().contains("NoSuchBucket") => {
            Error::Generic { store: "Remote", source }
        }
        error => error,
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Remote {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.0.put(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        upload::begin(&self.0, location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        get::get(&self.0, location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let inner = Arc::clone(&self.0);
        let deleted = self.0.store.delete_stream(locations);
        deleted
            .inspect(move |result| {
                inner.meter.sent(Kind::Delete);
                match result {
                    Ok(_) => inner.answered(),
                    Err(error) => inner.failed(Kind::Delete, Cause::of(error)),
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.listed(self.0.store.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.listed(self.0.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.repeat(Kind::List, 0, || self.0.store.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        // A copy whose answer got lost is answered as "already exists" the next time: who copies create-only looks.
        let copy = || self.0.store.copy_opts(from, to, options.clone());
        self.0.repeat(Kind::Copy, COPY_BYTES_EXPECTED, copy).await
    }
}

/// A copy inside the store has the time that so many bytes would take.
const COPY_BYTES_EXPECTED: u64 = 100 << 20;
/// Keys in one answer to a listing.
const LIST_PAGE: u64 = 1000;

impl Inner {
    fn listed(
        self: &Arc<Self>,
        list: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let inner = Arc::clone(self);
        let mut seen = 0_u64;
        inner.meter.sent(Kind::List);
        let counted = list.inspect(move |result| match result {
            Ok(_) => {
                seen += 1;
                if seen.is_multiple_of(LIST_PAGE) {
                    inner.meter.sent(Kind::List);
                }
            }
            Err(error) => inner.failed(Kind::List, Cause::of(error)),
        });
        get::unstuck(self, counted.boxed())
    }

    fn slow(&self) -> Duration {
        Duration::from_micros(self.slow_micros.load(Ordering::Relaxed))
            .max(self.options.hedge_delay_min)
    }

    /// Moves the estimate of what 99 of 100 reads take: up by a lot for each that took longer, down a little for each
    /// that did not, so that it rests where one in a hundred takes longer.
    fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at = self.slow_micros.load(Ordering::Relaxed);
        let step = (at / 500).max(1);
        let next = if micros > at {
            at.saturating_add(step.saturating_mul(99)).min(micros.max(at))
        } else {
            at.saturating_sub(step)
        };
        self.slow_micros.store(next.max(1), Ordering::Relaxed);
    }
}
