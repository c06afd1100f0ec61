use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use bytes::Bytes;
use common::metrics::Registry;
use common::{Rng, Shutdown};
use meta::Reply;
use meta::command::BeginRebuild;
use meta::testing::MemoryStore;
use object_store::memory::InMemory;

use super::*;
use crate::compact::testing::{World, options};
use crate::{FsckOptions, fsck};

fn keeper(world: &World, floor: &Arc<AtomicI64>, fenced: &Arc<AtomicU32>) -> SnapshotKeeper {
    let (floor, fenced) = (floor.clone(), fenced.clone());
    let deps = KeeperDeps {
        clock: world.clock.clone(),
        rng: Rng::seeded(9),
        store: world.store.clone(),
        prefix: Path::from("test"),
        meta: world.meta.clone(),
        on_floor: Arc::new(move |floor_ms| floor.store(floor_ms, Ordering::SeqCst)),
        registry: Registry::default(),
        on_fenced: Arc::new(move |_| {
            fenced.fetch_add(1, Ordering::SeqCst);
        }),
    };
    SnapshotKeeper::new(deps, KeeperOptions { part_bytes: 300, ..KeeperOptions::default() })
}

async fn names(store: &dyn ObjectStore) -> (Vec<Name>, usize) {
    let prefix = Path::from("test");
    let mut listed = store.list(Some(&root(&prefix)));
    let (mut heads, mut parts) = (Vec::new(), 0);
    while let Some(found) = futures::TryStreamExt::try_next(&mut listed).await.expect("lists") {
        match name_of(&prefix, &found.location) {
            Some(Found::Head(name)) => heads.push(name),
            Some(Found::Part(_)) => parts += 1,
            None => panic!("{}", found.location),
        }
    }
    heads.sort_unstable();
    (heads, parts)
}

fn payload(size: usize) -> Bytes {
    Bytes::from(vec![7; size])
}

/// Rebuilds from the bucket into a fresh store and gives a voter over it.
async fn rebuilt(world: &World, incarnation: u16) -> (meta::Handle, Adopted, Shutdown) {
    let (memory, prefix) = (MemoryStore::default(), Path::from("test"));
    let restored = restore(&world.store, &prefix, "tests", Box::new(memory)).await;
    let restored = restored.expect("restores");
    let shutdown = Shutdown::new();
    let deps = meta::Deps {
        clock: world.clock.clone(),
        rng: Rng::seeded(3),
        transport: Box::new(meta::Alone),
        shutdown: shutdown.clone(),
        on_fatal: Arc::new(|line| panic!("{line}")),
        metrics: meta::Metrics::default(),
    };
    let started = meta::start(restored.store, meta::Options::alone(), deps).await;
    let (handle, driver) = started.expect("starts");
    tokio::spawn(driver.run());
    let begin = BeginRebuild { incarnation: incarnation.into(), now_ms: world.clock.now_ms() };
    let reply = handle.propose(begin).await.expect("answers");
    assert_eq!(reply, Reply::RebuildBegun { incarnation });
    let adopted = adopt(&world.store, &prefix, &handle, &world.clock).await.expect("adopts");
    (handle, adopted, shutdown)
}

#[test]
fn names_are_fixed_because_snapshots_outlive_builds() {
    let name = Name { incarnation: 3, applied: 77, nonce: 0xab };
    let prefix = Path::from("p/c");
    assert_eq!(name.head(&prefix).as_ref(), "p/c/meta/00003-00000000000000000077-000000ab.head");
    assert_eq!(
        name.part(&prefix, 1).as_ref(),
        "p/c/meta/00003-00000000000000000077-000000ab/000001"
    );
    assert_eq!(Name::parse("00003-00000000000000000077-000000ab"), Some(name));
    assert_eq!(Name::parse("3-77-ab"), None);
    assert!(Name { incarnation: 2, applied: 900, nonce: 0 } < name);
}

