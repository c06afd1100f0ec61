//! Replies: what a command did, or why it did nothing. A refusal is a reply, not an error, because it is part of the
//! deterministic answer of `apply`.

use common::{
    Lsn, NodeEpoch, NodeId, ObjectId, PartitionId, StreamEpoch, StreamId, WalEpoch, WalId,
};
use uuid::Uuid;

/// The answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Bootstrap`; also when the same cluster was there already.
    Bootstrapped {
        /// The cluster's incarnation.
        incarnation: u16,
    },
    /// To `StartNode`.
    NodeStarted {
        /// The epoch of this life of the process.
        epoch: NodeEpoch,
        /// The log that metadata knows for the node.
        wal: Option<WalId>,
    },
    /// To `CreateWal`.
    WalCreated {
        /// The new log.
        wal: WalId,
    },
    /// To `OpenWal`.
    WalOpened {
        /// The log's epoch from now on.
        epoch: WalEpoch,
        /// The first LSN it may write.
        first: Lsn,
    },
    /// To `CreateTopic`.
    TopicCreated {
        /// The topic's number; 0 when it was only a check.
        number: u64,
        /// The topic's id.
        id: Uuid,
        /// Number of partitions.
        partitions: u32,
        /// The replication factor as requested.
        replication_factor: i16,
    },
    /// To `DeleteTopic`.
    TopicDeleted {
        /// The topic's number.
        number: u64,
        /// The topic's name, free again.
        name: String,
    },
    /// To `CreatePartitions`.
    PartitionsCreated {
        /// Number of partitions now.
        total: u32,
    },
    /// To `AlterConfigs`.
    ConfigsAltered,
    /// To `RegisterObject`.
    ObjectRegistered {
        /// The new object.
        object: ObjectId,
        /// When it expires without a commit, in metadata time.
        expires_ms: i64,
    },
    /// To `CommitUpload`, the first time and each time it is repeated.
    UploadCommitted {
        /// The log's committed LSN: below it the log may be trimmed.
        committed: Lsn,
        /// Partitions of the round that had been deleted; their bytes are passed over.
        refused: Vec<PartitionId>,
        /// True when the object had been committed before.
        again: bool,
    },
    /// To `ExpireObjects`.
    ObjectsExpired {
        /// Now tombstones; to be deleted in the store.
        objects: Vec<ObjectId>,
        /// True when there is more to do.
        more: bool,
    },
    /// To `ObjectsDeleted`.
    ObjectsForgotten {
        /// Objects that metadata has forgotten.
        forgotten: u32,
    },
    /// To `AllocateProducerIds`: the ids `[start, start + len)`.
    ProducerIds {
        /// The first id.
        start: i64,
        /// How many.
        len: u32,
    },
    /// To `CreateSink`.
    SinkCreated {
        /// The sink's id.
        id: u64,
    },
    /// To `AlterSink`.
    SinkAltered {
        /// The sink's id.
        id: u64,
    },
    /// To `DeleteSink`.
    SinkDeleted {
        /// The sink's id.
        id: u64,
    },
    /// To `AdvanceFloor`.
    FloorsAdvanced,
    /// To `SetLogStart`.
    LogStartSet {
        /// The start now; never lower than before.
        start: i64,
        /// True when ranges below it wait for the next command.
        more: bool,
    },
    /// To `MovePartition`.
    PartitionMoved {
        /// The epoch under which the new owner serves it.
        epoch: StreamEpoch,
    },
    /// To `FenceWal`.
    WalFenced {
        /// The epoch under which alone the log is uploaded.
        epoch: WalEpoch,
    },
    /// To `HandOutWal`.
    WalHandedOut {
        /// Partitions given to other brokers by this command.
        partitions: u32,
        /// True when it had been done before.
        again: bool,
    },
    /// To `SwapRanges`.
    RangesSwapped {
        /// True when the swap had been done before.
        again: bool,
    },
    /// To `AdvanceRetention`.
    RetentionTime {
        /// The time that retention on this broker goes by, milliseconds since 1970.
        at_ms: i64,
    },
    /// To `SetCleaning`.
    CleaningSet,
    /// To `BeginRebuild`.
    RebuildBegun {
        /// The incarnation now.
        incarnation: u16,
    },
    /// To `AdoptObject`, the first time and each time it is repeated.
    ObjectAdopted {
        /// Streams whose range was taken.
        taken: u32,
        /// Partitions whose ranges were left out: deleted, unknown, or not going on where they ended.
        left_out: Vec<PartitionId>,
    },
    /// To `FinishRebuild`.
    Rebuilt {
        /// What is named as lost, by stream.
        lost: Vec<LostRange>,
    },
    /// To `DeclareWalLost`.
    WalLost {
        /// What is lost, by stream.
        lost: Vec<LostRange>,
    },
    /// To `RaiseFeatureLevel`.
    FeatureLevel {
        /// The level now.
        level: u32,
    },
    /// Nothing was changed.
    Rejected(Reject),
}

