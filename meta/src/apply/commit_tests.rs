//! The commit, rule by rule.

use common::{Lsn, ObjectId, StreamKind, WalEpoch};

use super::LOST_SPAN;
use super::world::{World, data, range, rejected};
use crate::command::{
    CreateSink, DeclareWalLost, ExpireObjects, ObjectsDeleted, SetLogStart, SinkFloor,
};
use crate::facts::ObjectStage;
use crate::reply::{Broken, Reject, Reply};

fn committed(reply: Reply) -> (u64, usize, bool) {
    match reply {
        Reply::UploadCommitted { committed, refused, again } => (committed.0, refused.len(), again),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_round_moves_the_log_and_its_streams_together() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, _) = world.topic("t", 2);
    let streams =
        [data(topic, 0), data(topic, 1), data(topic, 0).partition.stream(StreamKind::State)];
    let ranges = streams.map(|stream| range(stream, 0, 10, 0)).to_vec();
    let (object, reply) = world.commit(logs[0], ranges);
    assert_eq!(committed(reply), (4096, 0, false));
    for stream in streams {
        let index = world.index(stream);
        assert_eq!((index.start, index.committed_end, index.bytes), (0, 10, 10));
        assert_eq!((index.objects[0].object, index.objects[0].end), (object, 10));
    }
    assert_eq!(world.object(object).expect("there").ranges.len(), 3);
    let (_, reply) = world.commit(logs[0], vec![range(data(topic, 0), 10, 15, 0)]);
    assert_eq!(committed(reply), (8192, 0, false));
    assert_eq!(world.index(data(topic, 0)).objects.len(), 2);
}

#[test]
fn a_repeated_commit_says_the_same_and_changes_nothing() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, _) = world.topic("t", 1);
    let (gone, gone_id) = world.topic("gone", 1);
    world.delete(&gone_id);
    let object = world.register(logs[0]);
    let ranges = vec![range(data(topic, 0), 0, 10, 0), range(data(gone, 0), 0, 3, 0)];
    let round = world.round(logs[0], object, ranges);
    assert_eq!(committed(world.run(round.clone())), (4096, 1, false));
    let before = world.state.clone();
    assert_eq!(committed(world.run(round.clone())), (4096, 1, true));
    assert_eq!(world.state, before);
    let mut other = round;
    other.end += 4096;
    let reject = rejected(world.run(other));
    assert_eq!(reject, Broken::ObjectOfOther(object).into());
}

#[test]
fn a_stale_epoch_is_refused_whole() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, _) = world.topic("t", 1);
    let object = world.register(logs[0]);
    let round = world.round(logs[0], object, vec![range(data(topic, 0), 0, 10, 0)]);
    let next = world.open(logs[0].wal, 1, 8192);
    let reject = rejected(world.run(round));
    assert_eq!(reject, Reject::StaleWalEpoch { current: WalEpoch(next.epoch) });
    // The new epoch uploads what the old one had written, under the old stream epoch.
    let (_, reply) = world.commit(next, vec![range(data(topic, 0), 0, 10, 0)]);
    assert_eq!(committed(reply), (4096, 0, false));
    assert_eq!(world.image.topics[&topic].partitions[0].epoch.0, 1, "opening raised it");
}

#[test]
fn the_log_passes_a_deleted_partition_with_all_its_streams() {
    let (mut world, logs) = World::with_nodes(1);
    let (stays, _) = world.topic("stays", 1);
    let (gone, gone_id) = world.topic("gone", 1);
    let object = world.register(logs[0]);
    let mut ranges = vec![range(data(stays, 0), 0, 5, 0)];
    ranges.extend(StreamKind::ALL.map(|kind| range(data(gone, 0).partition.stream(kind), 0, 9, 0)));
    world.delete(&gone_id);
    let round = world.round(logs[0], object, ranges);
    let reply = world.run(round);
    let refused = vec![data(gone, 0).partition];
    assert_eq!(reply, Reply::UploadCommitted { committed: Lsn(4096), refused, again: false });
    assert_eq!(world.object(object).expect("there").ranges.len(), 1);
    assert_eq!(world.index(data(gone, 0)).version, 0, "nothing of it came back");
}

