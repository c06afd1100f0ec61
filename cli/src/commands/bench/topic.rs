//! The topic of a run: created, its leaders, its offsets, and who carries which partition.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{anyhow, bail};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, ListOffsetsRequest, MetadataRequest,
};
use protocol::ErrorCode;

use crate::args::bench::Into as Target;
use crate::commands::topic::topic_name;
use crate::kafka::{Client, check};

/// Longest that a new topic may take until every partition has a leader.
const LEADERS_WAIT_MAX: Duration = Duration::from_secs(60);
const CREATE_TIMEOUT_MS: i32 = 60_000;
pub const EARLIEST: i64 = -2;
pub const LATEST: i64 = -1;

/// A connection's part: where it goes and the partitions it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub address: String,
    pub partitions: Vec<i32>,
}

/// Creates the topic when that is asked for and waits for its leaders. Partitions by leader's address.
pub async fn prepare(target: &Target) -> anyhow::Result<BTreeMap<String, Vec<i32>>> {
    let mut client = Client::connect(&target.at.bootstrap_server).await?;
    if target.create {
        create(&mut client, &target.topic, target.partitions.unwrap_or(1)).await?;
    }
    leaders(&mut client, &target.topic, target.partitions, target.create).await
}

async fn create(client: &mut Client, name: &str, partitions: u32) -> anyhow::Result<()> {
    let topic = CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(i32::try_from(partitions)?)
        .with_replication_factor(-1);
    let request =
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(CREATE_TIMEOUT_MS);
    for result in client.ask(&request).await?.topics {
        if result.error_code != ErrorCode::TopicAlreadyExists.code() {
            check(result.error_code, result.error_message.as_deref())?;
        }
    }
    Ok(())
}

/// Leaders of the first `count` partitions, all when it is not given. A topic that was just created may need a moment:
/// until it has leaders, and until these know that they lead.
pub async fn leaders(
    client: &mut Client,
    name: &str,
    count: Option<u32>,
    new: bool,
) -> anyhow::Result<BTreeMap<String, Vec<i32>>> {
    let begin = tokio::time::Instant::now();
    loop {
        let found = async {
            let leaders = leaders_now(client, name, count).await?;
            if new {
                for (address, partitions) in &leaders {
                    offsets(address, name, partitions, LATEST).await?;
                }
            }
            Ok(leaders)
        };
        match found.await {
            Err(_) if new && begin.elapsed() < LEADERS_WAIT_MAX => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            done => return done,
        }
    }
}

async fn leaders_now(
    client: &mut Client,
    name: &str,
    count: Option<u32>,
) -> anyhow::Result<BTreeMap<String, Vec<i32>>> {
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![topic]))
        .with_allow_auto_topic_creation(false);
    let answer = client.ask(&request).await?;
    let brokers: BTreeMap<i32, String> = answer
        .brokers
        .iter()
        .map(|one| (one.node_id.0, format!("{}:{}", one.host, one.port)))
        .collect();
    let topic = answer.topics.first().ok_or_else(|| anyhow!("there is no topic {name:?}"))?;
    check(topic.error_code, None).map_err(|error| error.context(format!("topic {name:?}")))?;
    let has = topic.partitions.len();
    let wanted = count.map_or(has, |count| usize::try_from(count).unwrap_or(usize::MAX));
    if wanted > has || wanted == 0 {
        bail!("topic {name:?} has {has} partition(s), not {wanted}");
    }
    let mut leaders: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    let wanted = i32::try_from(wanted)?;
    for one in topic.partitions.iter().filter(|one| one.partition_index < wanted) {
        let address = brokers.get(&one.leader_id.0).ok_or_else(|| {
            anyhow!("partition {} of {name:?} has no leader", one.partition_index)
        })?;
        leaders.entry(address.clone()).or_default().push(one.partition_index);
    }
    for partitions in leaders.values_mut() {
        partitions.sort_unstable();
    }
    Ok(leaders)
}

/// Deals the partitions out to `connections`, at least one connection for each leader. With more connections than
/// partitions several carry the same one if `shared`, else there are only as many connections as partitions.
pub fn deal(leaders: &BTreeMap<String, Vec<i32>>, connections: usize, shared: bool) -> Vec<Share> {
    let mut shares = Vec::new();
    for (number, (address, partitions)) in leaders.iter().enumerate() {
        let own = (connections + leaders.len() - 1 - number) / leaders.len();
        let own = if shared { own.max(1) } else { own.clamp(1, partitions.len()) };
        for index in 0..own {
            let partitions: Vec<i32> = if own <= partitions.len() {
                partitions.iter().copied().skip(index).step_by(own).collect()
            } else {
                vec![partitions[index % partitions.len()]]
            };
            shares.push(Share { address: address.clone(), partitions });
        }
    }
    shares
}

/// Offsets of the partitions at `timestamp` ([`EARLIEST`] or [`LATEST`]), by partition.
pub async fn offsets(
    address: &str,
    name: &str,
    partitions: &[i32],
    timestamp: i64,
) -> anyhow::Result<BTreeMap<i32, i64>> {
    let partition = |index: &i32| {
        ListOffsetsPartition::default()
            .with_partition_index(*index)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp)
    };
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(name))
        .with_partitions(partitions.iter().map(partition).collect());
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    let answer = Client::connect(address).await?.ask(&request).await?;
    let mut offsets = BTreeMap::new();
    for one in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        check(one.error_code, None)?;
        offsets.insert(one.partition_index, one.offset);
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(partitions: i32) -> BTreeMap<String, Vec<i32>> {
        BTreeMap::from([("a:1".to_owned(), (0..partitions).collect())])
    }

    fn parts(shares: &[Share]) -> Vec<Vec<i32>> {
        shares.iter().map(|share| share.partitions.clone()).collect()
    }

    #[test]
    fn partitions_are_dealt_out() {
        assert_eq!(parts(&deal(&one(5), 2, true)), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(parts(&deal(&one(1), 3, true)), [vec![0], vec![0], vec![0]]);
        assert_eq!(parts(&deal(&one(1), 3, false)), [vec![0]], "readers do not read twice");
    }

    #[test]
    fn every_leader_gets_a_connection() {
        let two = BTreeMap::from([("a:1".to_owned(), vec![0, 2]), ("b:1".to_owned(), vec![1])]);
        let addresses = |shares: Vec<Share>| -> Vec<String> {
            shares.into_iter().map(|share| share.address).collect()
        };
        assert_eq!(addresses(deal(&two, 1, true)), ["a:1", "b:1"]);
        assert_eq!(addresses(deal(&two, 3, true)), ["a:1", "a:1", "b:1"]);
    }
}
