//! An object store with seeded faults: what a simulation puts between the system and a store in memory.
//!
//! Faults are drawn from the seed for each request; [`FaultStore::set`] changes their frequency while it runs. A
//! "lost response" is the ambiguous case: the request took effect, the caller sees an error.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::Rng;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use parking_lot::Mutex;

use crate::edges;
use crate::trigger::{self, Trigger};

/// What a slow request takes.
const SLOW: Duration = Duration::from_secs(120);

/// How often each fault happens: once in so many requests; 0 is never.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Time each request takes, in milliseconds.
    pub latency_ms: Range<u64>,
    /// Every request fails and does nothing.
    pub outage: bool,
    /// The request fails (as 503 does) and does nothing.
    pub error_one_in: u64,
    /// The request is refused with "slow down" and does nothing.
    pub throttle_one_in: u64,
    /// A request takes minutes.
    pub slow_one_in: u64,
    /// The write takes effect and its answer is lost.
    pub lost_response_one_in: u64,
    /// A create-only put answers "already exists" and holds nothing (409).
    pub conflict_one_in: u64,
    /// A body never ends.
    pub stuck_body_one_in: u64,
    /// A body ends half way.
    pub truncated_one_in: u64,
    /// One bit of a body is wrong.
    pub wrong_bytes_one_in: u64,
    /// An object that is there is answered with 404.
    pub missing_one_in: u64,
    /// Wrong bytes and 404 hit an object once only: whoever asks again gets it.
    pub heals: bool,
}

/// How often each fault has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Requests in all.
    pub requests: u64,
    /// Failed without effect.
    pub errors: u64,
    /// Took effect, answer lost.
    pub lost_responses: u64,
    /// Conflicts that hold nothing.
    pub conflicts: u64,
    /// Bodies that never end.
    pub stuck_bodies: u64,
    /// Bodies with a wrong bit.
    pub wrong_bytes: u64,
    /// 404 for what is there.
    pub missing: u64,
    /// Single puts that took effect.
    pub puts: u64,
    /// Multipart uploads that were completed.
    pub multiparts: u64,
    /// Reads.
    pub gets: u64,
}

#[derive(Debug)]
struct State {
    faults: Mutex<Faults>,
    met: Mutex<Met>,
    rng: Rng,
    trigger: Mutex<Trigger>,
    /// Objects that wrong bytes or a 404 have hit.
    hit: Mutex<BTreeSet<Path>>,
}

/// A store with faults. Clones share everything.
#[derive(Clone, Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

impl FaultStore {
    /// `inner` with `faults` drawn from `rng`.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, rng: Rng, faults: Faults) -> Self {
        let (faults, met, trigger) = (Mutex::new(faults), Mutex::default(), Mutex::default());
        let state = State { faults, met, rng, trigger, hit: Mutex::default() };
        Self { inner, state: Arc::new(state) }
    }

    /// Passes the moments of `trigger`.
    pub fn set_trigger(&self, trigger: Trigger) {
        *self.state.trigger.lock() = trigger;
    }

    /// Changes the faults from now on.
    pub fn set(&self, faults: Faults) {
        *self.state.faults.lock() = faults;
    }

    /// True during an outage.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.state.faults.lock().outage
    }

    /// What has happened so far.
    #[must_use]
    pub fn met(&self) -> Met {
        *self.state.met.lock()
    }

    /// The store below, without faults.
    #[must_use]
    pub fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }
}

fn unavailable(reason: &str) -> Error {
    Error::Generic { store: "FaultStore", source: format!("503 {reason}").into() }
}

impl State {
    fn faults(&self) -> Faults {
        self.faults.lock().clone()
    }

    fn count(&self, which: impl FnOnce(&mut Met)) {
        which(&mut self.met.lock());
    }

    /// Draws a fault that may be of the healing kind.
    fn one_in(&self, n: u64, faults: &Faults, location: &Path) -> bool {
        self.rng.one_in(n) && (!faults.heals || self.hit.lock().insert(location.clone()))
    }

    /// Waits the latency, then perhaps fails.
    async fn request(&self) -> Result<Faults> {
        self.count(|met| met.requests += 1);
        let faults = self.faults();
        let spread = faults.latency_ms.end.saturating_sub(faults.latency_ms.start);
        let wait = faults.latency_ms.start + self.rng.below(spread);
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if self.rng.one_in(faults.slow_one_in) {
            edges::met("store.slow");
            tokio::time::sleep(SLOW).await;
        }
        if faults.outage {
            edges::met("store.outage");
        }
        if self.rng.one_in(faults.throttle_one_in) {
            edges::met("store.throttled");
            return Err(unavailable("SlowDown"));
        }
        if faults.outage || self.rng.one_in(faults.error_one_in) {
            self.count(|met| met.errors += 1);
            return Err(unavailable("internal error"));
        }
        Ok(faults)
    }

