//! The settings structs. The doc comment of a field is its reference page.

use std::path::PathBuf;

use common::{ByteSize, Interval};
use serde::{Deserialize, Serialize};

/// All settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Listeners and connections.
    #[serde(flatten)]
    pub server: Server,
    /// The memory budget.
    #[serde(flatten)]
    pub memory: Memory,
    /// Where things are kept.
    #[serde(flatten)]
    pub store: Store,
    /// The write-ahead log.
    #[serde(flatten)]
    pub wal: Wal,
    /// Upload rounds.
    #[serde(flatten)]
    pub upload: Upload,
    /// Compaction of objects.
    #[serde(flatten)]
    pub compaction: Compaction,
    /// Deletion of objects, and snapshots of metadata.
    #[serde(flatten)]
    pub upkeep: Upkeep,
    /// Topics and records.
    #[serde(flatten)]
    pub topics: Topics,
    /// Retention and topic compaction.
    #[serde(flatten)]
    pub cleaning: Cleaning,
    /// Consumer groups.
    #[serde(flatten)]
    pub groups: Groups,
    /// Logs.
    #[serde(flatten)]
    pub logging: Logging,
}

/// Listeners and connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// Address of the Kafka listener, `host:port`; port 0 lets the system choose one, which is printed. Default
    /// `127.0.0.1:9092`.
    pub listen: String,
    /// Address that clients are told to use, `host` or `host:port`. Default: the listener's own address, or the
    /// machine's host name when the listener is on all interfaces.
    pub advertise: Option<String>,
    /// Address of the HTTP listener (metrics, health, `/v1`), `host:port`. Default `127.0.0.1:9600`.
    #[serde(rename = "http.listen")]
    pub http_listen: String,
    /// Number of this broker in its cluster. Default 1, range 0 to 2147483647.
    #[serde(rename = "node.id")]
    pub node_id: i32,
    /// Most connections at a time; one more is closed at once. Default 10000, range 1 to 1000000.
    #[serde(rename = "max.connections")]
    pub connections_max: u32,
    /// A connection without a request for this long is closed, in milliseconds. Default 600000, at least 1000.
    #[serde(rename = "connections.max.idle.ms")]
    pub idle_ms: u64,
    /// Largest request frame, in bytes; a larger one ends its connection. Default 104857600, range 1 KiB to 1 GiB.
    #[serde(rename = "socket.request.max.bytes")]
    pub request_bytes_max: u32,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9092".to_owned(),
            advertise: None,
            http_listen: "127.0.0.1:9600".to_owned(),
            node_id: 1,
            connections_max: 10_000,
            idle_ms: 600_000,
            request_bytes_max: 104_857_600,
        }
    }
}

/// The memory budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Bound on caches, partition state, request, upload and sink buffers. Default `128MiB`, at least `32MiB`.
    #[serde(rename = "memory.max")]
    pub bytes_max: ByteSize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { bytes_max: ByteSize(128 << 20) }
    }
}

/// Where things are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Store {
    /// Data directory: log, metadata and, without `object.store`, the objects. Default `./sluice-data`.
    #[serde(rename = "data.dir")]
    pub data_dir: PathBuf,
    /// Object store, `s3://bucket/prefix` or `file:///path` (a directory that is there). Default: the directory `objects/` of the data directory.
    #[serde(rename = "object.store")]
    pub object_store: Option<String>,
    /// Endpoint of an S3-compatible store, such as `http://127.0.0.1:9000`. Default: `AWS_ENDPOINT_URL`, else AWS.
    #[serde(rename = "object.store.endpoint")]
    pub endpoint: Option<String>,
    /// Region of the bucket. Default: `AWS_REGION`, else `us-east-1`.
    #[serde(rename = "object.store.region")]
    pub region: Option<String>,
    /// Access key. Default: the usual AWS variables.
    #[serde(rename = "object.store.access.key.id")]
    pub access_key_id: Option<String>,
    /// Secret of the access key; never shown. Default: the usual AWS variables.
    #[serde(rename = "object.store.secret.access.key")]
    pub secret_access_key: Option<String>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./sluice-data"),
            object_store: None,
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
        }
    }
}

