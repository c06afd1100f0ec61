//! The other commands.

use std::collections::BTreeMap;

use common::{IdSpace, NodeId, StreamKind};

use super::objects::RELEASE_MAX;
use super::world::{World, data, range, rejected};
use crate::command::{
    AdvanceFloor, AllocateProducerIds, AlterConfigs, AlterSink, Assignment, Bootstrap, ConfigOp,
    ConfigOpKind, CreatePartitions, CreateSink, CreateTopic, CreateWal, DeleteSink, ExpireObjects,
    PartitionOffset, RaiseFeatureLevel, ResourceKind, SinkFloor, SinkState, StartNode,
};
use crate::facts::ObjectStage;
use crate::reply::{Reject, Reply};

fn topic(name: &str, id: u8) -> CreateTopic {
    CreateTopic {
        name: name.into(),
        id: vec![id; 16],
        partitions: 1,
        replication_factor: 1,
        ..CreateTopic::default()
    }
}

#[test]
fn nothing_works_before_the_bootstrap_and_one_state_is_one_cluster() {
    let mut world = World::default();
    assert_eq!(rejected(world.run(topic("t", 1))), Reject::NotBootstrapped);
    let bootstrap =
        |cluster: &str| Bootstrap { cluster_id: cluster.into(), incarnation: 4, feature_level: 1 };
    assert_eq!(world.run(bootstrap("a")), Reply::Bootstrapped { incarnation: 4 });
    assert_eq!(world.run(bootstrap("a")), Reply::Bootstrapped { incarnation: 4 }, "repeated");
    let other = Reject::OtherCluster { cluster_id: "a".into() };
    assert_eq!(rejected(world.run(bootstrap("b"))), other);
    let mut fresh = World::default();
    let command = Bootstrap { cluster_id: "a".into(), incarnation: 32_768, feature_level: 1 };
    assert!(matches!(rejected(fresh.run(command)), Reject::Malformed(_)));
}

#[test]
fn ids_carry_the_incarnation_and_come_once() {
    let (mut world, _) = World::with_nodes(1);
    let mut last = 0;
    for expected in 0..3 {
        let reply = world.run(AllocateProducerIds { node: 1 });
        let start = (3 << 48) | (expected * 1000);
        assert_eq!(reply, Reply::ProducerIds { start, len: 1000 });
        let command = StartNode { node: 1, host: "h".into(), ..StartNode::default() };
        let Reply::NodeStarted { epoch, wal } = world.run(command) else { panic!() };
        assert!(epoch.0 > last && wal.is_some(), "a restart keeps the log");
        last = epoch.0;
    }
    assert_eq!(IdSpace::incarnation_of(last), 3);
    let exists = rejected(world.run(CreateWal { node: 1, salt: 1, survives: false }));
    assert!(matches!(exists, Reject::WalExists { node: NodeId(1), .. }));
    assert_eq!(
        rejected(world.run(CreateWal { node: 8, salt: 1, survives: false })),
        Reject::UnknownNode(NodeId(8))
    );
}

#[test]
fn a_topic_keeps_what_was_asked_for_and_its_name_is_free_after_deletion() {
    let (mut world, _) = World::with_nodes(1);
    let mut create = topic("a.b", 1);
    create.replication_factor = 3;
    create.configs = BTreeMap::from([("x".into(), "y".into())]);
    let Reply::TopicCreated { number, .. } = world.run(create.clone()) else { panic!() };
    let made = world.image.topic("a.b").expect("there").clone();
    assert_eq!((made.replication_factor_requested, &made.configs["x"][..]), (3, "y"));
    assert_eq!(rejected(world.run(create)), Reject::TopicExists("a.b".into()));
    let collides = Reject::TopicCollides { other: "a.b".into() };
    assert_eq!(rejected(world.run(topic("a_b", 2))), collides);
    let reply = world.delete(&[1; 16]);
    assert_eq!(reply, Reply::TopicDeleted { number, name: "a.b".into() });
    assert_eq!(rejected(world.delete(&[1; 16])), Reject::UnknownTopic);
    let Reply::TopicCreated { number: next, .. } = world.run(topic("a.b", 3)) else { panic!() };
    assert!(next > number);
    assert!(world.image.topic("a.b").expect("there").configs.is_empty(), "nothing is inherited");
    let mut bad = topic("c", 4);
    bad.partitions = 0;
    assert!(matches!(rejected(world.run(bad)), Reject::InvalidPartitions { asked: 0, .. }));
    let mut bad = topic("c", 4);
    bad.replication_factor = 0;
    assert_eq!(rejected(world.run(bad)), Reject::InvalidReplicationFactor(0));
    let mut check = topic("c", 4);
    check.validate_only = true;
    assert!(matches!(world.run(check), Reply::TopicCreated { number: 0, .. }));
    assert!(world.image.topic("c").is_none());
}

