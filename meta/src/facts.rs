//! Facts that are read from the state on demand: stream indexes, objects and logs.

use common::{Lsn, NodeId, ObjectId, PartitionId, StreamId, WalEpoch, WalId};

use crate::command::ObjectFacts;
use crate::keys;
use crate::record;
use crate::view::{Load, View, ViewError, bad_key, read};

/// Which objects hold a stream. Ranges are half-open; the live ones and the lost ones tile `[start, committed_end)`, but
/// for the part below `start`, where the first range may begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamIndex {
    /// Raised by each change of the stream; an index with the same version says the same.
    pub version: u64,
    /// The log start. May lie above the committed end.
    pub start: i64,
    /// Below it everything lies in objects or is lost.
    pub committed_end: i64,
    /// Ranges `[start, end)` that a declared loss took, ascending.
    pub lost: Vec<(i64, i64)>,
    /// Ranges in objects, ascending, from the one that covers the asked offset.
    pub objects: Vec<ObjectRange>,
    /// True when there are more ranges behind the last one.
    pub more: bool,
    /// Bytes in live ranges of the whole stream.
    pub bytes: u64,
    /// Records in live ranges of the whole stream.
    pub records: u64,
}

/// One range of a stream in one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectRange {
    /// The object.
    pub object: ObjectId,
    /// What a reader has to know to open it.
    pub facts: ObjectFacts,
    /// First offset covered.
    pub start: i64,
    /// Offset after the last one covered.
    pub end: i64,
    /// Bytes of the entries.
    pub bytes: u64,
    /// Records in the entries.
    pub records: u64,
    /// Highest record timestamp, milliseconds since 1970.
    pub max_timestamp: i64,
    /// Highest stream epoch among the entries.
    pub epoch: i32,
    /// The LSNs `[first, end)` that the object stands for in the order of its log.
    pub lsns: (Lsn, Lsn),
}

/// Where an object is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectStage {
    /// Its id was issued; it expires without a commit.
    Registered,
    /// Part of the log.
    Committed,
    /// Without a live range; to be deleted in the store.
    Released,
    /// A tombstone; to be deleted in the store, again and again for a day.
    Expired,
}

/// An object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its id.
    pub id: ObjectId,
    /// Where it is in its life.
    pub stage: ObjectStage,
    /// The log whose round it is.
    pub wal: WalId,
    /// The LSNs `[first, end)` of the round.
    pub lsns: (Lsn, Lsn),
    /// What a reader has to know; absent before the commit.
    pub facts: Option<ObjectFacts>,
    /// Live ranges by stream: `(stream, start)`.
    pub ranges: Vec<(StreamId, i64)>,
    /// When the stage began or, when registered, ends; metadata time.
    pub at_ms: i64,
    /// Live ranges in it.
    pub live: u32,
    /// Payload bytes of its live ranges.
    pub live_bytes: u64,
    /// Payload bytes that were live when it was committed.
    pub payload_bytes: u64,
    /// Made by compaction.
    pub swapped: bool,
}

/// A live range of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveRange {
    /// The stream.
    pub stream: StreamId,
    /// The stream's log start.
    pub log_start: i64,
    /// The range.
    pub range: ObjectRange,
}

/// A write-ahead log as metadata knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalFacts {
    /// Its id.
    pub id: WalId,
    /// Its broker.
    pub node: NodeId,
    /// The start value of its group checksums.
    pub salt: u64,
    /// Epochs that may have frames above `committed`, with their first LSN, ascending.
    pub epochs: Vec<(WalEpoch, Lsn)>,
    /// Everything below lies in objects.
    pub committed: Lsn,
    /// Declared lost, or handed out after a takeover.
    pub closed: bool,
    /// Its medium can be attached by another broker.
    pub survives: bool,
    /// Out of the hands of its broker: the epoch of that, and the broker that takes the log over, if one does.
    pub fence: Option<(WalEpoch, Option<NodeId>)>,
    /// Never opened: an empty directory is what is to be expected.
    pub fresh: bool,
}

