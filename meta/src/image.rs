//! The image: the small part of the state that every broker holds in memory and is told of each change.
//!
//! It is a function of the keys: the same code builds it at start from all of them and updates it from the writes of each
//! command, so a delta can never say something else than a reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NodeEpoch, NodeId, StreamEpoch, WalId};
use uuid::Uuid;

use crate::command::SinkState;
use crate::keys::{self, tag};
use crate::record;
use crate::view::{Load, View, ViewError, bad_key, read};

/// What every broker knows. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Index of the last command that is contained.
    pub applied: u64,
    /// The cluster, once bootstrapped.
    pub cluster: Option<ClusterMeta>,
    /// Brokers by id.
    pub brokers: Arc<BTreeMap<NodeId, BrokerMeta>>,
    /// Topics by number.
    pub topics: Arc<BTreeMap<u64, Arc<Topic>>>,
    /// Numbers of topics by name.
    pub by_name: Arc<BTreeMap<String, u64>>,
    /// Numbers of topics by id.
    pub by_id: Arc<BTreeMap<Uuid, u64>>,
    /// Dynamic broker configuration by broker; `None` is the default of the cluster.
    pub broker_configs: Arc<BTreeMap<Option<NodeId>, BTreeMap<String, String>>>,
    /// Group configuration by group.
    pub group_configs: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    /// Sinks by name.
    pub sinks: Arc<BTreeMap<String, Arc<SinkMeta>>>,
    /// Floors by sink id and partition.
    pub floors: Arc<BTreeMap<(u64, u32), i64>>,
    sink_names: Arc<BTreeMap<u64, String>>,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMeta {
    /// As clients see it.
    pub id: String,
    /// Number of its life over the bucket.
    pub incarnation: u16,
    /// Feature level in force.
    pub feature_level: u32,
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerMeta {
    /// Its id.
    pub node: NodeId,
    /// Host for clients.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// Rack.
    pub rack: Option<String>,
    /// Its present life.
    pub epoch: NodeEpoch,
    /// Its log, once created.
    pub wal: Option<WalId>,
}

/// A topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topic {
    /// Number, the first part of its stream ids.
    pub number: u64,
    /// Id as clients see it.
    pub id: Uuid,
    /// Name.
    pub name: String,
    /// Partitions by index.
    pub partitions: Vec<PartitionMeta>,
    /// The replication factor as requested.
    pub replication_factor_requested: i16,
    /// Dynamic configuration.
    pub configs: BTreeMap<String, String>,
    /// A topic of the broker itself.
    pub internal: bool,
    /// When it was created, milliseconds since 1970.
    pub created_ms: i64,
}

/// A partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionMeta {
    /// Its owner, or nobody.
    pub leader: Option<NodeId>,
    /// Its leader epoch.
    pub epoch: StreamEpoch,
    /// The log that may hold its un-uploaded bytes, or none.
    pub wal: Option<WalId>,
}

impl PartitionMeta {
    pub(crate) fn of(record: &record::Partition) -> Self {
        Self {
            leader: record.leader.map(NodeId),
            epoch: StreamEpoch(record.epoch),
            wal: record.wal.map(WalId),
        }
    }
}

/// A sink.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkMeta {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Number of its topic.
    pub topic: u64,
    /// Id of its topic, which may have been deleted since.
    pub topic_id: Uuid,
    /// Name of its topic.
    pub topic_name: String,
    /// Configuration.
    pub config: BTreeMap<String, String>,
    /// Number of its output lineage.
    pub generation: u64,
    /// Whether it works.
    pub state: SinkState,
    /// Where it begins, by partition; others begin at their log start.
    pub starts: BTreeMap<u32, i64>,
    /// The place of its files.
    pub root: String,
    /// When it was created, milliseconds since 1970.
    pub created_ms: i64,
}

/// Tags of the keys that an image is made of.
const TAGS: [u8; 8] = [
    tag::CLUSTER,
    tag::BROKER,
    tag::TOPIC_NAME,
    tag::TOPIC,
    tag::PARTITION,
    tag::CONFIG,
    tag::SINK,
    tag::SINK_FLOOR,
];

