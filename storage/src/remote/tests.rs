//! Each fault of a store against [`Remote`], in paused time.

use std::collections::VecDeque;

use futures::StreamExt;
use object_store::memory::InMemory;
use object_store::{GetResultPayload, PutMode};
use parking_lot::Mutex;
use tokio::time::sleep;

use super::*;

/// What the next request meets.
#[derive(Clone, Debug)]
enum Next {
    Error(&'static str),
    /// Takes effect; the caller sees an error.
    Lost,
    Conflict,
    Slow(Duration),
    StuckBody,
    CutBody,
}

/// A store in memory whose next requests go as the script says; then all is well, or as `always` says.
#[derive(Clone, Debug, Default)]
struct Scripted {
    store: Arc<InMemory>,
    script: Arc<Mutex<VecDeque<Next>>>,
    always: Arc<Mutex<Option<Next>>>,
    requests: Arc<AtomicU64>,
}

fn failure(text: &'static str) -> Error {
    let source = format!("Server returned non-2xx status code: {text}").into();
    Error::Generic { store: "Scripted", source }
}

impl Scripted {
    fn then(&self, next: impl IntoIterator<Item = Next>) {
        self.script.lock().extend(next);
    }

    fn always(&self, next: Option<Next>) {
        *self.always.lock() = next;
    }

    async fn request(&self) -> Result<Option<Next>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let next = self.script.lock().pop_front().or_else(|| self.always.lock().clone());
        match next {
            Some(Next::Error(text)) => Err(failure(text)),
            Some(Next::Slow(time)) => {
                sleep(time).await;
                Ok(None)
            }
            next => Ok(next),
        }
    }

