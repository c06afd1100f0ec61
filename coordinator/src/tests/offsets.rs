//! Committing, reading, deleting and expiring offsets.

use protocol::ErrorCode;

use super::bench::*;
use crate::*;

#[test]
fn a_commit_is_answered_and_read_once_it_is_durable() {
    let mut bench = Bench::new();
    let member = bench.stable();
    bench.writes_at_once = false;
    let early = bench.send(fetch());
    assert_eq!(bench.fetched(early), (-1, String::new()));
    let first = bench.send(commit(&member, 1, 5));
    let waiting = bench.send(fetch());
    let second = bench.send(commit(&member, 1, 6));
    assert!(bench.answers.is_empty(), "neither an answer nor a read before the gate");
    bench.write();
    assert_eq!(bench.committed(first), [ErrorCode::None]);
    assert_eq!(bench.fetched(waiting), (5, "m".into()), "a read waits for what was under way");
    bench.write();
    assert_eq!(bench.committed(second), [ErrorCode::None]);
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, 6);
    bench.restart(0);
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, 6);
}

#[test]
fn a_refused_commit_is_neither_confirmed_nor_read() {
    let mut bench = Bench::new();
    bench.writes_at_once = false;
    let token = bench.send(commit("", -1, 5));
    let waiting = bench.send(fetch());
    bench.refuse_write(ErrorCode::MessageTooLarge);
    assert_eq!(bench.committed(token), [ErrorCode::UnknownServerError]);
    assert_eq!(bench.fetched(waiting).0, -1);
}

#[test]
fn who_may_commit() {
    let mut bench = Bench::new();
    let token = bench.send(commit("m", 1, 5));
    assert_eq!(bench.committed(token), [ErrorCode::IllegalGeneration], "no such group");
    let request = CommitRequest { names_missing_group: true, ..commit_request("m", 1, 5) };
    let token = bench.send(Request::Commit(request));
    assert_eq!(bench.committed(token), [ErrorCode::GroupIdNotFound], "no such group, version 9");
    let member = bench.stable();
    for (who, generation, error) in [
        (member.as_str(), 1, ErrorCode::None),
        (&member, 0, ErrorCode::IllegalGeneration),
        (&member, -1, ErrorCode::IllegalGeneration),
        ("nobody", 1, ErrorCode::UnknownMemberId),
        ("", -1, ErrorCode::UnknownMemberId),
    ] {
        let token = bench.send(commit(who, generation, 5));
        assert_eq!(bench.committed(token), [error], "{who} {generation}");
    }
    let token = bench.send(join(&member));
    assert_eq!(bench.joined(token).generation, 2);
    let token = bench.send(commit(&member, 2, 5));
    assert_eq!(bench.committed(token), [ErrorCode::RebalanceInProgress]);
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut bench = Bench::new();
    let member = bench.stable();
    for offset in 0..5 {
        bench.advance(9_000);
        let token = bench.send(commit(&member, 1, offset));
        assert_eq!(bench.committed(token), [ErrorCode::None]);
    }
}

#[test]
fn a_simple_consumer_commits_without_a_group() {
    let mut bench = Bench::new();
    let token = bench.send(commit("", -1, 7));
    assert_eq!(bench.committed(token), [ErrorCode::None]);
    assert_eq!(bench.state(), Some((State::Empty, 0)));
    bench.restart(0);
    let token = bench.send(Request::Fetch(FetchRequest { group: GROUP.into(), topics: None }));
    let Response::Fetch(all) = bench.answer(token) else { panic!() };
    assert_eq!(all.topics[0].topic, "t");
    let found = &all.topics[0].partitions[0];
    assert_eq!((found.partition, found.offset, found.leader_epoch), (0, 7, 4));
}

#[test]
fn long_metadata_is_refused_by_partition() {
    let mut bench = Bench::new();
    let mut request = commit_request("", -1, 5);
    let mut other = request.topics[0].partitions[0].clone();
    other.partition = 1;
    other.metadata = "m".repeat(4_097);
    request.topics[0].partitions.push(other);
    let token = bench.send(Request::Commit(request));
    let expected = [ErrorCode::None, ErrorCode::OffsetMetadataTooLarge];
    assert_eq!(bench.committed(token), expected);
}