/// The index of `stream` from the range that covers `from`, at most `limit` ranges.
///
/// # Errors
/// When the state cannot be read.
pub fn stream_index(
    view: &dyn View,
    stream: StreamId,
    from: i64,
    limit: usize,
) -> Result<StreamIndex, ViewError> {
    let Some(record) = view.load::<record::Stream>(&keys::stream(stream))? else {
        return Ok(StreamIndex::default());
    };
    let (first, end) = keys::under(keys::ranges_of(stream));
    let from = from.max(record.start).max(0);
    // The range that covers `from` begins at or below it.
    let at = keys::range(stream, from);
    let covering = view.scan_back(&first, &keys::next(&at), 1)?.pop();
    let begin = match covering {
        Some((key, value)) if read::<record::Range>(&key, &value)?.end > from => key,
        _ => at,
    };
    let mut objects = Vec::new();
    let mut pairs = view.scan(&begin, &end, limit.saturating_add(1))?;
    let more = pairs.len() > limit;
    pairs.truncate(limit);
    for (key, value) in pairs {
        objects.push(object_range(view, &key, &value)?);
    }
    Ok(StreamIndex {
        version: record.version,
        start: record.start,
        committed_end: record.committed_end,
        lost: record.lost.iter().map(|lost| (lost.start, lost.end)).collect(),
        objects,
        more,
        bytes: record.bytes,
        records: record.records,
    })
}

fn object_range(view: &dyn View, key: &[u8], value: &[u8]) -> Result<ObjectRange, ViewError> {
    let (_, rest) = keys::split_stream(&key[1..]).ok_or_else(|| bad_key(key))?;
    let (start, _) = keys::split_i64(rest).ok_or_else(|| bad_key(key))?;
    let range: record::Range = read(key, value)?;
    let object = ObjectId(range.object);
    let record = view.load::<record::Object>(&keys::object(object))?.unwrap_or_default();
    Ok(ObjectRange {
        object,
        facts: record.facts.unwrap_or_default(),
        lsns: (Lsn(record.first), Lsn(record.end)),
        start,
        end: range.end,
        bytes: range.bytes,
        records: range.records,
        max_timestamp: range.max_timestamp,
        epoch: range.epoch,
    })
}

/// How far a partition is cleaned; zero where nothing was noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaning {
    /// Everything below holds one record a key.
    pub clean_end: i64,
    /// When the first tombstone below may go, in retention time; 0 for none.
    pub horizon_ms: i64,
    /// Clients see nothing below.
    pub hidden_below: i64,
}

/// How far partition `id` is cleaned.
///
/// # Errors
/// When the state cannot be read.
pub fn cleaning(view: &dyn View, id: PartitionId) -> Result<Cleaning, ViewError> {
    let record: record::Cleaning = view.load(&keys::cleaning(id))?.unwrap_or_default();
    let record::Cleaning { clean_end, horizon_ms, hidden_below } = record;
    Ok(Cleaning { clean_end, horizon_ms, hidden_below })
}

/// Who owns a partition, or `None` for one that is not there.
///
/// # Errors
/// When the state cannot be read.
pub fn partition(
    view: &dyn View,
    id: PartitionId,
) -> Result<Option<crate::image::PartitionMeta>, ViewError> {
    let record: Option<record::Partition> = view.load(&keys::partition(id))?;
    Ok(record.as_ref().map(crate::image::PartitionMeta::of))
}

