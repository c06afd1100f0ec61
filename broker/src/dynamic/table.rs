//! The keys. Names, types and defaults are Apache Kafka 4.3's; a key that Sluice has no use for is kept, described and
//! without effect, because tools set it.

/// Type of a value, with Kafka's numbers in DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Boolean,
    /// Any text, or one of the words.
    Text(&'static [&'static str]),
    Int(i64),
    Long(i64),
    /// Lowest and highest.
    Double(f64, f64),
    /// A comma-separated list, of the words when there are any; empty is allowed unless there are words.
    List(&'static [&'static str]),
}

impl Kind {
    /// Kafka's number of the type.
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Text(_) => 2,
            Self::Int(_) => 3,
            Self::Long(_) => 5,
            Self::Double(..) => 6,
            Self::List(_) => 7,
        }
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    /// The broker key a topic key falls back to.
    pub broker: Option<&'static str>,
    /// Set at start only.
    pub read_only: bool,
    pub doc: &'static str,
}

const fn topic(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    broker: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, kind, default, broker: Some(broker), read_only: false, doc }
}

const fn own(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, broker: None, read_only: false, doc }
}

const fn fixed(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, broker: None, read_only: true, doc }
}

const MAX: &str = "9223372036854775807";
const UNUSED: &str =
    "Kept for tools; without effect, since there are no segment files and no replicas.";