#[test]
fn any_other_refusal_is_a_broken_invariant_and_changes_nothing() {
    let (mut world, logs) = World::with_nodes(2);
    let (topic, _) = world.topic("t", 2);
    let ours = (0..2)
        .find(|index| {
            world.image.topics[&topic].partitions[*index as usize].wal
                == Some(common::WalId(logs[0].wal))
        })
        .expect("spread over both");
    let (mine, theirs) = (data(topic, ours), data(topic, 1 - ours));
    let never = data(topic, 9);
    let future = data(topic + 1, 0);
    let mut broken = |ranges: Vec<_>| {
        let object = world.register(logs[0]);
        let round = world.round(logs[0], object, ranges);
        let before = world.state.clone();
        match rejected(world.run(round)) {
            Reject::BrokenInvariant(broken) => {
                assert_eq!(world.state, before);
                broken
            }
            other => panic!("{other:?}"),
        }
    };
    let fine = range(mine, 0, 5, 0);
    let state = range(mine.partition.stream(StreamKind::State), 1, 5, 0);
    assert!(matches!(broken(vec![fine.clone(), state]), Broken::RangeStart { committed: 0, .. }));
    assert!(matches!(broken(vec![range(theirs, 0, 5, 0)]), Broken::NotAssigned(_)));
    assert!(matches!(broken(vec![range(never, 0, 5, 0)]), Broken::NeverCreated(_)));
    assert!(matches!(broken(vec![range(future, 0, 5, 0)]), Broken::NeverCreated(_)));
    assert!(matches!(broken(vec![range(mine, 0, 0, 0)]), Broken::RangeLength { .. }));
    let far = range(mine, 0, LOST_SPAN + 1, 0);
    assert!(matches!(broken(vec![far]), Broken::RangeLength { .. }));
    assert!(matches!(broken(vec![range(mine, 0, 5, 1)]), Broken::RangeEpoch { .. }));
    assert!(matches!(broken(vec![fine.clone(), fine]), Broken::StreamTwice(_)));
}

/// A metadata store that lost its newest topics must not make the log drop their records.
#[test]
fn only_what_was_deleted_may_be_left_out() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, id) = world.topic("t", 1);
    let leave_out = |world: &mut World, topic: u64| {
        let object = world.register(logs[0]);
        let mut round = world.round(logs[0], object, Vec::new());
        round.left_out = vec![crate::command::LeftOut { topic, index: 0 }];
        world.run(round)
    };
    for (number, never) in [(topic, false), (topic + 1, true)] {
        match rejected(leave_out(&mut world, number)) {
            Reject::BrokenInvariant(Broken::StillThere(_)) => assert!(!never),
            Reject::BrokenInvariant(Broken::NeverCreated(_)) => assert!(never),
            other => panic!("{other:?}"),
        }
    }
    world.delete(&id);
    assert!(matches!(leave_out(&mut world, topic), Reply::UploadCommitted { .. }));
}

#[test]
fn a_round_begins_where_the_log_is_committed() {
    let (mut world, logs) = World::with_nodes(1);
    let object = world.register(logs[0]);
    let mut round = world.round(logs[0], object, Vec::new());
    round.first = 4096;
    round.end = 8192;
    let reject = rejected(world.run(round.clone()));
    assert_eq!(reject, Broken::RoundStart { committed: Lsn(0), first: Lsn(4096) }.into());
    (round.first, round.end) = (0, 0);
    assert!(matches!(
        rejected(world.run(round)),
        Reject::BrokenInvariant(Broken::RoundEmpty { .. })
    ));
}