/// Offsets `[start, end)` of a stream that a declared loss took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LostRange {
    /// The stream.
    pub stream: StreamId,
    /// First lost offset.
    pub start: i64,
    /// Where the stream goes on.
    pub end: i64,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The state holds no cluster yet.
    #[error("metadata holds no cluster yet; bootstrap it first")]
    NotBootstrapped,
    /// The state holds another cluster.
    #[error("metadata belongs to cluster {cluster_id}; use its own data directory")]
    OtherCluster {
        /// The cluster it belongs to.
        cluster_id: String,
    },
    /// The command itself is malformed.
    #[error("malformed command: {0}")]
    Malformed(&'static str),
    /// A command of a later build.
    #[error(
        "a command this build does not know; upgrade every broker before raising the feature level"
    )]
    UnknownCommand,
    /// An id space has run out.
    #[error("no more {0} ids in this incarnation")]
    IdsExhausted(&'static str),
    /// No such broker.
    #[error("broker {0} is not registered; start it first")]
    UnknownNode(NodeId),
    /// No broker with an open log can own a partition.
    #[error("no broker with an open write-ahead log can own a partition; start a broker")]
    NoBroker,
    /// No such log.
    #[error(
        "write-ahead log {0} is not known to metadata; its directory belongs to another cluster"
    )]
    UnknownWal(WalId),
    /// The log was declared lost, or another broker has taken it over.
    #[error(
        "write-ahead log {0} was declared lost or taken over; begin a new one and keep the old directory aside"
    )]
    WalClosed(WalId),
    /// The node has a log already.
    #[error("broker {node} has write-ahead log {wal}; put its directory back or declare it lost")]
    WalExists {
        /// The broker.
        node: NodeId,
        /// Its log.
        wal: WalId,
    },
    /// The log belongs to another broker.
    #[error("write-ahead log {wal} belongs to broker {node}")]
    WalOfOther {
        /// The log.
        wal: WalId,
        /// Its broker.
        node: NodeId,
    },
    /// The log lies on a disk of its node alone.
    #[error(
        "write-ahead log {wal} cannot be taken over: its disk stays with broker {node}; bring that back or declare the log lost"
    )]
    WalStays {
        /// The log.
        wal: WalId,
        /// Its broker.
        node: NodeId,
    },
    /// The broker has no open log.
    #[error("broker {0} has no open write-ahead log and can own no partition; start it first")]
    CannotOwn(NodeId),
    /// Not all of a partition that is to move lies in objects.
    #[error("stream {stream} is committed up to {committed} and ends at {end}; upload it first")]
    NotUploaded {
        /// The stream.
        stream: StreamId,
        /// Its committed end.
        committed: i64,
        /// The end that its owner gives.
        end: i64,
    },
    /// The log was opened again since.
    #[error("write-ahead log is open under epoch {current}; this process has been fenced")]
    StaleWalEpoch {
        /// The epoch now.
        current: WalEpoch,
    },
    /// The partition has a newer epoch.
    #[error("partition is at epoch {current}; this owner has been fenced")]
    StaleStreamEpoch {
        /// The epoch now.
        current: StreamEpoch,
    },
    /// The recovered end lies below what metadata holds.
    #[error(
        "log recovered up to {recovered}, but metadata knows it up to {known}; it is damaged or not the right one"
    )]
    RecoveredShort {
        /// What recovery found.
        recovered: Lsn,
        /// What metadata knows.
        known: Lsn,
    },
    /// The topic's name is taken.
    #[error("topic {0:?} already exists")]
    TopicExists(String),
    /// The name differs from another only in `.` and `_`.
    #[error(
        "topic name collides with {other:?}: names that differ only in '.' and '_' are one metric name"
    )]
    TopicCollides {
        /// The other topic.
        other: String,
    },
    /// No such topic.
    #[error("unknown topic")]
    UnknownTopic,
    /// No such partition.
    #[error("unknown partition {0}")]
    UnknownPartition(PartitionId),
    /// A number of partitions that cannot be.
    #[error("{asked} partitions cannot be: the topic has {current}, the most is {max}")]
    InvalidPartitions {
        /// What was asked for.
        asked: u32,
        /// What is there.
        current: u32,
        /// The bound.
        max: u32,
    },
    /// A replication factor below 1 or above 32,767.
    #[error("replication factor {0} is out of range; give 1 or more")]
    InvalidReplicationFactor(i32),
    /// A manual assignment that cannot be.
    #[error("invalid assignment of partition {partition}: {reason}")]
    InvalidAssignment {
        /// The partition.
        partition: u32,
        /// Why.
        reason: &'static str,
    },
    /// An operation on a configuration that cannot be.
    #[error("invalid operation on {key:?}: {reason}")]
    InvalidConfig {
        /// The key.
        key: String,
        /// Why.
        reason: &'static str,
    },
    /// No such object id was issued, or it was forgotten.
    #[error("object {0} is not registered")]
    UnknownObject(ObjectId),
    /// The object's registration has expired.
    #[error("the registration of object {0} has expired; register a new one")]
    ObjectExpired(ObjectId),
    /// What a swap was made from is no longer what covers these offsets; nothing is wrong, another change was faster.
    #[error("other objects cover offsets [{start}, {end}) of stream {stream} by now; plan again")]
    CoverChanged {
        /// The stream.
        stream: StreamId,
        /// First offset of the part.
        start: i64,
        /// Offset after its last one.
        end: i64,
    },
    /// A swap begins below the log start; nothing is wrong, the start has moved.
    #[error("offset {start} of stream {stream} lies below the log start {log_start}; plan again")]
    BelowLogStart {
        /// The stream.
        stream: StreamId,
        /// Where the swap begins.
        start: i64,
        /// The log start.
        log_start: i64,
    },
    /// A rebuild is under way, or none is.
    #[error("metadata is being rebuilt; finish it, or begin again in another directory")]
    Rebuilding,
    /// A command of a rebuild without one.
    #[error("no rebuild is under way")]
    NotRebuilding,
    /// The incarnation was used before.
    #[error("incarnation {asked} is not above {current}")]
    StaleIncarnation {
        /// What was asked for.
        asked: u32,
        /// The state's.
        current: u32,
    },
    /// An object that does not go on where its streams ended.
    #[error("object {0} does not go on where its streams ended")]
    NotContinuing(ObjectId),
    /// The sink's name is taken.
    #[error("sink {0:?} already exists")]
    SinkExists(String),
    /// No such sink.
    #[error("unknown sink {0:?}")]
    UnknownSink(String),
    /// The sink's place lies inside another's or around it.
    #[error("the place {root:?} overlaps with that of sink {sink:?}; choose another prefix")]
    SinkOverlaps {
        /// The place asked for.
        root: String,
        /// The sink that is there.
        sink: String,
    },
    /// The feature level cannot go there.
    #[error("feature level {asked} is not above {current}, or broker {lacking:?} cannot do it yet")]
    FeatureLevel {
        /// What was asked for.
        asked: u32,
        /// The level now.
        current: u32,
        /// A broker that cannot do it.
        lacking: Option<NodeId>,
    },
    /// The proposer holds something that cannot be true. Its process ends; nothing is trimmed.
    #[error("broken invariant: {0}")]
    BrokenInvariant(Broken),
}