/// Topic keys, by name.
pub(crate) const TOPIC_KEYS: &[Key] = &[
    topic(
        "cleanup.policy",
        Kind::List(&["compact", "delete"]),
        "delete",
        "log.cleanup.policy",
        "What ends the life of records: their age and the topic's size, a newer record of their key, or both.",
    ),
    topic(
        "compression.gzip.level",
        Kind::Int(-1),
        "-1",
        "compression.gzip.level",
        "Level of gzip when the broker recompresses.",
    ),
    topic(
        "compression.lz4.level",
        Kind::Int(1),
        "9",
        "compression.lz4.level",
        "Level of lz4 when the broker recompresses.",
    ),
    topic(
        "compression.type",
        Kind::Text(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "compression.type",
        "Codec of stored batches; only producer, which keeps them as they come, has an effect.",
    ),
    topic(
        "compression.zstd.level",
        Kind::Int(-131_072),
        "3",
        "compression.zstd.level",
        "Level of zstd when the broker recompresses.",
    ),
    topic(
        "delete.retention.ms",
        Kind::Long(0),
        "86400000",
        "log.cleaner.delete.retention.ms",
        "How long a tombstone of a compacted topic stays.",
    ),
    topic("file.delete.delay.ms", Kind::Long(0), "60000", "log.segment.delete.delay.ms", UNUSED),
    topic("flush.messages", Kind::Long(1), MAX, "log.flush.interval.messages", UNUSED),
    topic("flush.ms", Kind::Long(0), MAX, "log.flush.interval.ms", UNUSED),
    own("follower.replication.throttled.replicas", Kind::List(&[]), "", UNUSED),
    topic("index.interval.bytes", Kind::Int(0), "4096", "log.index.interval.bytes", UNUSED),
    own("leader.replication.throttled.replicas", Kind::List(&[]), "", UNUSED),
    topic("local.retention.bytes", Kind::Long(-2), "-2", "log.local.retention.bytes", UNUSED),
    topic("local.retention.ms", Kind::Long(-2), "-2", "log.local.retention.ms", UNUSED),
    topic(
        "max.compaction.lag.ms",
        Kind::Long(1),
        MAX,
        "log.cleaner.max.compaction.lag.ms",
        "Longest a record of a compacted topic stays uncompacted.",
    ),
    topic(
        "max.message.bytes",
        Kind::Int(0),
        "1048588",
        "message.max.bytes",
        "Largest record batch, in bytes, compressed.",
    ),
    topic(
        "message.timestamp.after.max.ms",
        Kind::Long(0),
        "3600000",
        "log.message.timestamp.after.max.ms",
        "How far the time of a record may lie after the broker's.",
    ),
    topic(
        "message.timestamp.before.max.ms",
        Kind::Long(0),
        MAX,
        "log.message.timestamp.before.max.ms",
        "How far the time of a record may lie before the broker's.",
    ),
    topic(
        "message.timestamp.type",
        Kind::Text(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "log.message.timestamp.type",
        "Whose time a record carries: the producer's or the broker's.",
    ),
    topic(
        "min.cleanable.dirty.ratio",
        Kind::Double(0.0, 1.0),
        "0.5",
        "log.cleaner.min.cleanable.ratio",
        "Share of uncompacted bytes at which compaction starts.",
    ),
    topic(
        "min.compaction.lag.ms",
        Kind::Long(0),
        "0",
        "log.cleaner.min.compaction.lag.ms",
        "Shortest a record of a compacted topic stays uncompacted.",
    ),
    topic(
        "min.insync.replicas",
        Kind::Int(1),
        "1",
        "min.insync.replicas",
        "Kept as set; an acknowledged record is durable whatever it says.",
    ),
    topic("preallocate", Kind::Boolean, "false", "log.preallocate", UNUSED),
    own("remote.log.copy.disable", Kind::Boolean, "false", UNUSED),
    own("remote.log.delete.on.disable", Kind::Boolean, "false", UNUSED),
    own("remote.storage.enable", Kind::Boolean, "false", UNUSED),
    topic(
        "retention.bytes",
        Kind::Long(-1),
        "-1",
        "log.retention.bytes",
        "Size at which the oldest records of a partition go; -1 is unbounded.",
    ),
    topic(
        "retention.ms",
        Kind::Long(-1),
        "604800000",
        "log.retention.ms",
        "Age at which records go; -1 keeps them for ever.",
    ),
    topic("segment.bytes", Kind::Int(1_048_576), "1073741824", "log.segment.bytes", UNUSED),
    topic("segment.index.bytes", Kind::Int(4), "10485760", "log.index.size.max.bytes", UNUSED),
    topic("segment.jitter.ms", Kind::Long(0), "0", "log.roll.jitter.ms", UNUSED),
    topic("segment.ms", Kind::Long(1), "604800000", "log.roll.ms", UNUSED),
    topic(
        "unclean.leader.election.enable",
        Kind::Boolean,
        "false",
        "unclean.leader.election.enable",
        UNUSED,
    ),
];

/// Broker keys that stand for a topic key under another name, and those that are read at start only.
const BROKER_KEYS: &[Key] = &[
    fixed("auto.create.topics.enable", Kind::Boolean, "true", "Create a topic on first use."),
    fixed("broker.id", Kind::Int(-1), "1", "Number of this broker."),
    own("compression.gzip.level", Kind::Int(-1), "-1", UNUSED),
    own("compression.lz4.level", Kind::Int(1), "9", UNUSED),
    own(
        "compression.type",
        Kind::Text(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        "Default of compression.type.",
    ),
    own("compression.zstd.level", Kind::Int(-131_072), "3", UNUSED),
    fixed("connections.max.idle.ms", Kind::Long(1000), "600000", "Idle connections are closed."),
    fixed("default.replication.factor", Kind::Int(1), "1", "For topics created without one."),
    fixed(
        "group.initial.rebalance.delay.ms",
        Kind::Int(0),
        "3000",
        "Wait before the first rebalance.",
    ),
    fixed("group.max.session.timeout.ms", Kind::Int(1), "1800000", "Longest session time-out."),
    fixed("group.max.size", Kind::Int(1), "2147483647", "Most members of a group."),
    fixed("group.min.session.timeout.ms", Kind::Int(1), "6000", "Shortest session time-out."),
    fixed("listeners", Kind::Text(&[]), "PLAINTEXT://127.0.0.1:9092", "The Kafka listener."),
    own(
        "log.cleaner.delete.retention.ms",
        Kind::Long(0),
        "86400000",
        "Default of delete.retention.ms.",
    ),
    own(
        "log.cleaner.max.compaction.lag.ms",
        Kind::Long(1),
        MAX,
        "Default of max.compaction.lag.ms.",
    ),
    own(
        "log.cleaner.min.cleanable.ratio",
        Kind::Double(0.0, 1.0),
        "0.5",
        "Default of min.cleanable.dirty.ratio.",
    ),
    own(
        "log.cleaner.min.compaction.lag.ms",
        Kind::Long(0),
        "0",
        "Default of min.compaction.lag.ms.",
    ),
    own(
        "log.cleanup.policy",
        Kind::List(&["compact", "delete"]),
        "delete",
        "Default of cleanup.policy.",
    ),
    own("log.flush.interval.messages", Kind::Long(1), MAX, UNUSED),
    own("log.flush.interval.ms", Kind::Long(0), MAX, UNUSED),
    own("log.index.interval.bytes", Kind::Int(0), "4096", UNUSED),
    own("log.index.size.max.bytes", Kind::Int(4), "10485760", UNUSED),
    own("log.local.retention.bytes", Kind::Long(-2), "-2", UNUSED),
    own("log.local.retention.ms", Kind::Long(-2), "-2", UNUSED),
    own(
        "log.message.timestamp.after.max.ms",
        Kind::Long(0),
        "3600000",
        "Default of message.timestamp.after.max.ms.",
    ),
    own(
        "log.message.timestamp.before.max.ms",
        Kind::Long(0),
        MAX,
        "Default of message.timestamp.before.max.ms.",
    ),
    own(
        "log.message.timestamp.type",
        Kind::Text(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "Default of message.timestamp.type.",
    ),
    own("log.preallocate", Kind::Boolean, "false", UNUSED),
    own("log.retention.bytes", Kind::Long(-1), "-1", "Default of retention.bytes."),
    fixed(
        "log.retention.check.interval.ms",
        Kind::Long(1),
        "300000",
        "Time between two rounds of retention and compaction.",
    ),
    fixed("log.retention.hours", Kind::Int(-1), "168", "As log.retention.ms, in hours."),
    fixed("log.retention.minutes", Kind::Text(&[]), "", "As log.retention.ms, in minutes."),
    own("log.retention.ms", Kind::Long(-1), "604800000", "Default of retention.ms."),
    own("log.roll.jitter.ms", Kind::Long(0), "0", UNUSED),
    own("log.roll.ms", Kind::Long(1), "604800000", UNUSED),
    own("log.segment.bytes", Kind::Int(1_048_576), "1073741824", UNUSED),
    own("log.segment.delete.delay.ms", Kind::Long(0), "60000", UNUSED),
    fixed("max.connections", Kind::Int(0), "10000", "Most connections at a time."),
    own("message.max.bytes", Kind::Int(0), "1048588", "Default of max.message.bytes."),
    own("min.insync.replicas", Kind::Int(1), "1", "Default of min.insync.replicas."),
    fixed("node.id", Kind::Int(0), "1", "Number of this broker."),
    fixed("num.partitions", Kind::Int(1), "1", "For topics created without a count."),
    fixed("offset.metadata.max.bytes", Kind::Int(0), "4096", "Longest text of a committed offset."),
    fixed("offsets.retention.minutes", Kind::Int(1), "10080", "Life of an empty group's offsets."),
    fixed("offsets.topic.num.partitions", Kind::Int(1), "50", "Partitions of __consumer_offsets."),
    fixed("socket.request.max.bytes", Kind::Int(1), "104857600", "Largest request frame."),
    own("unclean.leader.election.enable", Kind::Boolean, "false", UNUSED),
];

/// Broker keys, by name.
pub(crate) fn broker_keys() -> impl Iterator<Item = &'static Key> {
    BROKER_KEYS.iter()
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn names_ascend_defaults_are_legal_and_synonyms_agree() {
        assert!(TOPIC_KEYS.is_sorted_by_key(|key| key.name));
        assert!(BROKER_KEYS.is_sorted_by_key(|key| key.name));
        for key in TOPIC_KEYS.iter().chain(BROKER_KEYS) {
            check(key, key.default).expect(key.name);
        }
        for key in TOPIC_KEYS {
            if let Some(broker) = key.broker {
                let other = broker_keys().find(|other| other.name == broker).expect(broker);
                assert_eq!((other.default, other.kind), (key.default, key.kind), "{broker}");
            }
        }
    }
}
