//! Rewrites against a plain vector, at the edges of offsets, and the races they lose.

use bytes::Bytes;
use common::{Rng, StreamId};

use super::testing::{Plain, World, options};
use super::{CompactError, Digest, Filter, Verdict};
use crate::types::Entry;

/// Keeps, drops and replaces by a seed, and does the same to a model.
struct Random {
    rng: Rng,
    verdicts: Vec<(i64, Verdict)>,
    proved: u32,
    refuse: bool,
}

impl Random {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::seeded(seed), verdicts: Vec::new(), proved: 0, refuse: false }
    }

    fn apply(&self, model: &mut Vec<Plain>) {
        for (base, verdict) in &self.verdicts {
            let at =
                model.iter().position(|entry| entry.0 == *base).expect("asked about what is there");
            match verdict {
                Verdict::Keep => {}
                Verdict::Drop => drop(model.remove(at)),
                Verdict::Replace { bytes, count, .. } => {
                    (model[at].2, model[at].3) = (*count, bytes.clone());
                }
            }
        }
    }
}

impl Filter for Random {
    fn entry(&mut self, entry: &Entry) -> Result<Verdict, String> {
        let verdict = match self.rng.below(4) {
            0 => Verdict::Drop,
            1 => Verdict::Replace {
                bytes: entry.bytes.slice(..entry.bytes.len() / 2),
                count: entry.count.saturating_sub(1),
                max_timestamp: entry.max_timestamp,
            },
            _ => Verdict::Keep,
        };
        self.verdicts.push((entry.base_offset, verdict.clone()));
        Ok(verdict)
    }

    fn prove(&mut self, input: &Digest, output: &Digest) -> Result<(), String> {
        assert!(output.entries <= input.entries && output.records <= input.records);
        self.proved += 1;
        if self.refuse { Err("not this time".into()) } else { Ok(()) }
    }
}

fn entries(rng: &Rng, many: u64, gap_max: u64, span_max: u64) -> Vec<(i64, u64, Bytes)> {
    let entry = |_| {
        let gap = i64::try_from(rng.below(gap_max)).expect("small");
        let byte = u8::try_from(rng.below(256)).expect("a byte");
        let size = usize::try_from(rng.below(3000)).expect("small");
        (gap, 1 + rng.below(span_max), Bytes::from(vec![byte; size]))
    };
    (0..many).map(entry).collect()
}

async fn life(seed: u64) {
    let rng = Rng::seeded(seed);
    let mut options = options();
    options.compaction_object_bytes_max = 6000 + rng.below(1 << 16);
    let mut world = World::new(seed, 2, options).await;
    let streams = [world.stream(0), world.stream(1)];
    // Around 2^31 and 2^62, with holes; spans up to 2^20.
    world.begin_stream(streams[0], (1 << 31) - 500);
    world.begin_stream(streams[1], (1 << 62) - 70_000);
    for _ in 0..3 + rng.below(6) {
        let mut round = Vec::new();
        for (stream, span_max) in streams.iter().zip([40, 1 << 20]) {
            let many = rng.below(6);
            if many > 0 {
                round.push((*stream, entries(&rng, many, 50, span_max)));
            }
        }
        world.round(&round).await;
    }
    for step in 0..6 {
        let stream = streams[usize::try_from(rng.below(2)).expect("two")];
        rewrite(&mut world, &rng, stream, seed * 100 + step).await;
        world.check().await;
    }
}

