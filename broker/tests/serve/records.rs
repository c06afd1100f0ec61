//! Records in and out, in order, across a restart.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, ProduceRequest};
use protocol::batch::{Batches, Builder};
use protocol::compression::Codec;

use crate::client::{self, Client};
use crate::{Broker, settings};

fn batch(value: &[u8], codec: Codec) -> Bytes {
    let mut builder = Builder::new().codec(codec);
    builder.push(1_700_000_000_000, None, Some(value), &[]);
    builder.build().expect("a batch")
}

fn from(topic: &str, offset: i64, wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    let topic =
        FetchTopic::default().with_topic(client::name(topic)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// Base offsets and sizes of everything from `offset` on.
async fn read(client: &mut Client, topic: &str, offset: i64) -> Vec<(i64, i32)> {
    let mut next = offset;
    let mut found = Vec::new();
    loop {
        let answer = client.fetch(from(topic, next, 0)).await;
        let one = &answer.responses[0].partitions[0];
        assert_eq!(one.error_code, 0);
        let records = one.records.clone().unwrap_or_default();
        if records.is_empty() {
            return found;
        }
        for batch in Batches::new(records) {
            let (header, _) = batch.expect("whole");
            found.push((header.base_offset, header.record_count));
            next = header.last_offset() + 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_in_flight_of_different_cost_keep_their_order() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    client.create("ordered", 1).await;
    let large: Vec<u8> =
        (0..1_000_000u32).map(|i| u8::try_from(i % 251 * 7919 % 251).expect("small")).collect();
    for round in 0..4i64 {
        let mut ids = Vec::new();
        for i in 0..5 {
            let batch =
                if i % 2 == 0 { batch(&large, Codec::Zstd) } else { batch(b"small", Codec::None) };
            ids.push(client.send(&client::produce("ordered", 0, batch, -1), 9).await);
        }
        for (i, id) in (0..).zip(ids) {
            let answer = client.receive::<ProduceRequest>(9, id).await;
            let one = &answer.responses[0].partition_responses[0];
            assert_eq!((one.error_code, one.base_offset), (0, round * 5 + i));
        }
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_survive_a_restart() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    client.create("kept", 1).await;
    for i in 0..3 {
        assert_eq!(client.produce("kept", 0, batch(b"one", Codec::None)).await, i);
    }
    assert_eq!(read(&mut client, "kept", 0).await, [(0, 1), (1, 1), (2, 1)]);
    broker.stop().await;

    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    assert_eq!(read(&mut client, "kept", 0).await, [(0, 1), (1, 1), (2, 1)]);
    assert_eq!(client.produce("kept", 0, batch(b"two", Codec::None)).await, 3);
    assert_eq!(read(&mut client, "kept", 2).await, [(2, 1), (3, 1)]);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_wakes_when_records_come() {
    let dir = crate::temporary();
    let broker = Broker::with(settings(dir.path())).await;
    let (mut reader, mut writer) = (broker.connect().await, broker.connect().await);
    writer.create("woken", 1).await;
    let waiting = tokio::spawn(async move { reader.fetch(from("woken", 0, 60_000)).await });
    writer.produce("woken", 0, batch(b"x", Codec::None)).await;
    let answer = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
    let answer = answer.expect("long before the wait is over").expect("no panic");
    let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
    assert!(!records.is_empty());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_batches_are_refused_and_good_ones_go_on() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    client.create("strict", 1).await;
    let mut damaged = batch(b"value", Codec::None).to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    let answer = client.ask(&client::produce("strict", 0, damaged.into(), -1), 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 2, "a wrong checksum");
    let answer = client.ask(&client::produce("strict", 7, batch(b"v", Codec::None), -1), 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 3, "an unknown partition");
    let answer = client.ask(&client::produce("strict", 0, batch(b"v", Codec::None), 2), 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 21, "acks=2");
    assert_eq!(client.produce("strict", 0, batch(b"v", Codec::None)).await, 0);
    let fetched = client.fetch(from("strict", 99, 0)).await;
    assert_eq!(fetched.responses[0].partitions[0].error_code, 1, "out of range");
    broker.stop().await;
}
