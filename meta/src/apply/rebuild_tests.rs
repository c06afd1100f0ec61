use common::{ObjectId, StreamKind};

use super::LOST_SPAN;
use super::world::{World, data, range, rejected};
use crate::command::{
    AdoptObject, BeginRebuild, DeclareWalLost, FinishRebuild, ObjectFacts, PartitionEpoch,
    RegisterObject, StartNode, StreamRange,
};
use crate::facts::ObjectStage;
use crate::reply::{Broken, Reject, Reply};

fn adopt(object: u64, wal: u64, lsns: (u64, u64), ranges: Vec<StreamRange>) -> AdoptObject {
    AdoptObject {
        object,
        wal,
        epoch: 1,
        first: lsns.0,
        end: lsns.1,
        facts: Some(ObjectFacts { bytes: 10, format: 1, ..ObjectFacts::default() }),
        ranges,
        whole: true,
        now_ms: 1_000_000,
    }
}

fn begin(world: &mut World) {
    let reply = world.run(BeginRebuild { incarnation: 4, now_ms: 1 });
    assert_eq!(reply, Reply::RebuildBegun { incarnation: 4 });
}

#[test]
fn a_rebuild_goes_on_behind_lost_ranges_and_issues_nothing_twice() {
    let (mut world, logs) = World::with_nodes(2);
    let (topic, _) = world.topic("t", 2);
    let epoch = world.image.topics[&topic].partitions[0].epoch.0;
    let owner = world.image.topics[&topic].partitions[0].wal.expect("owned").0;
    let log = *logs.iter().find(|log| log.wal == owner).expect("one of them");
    let (object, _) = world.commit(log, vec![range(data(topic, 0), 0, 10, epoch)]);
    let registered = world.register(log);
    let reply = world.run(BeginRebuild { incarnation: 3, now_ms: 1 });
    assert_eq!(rejected(reply), Reject::StaleIncarnation { asked: 3, current: 3 });
    assert_eq!(rejected(world.run(FinishRebuild::default())), Reject::NotRebuilding);
    begin(&mut world);
    assert_eq!(
        rejected(world.run(StartNode { node: 1, port: 1, ..StartNode::default() })),
        Reject::Rebuilding
    );
    let next = adopt(registered.0, owner, (4096, 8192), vec![range(data(topic, 0), 10, 15, 7)]);
    let taken = Reply::ObjectAdopted { taken: 1, left_out: Vec::new() };
    assert_eq!(world.run(next.clone()), taken);
    assert_eq!(world.run(next), taken, "a repeat changes nothing");
    let epochs = vec![PartitionEpoch { topic, index: 1, epoch: 40 }];
    let Reply::Rebuilt { lost } = world.run(FinishRebuild { epochs, now_ms: 2 }) else {
        panic!("no end");
    };
    assert_eq!(lost.len(), 6, "three streams of two partitions");
    let index = world.index(data(topic, 0));
    assert_eq!(index.lost, [(15, 15 + LOST_SPAN)]);
    assert_eq!(index.committed_end, 15 + LOST_SPAN);
    let held: Vec<_> = index.objects.iter().map(|range| range.object).collect();
    assert_eq!(held, [object, registered]);
    let partitions = &world.image.topics[&topic].partitions;
    assert_eq!((partitions[0].epoch.0, partitions[1].epoch.0), (7 + 65_536, 40 + 65_536));
    assert!(partitions.iter().all(|one| one.leader.is_none() && one.wal.is_none()));
    assert!(logs.iter().all(|log| world.wal(log.wal).closed));
    // The next life: every id is above all of the former one.
    let log = world.start(1);
    assert!(log.wal >> 48 == 4 && log.epoch >> 48 == 4);
    assert_eq!(world.register(log).0 >> 48, 4);
    let partitions = &world.image.topics[&topic].partitions;
    assert_eq!(partitions[0].epoch.0, 7 + 65_537);
    let (_, reply) =
        world.commit(log, vec![range(data(topic, 0), 15 + LOST_SPAN, 16 + LOST_SPAN, 7 + 65_537)]);
    assert!(matches!(reply, Reply::UploadCommitted { .. }), "{reply:?}");
}

#[test]
fn only_what_continues_is_adopted_and_the_rest_is_left_alone() {
    let (mut world, logs) = World::with_nodes(1);
    let log = logs[0];
    let (topic, _) = world.topic("t", 2);
    world.commit(log, vec![range(data(topic, 0), 0, 10, 0), range(data(topic, 1), 0, 4, 0)]);
    let registered = world.register(log);
    begin(&mut world);
    let (one, two) = (data(topic, 0), data(topic, 1));
    let wrong_lsn = adopt(900, log.wal, (0, 4096), vec![range(one, 10, 12, 0)]);
    assert!(matches!(
        rejected(world.run(wrong_lsn)),
        Reject::BrokenInvariant(Broken::RoundStart { .. })
    ));
    let ranges = vec![range(one, 10, 12, 0), range(two, 5, 9, 0)];
    let mut gap = adopt(900, log.wal, (4096, 8192), ranges);
    assert_eq!(rejected(world.run(gap.clone())), Reject::NotContinuing(ObjectId(900)));
    gap.whole = false;
    let left_out = vec![two.partition];
    assert_eq!(world.run(gap), Reply::ObjectAdopted { taken: 1, left_out });
    // A topic that the snapshot does not know: nothing of the object is taken, and nobody will delete it.
    let unknown = data(topic + 9, 0);
    let foreign = adopt(901, log.wal, (8192, 12_288), vec![range(unknown, 0, 5, 0)]);
    let left_out = vec![unknown.partition];
    assert_eq!(world.run(foreign), Reply::ObjectAdopted { taken: 0, left_out });
    assert_eq!(world.object(ObjectId(901)), None);
    // All streams of a partition or none.
    let ranges =
        vec![range(one, 12, 14, 0), range(two.partition.stream(StreamKind::State), 3, 4, 0)];
    let mut mixed = adopt(902, log.wal, (12_288, 16_384), ranges);
    mixed.ranges[1].index = 0;
    mixed.whole = false;
    let left_out = vec![one.partition];
    assert_eq!(world.run(mixed), Reply::ObjectAdopted { taken: 0, left_out });
    world.run(FinishRebuild::default());
    assert_eq!(world.object(registered), None, "forgotten, not deleted");
    assert_eq!(world.index(one).objects.len(), 2);
    world.now_ms += 100 * 24 * 3_600_000;
    assert_eq!(world.due(), [], "nothing of it is ever deleted");
}

#[test]
fn a_log_that_the_snapshot_does_not_know_is_closed_too() {
    let (mut world, logs) = World::with_nodes(1);
    let (topic, _) = world.topic("t", 1);
    begin(&mut world);
    let object = adopt(900, 77, (4096, 8192), vec![range(data(topic, 0), 0, 3, 5)]);
    assert_eq!(world.run(object), Reply::ObjectAdopted { taken: 1, left_out: Vec::new() });
    world.run(FinishRebuild::default());
    assert!(world.wal(77).closed && world.wal(logs[0].wal).closed);
    assert_eq!(
        rejected(world.run(DeclareWalLost { wal: 77 })),
        Reject::WalClosed(common::WalId(77))
    );
    let stage = world.object(ObjectId(900)).map(|object| object.stage);
    assert_eq!(stage, Some(ObjectStage::Committed));
    let register = RegisterObject { wal: 77, epoch: 1, ttl_ms: 1, now_ms: 1 };
    assert_eq!(rejected(world.run(register)), Reject::WalClosed(common::WalId(77)));
}
