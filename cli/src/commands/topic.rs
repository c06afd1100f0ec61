//! `sluice topic`.

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest,
    DescribeConfigsRequest, ListOffsetsRequest, TopicName,
};
use protocol::StrBytes;
use serde_json::{Value, json};

use crate::args::Topic;
use crate::kafka::{Client, check};
use crate::output::{Output, pair};

/// Longest that the broker may take, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;

pub async fn run(command: Topic, out: &Output) -> anyhow::Result<()> {
    match command {
        Topic::Create { name, partitions, replication_factor, configs, at } => {
            let mut client = Client::connect(&at.bootstrap_server).await?;
            let configs = configs
                .iter()
                .map(|text| pair(text).map_err(|failure| failure.error))
                .collect::<Result<Vec<_>, _>>()?;
            create(&mut client, &name, partitions, replication_factor, configs, out).await
        }
        Topic::List { internal, at } => {
            list(&mut Client::connect(&at.bootstrap_server).await?, internal, out).await
        }
        Topic::Describe { name, at } => {
            describe(&mut Client::connect(&at.bootstrap_server).await?, &name, out).await
        }
        Topic::Grow { name, partitions, at } => {
            grow(&mut Client::connect(&at.bootstrap_server).await?, &name, partitions, out).await
        }
        Topic::Delete { name, at } => {
            delete(&mut Client::connect(&at.bootstrap_server).await?, &name, out).await
        }
    }
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

async fn create(
    client: &mut Client,
    name: &str,
    partitions: i32,
    replication_factor: i16,
    configs: Vec<(String, String)>,
    out: &Output,
) -> anyhow::Result<()> {
    let config = |(key, value): (String, String)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string(key))
            .with_value(Some(StrBytes::from_string(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(replication_factor)
        .with_configs(configs.into_iter().map(config).collect());
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    for result in client.ask(&request).await?.topics {
        check(result.error_code, result.error_message.as_deref())?;
        if out.is_json() {
            out.json(&json!({
                "name": name,
                "id": result.topic_id.to_string(),
                "partitions": result.num_partitions,
                "replication_factor": result.replication_factor,
            }));
        }
        out.line(format!("created topic {name} with {} partition(s)", result.num_partitions));
    }
    Ok(())
}

async fn list(client: &mut Client, internal: bool, out: &Output) -> anyhow::Result<()> {
    let topics = client.metadata().await?.topics;
    let rows = topics.iter().filter(|topic| internal || !topic.is_internal).map(|topic| {
        let name = topic.name.as_ref().map_or("", |name| name.as_str());
        vec![
            Value::from(name),
            Value::from(topic.partitions.len()),
            Value::from(topic.topic_id.to_string()),
            Value::from(topic.is_internal),
        ]
    });
    out.rows(&["name", "partitions", "id", "internal"], rows.collect());
    Ok(())
}

async fn describe(client: &mut Client, name: &str, out: &Output) -> anyhow::Result<()> {
    let topics = client.metadata().await?.topics;
    let found = topics.iter().find(|topic| topic.name.as_ref().is_some_and(|n| n.as_str() == name));
    let topic = found.ok_or_else(|| anyhow::anyhow!("there is no topic {name:?}"))?;
    let earliest = offsets(client, topic, -2).await?;
    let latest = offsets(client, topic, -1).await?;
    let configs = set_configs(client, name).await?;
    let columns = ["partition", "leader", "epoch", "start", "end"];
    let rows =
        topic.partitions.iter().zip(earliest.iter().zip(&latest)).map(|(one, (start, end))| {
            vec![
                Value::from(one.partition_index),
                Value::from(one.leader_id.0),
                Value::from(one.leader_epoch),
                Value::from(*start),
                Value::from(*end),
            ]
        });
    let rows: Vec<Vec<Value>> = rows.collect();
    if out.is_json() {
        let object = |row: &Vec<Value>| {
            let pairs = columns.iter().map(|name| (*name).to_owned()).zip(row.iter().cloned());
            Value::Object(pairs.collect())
        };
        out.json(&json!({
            "name": name,
            "id": topic.topic_id.to_string(),
            "internal": topic.is_internal,
            "configs": configs.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "partitions": rows.iter().map(object).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    out.line(format!("{name}  id {}", topic.topic_id));
    for (key, value) in configs {
        out.line(format!("  {key} = {value}"));
    }
    out.rows(&columns, rows);
    Ok(())
}

/// Offsets of all partitions, -1 where there is none.
pub async fn offsets(
    client: &mut Client,
    topic: &MetadataResponseTopic,
    timestamp: i64,
) -> anyhow::Result<Vec<i64>> {
    let partition =
        |one: &kafka_protocol::messages::metadata_response::MetadataResponsePartition| {
            ListOffsetsPartition::default()
                .with_partition_index(one.partition_index)
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp)
        };
    let topic = ListOffsetsTopic::default()
        .with_name(topic.name.clone().unwrap_or_default())
        .with_partitions(topic.partitions.iter().map(partition).collect());
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = client.ask(&request).await?;
    let mut offsets = Vec::new();
    for one in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        check(one.error_code, None)?;
        offsets.push(one.offset);
    }
    Ok(offsets)
}

/// The topic's own settings.
async fn set_configs(client: &mut Client, name: &str) -> anyhow::Result<Vec<(String, String)>> {
    const TOPIC: i8 = 2;
    const OWN: i8 = 1;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(StrBytes::from_string(name.to_owned()))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let mut set = Vec::new();
    for result in client.ask(&request).await?.results {
        check(result.error_code, result.error_message.as_deref())?;
        for config in result.configs.into_iter().filter(|config| config.config_source == OWN) {
            set.push((config.name.to_string(), config.value.unwrap_or_default().to_string()));
        }
    }
    Ok(set)
}

async fn grow(
    client: &mut Client,
    name: &str,
    partitions: i32,
    out: &Output,
) -> anyhow::Result<()> {
    let topic = CreatePartitionsTopic::default()
        .with_name(topic_name(name))
        .with_count(partitions)
        .with_assignments(None);
    let request =
        CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS);
    for result in client.ask(&request).await?.results {
        check(result.error_code, result.error_message.as_deref())?;
    }
    out.line(format!("topic {name} has {partitions} partition(s)"));
    if out.is_json() {
        out.json(&json!({ "name": name, "partitions": partitions }));
    }
    Ok(())
}

async fn delete(client: &mut Client, name: &str, out: &Output) -> anyhow::Result<()> {
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(TIMEOUT_MS);
    if client.version::<DeleteTopicsRequest>()? >= 6 {
        request.topics = vec![DeleteTopicState::default().with_name(Some(topic_name(name)))];
    } else {
        request.topic_names = vec![topic_name(name)];
    }
    for result in client.ask(&request).await?.responses {
        check(result.error_code, result.error_message.as_deref())?;
    }
    out.line(format!("deleted topic {name}"));
    if out.is_json() {
        out.json(&json!({ "name": name, "deleted": true }));
    }
    Ok(())
}