    /// After a write took effect: perhaps its answer is lost.
    fn answer<T>(&self, value: T) -> Result<T> {
        let trigger = self.trigger.lock().clone();
        trigger.hit(trigger::OBJECT_PUT);
        if self.rng.one_in(self.faults().lost_response_one_in) {
            self.count(|met| met.lost_responses += 1);
            return Err(unavailable("connection reset after the request took effect"));
        }
        Ok(value)
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let faults = self.state.request().await?;
        let create = matches!(options.mode, object_store::PutMode::Create);
        if create && self.state.rng.one_in(faults.conflict_one_in) {
            self.state.count(|met| met.conflicts += 1);
            let path = location.to_string();
            return Err(Error::AlreadyExists { path, source: "409 conflict".into() });
        }
        let result = self.inner.put_opts(location, payload, options).await?;
        self.state.count(|met| met.puts += 1);
        self.state.answer(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.state.request().await?;
        let inner = self.inner.put_multipart_opts(location, options).await?;
        Ok(Box::new(FaultUpload { inner, state: self.state.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let faults = self.state.request().await?;
        self.state.count(|met| met.gets += 1);
        if self.state.one_in(faults.missing_one_in, &faults, location) {
            self.state.count(|met| met.missing += 1);
            edges::met("store.missing");
            let path = location.to_string();
            return Err(Error::NotFound { path, source: "404".into() });
        }
        let head = options.head;
        let mut result = self.inner.get_opts(location, options).await?;
        if head {
            return Ok(result);
        }
        if self.state.rng.one_in(faults.stuck_body_one_in) {
            self.state.count(|met| met.stuck_bodies += 1);
            result.payload = GetResultPayload::Stream(futures::stream::pending().boxed());
            return Ok(result);
        }
        let location = &result.meta.location;
        let wrong = self.state.one_in(faults.wrong_bytes_one_in, &faults, location);
        let truncated = !wrong && self.state.rng.one_in(faults.truncated_one_in);
        if wrong || truncated {
            let (meta, range) = (result.meta.clone(), result.range.clone());
            let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
            let mut bytes = result.bytes().await?;
            if wrong {
                self.state.count(|met| met.wrong_bytes += 1);
                bytes = self.flip(&bytes);
            } else {
                edges::met("store.body.truncated");
                bytes.truncate(bytes.len() / 2);
            }
            let payload =
                GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
            result = GetResult { payload, meta, range, attributes, extensions };
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.state.request().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.state.request().await?;
        self.inner.copy_opts(from, to, options).await?;
        self.state.answer(())
    }
}

impl FaultStore {
    fn flip(&self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        let at = self.state.rng.below(bytes.len() as u64);
        if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1 << self.state.rng.below(8);
        }
        bytes.into()
    }
}

#[derive(Debug)]
struct FaultUpload {
    inner: Box<dyn MultipartUpload>,
    state: Arc<State>,
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        let state = self.state.clone();
        async move {
            state.request().await?;
            part.await?;
            state.answer(())
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.state.request().await?;
        let result = self.inner.complete().await?;
        self.state.count(|met| met.multiparts += 1);
        self.state.answer(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lost_response_took_effect_and_an_outage_did_not() {
        let store = FaultStore::new(
            Arc::new(InMemory::new()),
            Rng::seeded(1),
            Faults { lost_response_one_in: 1, latency_ms: 5..10, ..Faults::default() },
        );
        let path = Path::from("a");
        assert!(store.put(&path, PutPayload::from_static(b"x")).await.is_err());
        store.set(Faults { outage: true, ..Faults::default() });
        assert!(store.put(&Path::from("b"), PutPayload::from_static(b"x")).await.is_err());
        store.set(Faults::default());
        let found = store.get(&path).await.expect("there").bytes().await.expect("reads");
        assert_eq!(found, Bytes::from_static(b"x"));
        assert!(store.head(&Path::from("b")).await.is_err());
        store.set(Faults { wrong_bytes_one_in: 1, ..Faults::default() });
        let found = store.get_range(&path, 0..1).await.expect("there");
        assert_ne!(found, Bytes::from_static(b"x"));
    }
}