/// The streams with an index, from `after` exclusive, at most `limit`.
///
/// # Errors
/// When the state cannot be read.
pub fn streams(
    view: &dyn View,
    after: Option<StreamId>,
    limit: usize,
) -> Result<Vec<StreamId>, ViewError> {
    let (start, end) = keys::under(vec![keys::tag::STREAM]);
    let start = after.map_or(start, |after| keys::next(&keys::stream(after)));
    let pairs = view.scan(&start, &end, limit)?;
    let stream = |key: &[u8]| keys::split_stream(&key[1..]).map(|(stream, _)| stream);
    pairs.iter().map(|(key, _)| stream(key).ok_or_else(|| bad_key(key))).collect()
}

/// One object with its live ranges, at most 10,000 of them.
///
/// # Errors
/// When the state cannot be read.
pub fn object(view: &dyn View, id: ObjectId) -> Result<Option<Object>, ViewError> {
    const RANGES_MAX: usize = 10_000;
    let Some(record) = view.load::<record::Object>(&keys::object(id))? else { return Ok(None) };
    let (start, end) = keys::under(keys::live_of(id));
    let mut ranges = Vec::new();
    for (key, _) in view.scan(&start, &end, RANGES_MAX)? {
        let shape = || bad_key(&key);
        let (stream, rest) =
            keys::split_stream(key.get(9..).ok_or_else(shape)?).ok_or_else(shape)?;
        ranges.push((stream, keys::split_i64(rest).ok_or_else(shape)?.0));
    }
    Ok(Some(object_of(id, record, ranges)))
}

/// The live ranges of an object, by stream, at most `limit`; none when it is not committed.
///
/// # Errors
/// When the state cannot be read.
pub fn live_ranges(
    view: &dyn View,
    id: ObjectId,
    limit: usize,
) -> Result<Vec<LiveRange>, ViewError> {
    let (start, end) = keys::under(keys::live_of(id));
    let mut found = Vec::new();
    for (key, _) in view.scan(&start, &end, limit)? {
        let shape = || bad_key(&key);
        let (stream, rest) =
            keys::split_stream(key.get(9..).ok_or_else(shape)?).ok_or_else(shape)?;
        let range_key = keys::range(stream, keys::split_i64(rest).ok_or_else(shape)?.0);
        let Some(value) = view.get(&range_key)? else { continue };
        let log_start =
            view.load::<record::Stream>(&keys::stream(stream))?.unwrap_or_default().start;
        found.push(LiveRange { stream, log_start, range: object_range(view, &range_key, &value)? });
    }
    Ok(found)
}

/// Objects with ids above `after`, ascending, at most `limit`, without their ranges.
///
/// # Errors
/// When the state cannot be read.
pub fn objects(
    view: &dyn View,
    after: Option<ObjectId>,
    limit: usize,
) -> Result<Vec<Object>, ViewError> {
    let (start, end) = keys::under(vec![keys::tag::OBJECT]);
    let start = after.map_or(start, |after| keys::next(&keys::object(after)));
    let mut objects = Vec::new();
    for (key, value) in view.scan(&start, &end, limit)? {
        let (id, _) = keys::split_u64(&key[1..]).ok_or_else(|| bad_key(&key))?;
        objects.push(object_of(ObjectId(id), read(&key, &value)?, Vec::new()));
    }
    Ok(objects)
}

/// Index of the last command applied.
///
/// # Errors
/// When the state cannot be read.
pub fn applied_index(view: &dyn View) -> Result<u64, ViewError> {
    Ok(view.load::<record::Applied>(&keys::applied())?.map_or(0, |applied| applied.index))
}

/// True when a registration has run out at `now_ms`, or ranges of deleted topics wait to be released.
///
/// # Errors
/// When the state cannot be read.
pub fn housekeeping_due(view: &dyn View, now_ms: i64) -> Result<bool, ViewError> {
    let (start, _) = keys::under(vec![keys::tag::EXPIRY]);
    let end = keys::expiry(now_ms.saturating_add(1), ObjectId(0));
    if !view.scan(&start, &end, 1)?.is_empty() {
        return Ok(true);
    }
    let (start, end) = keys::under(vec![keys::tag::RELEASE]);
    Ok(!view.scan(&start, &end, 1)?.is_empty())
}

