//! Streams against a plain vector model: random appends, reads, evictions, uploads, outages, damage on the way and
//! restarts, all drawn from a seed. A failing seed is printed; `SLUICE_SEED=n cargo test --release --workspace --test storage` repeats it.

mod storage_world;

use std::time::Duration;

use common::{Rng, StreamKind};
use object_store::{ObjectStoreExt, PutPayload};
use sim::store::Faults;
use storage::{AppendError, Class, ReadError};
use storage_world::{World, data_of, small};

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("SLUICE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

fn simulate<F: Future<Output = ()>>(seed: u64, body: impl FnOnce(u64) -> F) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    let told = Told(seed);
    runtime.block_on(async {
        let limit = Duration::from_secs(36_000);
        tokio::time::timeout(limit, body(seed)).await.expect("no simulated run takes ten hours");
    });
    std::mem::forget(told);
}

struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!(
            "repeat with: SLUICE_SEED={} cargo test --release --workspace --test storage",
            self.0
        );
    }
}

#[test]
fn streams_are_a_vector_whatever_happens() {
    let mut met = storage_world::Edges::default();
    for seed in seeds(100) {
        simulate(seed, |seed| async move {
            let mut world = World::new(seed, small()).await;
            for _ in 0..120 {
                world.step().await;
            }
            world.store.set(Faults::default());
            world.check_all().await;
            world.storage.upload_through(world.last_position()).await.expect("open");
            world.check_all().await;
            world.restart().await;
            world.check_all().await;
            storage_world::EDGES.with_borrow_mut(|edges| edges.add(&world.edges()));
        });
    }
    storage_world::EDGES.with_borrow(|edges| met.add(edges));
    if std::env::var("SLUICE_SEED").is_err() {
        met.assert_all_met();
    }
}

