//! A client that sends what it is told, right or wrong.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    CreateTopicsRequest, FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::Request;
use protocol::{StrBytes, client as wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Client {
    stream: TcpStream,
    id: i32,
}

pub fn name(text: &str) -> TopicName {
    TopicName(StrBytes::from_string(text.to_owned()))
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the test is the client")]
        let stream = TcpStream::connect(address).await.expect("connects");
        Self { stream, id: 0 }
    }

    /// Sends without waiting for the answer; gives the correlation id.
    pub async fn send<T: Request>(&mut self, request: &T, version: i16) -> i32 {
        self.id += 1;
        let frame = wire::encode_request(request, version, self.id, "test").expect("encodes");
        self.stream.write_all(&frame).await.expect("sent");
        self.id
    }

    pub async fn receive<T: Request>(&mut self, version: i16, id: i32) -> T::Response {
        let frame = self.frame().await.expect("an answer");
        wire::decode_response::<T>(&frame, version, id).expect("decodes")
    }

    pub async fn ask<T: Request>(&mut self, request: &T, version: i16) -> T::Response {
        let id = self.send(request, version).await;
        self.receive::<T>(version, id).await
    }

    /// The next frame, or `None` when the broker has closed.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let size = self.stream.read_i32().await.ok()?;
        let mut frame = vec![0; usize::try_from(size).expect("a size")];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    /// Sends a frame made by hand: key, version, correlation id 1, no client id, `body`.
    pub async fn raw(&mut self, key: i16, version: i16, body: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(10 + body.len()).expect("small"));
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(1);
        frame.put_i16(-1);
        frame.put_slice(body);
        self.bytes(&frame).await;
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("sent");
    }

    pub async fn is_closed(&mut self) -> bool {
        self.frame().await.is_none()
    }

    pub async fn create(&mut self, topic: &str, partitions: i32) {
        let topic = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let answer = self.ask(&request, 7).await;
        assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
    }

    /// Produces one batch and waits for its offset.
    pub async fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> i64 {
        let answer: ProduceResponse = self.ask(&produce(topic, partition, batch, -1), 9).await;
        let one = &answer.responses[0].partition_responses[0];
        assert_eq!(one.error_code, 0, "{one:?}");
        one.base_offset
    }

    pub async fn fetch(&mut self, request: FetchRequest) -> FetchResponse {
        self.ask(&request, 12).await
    }
}

pub fn produce(topic: &str, partition: i32, batch: Bytes, acks: i16) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}
