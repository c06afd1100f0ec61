//! Every served API answers at every served version: a field that a version lacks would end the connection.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    DescribeTopicPartitionsRequest, FetchRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, ListGroupsRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest,
};
use kafka_protocol::protocol::Request;
use protocol::{ApiKey, StrBytes};

use crate::Broker;
use crate::client::{Client, name};

async fn every<T: Request>(client: &mut Client, make: impl Fn(i16) -> T) {
    let row = ApiKey::from_code(T::KEY).expect("served").versions();
    for version in row.min..=row.max {
        client.ask(&make(version), version).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_api_answers_at_every_version() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    client.create("first", 2).await;
    queries(&mut client).await;
    changes(&mut client).await;
    broker.stop().await;
}

async fn queries(client: &mut Client) {
    every(client, |version| {
        let named = ApiVersionsRequest::default();
        if version < 3 {
            return named;
        }
        named
            .with_client_software_name(StrBytes::from_static_str("test"))
            .with_client_software_version(StrBytes::from_static_str("1"))
    })
    .await;
    every(client, |version| {
        let topic = |text| MetadataRequestTopic::default().with_name(Some(name(text)));
        let request = MetadataRequest::default().with_topics(Some(vec![
            topic("first"),
            topic("new"),
            topic("no/such"),
        ]));
        if (8..=10).contains(&version) {
            return request
                .with_include_cluster_authorized_operations(true)
                .with_include_topic_authorized_operations(true);
        }
        request
    })
    .await;
    every(client, |_| {
        let partition = ListOffsetsPartition::default().with_timestamp(-1);
        let unknown = partition.clone().with_partition_index(9);
        let topic = ListOffsetsTopic::default()
            .with_name(name("first"))
            .with_partitions(vec![partition, unknown]);
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
    })
    .await;
    every(client, |_| {
        let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(name("first"))
            .with_partitions(vec![partition]);
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic])
    })
    .await;
    every(client, |_| {
        let of = |kind, text| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_static_str(text))
                .with_configuration_keys(None)
        };
        DescribeConfigsRequest::default()
            .with_resources(vec![of(2, "first"), of(4, "1"), of(4, ""), of(2, "none"), of(9, "")])
            .with_include_synonyms(true)
    })
    .await;
    every(client, |_| DescribeClusterRequest::default()).await;
    every(client, |_| {
        DescribeTopicPartitionsRequest::default()
            .with_topics(vec![TopicRequest::default().with_name(name("first"))])
            .with_response_partition_limit(1)
    })
    .await;
    every(client, |_| FetchRequest::default().with_max_wait_ms(1)).await;
    every(client, |_| ListGroupsRequest::default()).await;
}

async fn changes(client: &mut Client) {
    every(client, |_| InitProducerIdRequest::default()).await;
    every(client, |_| ProduceRequest::default().with_acks(-1).with_timeout_ms(1000)).await;
    every(client, |version| {
        let topic = |text: String| {
            CreatableTopic::default()
                .with_name(name(&text))
                .with_num_partitions(1)
                .with_replication_factor(1)
        };
        CreateTopicsRequest::default()
            .with_topics(vec![topic(format!("made-{version}")), topic("first".to_owned())])
    })
    .await;
    every(client, |version| {
        let topic = CreatePartitionsTopic::default()
            .with_name(name("first"))
            .with_count(3 + i32::from(version))
            .with_assignments(None);
        CreatePartitionsRequest::default().with_topics(vec![topic])
    })
    .await;
    every(client, |_| IncrementalAlterConfigsRequest::default()).await;
    every(client, |_| {
        let partition = |index, offset| {
            DeleteRecordsPartition::default().with_partition_index(index).with_offset(offset)
        };
        let topic = |text, partitions| {
            DeleteRecordsTopic::default().with_name(name(text)).with_partitions(partitions)
        };
        DeleteRecordsRequest::default().with_timeout_ms(10_000).with_topics(vec![
            topic("first", vec![partition(0, -1), partition(77, 0)]),
            topic("none", vec![partition(0, 5)]),
        ])
    })
    .await;
    every(client, |version| {
        let gone = [name(&format!("made-{}", version + 1)), name("none")];
        if version >= 6 {
            let topic = |name| DeleteTopicState::default().with_name(Some(name));
            return DeleteTopicsRequest::default().with_topics(gone.map(topic).into());
        }
        DeleteTopicsRequest::default().with_topic_names(gone.into())
    })
    .await;
}
