use bytes::BytesMut;
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::Encodable;
use proptest::prelude::*;

use super::*;
use crate::ApiKey;
use crate::guard::GuardError;

fn text() -> impl Strategy<Value = StrBytes> {
    "[a-z]{0,9}".prop_map(StrBytes::from_string)
}

prop_compose! {
    fn partition()(index: i32, current_leader_epoch: i32, fetch_offset: i64,
                   last_fetched_epoch: i32, partition_max_bytes: i32) -> FetchPartition {
        FetchPartition {
            index, current_leader_epoch, fetch_offset, last_fetched_epoch, partition_max_bytes,
        }
    }
}

prop_compose! {
    fn request()(
        numbers in any::<(i32, i32, i32, i32, i8, i32, i32)>(),
        topics in prop::collection::vec(
            (text(), any::<u128>(), prop::collection::vec(partition(), 0..4)), 0..4),
        rack_id in text(),
    ) -> Request {
        let (replica_id, max_wait_ms, min_bytes, max_bytes, isolation_level, id, epoch) = numbers;
        let topics = topics
            .into_iter()
            .map(|(name, id, partitions)| FetchTopic { name, id: Uuid::from_u128(id), partitions })
            .collect();
        Request {
            replica_id,
            max_wait_ms,
            min_bytes,
            max_bytes,
            isolation_level,
            session_id: id,
            session_epoch: epoch,
            topics,
            rack_id,
        }
    }
}

/// Sets what `version` does not carry to what a reader then assumes.
fn fitted(mut request: Request, version: i16) -> Request {
    if version < 7 {
        (request.session_id, request.session_epoch) = (0, -1);
    }
    if version < 11 {
        request.rack_id = StrBytes::default();
    }
    for topic in &mut request.topics {
        if version >= TOPIC_ID_SINCE {
            topic.name = StrBytes::default();
        } else {
            topic.id = Uuid::nil();
        }
        for partition in &mut topic.partitions {
            if version < 9 {
                partition.current_leader_epoch = -1;
            }
            if version < 12 {
                partition.last_fetched_epoch = -1;
            }
        }
    }
    request
}

fn theirs(request: &Request, version: i16) -> kafka::FetchRequest {
    use kafka::fetch_request as out;
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let theirs = out::FetchPartition::default()
                .with_partition(partition.index)
                .with_current_leader_epoch(partition.current_leader_epoch)
                .with_fetch_offset(partition.fetch_offset)
                .with_last_fetched_epoch(partition.last_fetched_epoch)
                .with_log_start_offset(77)
                .with_partition_max_bytes(partition.partition_max_bytes);
            if version >= 18 {
                return theirs.with_high_watermark(5).with_replica_directory_id(Uuid::from_u128(9));
            }
            theirs
        });
        out::FetchTopic::default()
            .with_topic(topic.name.clone().into())
            .with_topic_id(topic.id)
            .with_partitions(partitions.collect())
    });
    let theirs = kafka::FetchRequest::default()
        .with_max_wait_ms(request.max_wait_ms)
        .with_min_bytes(request.min_bytes)
        .with_max_bytes(request.max_bytes)
        .with_isolation_level(request.isolation_level)
        .with_session_id(request.session_id)
        .with_session_epoch(request.session_epoch)
        .with_rack_id(request.rack_id.clone())
        .with_topics(topics.collect());
    let theirs = if version >= 7 {
        let forgotten = out::ForgottenTopic::default().with_partitions(vec![1, 2]);
        theirs.with_forgotten_topics_data(vec![forgotten])
    } else {
        theirs
    };
    let theirs = if version >= 12 {
        theirs.with_cluster_id(Some(StrBytes::from_static_str("cluster")))
    } else {
        theirs
    };
    if version >= 15 {
        let state = out::ReplicaState::default()
            .with_replica_id(request.replica_id.into())
            .with_replica_epoch(3);
        theirs.with_replica_state(state)
    } else {
        theirs.with_replica_id(request.replica_id.into())
    }
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("encodes");
    out.freeze()
}

prop_compose! {
    fn read()(
        index: i32,
        code in 0..ErrorCode::ALL.len(),
        offsets in any::<(i64, i64, i64)>(),
        aborted in prop::option::of(prop::collection::vec(any::<(i64, i64)>(), 0..3)),
        sizes in prop::collection::vec(0usize..9000, 0..3),
        diverging in prop::option::of((0i32..9, 0i64..9)),
        leader in prop::option::of((0i32..9, 0i32..9)),
    ) -> PartitionData {
        let (high_watermark, last_stable_offset, log_start_offset) = offsets;
        PartitionData {
            index,
            error: ErrorCode::ALL[code],
            high_watermark,
            last_stable_offset,
            log_start_offset,
            aborted: aborted.map(|pairs| pairs
                .into_iter()
                .map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset })
                .collect()),
            records: sizes.into_iter().map(|size| Bytes::from(vec![size.to_le_bytes()[0]; size])).collect(),
            diverging_epoch: diverging.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset }),
            current_leader: leader
                .map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch }),
        }
    }
}

