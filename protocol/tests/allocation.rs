//! What the guard has passed takes no more memory to decode than the guard measured.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use proptest::prelude::*;
use protocol::ApiKey;
use protocol::guard;

struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn grown(bytes: usize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

#[expect(unsafe_code, reason = "an allocator can be written in no other way; test only")]
// SAFETY: every call goes on to the system allocator unchanged; the counters are plain cells that allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().saturating_sub(layout.size()));
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Most bytes held at once during `body` besides those held before.
fn peak<T>(body: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let out = body();
    (out, PEAK.get() - before)
}

/// Error values and reference counts of the frame.
const SLACK_BYTES: usize = 4096;

fn stays_within<T: Request>(version: i16, body: &Bytes) {
    let key = ApiKey::from_code(T::KEY).expect("served");
    let (measured, walking) = peak(|| guard::measure(key, version, body));
    assert!(walking <= 256, "{key} {version}: the guard took {walking} bytes");
    let Ok(measured) = measured else { return };
    let most = body.len() * guard::MEMORY_FACTOR + guard::MEMORY_FLOOR_BYTES;
    assert!(measured <= most);
    let mut rest = body.clone();
    let (decoded, taken) = peak(|| T::decode(&mut rest, version));
    assert!(
        taken <= measured + SLACK_BYTES,
        "{key} {version}: {taken} taken, {measured} measured, body of {} bytes",
        body.len()
    );
    if decoded.is_ok() {
        assert_eq!(rest.len(), 0, "{key} {version}");
    }
}

fn every_request(body: &Bytes) {
    fn all<T: Request>(body: &Bytes) {
        for version in T::VERSIONS.min..=T::VERSIONS.max {
            stays_within::<T>(version, body);
        }
    }
    all::<kafka::ProduceRequest>(body);
    all::<kafka::FetchRequest>(body);
    all::<kafka::ListOffsetsRequest>(body);
    all::<kafka::MetadataRequest>(body);
    all::<kafka::OffsetCommitRequest>(body);
    all::<kafka::OffsetFetchRequest>(body);
    all::<kafka::FindCoordinatorRequest>(body);
    all::<kafka::JoinGroupRequest>(body);
    all::<kafka::HeartbeatRequest>(body);
    all::<kafka::LeaveGroupRequest>(body);
    all::<kafka::SyncGroupRequest>(body);
    all::<kafka::DescribeGroupsRequest>(body);
    all::<kafka::ListGroupsRequest>(body);
    all::<kafka::ApiVersionsRequest>(body);
    all::<kafka::CreateTopicsRequest>(body);
    all::<kafka::DeleteTopicsRequest>(body);
    all::<kafka::InitProducerIdRequest>(body);
    all::<kafka::OffsetForLeaderEpochRequest>(body);
    all::<kafka::DescribeConfigsRequest>(body);
    all::<kafka::CreatePartitionsRequest>(body);
    all::<kafka::DeleteGroupsRequest>(body);
    all::<kafka::IncrementalAlterConfigsRequest>(body);
    all::<kafka::DescribeClusterRequest>(body);
    all::<kafka::DescribeTopicPartitionsRequest>(body);
}

fn encoded(message: &impl Encodable, version: i16) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("encodes");
    out
}

/// As many of the smallest elements as the bytes hold: the shape that grows most.
#[test]
fn bodies_of_smallest_elements() {
    for length in [40usize, 1000, 20_000] {
        for count in [1u32, 10, 300, 2000, 10_000] {
            let mut plain = BytesMut::new();
            plain.put_u32(count);
            plain.put_bytes(0, length);
            every_request(&plain.freeze());
            for lead in 0..24 {
                let mut body = BytesMut::new();
                body.put_bytes(0, lead);
                let mut rest = count + 1;
                while rest >= 0x80 {
                    body.put_u8(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
                    rest >>= 7;
                }
                body.put_u8(u8::try_from(rest).expect("seven bits"));
                body.put_bytes(1, length / 2);
                body.put_bytes(0, length / 2);
                every_request(&body.freeze());
            }
        }
    }
}

#[test]
fn names_of_no_characters_take_what_was_measured() {
    for count in [1usize, 1000, 12_000] {
        let topic = kafka::metadata_request::MetadataRequestTopic::default();
        let topic = topic.with_name(Some(StrBytes::default().into()));
        let request = kafka::MetadataRequest::default().with_topics(Some(vec![topic; count]));
        for version in 0..=13 {
            let body = encoded(&request, version).freeze();
            assert!(guard::check(ApiKey::Metadata, version, &body).is_ok(), "{version} {count}");
            stays_within::<kafka::MetadataRequest>(version, &body);
        }
    }
}

#[test]
fn unknown_tags_take_what_was_measured() {
    for tags in [0i32, 1, 2, 12, 500] {
        let mut topic = kafka::metadata_request::MetadataRequestTopic::default();
        topic = topic.with_name(Some(StrBytes::default().into()));
        for tag in 0..tags {
            topic = topic.with_unknown_tagged_field(tag, Bytes::new());
        }
        let request = kafka::MetadataRequest::default().with_topics(Some(vec![topic; 20]));
        stays_within::<kafka::MetadataRequest>(13, &encoded(&request, 13).freeze());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn soup_of_small_numbers(
        soup in prop::collection::vec(prop_oneof![8 => Just(0u8), 3 => 1u8..4, 1 => any::<u8>()], 0..400),
    ) {
        every_request(&Bytes::from(soup));
    }

    #[test]
    fn real_requests_with_counts_flipped(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        count in 0usize..20,
    ) {
        let name = StrBytes::from_static_str("topic");
        let damaged = |mut body: BytesMut| {
            for (at, byte) in &hits {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            body.freeze()
        };
        use kafka::offset_commit_request as commit;
        let partition = commit::OffsetCommitRequestPartition::default();
        let topic = commit::OffsetCommitRequestTopic::default()
            .with_name(name.clone().into())
            .with_partitions(vec![partition; count]);
        let request = kafka::OffsetCommitRequest::default().with_topics(vec![topic; 3]);
        for version in 2..=9 {
            stays_within::<kafka::OffsetCommitRequest>(version, &damaged(encoded(&request, version)));
        }
        use kafka::create_topics_request as create;
        let assignment = create::CreatableReplicaAssignment::default()
            .with_broker_ids(vec![1.into(); 3]);
        let topic = create::CreatableTopic::default()
            .with_name(name.into())
            .with_assignments(vec![assignment; count])
            .with_configs(vec![create::CreatableTopicConfig::default(); 4]);
        let request = kafka::CreateTopicsRequest::default().with_topics(vec![topic; 2]);
        for version in 2..=7 {
            stays_within::<kafka::CreateTopicsRequest>(version, &damaged(encoded(&request, version)));
        }
        let protocol = kafka::join_group_request::JoinGroupRequestProtocol::default();
        let request = kafka::JoinGroupRequest::default().with_protocols(vec![protocol; count]);
        for version in 0..=9 {
            stays_within::<kafka::JoinGroupRequest>(version, &damaged(encoded(&request, version)));
        }
    }
}
