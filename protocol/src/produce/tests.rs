use bytes::BytesMut;
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

use super::*;
use crate::ApiKey;
use crate::guard::GuardError;

fn text() -> impl Strategy<Value = StrBytes> {
    "[a-z]{0,9}".prop_map(StrBytes::from_string)
}

prop_compose! {
    fn request()(
        transactional_id in prop::option::of(text()),
        acks: i16,
        timeout_ms: i32,
        topics in prop::collection::vec((text(), any::<u128>(), prop::collection::vec(
            (any::<i32>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..300))), 0..4)), 0..4),
    ) -> Request {
        let topics = topics.into_iter().map(|(name, id, partitions)| TopicData {
            name,
            id: Uuid::from_u128(id),
            partitions: partitions
                .into_iter()
                .map(|(index, records)| PartitionData { index, records: records.map(Bytes::from) })
                .collect(),
        });
        Request { transactional_id, acks, timeout_ms, topics: topics.collect() }
    }
}

fn theirs(request: &Request) -> kafka::ProduceRequest {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            kafka::produce_request::PartitionProduceData::default()
                .with_index(partition.index)
                .with_records(partition.records.clone())
        });
        kafka::produce_request::TopicProduceData::default()
            .with_name(topic.name.clone().into())
            .with_topic_id(topic.id)
            .with_partition_data(partitions.collect())
    });
    kafka::ProduceRequest::default()
        .with_transactional_id(request.transactional_id.clone().map(Into::into))
        .with_acks(request.acks)
        .with_timeout_ms(request.timeout_ms)
        .with_topic_data(topics.collect())
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("encodes");
    out.freeze()
}

fn leader() -> impl Strategy<Value = LeaderIdAndEpoch> {
    (0i32..9, 0i32..9)
        .prop_map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch })
}

prop_compose! {
    fn outcome()(
        index: i32,
        code in 0..ErrorCode::ALL.len(),
        base_offset: i64,
        log_append_time_ms: i64,
        log_start_offset: i64,
        faults in prop::collection::vec((any::<i32>(), prop::option::of("[a-z]{0,9}")), 0..3),
        error_message in prop::option::of("[a-z]{0,9}"),
        current_leader in prop::option::of(leader()),
    ) -> PartitionOutcome {
        let record_errors = faults
            .into_iter()
            .map(|(batch_index, message)| RecordFault { batch_index, message })
            .collect();
        PartitionOutcome {
            index,
            error: ErrorCode::ALL[code],
            base_offset,
            log_append_time_ms,
            log_start_offset,
            record_errors,
            error_message,
            current_leader,
        }
    }
}

prop_compose! {
    fn response()(
        topics in prop::collection::vec(
            (text(), any::<u128>(), prop::collection::vec(outcome(), 0..4)), 0..4),
        throttle_time_ms: i32,
        nodes in prop::collection::vec((1i32..9, text(), any::<i32>(), prop::option::of(text())), 0..3),
    ) -> Response {
        let topics = topics
            .into_iter()
            .map(|(name, id, partitions)| TopicOutcome { name, id: Uuid::from_u128(id), partitions })
            .collect();
        let node_endpoints = nodes
            .into_iter()
            .map(|(node_id, host, port, rack)| NodeEndpoint { node_id, host, port, rack })
            .collect();
        Response { topics, throttle_time_ms, node_endpoints }
    }
}

fn their_outcome(
    outcome: &PartitionOutcome,
    version: i16,
) -> kafka::produce_response::PartitionProduceResponse {
    use kafka::produce_response as out;
    let faults = outcome.record_errors.iter().map(|fault| {
        out::BatchIndexAndErrorMessage::default()
            .with_batch_index(fault.batch_index)
            .with_batch_index_error_message(fault.message.clone().map(StrBytes::from_string))
    });
    let leader = outcome.current_leader.filter(|_| version >= 10).map(|leader| {
        out::LeaderIdAndEpoch::default()
            .with_leader_id(leader.leader_id.into())
            .with_leader_epoch(leader.leader_epoch)
    });
    out::PartitionProduceResponse::default()
        .with_index(outcome.index)
        .with_error_code(outcome.error.code())
        .with_base_offset(outcome.base_offset)
        .with_log_append_time_ms(outcome.log_append_time_ms)
        .with_log_start_offset(outcome.log_start_offset)
        .with_record_errors(faults.collect())
        .with_error_message(outcome.error_message.clone().map(StrBytes::from_string))
        .with_current_leader(leader.unwrap_or_default())
}