prop_compose! {
    fn response()(
        throttle_time_ms: i32,
        code in 0..ErrorCode::ALL.len(),
        topics in prop::collection::vec(
            (text(), any::<u128>(), prop::collection::vec(read(), 0..3)), 0..3),
        nodes in prop::collection::vec((1i32..9, text(), any::<i32>(), prop::option::of(text())), 0..3),
    ) -> Response {
        Response {
            throttle_time_ms,
            error: ErrorCode::ALL[code],
            topics: topics
                .into_iter()
                .map(|(name, id, partitions)| TopicData { name, id: Uuid::from_u128(id), partitions })
                .collect(),
            node_endpoints: nodes
                .into_iter()
                .map(|(node_id, host, port, rack)| NodeEndpoint { node_id, host, port, rack })
                .collect(),
        }
    }
}

fn their_partition(data: &PartitionData) -> kafka::fetch_response::PartitionData {
    use kafka::fetch_response as out;
    let aborted = data.aborted.as_ref().map(|aborted| {
        let theirs = aborted.iter().map(|transaction| {
            out::AbortedTransaction::default()
                .with_producer_id(transaction.producer_id.into())
                .with_first_offset(transaction.first_offset)
        });
        theirs.collect()
    });
    let diverging = data.diverging_epoch.map(|end| {
        out::EpochEndOffset::default().with_epoch(end.epoch).with_end_offset(end.end_offset)
    });
    let leader = data.current_leader.map(|leader| {
        out::LeaderIdAndEpoch::default()
            .with_leader_id(leader.leader_id.into())
            .with_leader_epoch(leader.leader_epoch)
    });
    out::PartitionData::default()
        .with_partition_index(data.index)
        .with_error_code(data.error.code())
        .with_high_watermark(data.high_watermark)
        .with_last_stable_offset(data.last_stable_offset)
        .with_log_start_offset(data.log_start_offset)
        .with_aborted_transactions(aborted)
        .with_records(Some(Bytes::from(data.records.concat())))
        .with_diverging_epoch(diverging.unwrap_or_default())
        .with_current_leader(leader.unwrap_or_default())
}

fn their_response(response: &Response, version: i16) -> kafka::FetchResponse {
    use kafka::fetch_response as out;
    let topics = response.topics.iter().map(|topic| {
        out::FetchableTopicResponse::default()
            .with_topic(topic.name.clone().into())
            .with_topic_id(topic.id)
            .with_partitions(topic.partitions.iter().map(their_partition).collect())
    });
    let nodes = response.node_endpoints.iter().filter(|_| version >= 16).map(|node| {
        out::NodeEndpoint::default()
            .with_node_id(node.node_id.into())
            .with_host(node.host.clone())
            .with_port(node.port)
            .with_rack(node.rack.clone())
    });
    kafka::FetchResponse::default()
        .with_throttle_time_ms(response.throttle_time_ms)
        .with_error_code(response.error.code())
        .with_responses(topics.collect())
        .with_node_endpoints(nodes.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn requests_are_read_as_the_codec_writes_them(request in request()) {
        for version in 4..=18 {
            let wanted = fitted(request.clone(), version);
            let body = encoded(&theirs(&wanted, version), version);
            prop_assert_eq!(Request::decode(version, &body), Ok(wanted), "version {}", version);
            prop_assert_eq!(crate::guard::check(ApiKey::Fetch, version, &body), Ok(()));
        }
    }

    #[test]
    fn responses_are_the_codecs_byte_for_byte(response in response()) {
        for version in 4..=18 {
            let wanted = encoded(&their_response(&response, version), version);
            let parts = response.clone().encode(version);
            prop_assert_eq!(Bytes::from(parts.concat()), wanted, "version {}", version);
            let short = parts.iter().filter(|part| part.len() < JOINED_BYTES_MAX).count();
            prop_assert!(short <= parts.len() / 2 + 1, "short slices are joined");
        }
    }

    #[test]
    fn damaged_requests_are_refused_or_guarded(
        request in request(),
        version in 4i16..=18,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let request = fitted(request, version);
        let whole = encoded(&theirs(&request, version), version);
        for end in 0..whole.len() {
            prop_assert!(Request::decode(version, &whole.slice(..end)).is_err());
        }
        let mut body = whole.to_vec();
        body[at.index(whole.len())] = byte;
        let body = Bytes::from(body);
        let ours = Request::decode(version, &body);
        let guarded = crate::guard::check(ApiKey::Fetch, version, &body);
        prop_assert!(ours.is_err() || guarded.is_ok());
    }
}

#[test]
fn long_records_are_not_copied() {
    let records = Bytes::from(vec![1; JOINED_BYTES_MAX]);
    let mut data = PartitionData::refused(0, ErrorCode::None);
    data.records = vec![records.clone()];
    let topic = TopicData { partitions: vec![data], ..TopicData::default() };
    let parts = Response::new(vec![topic]).encode(12);
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[1].as_ptr(), records.as_ptr());
}

#[test]
fn an_error_of_the_whole_has_no_topics() {
    let body = Response::refused(ErrorCode::FetchSessionIdNotFound).encode(7).concat();
    assert_eq!(body, [0, 0, 0, 0, 0, 70, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn hostile_counts_are_refused() {
    let mut body = vec![0; 17];
    body.extend_from_slice(&i32::MAX.to_be_bytes());
    let error = Request::decode(4, &Bytes::from(body)).expect_err("refused");
    assert!(matches!(error, GuardError::Field { field: "Topics", .. }), "{error}");
}
