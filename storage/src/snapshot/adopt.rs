//! Objects that are newer than a restored snapshot: taken as an unbroken continuation of what it holds, else left alone.
//!
//! Rounds of one log follow each other by LSN. Where two begin at the same LSN, the one under the higher epoch of the log
//! wins, then the later id: the earlier one was put and never committed. What compaction wrote is never taken: the rounds
//! it was made from are still there, because nothing is deleted that a kept snapshot lists.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Clock, Lsn, ObjectId, PartitionId, WalId};
use futures::TryStreamExt;
use meta::command::{AdoptObject, FinishRebuild, ObjectFacts, PartitionEpoch, StreamRange};
use meta::{LostRange, ObjectStage, Reject, Reply};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};

use crate::key::data_key;
use crate::object::{Damage, FOOTER_BYTES, Footer, HEADER_BYTES, Header, Kind, ObjectIndex};

/// Why adoption stopped.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The object store does not answer.
    #[error("the object store cannot be read: {0}")]
    Store(#[from] Error),
    /// Metadata does not answer as it should.
    #[error("metadata: {0}")]
    Meta(String),
}

/// An object that was left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Its key.
    pub key: String,
    /// Why.
    pub reason: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Objects taken.
    pub objects: u64,
    /// Records in the ranges that were taken, all streams counted.
    pub records: u64,
    /// Objects left alone.
    pub left: Vec<Left>,
    /// Offsets named as lost, by stream: what may not have been uploaded.
    pub lost: Vec<LostRange>,
    /// The highest LSN of each log that lies in objects.
    pub committed: Vec<(WalId, Lsn)>,
}

struct Candidate {
    header: Header,
    facts: ObjectFacts,
    ranges: Vec<StreamRange>,
}

/// Adopts what continues, names the rest as lost and ends the rebuild.
///
/// # Errors
/// [`AdoptError`]; the rebuild is to be begun again then.
pub async fn adopt(
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
    meta: &meta::Handle,
    clock: &Clock,
) -> Result<Adopted, AdoptError> {
    let mut adopted = Adopted::default();
    let mut candidates = Vec::new();
    let data = prefix.clone().join("data");
    let mut listed = store.list(Some(&data));
    while let Some(found) = listed.try_next().await? {
        let Some(id) = id_of(prefix, &found.location) else {
            adopted.left.push(left(&found.location, "its name is none of ours"));
            continue;
        };
        let known = meta.object(id).await.map_err(|error| AdoptError::Meta(error.to_string()))?;
        if known.is_some_and(|known| known.stage != ObjectStage::Registered) {
            continue;
        }
        match read(&**store, &found.location, found.size).await? {
            Ok(candidate) => candidates.push(candidate),
            Err(damage) => adopted.left.push(left(&found.location, &damage.to_string())),
        }
    }
    let epochs = epochs(&candidates);
    let rounds = |one: &Candidate| one.header.kind == Kind::StreamSet;
    let (rounds, compacted): (Vec<_>, Vec<_>) = candidates.into_iter().partition(rounds);
    for one in compacted {
        let key = data_key(prefix, one.header.object);
        adopted.left.push(left(&key, "written by compaction after the snapshot"));
    }
    chain(rounds, prefix, meta, clock, &mut adopted).await?;
    let finish = FinishRebuild { epochs, now_ms: clock.now_ms() };
    match meta.propose(finish).await {
        Ok(Reply::Rebuilt { lost }) => adopted.lost = lost,
        other => return Err(AdoptError::Meta(format!("unexpected answer {other:?}"))),
    }
    let wals = meta.wals().await.map_err(|error| AdoptError::Meta(error.to_string()))?;
    adopted.committed = wals.iter().map(|wal| (wal.id, wal.committed)).collect();
    Ok(adopted)
}

fn left(key: &Path, reason: &str) -> Left {
    Left { key: key.to_string(), reason: reason.to_owned() }
}

/// The object whose key this is.
pub(crate) fn id_of(prefix: &Path, key: &Path) -> Option<ObjectId> {
    let id = u64::from_str_radix(key.filename()?, 16).ok().map(ObjectId)?;
    (data_key(prefix, id) == *key).then_some(id)
}

async fn read(
    store: &dyn ObjectStore,
    key: &Path,
    size: u64,
) -> Result<Result<Candidate, Damage>, Error> {
    let short = |part| Ok(Err(Damage::Short { part }));
    if size < (HEADER_BYTES + FOOTER_BYTES) as u64 {
        return short("object");
    }
    let header = store.get_range(key, 0..HEADER_BYTES as u64).await?;
    let footer = store.get_range(key, size - FOOTER_BYTES as u64..size).await?;
    let (header, footer) = match (Header::parse(&header), Footer::parse(&footer)) {
        (Ok(header), Ok(footer)) => (header, footer),
        (Err(damage), _) | (_, Err(damage)) => return Ok(Err(damage)),
    };
    if footer.size != size || footer.object != header.object {
        return Ok(Err(Damage::Field { part: "footer" }));
    }
    let tail = store.get_range(key, footer.index_at..size).await?;
    let index = match ObjectIndex::parse(&tail) {
        Ok(index) => index,
        Err(damage) => return Ok(Err(damage)),
    };
    let facts = ObjectFacts {
        bytes: size,
        format: u32::from(crate::object::VERSION),
        index_at: footer.index_at,
        store: u32::from(footer.store),
        footer_crc: footer.crc,
    };
    Ok(Ok(Candidate { header, facts, ranges: ranges(&index) }))
}

