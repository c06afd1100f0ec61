//! The sweeper and the proof of the bucket, against each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use common::{Rng, Shutdown};
use meta::command::{DeleteTopic, RegisterObject};
use meta::{Reply, Space};
use object_store::ObjectStoreExt;

use super::*;
use crate::compact::testing::{World, core, options};
use crate::options::Options;
use crate::sweep::{Metrics, Sweeper};

fn payload(size: usize) -> Bytes {
    Bytes::from(vec![7; size])
}

async fn check(world: &World, grace: Duration) -> FsckReport {
    let options = FsckOptions {
        grace,
        now_ms: world.clock.now_ms(),
        incarnation: 1,
        read_indexes: true,
        requests_max: 2,
    };
    fsck(&*world.store, &Path::from("test"), &world.meta, &options).await.expect("checks")
}

fn sweep(world: &World, options: Options, floor: i64) -> (Arc<AtomicI64>, Shutdown) {
    let (floor_ms, shutdown) = (Arc::new(AtomicI64::new(floor)), Shutdown::new());
    let sweeper = Sweeper {
        core: core(&world.clock),
        store: world.store.clone(),
        prefix: Path::from("test"),
        meta: world.meta.clone(),
        rng: Rng::seeded(5),
        options,
        metrics: Metrics::default(),
        floor_ms: floor_ms.clone(),
    };
    tokio::spawn(sweeper.run(shutdown.clone()));
    (floor_ms, shutdown)
}