fn their_response(response: &Response, version: i16) -> kafka::ProduceResponse {
    use kafka::produce_response as out;
    let topics = response.topics.iter().map(|topic| {
        let outcomes = topic.partitions.iter().map(|outcome| their_outcome(outcome, version));
        out::TopicProduceResponse::default()
            .with_name(topic.name.clone().into())
            .with_topic_id(topic.id)
            .with_partition_responses(outcomes.collect())
    });
    let nodes = response.node_endpoints.iter().filter(|_| version >= 10).map(|node| {
        out::NodeEndpoint::default()
            .with_node_id(node.node_id.into())
            .with_host(node.host.clone())
            .with_port(node.port)
            .with_rack(node.rack.clone())
    });
    kafka::ProduceResponse::default()
        .with_responses(topics.collect())
        .with_throttle_time_ms(response.throttle_time_ms)
        .with_node_endpoints(nodes.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn requests_are_read_as_the_codec_writes_them(request in request()) {
        for version in 3..=13 {
            let body = encoded(&theirs(&request), version);
            let read = Request::decode(version, &body).expect("decodes");
            let mut wanted = request.clone();
            for topic in &mut wanted.topics {
                if version >= TOPIC_ID_SINCE {
                    topic.name = StrBytes::default();
                } else {
                    topic.id = Uuid::nil();
                }
            }
            prop_assert_eq!(&read, &wanted);
            for partition in read.topics.iter().flat_map(|topic| &topic.partitions) {
                let records = partition.records.clone().unwrap_or_default();
                let inside = body.as_ptr_range().contains(&records.as_ptr());
                prop_assert!(records.is_empty() || inside, "records were copied");
            }
        }
    }

    #[test]
    fn responses_are_the_codecs_byte_for_byte(response in response()) {
        for version in 3..=13 {
            let wanted = encoded(&their_response(&response, version), version);
            prop_assert_eq!(response.encode(version), wanted, "version {}", version);
        }
    }

    #[test]
    fn damaged_requests_are_refused_or_read_as_the_codec_reads_them(
        request in request(),
        version in 3i16..=13,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let mut body = encoded(&theirs(&request), version).to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let body = Bytes::from(body);
        let ours = Request::decode(version, &body);
        let guarded = crate::guard::check(ApiKey::Produce, version, &body);
        if let Ok(ours) = &ours {
            let decoded = kafka::ProduceRequest::decode(&mut body.clone(), version);
            prop_assert_eq!(ours.acks, decoded.expect("both read it").acks);
        }
        prop_assert!(ours.is_err() || guarded.is_ok());
        for end in 0..body.len().min(40) {
            let _ = Request::decode(version, &body.slice(..end));
        }
    }
}

#[test]
fn hostile_counts_are_refused() {
    let body = Bytes::from_static(&[0xff, 0xff, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]);
    let error = Request::decode(3, &body).expect_err("refused");
    assert!(matches!(error, GuardError::Field { field: "TopicData", .. }), "{error}");
    let error = Request::decode(2, &body).expect_err("refused");
    assert_eq!(error, GuardError::Version { key: ApiKey::Produce, version: 2 });
}

#[test]
fn long_messages_are_clipped_at_a_character() {
    let mut outcome = PartitionOutcome::refused(0, ErrorCode::InvalidRecord);
    outcome.error_message = Some("\u{e9}".repeat(70_000));
    let topics = vec![TopicOutcome { partitions: vec![outcome], ..TopicOutcome::default() }];
    let body = Response { topics, ..Response::default() }.encode(9);
    let read = kafka::ProduceResponse::decode(&mut body.clone(), 9).expect("decodes");
    let message = read.responses[0].partition_responses[0].error_message.clone();
    assert_eq!(message.map(|message| message.len()), Some(1000));
}