/// What the object covers of each stream, as its own index says.
fn ranges(index: &ObjectIndex) -> Vec<StreamRange> {
    let mut ranges: Vec<StreamRange> = Vec::new();
    for block in index.blocks() {
        let same = ranges.last_mut().filter(|range| range.stream() == Some(block.stream));
        let range = match same {
            Some(range) => range,
            None => {
                let epoch = block.epoch_last.0;
                let mut range = StreamRange::of(block.stream, block.start, block.end, epoch);
                range.max_timestamp = -1;
                ranges.push(range);
                ranges.last_mut().expect("just pushed")
            }
        };
        range.end = block.end;
        range.epoch = range.epoch.max(block.epoch_last.0);
        range.bytes += block.payload_bytes;
        range.records += block.records;
        range.max_timestamp = range.max_timestamp.max(block.max_timestamp);
    }
    ranges
}

fn epochs(candidates: &[Candidate]) -> Vec<PartitionEpoch> {
    let mut highest: BTreeMap<PartitionId, i32> = BTreeMap::new();
    for range in candidates.iter().flat_map(|one| &one.ranges) {
        let epoch = highest.entry(range.partition()).or_default();
        *epoch = (*epoch).max(range.epoch);
    }
    let epoch = |(id, epoch): (PartitionId, i32)| PartitionEpoch {
        topic: id.topic,
        index: id.index,
        epoch,
    };
    highest.into_iter().map(epoch).collect()
}

async fn chain(
    mut rounds: Vec<Candidate>,
    prefix: &Path,
    meta: &meta::Handle,
    clock: &Clock,
    adopted: &mut Adopted,
) -> Result<(), AdoptError> {
    // By log and LSN; the winner of those that begin at one LSN comes first.
    rounds.sort_by_key(|one| {
        let header = &one.header;
        (header.wal, header.first, std::cmp::Reverse((header.wal_epoch, header.object)))
    });
    let wals = meta.wals().await.map_err(|error| AdoptError::Meta(error.to_string()))?;
    let mut ends: BTreeMap<WalId, Lsn> = wals.iter().map(|wal| (wal.id, wal.committed)).collect();
    // First only whole objects, until nothing moves any more: a partition may have gone from one log to another. Then
    // what is left of a log, without the partitions that do not go on.
    for whole in [true, false] {
        loop {
            let before = rounds.len();
            let mut rest = Vec::new();
            for one in rounds {
                let at = *ends.entry(one.header.wal).or_insert(one.header.first);
                if one.header.first != at {
                    rest.push(one);
                    continue;
                }
                match take(&one, whole, meta, clock).await? {
                    Ok((taken, left_out)) => {
                        ends.insert(one.header.wal, one.header.end);
                        if taken > 0 {
                            adopted.objects += 1;
                            let gone =
                                |range: &&StreamRange| !left_out.contains(&range.partition());
                            let records = one.ranges.iter().filter(gone).map(|range| range.records);
                            adopted.records += records.sum::<u64>();
                        }
                        if !left_out.is_empty() {
                            let reason = format!("partitions {left_out:?} do not go on in it");
                            let key = data_key(prefix, one.header.object);
                            adopted.left.push(left(&key, &reason));
                        }
                    }
                    Err(_) => rest.push(one),
                }
            }
            rounds = rest;
            if rounds.len() == before {
                break;
            }
        }
    }
    for one in rounds {
        let key = data_key(prefix, one.header.object);
        let reason = format!("it does not go on where its log ended, at LSN {}", one.header.first);
        adopted.left.push(left(&key, &reason));
    }
    Ok(())
}

async fn take(
    one: &Candidate,
    whole: bool,
    meta: &meta::Handle,
    clock: &Clock,
) -> Result<Result<(u32, Vec<PartitionId>), Reject>, AdoptError> {
    let header = &one.header;
    let command = AdoptObject {
        object: header.object.0,
        wal: header.wal.0,
        epoch: header.wal_epoch.0,
        first: header.first.0,
        end: header.end.0,
        facts: Some(one.facts),
        ranges: one.ranges.clone(),
        whole,
        now_ms: clock.now_ms(),
    };
    match meta.propose(command).await {
        Ok(Reply::ObjectAdopted { taken, left_out }) => Ok(Ok((taken, left_out))),
        Ok(Reply::Rejected(reject)) => Ok(Err(reject)),
        other => Err(AdoptError::Meta(format!("unexpected answer {other:?}"))),
    }
}