#[test]
fn manual_assignments_are_taken_when_they_can_be() {
    let (mut world, _) = World::with_nodes(2);
    let assign = |world: &mut World, id: u8, parts: &[(u32, &[i32])]| {
        let mut create = topic(&format!("t{id}"), id);
        create.assignments = parts
            .iter()
            .map(|(partition, replicas)| Assignment {
                partition: *partition,
                replicas: replicas.to_vec(),
            })
            .collect();
        world.run(create)
    };
    let reply = assign(&mut world, 1, &[(1, &[2, 7, 9]), (0, &[9, 1, 2])]);
    assert!(matches!(reply, Reply::TopicCreated { partitions: 2, replication_factor: 3, .. }));
    let made = world.image.topic("t1").expect("there").clone();
    let leaders: Vec<_> = made.partitions.iter().filter_map(|one| one.leader).collect();
    assert_eq!(leaders, [NodeId(1), NodeId(2)]);
    let cases: [&[(u32, &[i32])]; 6] = [
        &[(1, &[1])],
        &[(0, &[])],
        &[(0, &[1, 1])],
        &[(0, &[-1, 1])],
        &[(0, &[1]), (1, &[1, 2])],
        &[(0, &[7])],
    ];
    for case in cases {
        let reject = rejected(assign(&mut world, 2, case));
        assert!(matches!(reject, Reject::InvalidAssignment { .. }), "{case:?}: {reject:?}");
    }
    let more = |total| CreatePartitions { id: vec![1; 16], total, ..CreatePartitions::default() };
    assert_eq!(world.run(more(4)), Reply::PartitionsCreated { total: 4 });
    assert_eq!(world.image.topic("t1").expect("there").partitions.len(), 4);
    let reject = rejected(world.run(more(4)));
    assert!(matches!(reject, Reject::InvalidPartitions { asked: 4, current: 4, .. }));
}