#[test]
fn an_expired_id_leaves_a_tombstone_for_a_day() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, _) = world.topic("t", 1);
    let object = world.register(logs[0]);
    let round = world.round(logs[0], object, vec![range(data(topic, 0), 0, 5, 0)]);
    let expire = |world: &World| ExpireObjects { now_ms: world.now_ms, objects_max: 10 };
    world.now_ms += 59_999;
    let none = Reply::ObjectsExpired { objects: Vec::new(), more: false };
    let command = expire(&world);
    assert_eq!(world.run(command), none);
    world.now_ms += 1;
    let command = expire(&world);
    assert_eq!(world.run(command), Reply::ObjectsExpired { objects: vec![object], more: false });
    assert_eq!(rejected(world.run(round.clone())), Reject::ObjectExpired(object));
    let deletable = |world: &World| world.due();
    for _ in 0..24 {
        assert_eq!(deletable(&world), [object], "its delete comes up again");
        let command = ObjectsDeleted { objects: vec![object.0], now_ms: world.now_ms };
        assert_eq!(world.run(command), Reply::ObjectsForgotten { forgotten: 0 });
        assert_eq!(deletable(&world), [], "but not at once");
        world.now_ms += 3_600_000;
    }
    let command = ObjectsDeleted { objects: vec![object.0], now_ms: world.now_ms };
    assert_eq!(world.run(command), Reply::ObjectsForgotten { forgotten: 1 });
    assert_eq!(rejected(world.run(round)), Reject::UnknownObject(object));
    let (_, reply) = world.commit(logs[0], vec![range(data(topic, 0), 0, 5, 0)]);
    assert_eq!(committed(reply), (4096, 0, false), "the round is repeated under a new id");
}

#[test]
fn an_object_of_another_log_or_of_nobody_is_refused() {
    let (mut world, logs) = World::with_nodes(2);
    let object = world.register(logs[1]);
    let round = world.round(logs[0], object, Vec::new());
    assert_eq!(rejected(world.run(round)), Broken::ObjectOfOther(object).into());
    let round = world.round(logs[0], ObjectId(77), Vec::new());
    assert_eq!(rejected(world.run(round)), Reject::UnknownObject(ObjectId(77)));
}

#[test]
fn a_declared_loss_names_the_range_and_closes_the_log() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, _) = world.topic("t", 1);
    let stream = data(topic, 0);
    world.commit(logs[0], vec![range(stream, 0, 10, 0)]);
    let object = world.register(logs[0]);
    let late = world.round(logs[0], object, vec![range(stream, 10, 20, 0)]);
    let Reply::WalLost { lost } = world.run(DeclareWalLost { wal: logs[0].wal }) else {
        panic!("refused");
    };
    assert_eq!(lost.len(), 3, "all streams of the partition");
    assert_eq!((lost[0].stream, lost[0].start, lost[0].end), (stream, 10, 10 + LOST_SPAN));
    let wal = common::WalId(logs[0].wal);
    assert_eq!(rejected(world.run(late)), Reject::WalClosed(wal));
    assert_eq!(rejected(world.run(DeclareWalLost { wal: wal.0 })), Reject::WalClosed(wal));
    let partition = world.image.topics[&topic].partitions[0];
    assert_eq!((partition.leader, partition.wal, partition.epoch.0), (None, None, 1));
    // The node begins a new log, which takes the partition over under the next epoch.
    let next = world.start(1);
    let partition = world.image.topics[&topic].partitions[0];
    assert_eq!((partition.wal, partition.epoch.0), (Some(common::WalId(next.wal)), 2));
    let from = 10 + LOST_SPAN;
    let (_, reply) = world.commit(next, vec![range(stream, from, from + 4, 2)]);
    assert_eq!(committed(reply), (4096, 0, false));
    let index = world.index(stream);
    assert_eq!(index.lost, [(10, from)]);
    assert_eq!(index.objects.iter().map(|one| one.start).collect::<Vec<_>>(), [0, from]);
}

