//! Topics as the APIs share them: lookup, creation on first use, leaders.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NodeId, PartitionId};
use kafka_protocol::messages::BrokerId;
use meta::{Image, PartitionMeta, Reply, Topic};
use protocol::produce::NodeEndpoint;
use protocol::{ErrorCode, StrBytes};

use crate::Context;
use crate::api::errors::{Failure, unexpected};
use crate::dynamic::Layers;

/// The topic of committed offsets and group metadata.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The topic of transaction state.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// True for a topic of the broker itself.
pub(crate) fn is_internal(name: &str) -> bool {
    name == OFFSETS_TOPIC || name == TRANSACTIONS_TOPIC
}

/// The partition's owner, if that broker is known.
pub(crate) fn leader(image: &Image, partition: &PartitionMeta) -> Option<NodeId> {
    partition.leader.filter(|node| image.brokers.contains_key(node))
}

/// Replicas and ISR as clients see them: the owner, since durability does not come from replicas.
pub(crate) fn replicas(partition: &PartitionMeta) -> Vec<BrokerId> {
    partition.leader.map(|node| BrokerId(node.0)).into_iter().collect()
}

/// The id of partition `index` of `topic`, if it has one.
pub(crate) fn partition_of(topic: &Topic, index: i32) -> Option<(PartitionId, PartitionMeta)> {
    let at = usize::try_from(index).ok()?;
    let meta = *topic.partitions.get(at)?;
    let index = u32::try_from(index).ok()?;
    Some((PartitionId { topic: topic.number, index }, meta))
}

/// What a new topic should be.
pub(crate) struct NewTopic {
    pub name: String,
    pub partitions: u32,
    pub replication_factor: i16,
    pub configs: BTreeMap<String, String>,
    pub assignments: Vec<meta::command::Assignment>,
    pub validate_only: bool,
}

/// What metadata made of it.
pub(crate) struct CreatedTopic {
    pub id: uuid::Uuid,
    pub partitions: u32,
    pub replication_factor: i16,
}

/// Creates a topic whose name and configuration were checked.
pub(crate) async fn create(ctx: &Context, new: NewTopic) -> Result<CreatedTopic, Failure> {
    let command = meta::command::CreateTopic {
        internal: is_internal(&new.name),
        name: new.name,
        id: ctx.rng.uuid().as_bytes().to_vec(),
        partitions: new.partitions,
        replication_factor: i32::from(new.replication_factor),
        configs: new.configs,
        assignments: new.assignments,
        validate_only: new.validate_only,
        now_ms: ctx.clock.now_ms(),
    };
    match ctx.meta.propose(command).await? {
        Reply::TopicCreated { id, partitions, replication_factor, .. } => {
            Ok(CreatedTopic { id, partitions, replication_factor })
        }
        Reply::Rejected(reject) => Err(reject.into()),
        other => Err(unexpected(&other)),
    }
}

/// The topic `name`, created with the defaults if it is missing. Two askers at once get the same topic.
pub(crate) async fn auto_create(ctx: &Context, name: &str) -> Result<Arc<Topic>, Failure> {
    if let Some(topic) = ctx.meta.image().topic(name) {
        return Ok(Arc::clone(topic));
    }
    let topics = &ctx.settings.topics;
    let (partitions, configs) = if name == OFFSETS_TOPIC {
        let configs = [("cleanup.policy", "compact"), ("compression.type", "producer")];
        (ctx.settings.groups.offsets_partitions, own(&configs))
    } else {
        (topics.partitions, BTreeMap::new())
    };
    let new = NewTopic {
        name: name.to_owned(),
        partitions: u32::try_from(partitions).unwrap_or(1),
        replication_factor: topics.replication_factor,
        configs,
        assignments: Vec::new(),
        validate_only: false,
    };
    match create(ctx, new).await {
        Ok(_) => {}
        Err(failure) if failure.code == ErrorCode::TopicAlreadyExists => {}
        Err(failure) => return Err(failure),
    }
    ctx.meta.image().topic(name).cloned().ok_or_else(|| {
        Failure::new(ErrorCode::UnknownTopicOrPartition, format!("topic {name} was deleted again"))
    })
}

fn own(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The configuration in force for a topic, when something above the topic's own overrides a default; else `None`, and
/// the partition's is right.
pub(crate) fn config(
    ctx: &Context,
    image: &Image,
    topic: &Topic,
) -> Option<Arc<partition::TopicConfig>> {
    let layers = Layers::of(image, ctx.node, &ctx.settings, Some(&topic.configs));
    if layers.is_plain() {
        return None;
    }
    Some(Arc::new(partition::TopicConfig::from_configs(&layers.effective())))
}

/// Where the brokers in `nodes` listen, each once.
pub(crate) fn endpoints(image: &Image, nodes: impl Iterator<Item = i32>) -> Vec<NodeEndpoint> {
    let nodes: std::collections::BTreeSet<i32> = nodes.collect();
    let endpoint = |node: i32| {
        let broker = image.brokers.get(&NodeId(node))?;
        Some(NodeEndpoint {
            node_id: node,
            host: StrBytes::from_string(broker.host.clone()),
            port: i32::from(broker.port),
            rack: broker.rack.clone().map(StrBytes::from_string),
        })
    };
    nodes.into_iter().filter_map(endpoint).collect()
}
