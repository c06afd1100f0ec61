use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};

use super::*;
use crate::testing::{self, Rig};
use crate::verify::{Outcome, verify};

const KEYS: &[(&str, &str)] = &[("flush.size", "30"), ("idle.ms", "1000")];

async fn proved(store: &Arc<dyn ObjectStore>) -> crate::verify::Report {
    let report = verify(Arc::clone(store), &Path::from("p"), "topics", "s", None).await;
    assert_eq!(report.outcome, Outcome::Proved, "{:?} {:?}", report.findings, report.unchecked);
    report
}

#[tokio::test]
async fn a_range_becomes_files_that_verify_proves() {
    let rig = Rig::new(KEYS);
    rig.memory.flights(500);
    let boundary = rig.run().await.expect("works");
    let end = rig.memory.view().readable_end;
    assert_eq!(boundary.offset, end);
    assert_eq!(rig.memory.floors.lock().get(&7), Some(&end));
    let report = proved(&rig.store).await;
    let partition = &report.partitions[0];
    assert_eq!((partition.start, partition.boundary, partition.rows), (0, end, 500));
    assert_eq!(partition.rows.cast_signed() + partition.holes, end);
    assert!(partition.cuts > 2 && partition.files > partition.cuts);
}

#[tokio::test]
async fn values_that_are_no_objects_and_bytes_that_are_no_text_are_kept() {
    let rig = Rig::new(&[("flush.size", "4"), ("idle.ms", "1000")]);
    for value in [Some(&b"{\"a\":1}"[..]), None, Some(b"plain"), Some(b""), Some(b"\xff\x00")] {
        rig.memory.record(value);
    }
    rig.run().await.expect("works");
    assert_eq!(proved(&rig.store).await.partitions[0].rows, 5);
    assert_eq!(rig.executor.metrics.conflicts.get(), 1);
}

#[tokio::test]
async fn fields_that_are_null_throughout_are_left_out_and_read_back() {
    let rig = Rig::new(&[("flush.size", "2"), ("idle.ms", "1000")]);
    for value in [r#"{"a":null,"b":1}"#, r#"{"b":2,"o":{"x":null,"y":[{"z":null,"w":1}]}}"#] {
        rig.memory.json(value);
    }
    rig.memory.json(r#"{"a":null}"#);
    rig.run().await.expect("works");
    assert_eq!(proved(&rig.store).await.partitions[0].rows, 3);
}

#[tokio::test]
async fn the_same_range_gives_the_same_bytes() {
    let (one, two) = (Rig::new(KEYS), Rig::new(KEYS));
    for rig in [&one, &two] {
        rig.memory.flights(200);
        rig.run().await.expect("works");
    }
    let mut keys = Vec::new();
    let mut objects = one.store.list(None);
    while let Some(object) = futures::TryStreamExt::try_next(&mut objects).await.expect("lists") {
        keys.push(object.location);
    }
    assert!(keys.len() > 8);
    for key in keys {
        let read = async |store: &Arc<dyn ObjectStore>| {
            store.get(&key).await.expect("there").bytes().await.expect("readable")
        };
        assert_eq!(read(&one.store).await, read(&two.store).await, "{key}");
    }
}

/// Fails the n-th write or copy, before or after it took effect; none for 0. Lets others run before each.
#[derive(Debug)]
struct Flaky {
    inner: InMemory,
    countdown: AtomicU32,
    takes_effect: bool,
}

impl Flaky {
    fn fails(&self) -> bool {
        self.countdown.fetch_sub(1, Ordering::SeqCst) == 1
    }

    fn error() -> object_store::Error {
        object_store::Error::Generic { store: "flaky", source: "answer lost".into() }
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flaky")
    }
}

#[async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(
        &self,
        key: &Path,
        body: PutPayload,
        o: PutOptions,
    ) -> StoreResult<PutResult> {
        tokio::task::yield_now().await;
        match self.fails() {
            false => self.inner.put_opts(key, body, o).await,
            true => {
                if self.takes_effect {
                    self.inner.put_opts(key, body, o).await?;
                }
                Err(Self::error())
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        key: &Path,
        o: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, o).await
    }

    async fn get_opts(&self, key: &Path, o: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(key, o).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, o: CopyOptions) -> StoreResult<()> {
        tokio::task::yield_now().await;
        match self.fails() {
            false => self.inner.copy_opts(from, to, o).await,
            true => {
                if self.takes_effect {
                    self.inner.copy_opts(from, to, o).await?;
                }
                Err(Self::error())
            }
        }
    }
}

