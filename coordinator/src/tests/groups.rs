//! ListGroups, DescribeGroups and DeleteGroups.

use protocol::ErrorCode;

use super::bench::*;
use crate::*;

fn list(bench: &mut Bench, states: &[&str], types: &[&str]) -> Vec<ListedGroup> {
    let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let request = ListRequest { states: strings(states), types: strings(types) };
    let token = bench.send(Request::List(request));
    match bench.answer(token) {
        Response::List(groups) => groups,
        other => panic!("{other:?}"),
    }
}

fn describe(bench: &mut Bench) -> DescribeResponse {
    let token = bench.send(Request::Describe { group: GROUP.into() });
    match bench.answer(token) {
        Response::Describe(group) => group,
        other => panic!("{other:?}"),
    }
}

fn delete() -> Request {
    Request::Delete { group: GROUP.into() }
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut bench = Bench::new();
    bench.stable();
    let all = list(&mut bench, &[], &[]);
    let expected = ListedGroup {
        group: GROUP.into(),
        protocol_type: "consumer".into(),
        state: "Stable",
        kind: "classic",
    };
    assert_eq!(all, [expected]);
    assert_eq!(list(&mut bench, &["empty", " STABLE "], &[]).len(), 1);
    assert_eq!(list(&mut bench, &["Empty"], &[]).len(), 0);
    assert_eq!(list(&mut bench, &[], &["Classic"]).len(), 1);
    assert_eq!(list(&mut bench, &[], &["consumer"]).len(), 0);
}

#[test]
fn a_description_shows_subscriptions_of_a_stable_group_alone() {
    let mut bench = Bench::new();
    let missing = describe(&mut bench);
    assert_eq!((missing.error, missing.state), (ErrorCode::GroupIdNotFound, "Dead"));
    let member = bench.stable();
    let stable = describe(&mut bench);
    assert_eq!((stable.state, stable.protocol.as_str()), ("Stable", "range"));
    assert_eq!(stable.members[0].member, member);
    assert_eq!(stable.members[0].assignment, "all");
    assert_eq!(stable.members[0].metadata, protocol("range").metadata);
    bench.send(join(""));
    let preparing = describe(&mut bench);
    assert_eq!((preparing.state, preparing.protocol.as_str()), ("PreparingRebalance", ""));
    assert!(preparing.members.iter().all(|member| member.metadata.is_empty()));
}

#[test]
fn only_an_empty_group_is_deleted() {
    let mut bench = Bench::new();
    let token = bench.send(delete());
    assert_eq!(bench.answer(token), Response::Delete(ErrorCode::GroupIdNotFound));
    let member = bench.stable();
    bench.send(commit(&member, 1, 5));
    let token = bench.send(delete());
    assert_eq!(bench.answer(token), Response::Delete(ErrorCode::NonEmptyGroup));
    bench.send(leave(&[(&member, None)]));
    let token = bench.send(delete());
    assert_eq!(bench.answer(token), Response::Delete(ErrorCode::None));
    assert_eq!(bench.shard.committed().iter().count(), 0);
    assert_eq!(list(&mut bench, &[], &[]), []);
    bench.restart(0);
    assert_eq!(bench.state(), None);
}

#[test]
fn everything_else_waits_for_a_deletion() {
    let mut bench = Bench::new();
    bench.send(commit("", -1, 5));
    bench.writes_at_once = false;
    let late = bench.send(commit("", -1, 6));
    let deletion = bench.send(delete());
    let after = bench.send(commit("", -1, 7));
    let reading = bench.send(fetch());
    assert_eq!(bench.pending.len(), 1, "the deletion waits for the commit before it");
    bench.write();
    assert_eq!(bench.committed(late), [ErrorCode::None]);
    assert_eq!(bench.fetched(reading).0, 6, "a read waits for nothing that came after it");
    bench.write();
    assert_eq!(bench.answer(deletion), Response::Delete(ErrorCode::None));
    bench.write();
    assert_eq!(bench.committed(after), [ErrorCode::None]);
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, 7);
}

#[test]
fn a_refused_deletion_leaves_the_group() {
    let mut bench = Bench::new();
    bench.send(commit("", -1, 5));
    bench.writes_at_once = false;
    let token = bench.send(delete());
    bench.refuse_write(ErrorCode::NotEnoughReplicas);
    assert_eq!(bench.answer(token), Response::Delete(ErrorCode::CoordinatorNotAvailable));
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, 5);
}

#[test]
fn a_large_group_is_deleted_in_several_writes() {
    let mut bench = Bench::new();
    let topics = (0..100).map(|topic| TopicCommits {
        topic: format!("{topic}-{}", "x".repeat(240)),
        partitions: (0..30)
            .map(|partition| CommittedPartition {
                partition,
                offset: 1,
                leader_epoch: -1,
                metadata: String::new(),
            })
            .collect(),
    });
    let request = CommitRequest { topics: topics.collect(), ..commit_request("", -1, 0) };
    bench.send(Request::Commit(request));
    bench.writes_at_once = false;
    let token = bench.send(delete());
    assert_eq!(bench.pending.len(), 2);
    bench.write();
    assert!(!bench.answers.contains_key(&token));
    bench.write();
    assert_eq!(bench.answer(token), Response::Delete(ErrorCode::None));
    assert_eq!(bench.shard.committed().iter().count(), 0);
}

#[test]
fn bounds_refuse_instead_of_growing() {
    let settings = Settings { writes_max: 1, deferred_max: 1, ..Settings::default() };
    let mut bench = Bench::with(settings);
    bench.writes_at_once = false;
    bench.send(commit("", -1, 5));
    let refused = Response::Refused(ErrorCode::CoordinatorNotAvailable);
    let token = bench.send(commit("", -1, 6));
    assert_eq!(bench.answer(token), refused);
    assert_eq!(bench.heartbeat("m", 1), ErrorCode::UnknownMemberId, "needs no write");
}