#[test]
fn partitions_spread_over_brokers_and_need_one() {
    let (mut world, _) = World::with_nodes(3);
    let (number, _) = world.topic("t", 30);
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for partition in &world.image.topics[&number].partitions {
        *counts.entry(partition.leader.expect("owned")).or_default() += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
    let mut empty = World::default();
    empty.run(Bootstrap { cluster_id: "c".into(), incarnation: 1, feature_level: 1 });
    assert_eq!(rejected(empty.run(topic("t", 1))), Reject::NoBroker);
}

#[test]
fn a_large_topic_is_released_in_portions_by_later_commands() {
    let (mut world, logs) = World::with_nodes(1);
    let (number, id) = world.topic("t", 100);
    let mut objects = Vec::new();
    for round in 0..50 {
        let ranges =
            (0..100).map(|index| range(data(number, index), round, round + 1, 0)).collect();
        objects.push(world.commit(logs[0], ranges).0);
    }
    assert!(objects.len() * 100 > RELEASE_MAX);
    world.delete(&id);
    let released = |world: &World| {
        let stage = |id: &_| world.object(*id).expect("there").stage;
        objects.iter().filter(|id| stage(id) == ObjectStage::Released).count()
    };
    assert!(released(&world) < objects.len());
    let command = ExpireObjects { now_ms: world.now_ms, objects_max: 10 };
    assert!(matches!(world.run(command), Reply::ObjectsExpired { more: false, .. }));
    assert_eq!(released(&world), objects.len());
    assert!(objects.iter().all(|id| world.object(*id).expect("there").ranges.is_empty()));
}

#[test]
fn config_operations_do_what_kafka_documents() {
    let (mut world, _) = World::with_nodes(1);
    world.topic("t", 1);
    let op = |key: &str, kind: ConfigOpKind, value: Option<&str>, base: Option<&str>| ConfigOp {
        key: key.into(),
        op: kind.into(),
        value: value.map(Into::into),
        base: base.map(Into::into),
    };
    let alter = |name: &str, kind: ResourceKind, ops: Vec<ConfigOp>| AlterConfigs {
        kind: kind.into(),
        name: name.into(),
        ops,
        ..AlterConfigs::default()
    };
    let configs = |world: &World| world.image.topic("t").expect("there").configs.clone();
    let mut run = |name: &str, kind, ops| world.run(alter(name, kind, ops));
    use ConfigOpKind::{Append, Delete, Set, Subtract};
    let ops = vec![op("a", Set, Some("1"), None), op("l", Append, Some("x"), Some("delete"))];
    assert_eq!(run("t", ResourceKind::Topic, ops), Reply::ConfigsAltered);
    let ops = vec![op("l", Append, Some("y,x"), None), op("a", Delete, None, None)];
    run("t", ResourceKind::Topic, ops);
    run("t", ResourceKind::Topic, vec![op("l", Subtract, Some("delete"), None)]);
    run("", ResourceKind::Broker, vec![op("d", Set, Some("1"), None)]);
    run("5", ResourceKind::Broker, vec![op("d", Set, Some("2"), None)]);
    let twice = vec![op("a", Set, Some("1"), None), op("a", Delete, None, None)];
    assert!(matches!(rejected(run("t", ResourceKind::Topic, twice)), Reject::InvalidConfig { .. }));
    let missing = vec![op("a", Set, None, None)];
    assert!(matches!(
        rejected(run("t", ResourceKind::Topic, missing)),
        Reject::InvalidConfig { .. }
    ));
    assert_eq!(rejected(run("u", ResourceKind::Topic, Vec::new())), Reject::UnknownTopic);
    assert!(matches!(rejected(run("x", ResourceKind::Broker, Vec::new())), Reject::Malformed(_)));
    assert_eq!(configs(&world), BTreeMap::from([("l".into(), "x,y".into())]));
    assert_eq!(world.image.broker_configs[&None]["d"], "1");
    assert_eq!(world.image.broker_configs[&Some(NodeId(5))]["d"], "2");
}

#[test]
fn sinks_have_unique_names_and_places() {
    let (mut world, _) = World::with_nodes(1);
    let (_, id) = world.topic("t", 2);
    let sink = |name: &str, root: &str| CreateSink {
        name: name.into(),
        topic: id.clone(),
        root: root.into(),
        starts: vec![PartitionOffset { partition: 1, offset: 7 }],
        ..CreateSink::default()
    };
    let Reply::SinkCreated { id: first } = world.run(sink("a", "s3://b/x/y")) else { panic!() };
    assert_eq!(rejected(world.run(sink("a", "s3://b/z"))), Reject::SinkExists("a".into()));
    for root in ["s3://b/x/y", "s3://b/x/y/", "s3://b/x", "s3://b/x/y/z", ""] {
        let reject = rejected(world.run(sink("b", root)));
        assert!(matches!(reject, Reject::SinkOverlaps { .. }), "{root}");
    }
    assert!(matches!(world.run(sink("b", "s3://b/x/yy")), Reply::SinkCreated { .. }));
    assert_eq!(world.image.floor(first, 1), Some(7), "a sink protects from where it begins");
    let floors = vec![SinkFloor { sink: first, partition: 1, floor: 6 }];
    world.run(AdvanceFloor { floors });
    assert_eq!(world.image.floor(first, 1), Some(7));
    let alter = AlterSink {
        name: "a".into(),
        set: BTreeMap::from([("k".into(), "v".into())]),
        state: Some(SinkState::Paused.into()),
        ..AlterSink::default()
    };
    assert_eq!(world.run(alter), Reply::SinkAltered { id: first });
    let meta = world.image.sinks["a"].clone();
    assert_eq!((meta.state, &meta.config["k"][..]), (SinkState::Paused, "v"));
    assert_eq!(world.run(DeleteSink { name: "a".into() }), Reply::SinkDeleted { id: first });
    assert_eq!(world.image.floor(first, 1), None);
    assert!(matches!(rejected(world.run(DeleteSink { name: "a".into() })), Reject::UnknownSink(_)));
    assert!(matches!(world.run(sink("a", "s3://b/x/y")), Reply::SinkCreated { .. }));
}

#[test]
fn the_feature_level_rises_once_every_broker_can() {
    let (mut world, _) = World::with_nodes(1);
    let start =
        |node, feature_level_max| StartNode { node, feature_level_max, ..StartNode::default() };
    world.run(start(1, 3));
    world.run(start(2, 1));
    let reject = rejected(world.run(RaiseFeatureLevel { level: 2 }));
    assert!(matches!(reject, Reject::FeatureLevel { lacking: Some(NodeId(2)), .. }));
    world.run(start(2, 2));
    assert_eq!(world.run(RaiseFeatureLevel { level: 2 }), Reply::FeatureLevel { level: 2 });
    assert!(matches!(
        rejected(world.run(RaiseFeatureLevel { level: 2 })),
        Reject::FeatureLevel { .. }
    ));
}

#[test]
fn an_index_is_read_from_the_range_that_covers_an_offset() {
    let (mut world, logs) = World::with_nodes(1);
    let (number, _) = world.topic("t", 1);
    let stream = data(number, 0);
    for round in 0..10 {
        world.commit(logs[0], vec![range(stream, round * 10, round * 10 + 10, 0)]);
    }
    let index = |from, limit| {
        crate::facts::stream_index(&world.state, stream, from, limit).expect("readable")
    };
    for (from, first) in [(0, 0), (9, 0), (10, 10), (95, 90)] {
        assert_eq!(index(from, 3).objects[0].start, first, "{from}");
    }
    let page = index(15, 3);
    assert_eq!(page.objects.iter().map(|one| one.start).collect::<Vec<_>>(), [10, 20, 30]);
    assert!(page.more);
    assert!(index(100, 3).objects.is_empty() && !index(70, 3).more);
    assert_eq!(index(0, 3).version, 10);
    let state = data(number, 0).partition.stream(StreamKind::State);
    assert_eq!(world.index(state).version, 0);
}