/// Every write of the store fails once, with and without effect, in the small and in the copied path; after each the
/// sink opens again and goes on. No row is lost or doubled.
#[tokio::test]
async fn a_cut_is_redone_from_every_step() {
    for (single_put_max, takes_effect) in
        [(1 << 20, false), (1 << 20, true), (64, false), (64, true)]
    {
        for nth in 1..16 {
            let countdown = AtomicU32::new(nth);
            let flaky = Flaky { inner: InMemory::new(), countdown, takes_effect };
            let mut rig = Rig::over(Arc::new(flaky), KEYS);
            rig.executor.single_put_max = single_put_max;
            rig.memory.flights(150);
            let mut retries = 0;
            while let Err(error) = rig.run().await {
                assert!(matches!(error, Error::Retry(_)), "{nth}: {error}");
                retries += 1;
            }
            assert!(retries <= 1);
            assert_eq!(proved(&rig.store).await.partitions[0].rows, 150, "{nth}");
        }
    }
}

#[tokio::test]
async fn a_cut_whose_append_was_ambiguous_is_found_and_completed() {
    let rig = Rig::new(KEYS);
    rig.memory.flights(100);
    *rig.memory.ambiguous_appends.lock() = 1;
    assert!(matches!(rig.run().await, Err(Error::Retry(_))));
    rig.run().await.expect("goes on");
    assert_eq!(proved(&rig.store).await.partitions[0].rows, 100);
}

/// Two owners of one cut, small and copied: both finish, one content.
#[tokio::test]
async fn two_racing_owners_leave_one_content() {
    for single_put_max in [1 << 20, 64] {
        let (countdown, takes_effect) = (AtomicU32::new(0), false);
        let interleaved = Flaky { inner: InMemory::new(), countdown, takes_effect };
        let mut rig = Rig::over(Arc::new(interleaved), KEYS);
        rig.executor.single_put_max = single_put_max;
        rig.memory.flights(100);
        *rig.memory.ambiguous_appends.lock() = 1;
        rig.run().await.expect_err("the cut is durable, its files are not");
        let mut other = testing::executor(&rig.memory, &rig.store, KEYS, 0);
        (other.single_put_max, other.rng) = (single_put_max, Rng::seeded(2));
        let (one, two) = tokio::join!(rig.executor.open(0, 0), other.open(0, 0));
        assert_eq!(one.expect("completes"), two.expect("completes too"));
        assert!(rig.executor.metrics.adopted.get() + other.metrics.adopted.get() >= 1);
        rig.run().await.expect("goes on");
        assert_eq!(proved(&rig.store).await.partitions[0].rows, 100);
    }
}

#[tokio::test]
async fn the_same_on_a_local_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    let local = object_store::local::LocalFileSystem::new_with_prefix(folder.path());
    let store: Arc<dyn ObjectStore> = Arc::new(local.expect("opens").with_fsync(true));
    crate::store::probe(store.as_ref(), &Path::from("p/probe")).await.expect("create-only");
    race(&store).await;
}

/// The same race on a real S3 server, named by the usual AWS variables and `SLUICE_TEST_S3_BUCKET`. The end-to-end tests
/// set these and look for the line that it prints.
#[tokio::test]
async fn the_same_on_an_s3_server() {
    let Ok(bucket) = std::env::var("SLUICE_TEST_S3_BUCKET") else {
        println!("SLUICE_TEST_S3_BUCKET is not set: no S3 server to race on");
        return;
    };
    let builder = object_store::aws::AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_allow_http(true)
        .with_copy_if_not_exists(object_store::aws::S3CopyIfNotExists::Multipart);
    let store: Arc<dyn ObjectStore> = Arc::new(builder.build().expect("an S3 client"));
    crate::store::probe(store.as_ref(), &Path::from("p/probe")).await.expect("create-only");
    race(&store).await;
    println!("two owners raced on an S3 server");
}