fn expiring() -> Settings {
    Settings {
        offsets_retention_ms: 1_000_000,
        initial_rebalance_delay_ms: 0,
        ..Settings::default()
    }
}

#[test]
fn offsets_of_a_simple_consumer_expire_with_their_group() {
    let mut bench = Bench::with(expiring());
    bench.send(commit("", -1, 5));
    bench.advance(600_000);
    assert!(bench.state().is_some());
    bench.advance(600_000);
    assert_eq!(bench.state(), None);
    assert_eq!(bench.shard.committed().iter().count(), 0);
    bench.restart(0);
    assert_eq!(bench.state(), None);
}

#[test]
fn offsets_of_an_empty_group_expire_from_when_it_became_empty() {
    let mut bench = Bench::with(expiring());
    let member = bench.stable();
    bench.send(commit(&member, 1, 5));
    for _ in 0..200 {
        bench.advance(9_000);
        assert_eq!(bench.heartbeat(&member, 1), ErrorCode::None);
    }
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, 5, "members that read the topic keep its offsets");
    bench.send(leave(&[(&member, None)]));
    bench.advance(600_000);
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, 5);
    bench.advance(1_200_000);
    assert_eq!(bench.state(), None);
    assert_eq!(bench.shard.committed().iter().count(), 0);
}

#[test]
fn an_explicit_retention_counts_from_the_commit() {
    let mut bench = Bench::with(expiring());
    let request = CommitRequest { retention_ms: 5, ..commit_request("", -1, 5) };
    bench.send(Request::Commit(request));
    bench.advance(600_000);
    assert_eq!(bench.state(), None);
}

#[test]
fn offsets_are_deleted_unless_somebody_reads_the_topic() {
    let mut bench = Bench::new();
    let delete = |topic: &str| {
        let topics = vec![TopicPartitions { topic: topic.into(), partitions: vec![0] }];
        Request::DeleteOffsets(DeleteOffsetsRequest { group: GROUP.into(), topics })
    };
    let error = |bench: &mut Bench, token: Token| {
        let Response::DeleteOffsets(errors) = bench.answer(token) else { panic!() };
        (errors.error, errors.topics[0].1[0].1)
    };
    let token = bench.send(delete("t"));
    assert_eq!(error(&mut bench, token).0, ErrorCode::GroupIdNotFound);
    let member = bench.stable();
    bench.send(commit(&member, 1, 5));
    let token = bench.send(delete("t"));
    assert_eq!(error(&mut bench, token), (ErrorCode::None, ErrorCode::GroupSubscribedToTopic));
    bench.send(leave(&[(&member, None)]));
    bench.writes_at_once = false;
    bench.send(commit("", -1, 6));
    let token = bench.send(delete("t"));
    assert!(bench.answers.len() < 4, "a deletion waits for the commit under way");
    bench.write();
    bench.write();
    assert_eq!(error(&mut bench, token), (ErrorCode::None, ErrorCode::None));
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, -1);
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut bench = Bench::new();
    bench.writes_at_once = false;
    bench.send(commit("", -1, 5));
    let effects = bench.shard.topic_deleted(bench.now, "t");
    assert_eq!(effects, [], "after the commit under way");
    bench.write();
    bench.write();
    let token = bench.send(fetch());
    assert_eq!(bench.fetched(token).0, -1);
    assert!(bench.shard.topics().is_empty());
}

#[test]
fn a_snapshot_is_small_and_a_damaged_one_is_refused() {
    let mut bench = Bench::new();
    let member = bench.stable();
    for offset in 0..100 {
        bench.send(commit(&member, 1, offset));
    }
    let image = bench.shard.committed();
    assert_eq!(image.records().count(), 2, "one generation, one offset");
    let snapshot = image.snapshot();
    let mut restored = Committed::default();
    assert_eq!(restored.restore(&snapshot), Ok(()));
    assert_eq!(&restored, image);
    for end in 1..snapshot.len() {
        let cut = Committed::default().restore(&snapshot[..end]);
        let whole_first = usize::from(snapshot[0]) + 8;
        assert!(cut.is_err() || end > whole_first, "{end}");
    }
}