/// The write-ahead log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wal {
    /// Bytes that the log may take on disk. Default: `2GiB` or a tenth of the disk, the smaller; at least `32MiB`.
    #[serde(rename = "wal.size.max")]
    pub size_max: Option<ByteSize>,
}

/// Upload rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upload {
    /// A round starts when this much of the log is not in objects yet, or a quarter of `memory.max` if that is less.
    /// Default `64MiB`, range `1MiB` to `1GiB`.
    #[serde(rename = "upload.size.max")]
    pub size_max: ByteSize,
    /// A round starts when the oldest byte that is not in objects is this old. Default `10s`, range `100ms` to `1h`.
    #[serde(rename = "upload.age.max")]
    pub age_max: Interval,
}

impl Default for Upload {
    fn default() -> Self {
        Self { size_max: ByteSize(64 << 20), age_max: Interval(std::time::Duration::from_secs(10)) }
    }
}

/// Compaction of objects: small ones become few large ones, entry for entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compaction {
    /// Whether this broker compacts the objects of its partitions. Default true. Off, objects and metadata grow with
    /// every upload round.
    #[serde(rename = "compaction.enabled")]
    pub enabled: bool,
    /// Bytes that compaction reads in a second; it writes as many. Default `32MiB`, at least `1MiB`.
    #[serde(rename = "compaction.bandwidth.max")]
    pub bandwidth_max: ByteSize,
    /// Size that objects are compacted towards. Default `1GiB`, range `16MiB` to `4GiB`.
    #[serde(rename = "compaction.object.size.max")]
    pub object_size_max: ByteSize,
}

impl Compaction {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.bandwidth_max.0 < 1 << 20 {
            faults.push(("compaction.bandwidth.max", "must be 1MiB or more".to_owned()));
        }
        if !(16 << 20..=4 << 30).contains(&self.object_size_max.0) {
            faults.push(("compaction.object.size.max", "must be 16MiB to 4GiB".to_owned()));
        }
        faults
    }
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            enabled: true,
            bandwidth_max: ByteSize(32 << 20),
            object_size_max: ByteSize(1 << 30),
        }
    }
}

/// Deletion of objects, and snapshots of metadata.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upkeep {
    /// An object without a live range is deleted so much later, and not before the snapshots of metadata in the bucket
    /// name it no more. Default `2m`, range `1s` to `24h`.
    #[serde(rename = "object.delete.delay")]
    pub delete_delay: Interval,
    /// While anything changes, metadata is put into the bucket this often at least; `sluice meta rebuild` restores a
    /// cluster from there. Default `5m`, range `1s` to `24h`.
    #[serde(rename = "meta.snapshot.interval")]
    pub snapshot_interval: Interval,
}

impl Default for Upkeep {
    fn default() -> Self {
        let minutes = |minutes: u64| Interval(std::time::Duration::from_secs(60 * minutes));
        Self { delete_delay: minutes(2), snapshot_interval: minutes(5) }
    }
}

impl Upkeep {
    fn faults(&self, want: &mut impl FnMut(bool, &'static str, &str)) {
        for (key, interval) in [
            ("object.delete.delay", self.delete_delay),
            ("meta.snapshot.interval", self.snapshot_interval),
        ] {
            want((1000..=86_400_000).contains(&interval.0.as_millis()), key, "1s to 24h");
        }
    }
}

/// How strictly compressed batches are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// Opened and walked, as Kafka does.
    #[default]
    Full,
    /// By their header only.
    Header,
}