/// Two owners write the files of one cut at the same time: as single puts, and as copies of a temporary object.
async fn race(store: &Arc<dyn ObjectStore>) {
    for (name, single_put_max) in [("small", 1 << 20), ("copied", 64)] {
        let own = object_store::prefix::PrefixStore::new(Arc::clone(store), name);
        let store: Arc<dyn ObjectStore> = Arc::new(own);
        let mut rig = Rig::over(Arc::clone(&store), KEYS);
        rig.executor.single_put_max = single_put_max;
        rig.memory.flights(100);
        *rig.memory.ambiguous_appends.lock() = 1;
        rig.run().await.expect_err("the cut is durable, its files are not");
        let mut other = testing::executor(&rig.memory, &store, KEYS, 0);
        (other.single_put_max, other.rng) = (single_put_max, Rng::seeded(2));
        let (one, two) = tokio::join!(rig.executor.open(0, 0), other.open(0, 0));
        assert_eq!(one.expect("completes"), two.expect("completes too"));
        rig.run().await.expect("goes on");
        assert_eq!(proved(&store).await.partitions[0].rows, 100);
    }
}

#[tokio::test]
async fn a_foreign_file_under_the_name_stops_the_sink_with_both_names() {
    let rig = Rig::new(KEYS);
    rig.memory.flights(100);
    let key = "p/topics/flights/partition=0/flights+0+0000000000.snappy.parquet";
    rig.store.put(&Path::from(key), PutPayload::from_static(b"mine")).await.expect("put");
    let error = rig.run().await.expect_err("stops").to_string();
    assert!(error.contains(key) && error.contains("0000000000000007.g0.topic-1.0.0-"), "{error}");
    assert!(error.contains("topics.dir"), "{error}");
}

#[tokio::test]
async fn foreign_manifests_and_recreated_topics_stop_the_sink() {
    let rig = Rig::new(KEYS);
    rig.memory.flights(100);
    rig.run().await.expect("works");
    let mut recreated = testing::executor(&rig.memory, &rig.store, KEYS, 0);
    recreated.identity.topic_id = "topic-2".to_owned();
    let error = recreated.open(0, 0).await.expect_err("stops").to_string();
    assert!(error.contains("recreated") && error.contains("topic-2"), "{error}");
    let empty = Arc::new(testing::Memory::default());
    let second = testing::executor(&empty, &rig.store, KEYS, 0);
    let error = second.open(0, 0).await.expect_err("stops").to_string();
    assert!(error.contains("00000000000000000000.g0.json"), "{error}");
}

/// A file with the same rows that another writer encoded differently is adopted; its hash is that of the store.
#[tokio::test]
async fn a_file_of_the_same_rows_is_adopted() {
    let zstd = &[("flush.size", "30"), ("idle.ms", "1000"), ("parquet.codec", "zstd")];
    let (rig, donor) = (Rig::new(KEYS), Rig::new(zstd));
    rig.memory.flights(29);
    donor.memory.flights(29);
    donor.run().await.expect("works");
    let from = Path::from("p/topics/flights/partition=0/flights+0+0000000000.zstd.parquet");
    let to = Path::from("p/topics/flights/partition=0/flights+0+0000000000.snappy.parquet");
    let bytes = donor.store.get(&from).await.expect("there").bytes().await.expect("readable");
    rig.store.put(&to, PutPayload::from(bytes)).await.expect("put");
    rig.run().await.expect("adopts");
    assert_eq!(rig.executor.metrics.adopted.get(), 1);
    assert_eq!(proved(&rig.store).await.partitions[0].rows, 29);
}
