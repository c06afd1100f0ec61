//! Topics and their configuration through Kafka's admin APIs.

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest,
};
use protocol::StrBytes;

use crate::Broker;
use crate::client::{Client, name};

fn topic(text: &str) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(text))
        .with_num_partitions(1)
        .with_replication_factor(1)
}

fn config(key: &'static str, value: &'static str) -> CreatableTopicConfig {
    CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str(key))
        .with_value(Some(StrBytes::from_static_str(value)))
}

async fn create(client: &mut Client, topic: CreatableTopic, validate_only: bool) -> i16 {
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic]).with_validate_only(validate_only);
    client.ask(&request, 7).await.topics[0].error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_by_kafkas_rules() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    let with = |key, value| topic("wrong").with_configs(vec![config(key, value)]);
    assert_eq!(create(&mut client, topic("a.b"), true).await, 0, "only checked");
    assert_eq!(create(&mut client, topic("a.b"), false).await, 0);
    assert_eq!(create(&mut client, topic("a.b"), false).await, 36, "exists");
    assert_eq!(create(&mut client, topic("a_b"), false).await, 17, "collides");
    assert_eq!(create(&mut client, topic(".."), false).await, 17, "an invalid name");
    assert_eq!(create(&mut client, topic("wrong").with_num_partitions(0), false).await, 37);
    assert_eq!(create(&mut client, topic("wrong").with_replication_factor(0), false).await, 38);
    assert_eq!(create(&mut client, with("retention.msx", "1"), false).await, 40);
    assert_eq!(create(&mut client, with("cleanup.policy", "shred"), false).await, 40);
    let three = topic("three").with_replication_factor(3);
    let request = CreateTopicsRequest::default().with_topics(vec![three]);
    let answer = client.ask(&request, 7).await;
    assert_eq!((answer.topics[0].error_code, answer.topics[0].replication_factor), (0, 3));

    let request = DeleteTopicsRequest::default().with_topic_names(vec![name("a.b"), name("nope")]);
    let answer = client.ask(&request, 5).await;
    let codes: Vec<i16> = answer.responses.iter().map(|one| one.error_code).collect();
    assert_eq!(codes, [0, 3]);
    assert_eq!(create(&mut client, topic("a_b"), false).await, 0, "the name is free");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_setting_names_its_source_and_what_it_overrides() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    client.create("set", 1).await;
    let change = |operation: i8, key: &'static str, value: Option<&'static str>| {
        let config = AlterableConfig::default()
            .with_name(StrBytes::from_static_str(key))
            .with_config_operation(operation)
            .with_value(value.map(StrBytes::from_static_str));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str("set"))
            .with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    };
    let (set, delete, append) = (0, 1, 2);
    for (request, code) in [
        (change(set, "retention.ms", Some("5000")), 0),
        (change(append, "cleanup.policy", Some("compact")), 0),
        (change(append, "retention.ms", Some("1")), 40),
        (change(set, "retention.ms", Some("week")), 40),
        (change(set, "retention.msx", Some("1")), 40),
        (change(set, "retention.ms", None), 42),
        (change(delete, "segment.ms", None), 0),
    ] {
        let answer = client.ask(&request, 1).await;
        assert_eq!(answer.responses[0].error_code, code, "{request:?}");
    }
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("set"))
        .with_configuration_keys(Some(
            ["retention.ms", "cleanup.policy"].map(StrBytes::from_static_str).into(),
        ));
    let request = DescribeConfigsRequest::default()
        .with_resources(vec![resource])
        .with_include_synonyms(true);
    let answer = client.ask(&request, 4).await;
    let configs = &answer.results[0].configs;
    let of = |key: &str| configs.iter().find(|one| one.name.as_str() == key).expect("described");
    let retention = of("retention.ms");
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5000"), 1));
    assert_eq!(retention.synonyms.len(), 2);
    assert_eq!(retention.synonyms[1].name.as_str(), "log.retention.ms");
    assert_eq!(of("cleanup.policy").value.as_deref(), Some("delete,compact"));
    broker.stop().await;
}