async fn rewrite(world: &mut World, rng: &Rng, stream: StreamId, seed: u64) {
    let cover = world.cover(stream).await;
    let Some((low, high)) = cover.first().zip(cover.last()).map(|(first, last)| (first.0, last.1))
    else {
        return;
    };
    let width = u64::try_from(high - low).expect("forward") + 20;
    let mut ends =
        [rng.below(width), rng.below(width)].map(|at| low + i64::try_from(at).expect("small") - 10);
    ends.sort_unstable();
    let mut filter = Random::new(seed);
    filter.refuse = rng.one_in(5);
    let epoch = world.epoch_of(stream);
    let result = world.compactor.rewrite(stream, ends[0]..ends[1], epoch, &mut filter).await;
    match result {
        Ok(done) => {
            assert!(!filter.refuse && filter.proved == 1);
            let widened = cover.iter().filter(|one| one.0 < ends[1] && one.1 > ends[0]);
            let widened: Vec<_> = widened.collect();
            assert_eq!(done.range, widened[0].0..widened[widened.len() - 1].1);
            filter.apply(world.model.get_mut(&stream).expect("known"));
            let inside =
                filter.verdicts.iter().all(|(base, _)| *base >= ends[0] && *base < ends[1]);
            assert!(inside, "only what was asked for");
        }
        Err(CompactError::Unproved(why)) => assert!(filter.refuse && why == "not this time"),
        Err(CompactError::Nothing) => {
            assert!(ends[1] <= low || ends[0] >= high || ends[0] == ends[1])
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn rewrites_agree_with_a_plain_vector() {
    for seed in 0..60 {
        life(seed).await;
    }
}

/// Keeps everything, and lets something happen before the commit.
struct Meanwhile<F>(Option<F>);

impl<F: FnOnce() + Send> Filter for Meanwhile<F> {
    fn entry(&mut self, _entry: &Entry) -> Result<Verdict, String> {
        Ok(Verdict::Keep)
    }

    fn prove(&mut self, _input: &Digest, _output: &Digest) -> Result<(), String> {
        if let Some(body) = self.0.take() {
            body();
        }
        Ok(())
    }
}

async fn lose(race: impl AsyncFnOnce(&mut World, StreamId)) -> (World, CompactError) {
    let mut world = World::new(7, 1, options()).await;
    let stream = world.stream(0);
    for _ in 0..4 {
        let rng = Rng::seeded(3);
        world.round(&[(stream, entries(&rng, 4, 3, 9))]).await;
    }
    let epoch = world.epoch_of(stream);
    let (go, gone) =
        (std::sync::Arc::new(tokio::sync::Notify::new()), tokio::sync::oneshot::channel());
    let task = {
        let (compactor, go) = (world.compactor.clone(), go.clone());
        // The proof blocks nothing: the race is run to its end before the commit is proposed.
        tokio::spawn(async move {
            let inputs = compactor.inputs(stream, 0..i64::MAX).await.expect("there");
            gone.0.send(()).expect("waited for");
            go.notified().await;
            let part = super::Part { stream, epoch, inputs };
            let kind = crate::object::Kind::Stream;
            let job = super::Job { kind, parts: vec![part], object_bytes_max: 1 << 20 };
            compactor.run(&job, None).await.map(|_| ())
        })
    };
    gone.1.await.expect("planned");
    race(&mut world, stream).await;
    go.notify_one();
    let lost = task.await.expect("no panic").expect_err("a lost race");
    (world, lost)
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_given_up_without_harm() {
    let reason = |error: &CompactError| match error {
        CompactError::Lost { reason, .. } => *reason,
        other => panic!("{other}"),
    };
    let (world, lost) = lose(async |world: &mut World, stream| {
        world.set_start(stream, 5).await;
    })
    .await;
    assert_eq!(reason(&lost), "below_log_start");
    world.check().await;
    let (world, lost) = lose(async |world: &mut World, stream| {
        let epoch = world.epoch_of(stream);
        let end = world.cover(stream).await[1].1;
        let filter = &mut Meanwhile(None::<fn()>);
        world.compactor.rewrite(stream, 0..end, epoch, filter).await.expect("the winner");
    })
    .await;
    assert_eq!(reason(&lost), "cover_changed");
    world.check().await;
    let (_, lost) = lose(async |world: &mut World, _| {
        let id = world.topics[0].1.clone();
        let now_ms = world.clock.now_ms();
        world.meta.propose(meta::command::DeleteTopic { id, now_ms }).await.expect("answers");
    })
    .await;
    assert_eq!(reason(&lost), "deleted");
}

#[tokio::test(start_paused = true)]
async fn an_empty_result_still_covers_its_offsets() {
    struct Nothing;
    impl Filter for Nothing {
        fn entry(&mut self, _entry: &Entry) -> Result<Verdict, String> {
            Ok(Verdict::Drop)
        }
        fn prove(&mut self, _input: &Digest, output: &Digest) -> Result<(), String> {
            assert_eq!((output.entries, output.first), (0, None));
            Ok(())
        }
    }
    let mut world = World::new(1, 1, options()).await;
    let stream = world.stream(0);
    for _ in 0..3 {
        world.round(&[(stream, vec![(0, 5, Bytes::from_static(b"x"))])]).await;
    }
    let epoch = world.epoch_of(stream);
    let done = world.compactor.rewrite(stream, 0..15, epoch, &mut Nothing).await.expect("done");
    assert_eq!(world.cover(stream).await, [(0, 15, done.objects[0])]);
    assert_eq!(world.read(stream).await, []);
    let index = world.meta.stream_index(stream, 0, 9).await.expect("answers");
    assert_eq!((index.bytes, index.records, index.committed_end), (0, 0, 15));
}