#[test]
fn a_lost_log_is_inherited_by_brokers_that_live() {
    let (mut world, logs) = World::with_nodes(2);
    let (topic, _) = world.topic("t", 4);
    world.run(DeclareWalLost { wal: logs[0].wal });
    let partitions = &world.image.topics[&topic].partitions;
    let heir = Some(common::WalId(logs[1].wal));
    assert!(partitions.iter().all(|one| one.wal == heir && one.leader.is_some()), "{partitions:?}");
}

#[test]
fn bytes_below_the_log_start_are_passed_and_release_their_object() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, _) = world.topic("t", 1);
    let stream = data(topic, 0);
    let (first, _) = world.commit(logs[0], vec![range(stream, 0, 10, 0)]);
    let start = |start, epoch| SetLogStart { topic, index: 0, kind: 0, start, epoch, now_ms: 0 };
    assert_eq!(world.run(start(5, 0)), Reply::LogStartSet { start: 5, more: false });
    assert_eq!(
        world.object(first).expect("there").stage,
        ObjectStage::Committed,
        "half of it is live"
    );
    assert_eq!(world.run(start(30, 0)), Reply::LogStartSet { start: 30, more: false });
    assert_eq!(world.object(first).expect("there").stage, ObjectStage::Released);
    assert_eq!(world.run(start(7, 0)), Reply::LogStartSet { start: 30, more: false }, "never back");
    assert!(matches!(rejected(world.run(start(40, 1))), Reject::StaleStreamEpoch { .. }));
    let (second, _) = world.commit(logs[0], vec![range(stream, 10, 30, 0)]);
    assert_eq!(world.object(second).expect("there").stage, ObjectStage::Released);
    world.commit(logs[0], vec![range(stream, 30, 35, 0)]);
    let index = world.index(stream);
    assert_eq!((index.start, index.committed_end, index.objects.len()), (30, 35, 1));
    assert_eq!((index.bytes, index.records), (5, 5));
}

#[test]
fn floors_travel_with_a_commit_and_never_go_back() {
    let (mut world, logs) = World::with_nodes(1);
    let (_, id) = world.topic("t", 2);
    let reply = world.run(CreateSink {
        name: "s".into(),
        topic: id,
        root: "a".into(),
        ..CreateSink::default()
    });
    let Reply::SinkCreated { id: sink } = reply else { panic!("{reply:?}") };
    for (floor, expected) in [(5, 5), (9, 9), (7, 9)] {
        let object = world.register(logs[0]);
        let mut round = world.round(logs[0], object, Vec::new());
        round.floors = vec![
            SinkFloor { sink, partition: 1, floor },
            SinkFloor { sink: 999, partition: 1, floor },
        ];
        assert!(matches!(world.run(round), Reply::UploadCommitted { .. }));
        assert_eq!(world.image.floor(sink, 1), Some(expected));
        assert_eq!(world.image.floor(999, 1), None, "an unknown sink has no floor");
    }
}

#[test]
fn epochs_below_the_committed_position_are_forgotten() {
    let (mut world, logs) = World::with_nodes(1);
    let second = world.open(logs[0].wal, 1, 4096);
    let third = world.open(logs[0].wal, 1, 4096);
    let epochs = |world: &World| -> Vec<(u64, u64)> {
        world.wal(logs[0].wal).epochs.iter().map(|(epoch, first)| (epoch.0, first.0)).collect()
    };
    let all = [(logs[0].epoch, 0), (second.epoch, 4096), (third.epoch, 4096)];
    assert_eq!(epochs(&world), all);
    world.commit(third, Vec::new());
    assert_eq!(epochs(&world), [(third.epoch, 4096)]);
    let command = crate::command::OpenWal { wal: third.wal, node: 1, recovered_end: 0, cut: true };
    assert!(matches!(rejected(world.run(command)), Reject::RecoveredShort { .. }));
}