#[tokio::test(start_paused = true)]
async fn old_snapshots_go_and_deletes_wait_for_the_oldest_kept_one() {
    let mut world = World::new(1, 1, options()).await;
    let (floor, fenced) = (Arc::new(AtomicI64::new(0)), Arc::default());
    let mut keeper = keeper(&world, &floor, &fenced);
    let stream = world.stream(0);
    let mut times = Vec::new();
    for _ in 0..5 {
        world.round(&[(stream, vec![(0, 5, payload(100))])]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let head = keeper.take().await.expect("puts");
        assert!(head.parts.len() > 1, "small parts");
        times.push(head.time_ms);
    }
    let (heads, parts) = names(&*world.store).await;
    assert_eq!(heads.len(), 3, "the newest three are kept");
    assert!(parts >= 6);
    assert_eq!(floor.load(Ordering::SeqCst), times[2]);
    // Parts of a snapshot that was not finished go with the next one.
    let torn = Name { incarnation: 1, applied: 1, nonce: 5 };
    let key = torn.part(&Path::from("test"), 0);
    world.store.put(&key, payload(9).into()).await.expect("puts");
    keeper.take().await.expect("puts");
    assert!(world.store.head(&key).await.is_err());
    // A later life of the cluster ends this one.
    let prefix = Path::from("test");
    crate::claim_incarnation(&*world.store, &prefix, 2, payload(1)).await.expect("claims");
    assert!(keeper.take().await.expect_err("fenced").contains("incarnation 2"));
    assert_eq!(fenced.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rebuild_takes_newer_rounds_and_names_the_rest_as_lost() {
    let mut world = World::new(2, 2, options()).await;
    let floor = Arc::new(AtomicI64::new(0));
    let mut keeper = keeper(&world, &floor, &Arc::default());
    let (one, two) = (world.stream(0), world.stream(1));
    world.round(&[(one, vec![(0, 5, payload(100))]), (two, vec![(0, 3, payload(9))])]).await;
    keeper.take().await.expect("puts");
    // Newer than the snapshot: two rounds, and a topic that it does not know.
    world.round(&[(one, vec![(0, 5, payload(50))])]).await;
    world.create_topic(3).await;
    let three = world.stream(2);
    let last =
        world.round(&[(one, vec![(1, 4, payload(50))]), (three, vec![(0, 2, payload(9))])]).await;
    let (meta, adopted, shutdown) = rebuilt(&world, 2).await;
    assert_eq!(adopted.objects, 2);
    let key = crate::data_key(&Path::from("test"), last).to_string();
    assert_eq!(adopted.left.len(), 1, "the new topic's part: {:?}", adopted.left);
    assert_eq!(adopted.left[0].key, key);
    assert_eq!(adopted.lost.len(), 6, "three streams of the two partitions that are known");
    let index = meta.stream_index(one, 0, 100).await.expect("answers");
    assert_eq!(index.lost, [(15, 15 + meta::LOST_SPAN)]);
    let covers: Vec<_> = index.objects.iter().map(|range| (range.start, range.end)).collect();
    assert_eq!(covers, [(0, 5), (5, 10), (10, 15)]);
    let index = meta.stream_index(two, 0, 100).await.expect("answers");
    assert_eq!(index.lost, [(3, 3 + meta::LOST_SPAN)]);
    assert!(!meta.image().topics.contains_key(&three.partition.topic));
    let options = FsckOptions {
        grace: Duration::ZERO,
        now_ms: world.clock.now_ms(),
        incarnation: 2,
        read_indexes: true,
        requests_max: 2,
    };
    let report = fsck(&*world.store, &Path::from("test"), &meta, &options).await.expect("checks");
    assert_eq!(report.findings, [], "and nothing was deleted or forgotten");
    assert_eq!(report.objects, 3);
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_passed_over_for_the_one_before() {
    let mut world = World::new(3, 1, options()).await;
    let floor = Arc::new(AtomicI64::new(0));
    let mut keeper = keeper(&world, &floor, &Arc::default());
    let stream = world.stream(0);
    for _ in 0..2 {
        world.round(&[(stream, vec![(0, 5, payload(100))])]).await;
        keeper.take().await.expect("puts");
    }
    let prefix = Path::from("test");
    let (heads, _) = names(&*world.store).await;
    let newest = *heads.last().expect("two");
    let key = newest.part(&prefix, 1);
    let mut bytes = get(&*world.store, &key).await.expect("there").to_vec();
    bytes[40] ^= 1;
    world.store.put(&key, bytes.into()).await.expect("puts");
    let local = Box::new(MemoryStore::default());
    let restored = restore(&world.store, &prefix, "tests", local).await.expect("restores");
    assert_eq!(restored.name, heads[0].to_string());
    assert_eq!(restored.skipped.len(), 1);
    // What came after the older one is adopted all the same.
    let (meta, adopted, shutdown) = rebuilt(&world, 2).await;
    assert_eq!(adopted.objects, 1);
    let index = meta.stream_index(stream, 0, 10).await.expect("answers");
    assert_eq!(index.lost, [(10, 10 + meta::LOST_SPAN)]);
    shutdown.cancel();
    world.store.delete(&heads[0].head(&prefix)).await.expect("deletes");
    let local = Box::new(MemoryStore::default());
    let none = restore(&world.store, &prefix, "tests", local).await;
    assert!(matches!(none, Err(RestoreError::Unusable(_))));
    let local = Box::new(MemoryStore::default());
    let empty: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    assert!(matches!(
        restore(&empty, &prefix, "tests", local).await,
        Err(RestoreError::None { .. })
    ));
}