    fn count(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl ObjectStore for Scripted {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let next = self.request().await?;
        if let Some(Next::Conflict) = next {
            let source = "Server returned non-2xx status code: 409 Conflict".into();
            return Err(Error::AlreadyExists { path: location.to_string(), source });
        }
        let put = self.store.put_opts(location, payload, options).await?;
        if matches!(next, Some(Next::Lost)) { Err(failure("500 lost")) } else { Ok(put) }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.store.put_multipart_opts(location, options).await?;
        Ok(Box::new(ScriptedUpload { upload, store: self.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let next = self.request().await?;
        let mut found = self.store.get_opts(location, options).await?;
        found.payload = match (next, found.payload) {
            (Some(Next::StuckBody), GetResultPayload::Stream(body)) => {
                GetResultPayload::Stream(body.take(1).chain(futures::stream::pending()).boxed())
            }
            (Some(Next::CutBody), _) => GetResultPayload::Stream(futures::stream::empty().boxed()),
            (_, payload) => payload,
        };
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request().await?;
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request().await?;
        self.store.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct ScriptedUpload {
    upload: Box<dyn MultipartUpload>,
    store: Scripted,
}

#[async_trait]
impl MultipartUpload for ScriptedUpload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let next = self.store.request().await?;
        let done = self.upload.complete().await?;
        if matches!(next, Some(Next::Lost)) { Err(failure("500 lost")) } else { Ok(done) }
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}

fn remote(options: RemoteOptions) -> (Remote, Scripted) {
    let store = Scripted::default();
    let clock = Clock::simulated(1_000_000);
    let registry = Registry::default();
    let inner: Arc<dyn ObjectStore> = Arc::new(store.clone());
    (Remote::new(inner, options, clock, Rng::seeded(7), &registry), store)
}

fn patient() -> RemoteOptions {
    RemoteOptions { hedge_one_in: 0, ..RemoteOptions::default() }
}

fn key() -> Path {
    Path::from("a/key")
}

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

fn content() -> PutPayload {
    [Bytes::from_static(b"some "), Bytes::from_static(b"bytes")].into_iter().collect()
}

#[tokio::test(start_paused = true)]
async fn a_create_whose_answer_was_lost_is_known_as_our_own() {
    let (remote, store) = remote(patient());
    store.then([Next::Lost]);
    remote.put_opts(&key(), content(), create()).await.expect("it is ours");
    assert_eq!(remote.0.meter.own_writes.get(), 1);
    // Another's object under the key stays another's, after a try of ours and without one.
    let other = PutPayload::from_static(b"some bytez");
    store.then([Next::Error("500")]);
    for _ in 0..2 {
        let refused = remote.put_opts(&key(), other.clone(), create()).await;
        assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
    }
    // The same bytes, but never a try of ours that may have landed: not claimed.
    let refused = remote.put_opts(&key(), content(), create()).await;
    assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
    let found = store.store.get(&key()).await.expect("there").bytes().await.expect("reads");
    assert_eq!(found, "some bytes");
}

#[tokio::test(start_paused = true)]
async fn a_conflict_that_left_nothing_is_tried_again() {
    let (remote, store) = remote(patient());
    store.then([Next::Conflict, Next::Error("503 SlowDown"), Next::Conflict]);
    remote.put_opts(&key(), content(), create()).await.expect("put in the end");
    store.then([Next::Conflict]);
    let refused = remote.put_opts(&key(), content(), create()).await;
    assert!(matches!(refused, Err(Error::AlreadyExists { .. })), "{refused:?}");
    store.store.delete(&key()).await.expect("deletes");
    store.always(Some(Next::Conflict));
    let refused = remote.put_opts(&key(), content(), create()).await;
    assert!(matches!(refused, Err(Error::Generic { .. })), "nothing is there: {refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_completed_upload_whose_answer_was_lost_is_looked_up() {
    for (next, own) in [(Next::Lost, true), (Next::Error("500"), false)] {
        let (remote, store) = remote(patient());
        let mut upload = remote.put_multipart(&key()).await.expect("begins");
        upload.put_part(content()).await.expect("put");
        upload.put_part(content()).await.expect("put");
        store.then([next]);
        assert_eq!(upload.complete().await.is_ok(), own);
        assert_eq!(store.store.head(&key()).await.is_ok(), own);
    }
}

#[tokio::test(start_paused = true)]
async fn stuck_and_cut_bodies_are_read_again_and_a_short_object_is_not() {
    let (remote, store) = remote(patient());
    store.store.put(&key(), content()).await.expect("put");
    for next in [Next::StuckBody, Next::CutBody, Next::Error("500"), Next::Error("429")] {
        store.then([next]);
        let found = remote.get_ranges(&key(), &[0..4, 5..10]).await.expect("read");
        assert_eq!(found, ["some", "bytes"]);
        assert_eq!(store.count(), 2);
    }
    let short = remote.get_ranges(&key(), std::slice::from_ref(&(0..11))).await;
    let short = short.expect_err("too short");
    assert_eq!((Cause::of(&short), store.count()), (Cause::Short, 1));
    // Whole objects are streamed: a stuck body is an error of the stream, within the deadline.
    store.then([Next::StuckBody]);
    let mut body = remote.get(&key()).await.expect("begins").into_stream();
    assert!(body.next().await.expect("a chunk").is_ok());
    let error = body.next().await.expect("an error").expect_err("stuck");
    assert_eq!(Cause::of(&error), Cause::TimedOut);
    assert!(body.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_is_overtaken_and_few_are_sent_twice() {
    let (remote, store) = remote(RemoteOptions::default());
    store.store.put(&key(), content()).await.expect("put");
    store.then([Next::Slow(Duration::from_secs(7))]);
    let started = remote.0.clock.elapsed();
    remote.get_range(&key(), 0..4).await.expect("read");
    let took = remote.0.clock.elapsed().saturating_sub(started);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!((store.count(), remote.0.meter.hedges_won.get()), (2, 1));
    // All slow: the share bounds the second requests.
    store.always(Some(Next::Slow(Duration::from_secs(7))));
    for _ in 0..100 {
        remote.get_range(&key(), 0..4).await.expect("read");
    }
    assert!(store.count() <= 108, "a twentieth more, and what was saved up");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_storm_and_ends_by_itself() {
    let (remote, store) = remote(patient());
    store.store.put(&key(), content()).await.expect("put");
    store.always(Some(Next::Error("503 Service Unavailable")));
    let began = remote.0.clock.elapsed();
    let mut slowest = Duration::ZERO;
    for round in 0..60 {
        let key = key();
        let reads: Vec<_> = (0..10).map(|_| remote.get_range(&key, 0..4)).collect();
        sleep(Duration::from_millis(100)).await;
        let started = remote.0.clock.elapsed();
        for read in futures::future::join_all(reads).await {
            let error = read.expect_err("an outage is an error, never an empty answer");
            assert!(!Cause::of(&error).is_answer());
        }
        if round > 1 {
            slowest = slowest.max(remote.0.clock.elapsed().saturating_sub(started));
        }
    }
    assert_eq!(remote.state(), StoreState::Down(Cause::Unavailable));
    assert!(slowest <= Duration::from_secs(5), "refused quickly: {slowest:?}");
    let seconds = remote.0.clock.elapsed().saturating_sub(began).as_secs();
    let most = 10 + 50 + 4 * (seconds + 1);
    let count = store.count();
    assert!(count <= most, "{count} requests in {seconds} s");
    store.always(None);
    remote.get_range(&key(), 0..4).await.expect("the first one after it finds it healthy");
    assert_eq!(remote.state(), StoreState::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_missing_bucket_and_a_wrong_clock_are_outages_with_a_name() {
    for (answer, cause) in [
        ("404 Not Found: <Code>NoSuchBucket</Code>", Cause::NoBucket),
        ("403 Forbidden: <Code>RequestTimeTooSkewed</Code>", Cause::ClockSkew),
    ] {
        let (remote, store) = remote(patient());
        store.always(Some(Next::Error(answer)));
        for _ in 0..3 {
            let error = remote.get_range(&key(), 0..4).await.expect_err("down");
            assert!(matches!(error, Error::Generic { .. }), "never a missing object: {error}");
        }
        assert_eq!(remote.state(), StoreState::Down(cause));
    }
}
