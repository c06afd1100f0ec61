//! Swaps one by one: what a winner changes and what a loser is told.

use common::{ObjectId, StreamId};

use super::world::{Log, World, data, part_of, range, rejected, swap_of};
use crate::command::{SetLogStart, SwapRanges};
use crate::facts::ObjectStage;
use crate::reply::{Reject, Reply};

struct Case {
    world: World,
    log: Log,
    topic: (u64, Vec<u8>),
    stream: StreamId,
    objects: Vec<ObjectId>,
}

/// One stream in three objects: [0, 10), [10, 20), [20, 30).
fn case() -> Case {
    let (mut world, logs) = World::with_nodes(1);
    let topic = world.topic("t", 1);
    let stream = data(topic.0, 0);
    let log = logs[0];
    let commit = |start: i64| world.commit(log, vec![range(stream, start, start + 10, 0)]).0;
    let objects = [0, 10, 20].map(commit).into();
    Case { world, log, topic, stream, objects }
}

impl Case {
    fn swap(&mut self, start: i64, inputs: &[usize], outputs: &[(u32, i64)]) -> SwapRanges {
        let many = outputs.iter().map(|(object, _)| object + 1).max().expect("one");
        let new: Vec<_> = (0..many).map(|_| self.world.register(self.log)).collect();
        let mut swap = swap_of(self.log, &new, self.world.now_ms);
        let inputs: Vec<_> = inputs.iter().map(|input| self.objects[*input]).collect();
        let part = part_of(&mut swap, self.stream, 0, start, &inputs, outputs);
        swap.streams.push(part);
        swap
    }

    fn cover(&self) -> Vec<(i64, i64, ObjectId)> {
        let index = self.world.index(self.stream);
        index.objects.iter().map(|one| (one.start, one.end, one.object)).collect()
    }

    fn stage(&self, id: ObjectId) -> Option<ObjectStage> {
        self.world.object(id).map(|object| object.stage)
    }
}

#[test]
fn a_swap_replaces_the_cover_and_releases_what_it_was_made_from() {
    let mut case = case();
    let before = case.world.index(case.stream);
    let swap = case.swap(0, &[0, 1], &[(0, 7), (1, 20)]);
    let new: Vec<_> = swap.objects.iter().map(|one| ObjectId(one.object)).collect();
    assert_eq!(case.world.run(swap.clone()), Reply::RangesSwapped { again: false });
    assert_eq!(case.cover(), [(0, 7, new[0]), (7, 20, new[1]), (20, 30, case.objects[2])]);
    let after = case.world.index(case.stream);
    assert_eq!((after.bytes, after.records, after.committed_end), (30, 30, 30));
    assert!(after.version > before.version);
    let stages = case.objects.iter().chain(&new).map(|id| case.stage(*id).expect("known"));
    use ObjectStage::{Committed, Released};
    assert_eq!(stages.collect::<Vec<_>>(), [Released, Released, Committed, Committed, Committed]);
    // The answer may get lost: the same again changes nothing, even when the output was swapped away since.
    case.objects.extend(&new);
    let next = case.swap(0, &[3, 4, 2], &[(0, 30)]);
    assert_eq!(case.world.run(next), Reply::RangesSwapped { again: false });
    assert_eq!(case.world.run(swap), Reply::RangesSwapped { again: true });
    assert_eq!(case.cover().len(), 1);
}

#[test]
fn a_lost_race_is_told_by_name_and_changes_nothing() {
    let mut case = case();
    let (id, stream) = (case.topic.1.clone(), case.stream);
    let late = case.swap(0, &[0, 1], &[(0, 20)]);
    let winner = case.swap(10, &[1, 2], &[(0, 30)]);
    assert_eq!(case.world.run(winner), Reply::RangesSwapped { again: false });
    let lost = rejected(case.world.run(late));
    assert_eq!(lost, Reject::CoverChanged { stream, start: 0, end: 20 });
    let low = case.swap(0, &[0], &[(0, 10)]);
    let (topic, now_ms) = (case.topic.0, case.world.now_ms);
    case.world.run(SetLogStart { topic, index: 0, kind: 0, start: 5, epoch: 0, now_ms });
    let lost = rejected(case.world.run(low.clone()));
    assert_eq!(lost, Reject::BelowLogStart { stream, start: 0, log_start: 5 });
    let opened = case.world.open(case.log.wal, 1, 4096 * 3);
    assert!(matches!(rejected(case.world.run(low)), Reject::StaleWalEpoch { .. }));
    case.log = opened;
    let stale = case.swap(10, &[1, 2], &[(0, 30)]);
    assert!(matches!(rejected(case.world.run(stale)), Reject::StaleStreamEpoch { .. }));
    let gone = case.swap(10, &[1, 2], &[(0, 30)]);
    case.world.delete(&id);
    assert!(matches!(rejected(case.world.run(gone)), Reject::UnknownPartition(_)));
}

#[test]
fn an_expired_id_and_a_reversed_or_empty_output_are_refused() {
    let mut case = case();
    let swap = case.swap(0, &[0, 1], &[(0, 20)]);
    case.world.now_ms += 70_000;
    let now_ms = case.world.now_ms;
    case.world.run(crate::command::ExpireObjects { now_ms, objects_max: 10 });
    assert!(matches!(rejected(case.world.run(swap)), Reject::ObjectExpired(_)));
    let mut empty = case.swap(0, &[0, 1], &[(0, 20)]);
    empty.streams[0].outputs[0].end = 0;
    assert!(matches!(rejected(case.world.run(empty)), Reject::Malformed(_)));
    let mut twice = case.swap(0, &[0, 1], &[(0, 10), (0, 20)]);
    twice.streams[0].outputs[0].end = 20;
    assert!(matches!(rejected(case.world.run(twice)), Reject::Malformed(_)));
    let mut wrong = case.swap(0, &[0, 1], &[(0, 20)]);
    wrong.streams[0].inputs[1] = 9;
    assert!(matches!(rejected(case.world.run(wrong)), Reject::Malformed(_)));
    let mut large = case.swap(0, &[0, 1], &[(0, 20)]);
    large.streams[0].inputs = vec![0; super::SWAP_RANGES_MAX + 1];
    assert!(matches!(rejected(case.world.run(large)), Reject::Malformed(_)));
}