async fn stored(world: &World) -> usize {
    world.store.list(Some(&Path::from("test/data"))).count().await
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topics_bytes_go_after_the_delay_and_the_snapshots() {
    let mut world = World::new(1, 2, options()).await;
    let (one, two) = (world.stream(0), world.stream(1));
    for _ in 0..3 {
        world.round(&[(one, vec![(0, 5, payload(100))])]).await;
    }
    let kept = world.round(&[(two, vec![(0, 5, payload(100))])]).await;
    let options = Options { delete_needs_snapshot: true, ..options() };
    let (floor, shutdown) = sweep(&world, options, i64::MIN);
    let now_ms = world.clock.now_ms();
    let id = world.topics[0].1.clone();
    let reply = world.meta.propose(DeleteTopic { id, now_ms }).await.expect("answers");
    assert!(matches!(reply, Reply::TopicDeleted { .. }));
    seconds(1000).await;
    assert_eq!(stored(&world).await, 4, "a snapshot may still list them");
    floor.store(now_ms, Ordering::SeqCst);
    seconds(1000).await;
    assert_eq!(stored(&world).await, 4, "released at that very time");
    let overdue = check(&world, Duration::from_secs(60)).await;
    assert_eq!(overdue.findings_total, 3, "{:?}", overdue.findings);
    assert!(overdue.findings.iter().all(|one| one.kind == "overdue"));
    assert_eq!(check(&world, Duration::from_secs(6000)).await.pending, 3);
    floor.store(now_ms + 1, Ordering::SeqCst);
    seconds(30).await;
    assert_eq!(stored(&world).await, 1);
    let report = check(&world, Duration::ZERO).await;
    assert_eq!((report.findings, report.objects, report.pending), (Vec::new(), 1, 0));
    let objects = world.meta.objects(None, 10).await.expect("answers");
    assert_eq!(objects.iter().map(|one| one.id).collect::<Vec<_>>(), [kept], "and forgotten");
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_delay_holds_for_what_is_released() {
    let mut world = World::new(2, 1, options()).await;
    let stream = world.stream(0);
    world.round(&[(stream, vec![(0, 5, payload(100))])]).await;
    world.round(&[(stream, vec![(0, 5, payload(100))])]).await;
    let (_, shutdown) = sweep(&world, options(), i64::MIN);
    world.set_start(stream, 5).await;
    seconds(110).await;
    assert_eq!(stored(&world).await, 2, "the delay is two minutes");
    seconds(30).await;
    assert_eq!(stored(&world).await, 1);
    assert_eq!(check(&world, Duration::ZERO).await.findings, []);
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_orphan_of_an_expired_id_goes_and_a_late_put_too() {
    let mut world = World::new(3, 1, options()).await;
    let stream = world.stream(0);
    world.round(&[(stream, vec![(0, 5, payload(100))])]).await;
    let wal = world.meta.wals().await.expect("answers")[0].clone();
    let (epoch, now_ms) = (wal.epochs[0].0.0, world.clock.now_ms());
    let register = RegisterObject { wal: wal.id.0, epoch, ttl_ms: 60_000, now_ms };
    let reply = world.meta.propose(register).await.expect("answers");
    let Reply::ObjectRegistered { object, .. } = reply else { panic!("{reply:?}") };
    let key = data_key(&Path::from("test"), object);
    world.store.put(&key, payload(40).into()).await.expect("puts");
    let (_, shutdown) = sweep(&world, options(), i64::MIN);
    seconds(50).await;
    assert_eq!(stored(&world).await, 2, "its time is not over");
    let report = check(&world, Duration::from_secs(60)).await;
    assert_eq!((report.findings, report.pending), (Vec::new(), 1));
    seconds(30).await;
    assert_eq!(stored(&world).await, 1);
    // A put that was under way all the time.
    world.store.put(&key, payload(40).into()).await.expect("puts");
    seconds(3700).await;
    assert_eq!(stored(&world).await, 1, "the delete is repeated");
    assert_eq!(check(&world, Duration::from_secs(60)).await.findings, []);
    shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_found_and_named() {
    let mut world = World::new(4, 1, options()).await;
    let stream = world.stream(0);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.round(&[(stream, vec![(0, 5, payload(100))])]).await);
    }
    assert_eq!(check(&world, Duration::ZERO).await.findings, []);
    let key = |id| data_key(&Path::from("test"), id);
    world.store.delete(&key(ids[0])).await.expect("deletes");
    let whole = world.store.get(&key(ids[1])).await.expect("there").bytes().await.expect("reads");
    world.store.put(&key(ids[1]), whole.slice(..whole.len() - 1).into()).await.expect("puts");
    let mut wrong = whole.to_vec();
    let last = wrong.len() - 100;
    wrong[last] ^= 1;
    world.store.put(&key(ids[2]), wrong.into()).await.expect("puts");
    let stranger = key(ObjectId((1 << 48) | 999));
    world.store.put(&stranger, payload(3).into()).await.expect("puts");
    let foreign = Path::from("test/data/00/letter");
    world.store.put(&foreign, payload(3).into()).await.expect("puts");
    let report = check(&world, Duration::ZERO).await;
    let mut kinds: Vec<_> = report.findings.iter().map(|one| one.kind).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["damaged", "foreign", "missing", "size", "unknown"], "{report:?}");
    // The same without a broker.
    let offline = Offline::new(Box::new(world.memory.clone()));
    let options = FsckOptions {
        grace: Duration::ZERO,
        now_ms: 0,
        incarnation: 1,
        read_indexes: true,
        requests_max: 2,
    };
    let same = fsck(&*world.store, &Path::from("test"), &offline, &options).await.expect("checks");
    assert_eq!(same, report);
    // A range that no object covers.
    let index = world.meta.stream_index(stream, 0, 10).await.expect("answers");
    let state = world.memory.state();
    let hole = state.keys().find(|key| key[0] == 0x41).expect("a range").clone();
    let mut batch = meta::Batch::default();
    batch.delete(Space::State, hole);
    let mut memory = world.memory.clone();
    meta::MetaStore::write(&mut memory, batch, false).await.expect("writes");
    let report = check(&world, Duration::ZERO).await;
    let gap = report.findings.iter().find(|one| one.kind == "gap").expect("found");
    assert_eq!(gap.detail, format!("no object covers [0, {})", index.objects[0].end));
}