/// A delete in the store that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When it is due, metadata time: the release of a released object, the next repetition for a tombstone.
    pub due_ms: i64,
    /// The object.
    pub object: ObjectId,
    /// [`ObjectStage::Released`] or [`ObjectStage::Expired`].
    pub stage: ObjectStage,
    /// Size in bytes; 0 when it is not known.
    pub bytes: u64,
}

/// Deletes in the store that are due at `until_ms`, behind `after`, by time, at most `limit`.
///
/// # Errors
/// When the state cannot be read.
pub fn deletions(
    view: &dyn View,
    after: Option<Deletion>,
    until_ms: i64,
    limit: usize,
) -> Result<Vec<Deletion>, ViewError> {
    let (start, _) = keys::under(vec![keys::tag::DELETION]);
    let start = after.map_or(start, |at| keys::next(&keys::deletion(at.due_ms, at.object)));
    let end = keys::deletion(until_ms.saturating_add(1), ObjectId(0));
    let mut found = Vec::new();
    for (key, _) in view.scan(&start, &end, limit)? {
        let shape = || bad_key(&key);
        let (due_ms, rest) = keys::split_i64(&key[1..]).ok_or_else(shape)?;
        let object = ObjectId(keys::split_u64(rest).ok_or_else(shape)?.0);
        let record: record::Object = view.load(&keys::object(object))?.ok_or_else(shape)?;
        let bytes = record.facts.map_or(0, |facts| facts.bytes);
        found.push(Deletion { due_ms, object, stage: stage(&record), bytes });
    }
    Ok(found)
}

/// One log.
///
/// # Errors
/// When the state cannot be read.
pub fn wal(view: &dyn View, id: WalId) -> Result<Option<WalFacts>, ViewError> {
    Ok(view.load::<record::Wal>(&keys::wal(id))?.map(|record| wal_of(id, &record)))
}

/// All logs, ascending.
///
/// # Errors
/// When the state cannot be read.
pub fn wals(view: &dyn View) -> Result<Vec<WalFacts>, ViewError> {
    let mut wals = Vec::new();
    view.each(vec![keys::tag::WAL], |key, value| {
        let (id, _) = keys::split_u64(&key[1..]).ok_or_else(|| bad_key(key))?;
        wals.push(wal_of(WalId(id), &read(key, value)?));
        Ok(())
    })?;
    Ok(wals)
}

fn wal_of(id: WalId, record: &record::Wal) -> WalFacts {
    let epoch = |epoch: &record::WalEpoch| (WalEpoch(epoch.epoch), Lsn(epoch.first));
    WalFacts {
        id,
        node: NodeId(record.node),
        salt: record.salt,
        epochs: record.epochs.iter().map(epoch).collect(),
        committed: Lsn(record.committed),
        closed: record.closed,
        survives: record.survives,
        fence: record.fence.map(|fence| (WalEpoch(fence.epoch), fence.by.map(NodeId))),
        fresh: record.epochs.is_empty(),
    }
}

fn object_of(id: ObjectId, record: record::Object, ranges: Vec<(StreamId, i64)>) -> Object {
    let stage = stage(&record);
    Object {
        id,
        stage,
        wal: WalId(record.wal),
        lsns: (Lsn(record.first), Lsn(record.end)),
        facts: record.facts,
        ranges,
        at_ms: record.at_ms,
        live: record.live,
        live_bytes: record.live_bytes,
        payload_bytes: record.payload_bytes,
        swapped: record.swapped,
    }
}

fn stage(record: &record::Object) -> ObjectStage {
    match record.state() {
        record::ObjectState::Registered => ObjectStage::Registered,
        record::ObjectState::Committed => ObjectStage::Committed,
        record::ObjectState::Released => ObjectStage::Released,
        record::ObjectState::Expired => ObjectStage::Expired,
    }
}