#[test]
fn an_outage_is_bounded_by_the_log_and_ends_by_itself() {
    simulate(7, |seed| async move {
        let mut world = World::new(seed, small()).await;
        world.append(1, StreamKind::Data, 8000).await;
        world.storage.upload_through(world.last_position()).await.expect("open");
        world.restart().await;
        world.store.set(Faults { outage: true, ..Faults::default() });
        // Ten minutes under load: produce goes on until the log is full, then is refused and refused.
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..600 {
            match world.try_append(0, StreamKind::Data, 8000) {
                Ok(_) => taken += 1,
                Err(AppendError::Full) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            world.storage.kick();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let cold = world.read(data_of(1), 0).await.expect_err("no empty answer");
            assert!(matches!(cold, ReadError::Unavailable(_)), "an outage is no damage: {cold}");
            assert!(world.read(data_of(0), 0).await.is_ok(), "what is in the log is served");
        }
        assert!(taken > 40 && refused > 100, "{taken} {refused}");
        let bounds = world.storage.bounds(data_of(0)).expect("open");
        assert_eq!(bounds.committed_end, 0);
        world.store.set(Faults::default());
        world.storage.upload_through(world.last_position()).await.expect("open");
        world.check_all().await;
        assert!(world.edges().read_back_for_upload > 0, "the round read groups back from the log");
    });
}

#[test]
fn an_object_that_is_missing_or_damaged_refuses_its_range_only() {
    simulate(8, |seed| async move {
        let mut world = World::new(seed, small()).await;
        for _ in 0..8 {
            world.append(0, StreamKind::Data, 6000).await;
            world.append(1, StreamKind::Data, 6000).await;
        }
        world.storage.upload_through(world.last_position()).await.expect("open");
        world.append(0, StreamKind::Data, 500).await;
        world.restart().await;
        let index = world.meta.stream_index(data_of(0), 0, 10).await.expect("answers");
        let object = &index.objects[0];
        let key = storage::data_key(&world.prefix, object.object);
        let inner = world.store.inner().clone();
        let sound = inner.get(&key).await.expect("there").bytes().await.expect("reads");

        inner.delete(&key).await.expect("deletes");
        let error = world.read(data_of(0), 0).await.expect_err("missing");
        assert!(matches!(error, ReadError::Missing { start: 0, .. }), "{error}");

        inner
            .put(&key, PutPayload::from_bytes(sound.slice(..sound.len() / 2)))
            .await
            .expect("puts");
        let error = world.read(data_of(0), 0).await.expect_err("cut");
        assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");

        // Flip a bit in the payload of the first entry: its block's head and table are 64 + 48 * n bytes.
        let mut flipped = sound.to_vec();
        let first = storage::object::ObjectIndex::parse(&sound).expect("sound");
        let block = first.blocks_of(data_of(0), 0, 1)[0];
        let at =
            usize::try_from(block.position + block.length - block.payload_bytes).expect("small");
        flipped[at] ^= 1;
        inner.put(&key, PutPayload::from(flipped)).await.expect("puts");
        let error = world.read(data_of(0), 0).await.expect_err("flipped");
        let named =
            matches!(error, ReadError::Corrupt { object: id, start: 0, .. } if id == object.object);
        assert!(named, "{error}");
        let tail = world.start_of_entry(data_of(0), 8);
        let read = world.read(data_of(0), tail).await.expect("the tail is sound");
        assert_eq!(read.entries.len(), 1);

        inner.put(&key, PutPayload::from_bytes(sound)).await.expect("puts");
        world.check_all().await;
    });
}

#[test]
fn a_deleted_topic_is_passed_over_and_its_epochs_go_on() {
    simulate(9, |seed| async move {
        let mut world = World::new(seed, small()).await;
        world.append(0, StreamKind::Data, 3000).await;
        world.append(1, StreamKind::Data, 3000).await;
        let deleted = world.delete_topic(0).await;
        world.storage.upload_through(world.last_position()).await.expect("open");
        let index = world.meta.stream_index(deleted, 0, 10).await.expect("answers");
        assert!(index.objects.is_empty());
        world.check_all().await;
        world.restart().await;
        world.check_all().await;
    });
}

#[test]
fn a_stale_epoch_ends_the_process_and_trims_nothing() {
    simulate(10, |seed| async move {
        let mut world = World::new(seed, small()).await;
        world.append(0, StreamKind::Data, 3000).await;
        world.fence().await;
        let upload = world.storage.upload_through(world.last_position()).await;
        assert!(upload.is_err());
        assert_eq!(world.fatal_lines().len(), 1, "{:?}", world.fatal_lines());
        let closed = world.try_append(0, StreamKind::Data, 10);
        assert_eq!(closed, Err(AppendError::Closed));
    });
}

#[test]
fn the_log_start_is_checked_after_the_read_and_bytes_below_are_not_uploaded() {
    simulate(11, |seed| async move {
        let mut world = World::new(seed, small()).await;
        for _ in 0..6 {
            world.append(0, StreamKind::Data, 3000).await;
        }
        let start = world.start_of_entry(data_of(0), 4);
        world.set_log_start(data_of(0), start).await;
        world.storage.upload_through(world.last_position()).await.expect("open");
        let error = world.read(data_of(0), 0).await.expect_err("below");
        assert!(matches!(error, ReadError::BelowStart { .. }), "{error}");
        world.restart().await;
        world.check_all().await;
        let index = world.meta.stream_index(data_of(0), start, 10).await.expect("answers");
        assert_eq!(index.objects[0].bytes, 2 * 3008);
    });
}

fn steps_and_a_restart(seed: u64) {
    simulate(seed, |seed| async move {
        let mut world = World::new(seed, small()).await;
        for _ in 0..60 {
            world.step().await;
        }
        world.store.set(Faults::default());
        world.restart().await;
        world.check_all().await;
    });
}

#[test]
fn trimming_before_the_commit_is_found() {
    let found = seeds(200).into_iter().find(|seed| {
        let _bug = common::failpoint::plant("trim-before-durable");
        std::panic::catch_unwind(|| steps_and_a_restart(*seed)).is_err()
    });
    let seed = found.expect("the planted bug is found within 200 seeds");
    println!("found with seed {seed}");
    // It was the bug: without it the same seed passes.
    steps_and_a_restart(seed);
}

#[test]
fn one_seed_one_run() {
    let run = |seed: u64| {
        let mut trace = String::new();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async {
            let mut world = World::new(seed, small()).await;
            for _ in 0..60 {
                world.step().await;
            }
            trace = world.trace();
        });
        trace
    };
    let seed = Rng::seeded(3).next_u64();
    let (first, second) = (run(seed), run(seed));
    for (line, (one, two)) in first.lines().zip(second.lines()).enumerate() {
        assert_eq!(one, two, "line {line}");
    }
    assert_eq!(first.len(), second.len());
}

#[test]
fn classes_do_not_share_their_requests() {
    simulate(12, |seed| async move {
        let mut world = World::new(seed, small()).await;
        for _ in 0..10 {
            world.append(0, StreamKind::Data, 6000).await;
        }
        world.storage.upload_through(world.last_position()).await.expect("open");
        world.restart().await;
        world.store.set(Faults { stuck_body_one_in: 1, ..Faults::default() });
        let stuck = world.storage.clone();
        let stuck =
            tokio::spawn(
                async move { stuck.read(data_of(0), 0, i64::MAX, 1000, Class::CatchUp).await },
            );
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.store.set(Faults::default());
        let read = world.storage.read(data_of(0), 0, i64::MAX, 1000, Class::Sink).await;
        assert_eq!(read.expect("its own share").entries.len(), 1);
        assert!(
            stuck.await.expect("no panic").is_ok(),
            "the deadline ends a stuck body, a retry answers"
        );
    });
}