impl Image {
    /// The image of a state.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn build(view: &dyn View, applied: u64) -> Result<Self, ViewError> {
        let mut image = Self { applied, ..Self::default() };
        for tag in TAGS {
            view.each(vec![tag], |key, value| image.change(key, Some(value)).map(|_| ()))?;
        }
        Ok(image)
    }

    /// The topic called `name`.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.by_name.get(name)?)
    }

    /// The topic with `id`.
    #[must_use]
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(self.by_id.get(&id)?)
    }

    /// The floor of sink `id` in `partition`, when one is known.
    #[must_use]
    pub fn floor(&self, id: u64, partition: u32) -> Option<i64> {
        self.floors.get(&(id, partition)).copied()
    }

    /// True when a key with this first byte belongs to the image.
    pub(crate) fn holds(key: &[u8]) -> bool {
        key.first().is_some_and(|tag| TAGS.contains(tag))
    }

    /// Takes one write over. True when the image changed.
    pub(crate) fn change(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<bool, ViewError> {
        let Some((&first, rest)) = key.split_first() else { return Err(bad_key(key)) };
        let entry = Entry { key, rest, value };
        match first {
            tag::CLUSTER => self.change_cluster(&entry)?,
            tag::BROKER => self.change_broker(&entry)?,
            tag::TOPIC => self.change_topic(&entry)?,
            tag::PARTITION => self.change_partition(&entry)?,
            tag::CONFIG => self.change_config(&entry)?,
            tag::SINK => self.change_sink(&entry)?,
            tag::SINK_FLOOR => self.change_floor(&entry)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn change_cluster(&mut self, entry: &Entry<'_>) -> Result<(), ViewError> {
        let cluster: Option<record::Cluster> = entry.read()?;
        self.cluster = cluster.map(|cluster| ClusterMeta {
            id: cluster.cluster_id,
            incarnation: u16::try_from(cluster.incarnation).unwrap_or(u16::MAX),
            feature_level: cluster.feature_level,
        });
        Ok(())
    }

    fn change_broker(&mut self, entry: &Entry<'_>) -> Result<(), ViewError> {
        let (number, _) = keys::split_u32(entry.rest).ok_or_else(|| bad_key(entry.key))?;
        let node = NodeId(number.cast_signed());
        let brokers = Arc::make_mut(&mut self.brokers);
        match entry.read::<record::Broker>()? {
            None => brokers.remove(&node),
            Some(broker) => brokers.insert(
                node,
                BrokerMeta {
                    node,
                    host: broker.host,
                    port: u16::try_from(broker.port).unwrap_or(0),
                    rack: broker.rack,
                    epoch: NodeEpoch(broker.epoch),
                    wal: broker.wal.map(WalId),
                },
            ),
        };
        Ok(())
    }

    fn change_topic(&mut self, entry: &Entry<'_>) -> Result<(), ViewError> {
        let (number, _) = keys::split_u64(entry.rest).ok_or_else(|| bad_key(entry.key))?;
        let topics = Arc::make_mut(&mut self.topics);
        let Some(record) = entry.read::<record::Topic>()? else {
            if let Some(topic) = topics.remove(&number) {
                Arc::make_mut(&mut self.by_id).remove(&topic.id);
                let by_name = Arc::make_mut(&mut self.by_name);
                if by_name.get(&topic.name) == Some(&number) {
                    by_name.remove(&topic.name);
                }
            }
            return Ok(());
        };
        let topic = Arc::make_mut(topics.entry(number).or_default());
        topic.number = number;
        topic.id = uuid_of(entry.key, &record.id)?;
        topic.name = record.name;
        topic.replication_factor_requested = i16::try_from(record.replication_factor).unwrap_or(1);
        topic.internal = record.internal;
        topic.created_ms = record.created_ms;
        let partitions = usize::try_from(record.partitions).expect("32 bits fit a usize");
        topic.partitions.resize(partitions, PartitionMeta::default());
        Arc::make_mut(&mut self.by_id).insert(topic.id, number);
        Arc::make_mut(&mut self.by_name).insert(topic.name.clone(), number);
        Ok(())
    }

    fn change_partition(&mut self, entry: &Entry<'_>) -> Result<(), ViewError> {
        let shape = || bad_key(entry.key);
        let (number, rest) = keys::split_u64(entry.rest).ok_or_else(shape)?;
        let (index, _) = keys::split_u32(rest).ok_or_else(shape)?;
        // The topic's own key sorts before its partitions; a deleted topic has taken its partitions along.
        let Some(partition) = entry.read::<record::Partition>()? else { return Ok(()) };
        let topics = Arc::make_mut(&mut self.topics);
        let Some(topic) = topics.get_mut(&number) else { return Ok(()) };
        let index = usize::try_from(index).expect("32 bits fit a usize");
        if let Some(slot) = Arc::make_mut(topic).partitions.get_mut(index) {
            *slot = PartitionMeta::of(&partition);
        }
        Ok(())
    }

    fn change_config(&mut self, entry: &Entry<'_>) -> Result<(), ViewError> {
        let Some((&kind, name)) = entry.rest.split_first() else { return Err(bad_key(entry.key)) };
        let values = entry.read::<record::Config>()?.map(|config| config.values);
        match kind {
            config_kind::TOPIC => {
                let (number, _) = keys::split_u64(name).ok_or_else(|| bad_key(entry.key))?;
                if let Some(topic) = Arc::make_mut(&mut self.topics).get_mut(&number) {
                    Arc::make_mut(topic).configs = values.unwrap_or_default();
                }
            }
            config_kind::BROKER => {
                let node = keys::split_u32(name).map(|(number, _)| NodeId(number.cast_signed()));
                set(Arc::make_mut(&mut self.broker_configs), node, values);
            }
            _ => {
                let name = String::from_utf8(name.to_vec()).map_err(|_| bad_key(entry.key))?;
                set(Arc::make_mut(&mut self.group_configs), name, values);
            }
        }
        Ok(())
    }

    fn change_sink(&mut self, entry: &Entry<'_>) -> Result<(), ViewError> {
        let (id, _) = keys::split_u64(entry.rest).ok_or_else(|| bad_key(entry.key))?;
        let names = Arc::make_mut(&mut self.sink_names);
        let sinks = Arc::make_mut(&mut self.sinks);
        let Some(sink) = entry.read::<record::Sink>()? else {
            if let Some(name) = names.remove(&id)
                && sinks.get(&name).is_some_and(|sink| sink.id == id)
            {
                sinks.remove(&name);
            }
            return Ok(());
        };
        let meta = SinkMeta {
            id,
            name: sink.name.clone(),
            topic: sink.topic,
            topic_id: uuid_of(entry.key, &sink.topic_id)?,
            topic_name: sink.topic_name,
            config: sink.config,
            generation: sink.generation,
            state: SinkState::try_from(sink.state).unwrap_or(SinkState::Paused),
            starts: sink.starts,
            root: sink.root,
            created_ms: sink.created_ms,
        };
        names.insert(id, sink.name.clone());
        sinks.insert(sink.name, Arc::new(meta));
        Ok(())
    }

    fn change_floor(&mut self, entry: &Entry<'_>) -> Result<(), ViewError> {
        let shape = || bad_key(entry.key);
        let (id, rest) = keys::split_u64(entry.rest).ok_or_else(shape)?;
        let (partition, _) = keys::split_u32(rest).ok_or_else(shape)?;
        let floor = entry.read::<record::Floor>()?.map(|floor| floor.offset);
        set(Arc::make_mut(&mut self.floors), (id, partition), floor);
        Ok(())
    }
}

/// Kinds of configured resources in keys.
pub(crate) mod config_kind {
    pub const TOPIC: u8 = 1;
    pub const BROKER: u8 = 2;
    pub const GROUP: u8 = 3;
}

struct Entry<'a> {
    key: &'a [u8],
    rest: &'a [u8],
    value: Option<&'a [u8]>,
}

impl Entry<'_> {
    fn read<R: prost::Message + Default>(&self) -> Result<Option<R>, ViewError> {
        self.value.map(|value| read(self.key, value)).transpose()
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

fn uuid_of(key: &[u8], bytes: &[u8]) -> Result<Uuid, ViewError> {
    Uuid::from_slice(bytes).map_err(|_| bad_key(key))
}
