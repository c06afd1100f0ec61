//! Frames that a broker must survive.

use kafka_protocol::messages::{ApiVersionsRequest, MetadataRequest};

use crate::Broker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_of_api_versions_is_answered_in_the_oldest_form() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    client.raw(18, 5, &[0, 1, 1, 0]).await;
    let answer = client.frame().await.expect("an answer");
    // Correlation id, error 35, one key: 18.
    assert_eq!(answer[..], [0, 0, 0, 1, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    // The same connection goes on.
    let all = client.ask(&ApiVersionsRequest::default(), 0).await;
    let produce = all.api_keys.iter().find(|api| api.api_key == 0).expect("served");
    assert_eq!((produce.min_version, produce.max_version), (0, 13));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_served_ends_its_connection_and_nothing_else() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut other = broker.connect().await;

    let mut huge = broker.connect().await;
    huge.bytes(&[0x7f, 0xff, 0xff, 0xff]).await;
    assert!(huge.is_closed().await, "a frame above the bound");
    let mut negative = broker.connect().await;
    negative.bytes(&[0xff; 4]).await;
    assert!(negative.is_closed().await, "a negative frame");
    let mut unknown = broker.connect().await;
    unknown.raw(4, 0, &[]).await;
    assert!(unknown.is_closed().await, "an unknown API");
    let mut old = broker.connect().await;
    old.raw(0, 2, &[]).await;
    assert!(old.is_closed().await, "an old version");
    // A count of two billion in a body of five bytes.
    for (key, version, body) in
        [(3, 0, [0x0d, 0xff, 0xff, 0xff, 0]), (0, 3, [0xff, 0xff, 0, 1, 0]), (1, 4, [0xff; 5])]
    {
        let mut hostile = broker.connect().await;
        hostile.raw(key, version, &body).await;
        assert!(hostile.is_closed().await, "a hostile count for {key}");
    }

    let answer = other.ask(&MetadataRequest::default().with_topics(None), 12).await;
    assert_eq!(answer.brokers.len(), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_created_on_first_use_by_the_rules() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    let ask = |name: &str, create: bool| {
        let topic = kafka_protocol::messages::metadata_request::MetadataRequestTopic::default()
            .with_name(Some(crate::client::name(name)));
        MetadataRequest::default()
            .with_topics(Some(vec![topic]))
            .with_allow_auto_topic_creation(create)
    };
    let answer = client.ask(&ask("fresh", false), 12).await;
    assert_eq!(answer.topics[0].error_code, 3, "not asked for");
    let answer = client.ask(&ask("fresh", true), 12).await;
    assert_eq!((answer.topics[0].error_code, answer.topics[0].partitions.len()), (0, 1));
    assert!(!answer.topics[0].topic_id.is_nil());
    let answer = client.ask(&ask("no such/name", true), 12).await;
    assert_eq!(answer.topics[0].error_code, 17, "an invalid name");
    broker.stop().await;
}