#[test]
fn after_a_declared_loss_the_stream_goes_on_behind_a_named_range() {
    simulate(13, |seed| async move {
        let mut world = World::new(seed, small()).await;
        world.append(0, StreamKind::Data, 3000).await;
        world.storage.upload_through(world.last_position()).await.expect("open");
        let committed = world.storage.bounds(data_of(0)).expect("open").committed_end;
        world.append(0, StreamKind::Data, 3000).await;
        world.lose_the_disk().await;
        let bounds = world.storage.bounds(data_of(0)).expect("open");
        assert_eq!(bounds.end, committed + storage::AHEAD_MAX);
        let read = world.read(data_of(0), 0).await.expect("what was committed is there");
        assert_eq!(read.entries.len(), 1);
        let inside = world.read(data_of(0), committed + 5).await.expect("the loss is named");
        assert_eq!((inside.entries.len(), inside.next), (0, bounds.end));
        let append = |base_offset: i64, span: u64| {
            world.storage.append(&[storage::NewEntry {
                stream: data_of(0),
                epoch: world.epoch_of(0),
                base_offset,
                span,
                count: 1,
                max_timestamp: 1,
                parts: &[b"after"],
            }])
        };
        let far = append(bounds.end, storage::AHEAD_MAX.unsigned_abs() + 1);
        assert!(matches!(far, Err(AppendError::TooFarAhead { .. })), "{far:?}");
        let at = append(bounds.end, storage::AHEAD_MAX.unsigned_abs()).expect("exactly so far");
        world.storage.upload_through(at).await.expect("open");
        let over = world.read(data_of(0), committed).await.expect("moves on");
        assert_eq!(over.next, bounds.end);
        let read = world.read(data_of(0), over.next).await.expect("goes on");
        assert_eq!(read.entries.first().map(|entry| entry.base_offset), Some(bounds.end));
    });
}

#[test]
fn a_close_uploads_what_waits_and_the_next_start_has_nothing_to_do() {
    simulate(14, |seed| async move {
        let mut world = World::new(seed, small()).await;
        world.append(0, StreamKind::Data, 3000).await;
        world.storage.close().await;
        let index = world.meta.stream_index(data_of(0), 0, 1).await.expect("answers");
        assert_eq!(index.objects.len(), 1);
        world.restart().await;
        world.check_all().await;
        assert_eq!(world.read(data_of(0), 0).await.expect("there").entries.len(), 1);
    });
}

/// A reader with a small appetite, at the tail or far behind, while everything it reads from is evicted under it.
#[test]
fn a_reader_that_falls_off_the_tail_sees_no_gap_and_no_repeat() {
    let (mut tails, mut logs, mut objects) = (0, 0, 0);
    for seed in seeds(30) {
        simulate(seed, |seed| async move {
            let mut world = World::new(seed, small()).await;
            let rng = Rng::seeded(seed);
            let mut next = 0;
            for _ in 0..80 {
                for _ in 0..rng.below(3) {
                    let _ = world.try_append(
                        0,
                        StreamKind::Data,
                        if rng.one_in(4) { 9000 } else { 300 },
                    );
                }
                world.storage.kick();
                match rng.below(6) {
                    0 => world.storage.release_memory(u64::MAX),
                    1 => world.storage.release_memory(rng.below(100_000)),
                    2 => {
                        let last = world.last_position();
                        world.storage.upload_through(last).await.expect("open");
                        world.storage.release_memory(u64::MAX);
                    }
                    _ => {}
                }
                tokio::time::sleep(Duration::from_millis(rng.below(1500))).await;
                next = world.follow(data_of(0), next, 1 + rng.below(20_000)).await;
            }
            world.check_all().await;
            storage_world::EDGES.with_borrow_mut(|edges| edges.add(&world.edges()));
        });
    }
    storage_world::EDGES.with_borrow(|edges| {
        (tails, logs, objects) = (edges.evictions, edges.wal_reads, edges.object_reads);
    });
    if std::env::var("SLUICE_SEED").is_err() {
        assert!(tails > 0 && logs > 0 && objects > 0, "{tails} {logs} {objects}");
    }
}