/// Topics and records. Topics override most of these through Kafka's configs APIs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Topics {
    /// Create a topic on first use by a client. Default true.
    #[serde(rename = "auto.create.topics.enable")]
    pub auto_create: bool,
    /// Partitions of a topic created without a count. Default 1, at least 1.
    #[serde(rename = "num.partitions")]
    pub partitions: i32,
    /// Replication factor shown for a topic created without one; durability does not depend on it. Default 1.
    #[serde(rename = "default.replication.factor")]
    pub replication_factor: i16,
    /// Largest record batch, in bytes. Default 1048588, range 0 to 33554432.
    #[serde(rename = "message.max.bytes")]
    pub message_bytes_max: u32,
    /// `full` opens compressed batches and checks each record; `header` trusts their header. Default `full`.
    #[serde(rename = "records.validate")]
    pub validate: Validate,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            auto_create: true,
            partitions: 1,
            replication_factor: 1,
            message_bytes_max: 1_048_588,
            validate: Validate::Full,
        }
    }
}

/// Retention and topic compaction. Topics override the defaults through Kafka's configs APIs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cleaning {
    /// Time between two rounds of retention and compaction, in milliseconds. Default 300000, at least 1.
    #[serde(rename = "log.retention.check.interval.ms")]
    pub check_interval_ms: u64,
    /// Age at which records go, in milliseconds; -1 keeps them. Default: `log.retention.minutes`.
    #[serde(rename = "log.retention.ms")]
    pub retention_ms: Option<i64>,
    /// As `log.retention.ms`, in minutes. Default: `log.retention.hours`.
    #[serde(rename = "log.retention.minutes")]
    pub retention_minutes: Option<i32>,
    /// As `log.retention.ms`, in hours. Default 168.
    #[serde(rename = "log.retention.hours")]
    pub retention_hours: i32,
    /// Size at which the oldest records of a partition go, in bytes; -1 is unbounded. Default -1.
    #[serde(rename = "log.retention.bytes")]
    pub retention_bytes: i64,
    /// What ends the life of records: `delete`, `compact` or both. Default `delete`.
    #[serde(rename = "log.cleanup.policy")]
    pub policy: String,
    /// Keys that one pass of topic compaction tells apart, at 32 bytes each in memory. Default 500000, range 1000 to
    /// 100000000.
    #[serde(rename = "compaction.keys.max")]
    pub keys_max: u32,
}

impl Default for Cleaning {
    fn default() -> Self {
        Self {
            check_interval_ms: 300_000,
            retention_ms: None,
            retention_minutes: None,
            retention_hours: 168,
            retention_bytes: -1,
            policy: "delete".to_owned(),
            keys_max: 500_000,
        }
    }
}

impl Cleaning {
    /// The age at which records go, from the finest unit that is set, in milliseconds; -1 keeps them.
    #[must_use]
    pub fn effective_retention_ms(&self) -> i64 {
        let minutes = || self.retention_minutes.map(|minutes| i64::from(minutes) * 60_000);
        let hours = || i64::from(self.retention_hours) * 3_600_000;
        self.retention_ms.or_else(minutes).unwrap_or_else(hours).max(-1)
    }
}

/// Consumer groups. Names and defaults are Kafka's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Groups {
    /// Partitions of `__consumer_offsets`; fixed once the topic exists. Default 50, at least 1.
    #[serde(rename = "offsets.topic.num.partitions")]
    pub offsets_partitions: i32,
    /// Wait for more members before the first rebalance of a new group, in milliseconds. Default 3000.
    #[serde(rename = "group.initial.rebalance.delay.ms")]
    pub initial_rebalance_delay_ms: u32,
    /// Shortest session time-out a member may ask for, in milliseconds. Default 6000.
    #[serde(rename = "group.min.session.timeout.ms")]
    pub session_timeout_ms_min: i32,
    /// Longest session time-out a member may ask for, in milliseconds. Default 1800000.
    #[serde(rename = "group.max.session.timeout.ms")]
    pub session_timeout_ms_max: i32,
    /// Most members of a group. Default 2147483647, at least 1.
    #[serde(rename = "group.max.size")]
    pub size_max: i32,
    /// Longest metadata text of a committed offset, in bytes. Default 4096.
    #[serde(rename = "offset.metadata.max.bytes")]
    pub offset_metadata_bytes_max: i32,
    /// Offsets of an empty group expire after this many minutes. Default 10080.
    #[serde(rename = "offsets.retention.minutes")]
    pub offsets_retention_minutes: i32,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            offsets_partitions: 50,
            initial_rebalance_delay_ms: 3000,
            session_timeout_ms_min: 6000,
            session_timeout_ms_max: 1_800_000,
            size_max: i32::MAX,
            offset_metadata_bytes_max: 4096,
            offsets_retention_minutes: 10_080,
        }
    }
}