/// What cannot be true. The proposer's process ends with this line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The round does not begin where the log is committed.
    #[error("round begins at {first}, log is committed up to {committed}")]
    RoundStart {
        /// The log's committed LSN.
        committed: Lsn,
        /// Where the round begins.
        first: Lsn,
    },
    /// The round ends before it begins.
    #[error("round [{first}, {end}) is empty or reversed")]
    RoundEmpty {
        /// Where it begins.
        first: Lsn,
        /// Where it ends.
        end: Lsn,
    },
    /// The object was registered by another log, or committed with another content.
    #[error("object {0} belongs to another round")]
    ObjectOfOther(ObjectId),
    /// A stream stands twice in a round.
    #[error("stream {0} stands twice in one round")]
    StreamTwice(StreamId),
    /// A stream kind that this build does not know.
    #[error("unknown stream kind {0}")]
    StreamKind(u32),
    /// A partition that never was.
    #[error("partition {0} was never created")]
    NeverCreated(PartitionId),
    /// A partition that a round leaves out although it has not been deleted.
    #[error("partition {0} was left out of a round although it exists")]
    StillThere(PartitionId),
    /// The partition's un-uploaded bytes may only be in another log.
    #[error("partition {0} is not assigned to this log")]
    NotAssigned(PartitionId),
    /// The range does not begin at the stream's committed end.
    #[error("stream {stream} is committed up to {committed}, round brings [{start}, {end})")]
    RangeStart {
        /// The stream.
        stream: StreamId,
        /// Its committed end.
        committed: i64,
        /// Where the range begins.
        start: i64,
        /// Where it ends.
        end: i64,
    },
    /// The range is empty, reversed, or reaches past the committed end by more than 2^32.
    #[error("stream {stream}: range [{start}, {end}) has no possible length")]
    RangeLength {
        /// The stream.
        stream: StreamId,
        /// Where the range begins.
        start: i64,
        /// Where it ends.
        end: i64,
    },
    /// The stream's epoch falls or was never issued.
    #[error("stream {stream} at epoch {got}, but last committed {committed} and issued {issued}")]
    RangeEpoch {
        /// The stream.
        stream: StreamId,
        /// The epoch in the round.
        got: StreamEpoch,
        /// The epoch of the last committed range.
        committed: StreamEpoch,
        /// The partition's epoch.
        issued: StreamEpoch,
    },
    /// An offset or epoch has run out.
    #[error("the numbers of partition {0} have run out")]
    NumbersExhausted(PartitionId),
}

impl From<Broken> for Reject {
    fn from(broken: Broken) -> Self {
        Self::BrokenInvariant(broken)
    }
}