/// Form of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// `auto`, `human` or `json`. Default `auto`.
    #[serde(rename = "log.format")]
    pub format: LogFormat,
    /// What is logged: a level, or `room=level` pairs. Default `info`.
    #[serde(rename = "log.filter")]
    pub filter: String,
}

impl Default for Logging {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info".to_owned() }
    }
}

impl Settings {
    /// Keys whose value is not shown.
    pub const SECRET: [&'static str; 1] = ["object.store.secret.access.key"];

    /// Every value out of its range, as (key, what is wrong).
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let mut want = |ok: bool, key: &'static str, rule: &str| {
            if !ok {
                faults.push((key, format!("must be {rule}")));
            }
        };
        let (server, topics, groups) = (&self.server, &self.topics, &self.groups);
        want(server.node_id >= 0, "node.id", "0 or more");
        want((1..=1_000_000).contains(&server.connections_max), "max.connections", "1 to 1000000");
        want(server.idle_ms >= 1000, "connections.max.idle.ms", "1000 or more");
        want(
            (1024..=1 << 30).contains(&server.request_bytes_max),
            "socket.request.max.bytes",
            "1024 to 1073741824",
        );
        want(self.memory.bytes_max.0 >= 32 << 20, "memory.max", "32MiB or more");
        want(
            self.wal.size_max.is_none_or(|size| size.0 >= 32 << 20),
            "wal.size.max",
            "32MiB or more",
        );
        want(
            (1 << 20..=1 << 30).contains(&self.upload.size_max.0),
            "upload.size.max",
            "1MiB to 1GiB",
        );
        want(
            (100..=3_600_000).contains(&self.upload.age_max.0.as_millis()),
            "upload.age.max",
            "100ms to 1h",
        );
        self.upkeep.faults(&mut want);
        want((1..=10_000).contains(&topics.partitions), "num.partitions", "1 to 10000");
        want(topics.replication_factor >= 1, "default.replication.factor", "1 or more");
        want(
            topics.message_bytes_max <= 32 << 20,
            "message.max.bytes",
            "33554432 or less: a batch must fit one write of the log",
        );
        want(
            (1..=10_000).contains(&groups.offsets_partitions),
            "offsets.topic.num.partitions",
            "1 to 10000",
        );
        let cleaning = &self.cleaning;
        want(cleaning.check_interval_ms >= 1, "log.retention.check.interval.ms", "1 or more");
        want(cleaning.retention_ms.is_none_or(|ms| ms >= -1), "log.retention.ms", "-1 or more");
        want(
            ["delete", "compact", "compact,delete", "delete,compact"]
                .contains(&cleaning.policy.replace(' ', "").as_str()),
            "log.cleanup.policy",
            "delete, compact or both",
        );
        want(
            (1000..=100_000_000).contains(&cleaning.keys_max),
            "compaction.keys.max",
            "1000 to 100000000",
        );
        want(groups.size_max >= 1, "group.max.size", "1 or more");
        want(groups.session_timeout_ms_min >= 1, "group.min.session.timeout.ms", "1 or more");
        want(
            groups.session_timeout_ms_max >= groups.session_timeout_ms_min,
            "group.max.session.timeout.ms",
            "at least group.min.session.timeout.ms",
        );
        faults.extend(self.compaction.faults());
        faults
    }
}
