//! The state in files: how a snapshot in the bucket is cut into parts, and how a store is filled from them again.
//!
//! Parts are small enough to be held one at a time; a head names them all with their checksums. The bytes are drawn in
//! `docs/formats/meta.md`.

use common::{Crc32c, crc32c};

use crate::consensus::dump;
use crate::frame::{self, DecodeError};
use crate::keys::{self, tag};
use crate::record::{self, Applied};
use crate::store::{Batch, Frozen, MetaStore, Space, StoreError};
use crate::view::{ViewError, read};

/// Version of heads and parts that this build writes, and the highest it reads.
pub const SNAPSHOT_VERSION: u8 = 1;

const MAGIC_HEAD: &[u8; 8] = b"SLUICMHD";
const MAGIC_PART: &[u8; 8] = b"SLUICMPT";
const HEAD_BYTES: usize = 20;
const PART_HEAD_BYTES: usize = 28;
/// Pairs read from the store at once.
const PAGE: usize = 512;
/// Pairs written to a store at once.
const BATCH: usize = 4096;

/// Why a snapshot cannot be taken or used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are not what was written.
    #[error("metadata snapshot is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a later build.
    #[error(
        "metadata snapshot has version {0}, this build reads {SNAPSHOT_VERSION}; use the build that wrote it"
    )]
    Version(u8),
    /// The message of a head.
    #[error("metadata snapshot: {0}")]
    Decode(#[from] DecodeError),
    /// The local store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state in the local store.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// One part of a snapshot, as its head describes it. Its number is its place.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Part {
    /// Bytes of the whole part.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
    /// CRC-32C of the whole part.
    #[prost(fixed32, tag = "2")]
    pub crc: u32,
    /// Keys in it.
    #[prost(uint32, tag = "3")]
    pub keys: u32,
}

/// What a snapshot is. Put last: a snapshot without its head is none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Head {
    /// The cluster.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// Its incarnation.
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    /// Index of the last command in it.
    #[prost(uint64, tag = "3")]
    pub applied: u64,
    /// Keys in all parts.
    #[prost(uint64, tag = "4")]
    pub keys: u64,
    /// CRC-32C of the state, as voters compare it.
    #[prost(fixed32, tag = "5")]
    pub checksum: u32,
    /// Metadata time in the state, milliseconds since 1970.
    #[prost(int64, tag = "6")]
    pub time_ms: i64,
    /// Wall time when it was taken, milliseconds since 1970.
    #[prost(int64, tag = "7")]
    pub taken_ms: i64,
    /// The highest epoch of a partition.
    #[prost(int32, tag = "8")]
    pub epoch_max: i32,
    /// The parts, in order.
    #[prost(message, repeated, tag = "9")]
    pub parts: Vec<Part>,
}

impl Head {
    /// The bytes of the head.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let message = frame::encode(self);
        let mut out = Vec::with_capacity(HEAD_BYTES + message.len());
        out.extend_from_slice(MAGIC_HEAD);
        out.extend_from_slice(&[SNAPSHOT_VERSION, 0, 0, 0]);
        out.extend_from_slice(&length(&message));
        out.extend_from_slice(&crc32c(&message).to_le_bytes());
        out.extend_from_slice(&message);
        out
    }

    /// Reads and checks a head.
    ///
    /// # Errors
    /// [`SnapshotError`] that names what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (head, message) = bytes
            .split_at_checked(HEAD_BYTES)
            .ok_or(SnapshotError::Damaged("the head is cut short"))?;
        if &head[..8] != MAGIC_HEAD {
            return Err(SnapshotError::Damaged("the head does not begin with its magic bytes"));
        }
        check_version(head[8])?;
        if head[12..16] != length(message) || head[16..20] != crc32c(message).to_le_bytes() {
            return Err(SnapshotError::Damaged("the checksum of the head is wrong"));
        }
        Ok(frame::decode(message)?)
    }
}

fn check_version(version: u8) -> Result<(), SnapshotError> {
    if version == SNAPSHOT_VERSION { Ok(()) } else { Err(SnapshotError::Version(version)) }
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// Cuts a frozen state into parts, one after the other; holds one of them.
pub struct Cutter {
    frozen: Box<dyn Frozen>,
    next: Vec<u8>,
    crc: Crc32c,
    head: Head,
}

impl Cutter {
    /// Begins with the first key.
    #[must_use]
    pub fn new(frozen: Box<dyn Frozen>, applied: u64) -> Self {
        let head = Head { applied, ..Head::default() };
        Self { frozen, next: vec![tag::CLUSTER], crc: Crc32c::default(), head }
    }

    /// The next part, of about `bytes_max` bytes, or `None` when every key is in one.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn part(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, SnapshotError> {
        let end = keys::after(&[tag::LAST]);
        let mut payload = Vec::new();
        let mut count = 0_u32;
        while payload.len() < bytes_max {
            let page = self.frozen.scan(&self.next, &end, PAGE)?;
            let whole = page.len() < PAGE;
            for (key, value) in page {
                if payload.len() >= bytes_max {
                    break;
                }
                self.note(&key, &value)?;
                for bytes in [&key, &value] {
                    payload.extend_from_slice(&length(bytes));
                    payload.extend_from_slice(bytes);
                }
                count += 1;
                self.next = keys::next(&key);
            }
            if whole {
                break;
            }
        }
        if count == 0 {
            return Ok(None);
        }
        let number = u32::try_from(self.head.parts.len()).unwrap_or(u32::MAX);
        let mut out = Vec::with_capacity(PART_HEAD_BYTES + payload.len());
        out.extend_from_slice(MAGIC_PART);
        out.extend_from_slice(&[SNAPSHOT_VERSION, 0, 0, 0]);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
        out.extend_from_slice(&length(&payload));
        out.extend_from_slice(&crc32c(&payload).to_le_bytes());
        out.append(&mut payload);
        let bytes = u64::try_from(out.len()).unwrap_or(u64::MAX);
        self.head.parts.push(Part { bytes, crc: crc32c(&out), keys: count });
        self.head.keys += u64::from(count);
        Ok(Some(out))
    }

    fn note(&mut self, key: &[u8], value: &[u8]) -> Result<(), ViewError> {
        dump::add(&mut self.crc, key, value);
        match key.first() {
            Some(&tag::CLUSTER) => {
                let cluster: record::Cluster = read(key, value)?;
                self.head.cluster_id = cluster.cluster_id;
                self.head.incarnation = cluster.incarnation;
            }
            Some(&tag::TIME) => {
                let time: record::Number = read(key, value)?;
                self.head.time_ms = i64::try_from(time.value).unwrap_or(i64::MAX);
            }
            Some(&tag::PARTITION) => {
                let partition: record::Partition = read(key, value)?;
                self.head.epoch_max = self.head.epoch_max.max(partition.epoch);
            }
            _ => {}
        }
        Ok(())
    }

    /// The head of what was cut.
    #[must_use]
    pub fn finish(self, taken_ms: i64) -> Head {
        Head { taken_ms, checksum: self.crc.finish(), ..self.head }
    }
}

/// Fills a store from the parts of a snapshot. What the store held of a state before is gone.
pub struct Filler {
    store: Box<dyn MetaStore>,
    crc: Crc32c,
    keys: u64,
    parts: u32,
    last: Vec<u8>,
}

impl Filler {
    /// Empties the state of `store`, whose voter must not have begun.
    ///
    /// # Errors
    /// When the store fails or belongs to a voter.
    pub async fn begin(mut store: Box<dyn MetaStore>) -> Result<Self, SnapshotError> {
        if !store.scan(Space::Log, &[0], &[u8::MAX], 1)?.is_empty() {
            return Err(StoreError::new("write", "the store belongs to a voter").into());
        }
        let mut batch = Batch::default();
        batch.delete_range(Space::State, vec![0], vec![u8::MAX]);
        store.write(batch, false).await?;
        let last = vec![tag::APPLIED];
        Ok(Self { store, crc: Crc32c::default(), keys: 0, parts: 0, last })
    }

    /// Takes the next part, which `said` describes.
    ///
    /// # Errors
    /// [`SnapshotError`]; the store is to be filled anew from another snapshot then.
    pub async fn part(&mut self, bytes: &[u8], said: &Part) -> Result<(), SnapshotError> {
        let damaged = SnapshotError::Damaged;
        if u64::try_from(bytes.len()) != Ok(said.bytes) || crc32c(bytes) != said.crc {
            return Err(damaged("the checksum of a part is wrong"));
        }
        let (head, mut rest) =
            bytes.split_at_checked(PART_HEAD_BYTES).ok_or(damaged("a part is cut short"))?;
        if &head[..8] != MAGIC_PART {
            return Err(damaged("a part does not begin with its magic bytes"));
        }
        check_version(head[8])?;
        if head[12..16] != self.parts.to_le_bytes() || head[16..20] != said.keys.to_le_bytes() {
            return Err(damaged("a part stands in another's place"));
        }
        let mut batch = Batch::default();
        for _ in 0..said.keys {
            let key = take(&mut rest)?;
            let value = take(&mut rest)?;
            if key <= self.last.as_slice() || key.first() > Some(&tag::LAST) {
                return Err(damaged("keys do not rise"));
            }
            dump::add(&mut self.crc, key, value);
            self.last = key.to_vec();
            batch.put(Space::State, key.to_vec(), value.to_vec());
            self.keys += 1;
            if batch.changes().len() >= BATCH {
                self.store.write(std::mem::take(&mut batch), false).await?;
            }
        }
        self.parts += 1;
        if !rest.is_empty() {
            return Err(damaged("a part is longer than its keys"));
        }
        Ok(self.store.write(batch, false).await?)
    }

    /// Checks that what was filled in is the state that `head` describes.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] when it is not.
    pub fn check(&self, head: &Head) -> Result<(), SnapshotError> {
        let same = self.keys == head.keys
            && self.crc.finish() == head.checksum
            && usize::try_from(self.parts) == Ok(head.parts.len());
        if same {
            Ok(())
        } else {
            Err(SnapshotError::Damaged("the checksum of the state is wrong"))
        }
    }

    /// Makes the state durable. The voter that opens the store begins its own log behind (1, 1).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn finish(mut self) -> Result<Box<dyn MetaStore>, SnapshotError> {
        let mut batch = Batch::default();
        batch.put(Space::State, keys::applied(), frame::encode(&Applied { index: 1, term: 1 }));
        self.store.write(batch, true).await?;
        Ok(self.store)
    }

    /// Gives the store back after a failed part, to begin again.
    #[must_use]
    pub fn into_store(self) -> Box<dyn MetaStore> {
        self.store
    }
}

fn take<'b>(rest: &mut &'b [u8]) -> Result<&'b [u8], SnapshotError> {
    let short = SnapshotError::Damaged("a part is cut short");
    let (length, after) = rest.split_first_chunk::<4>().ok_or(short.clone())?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| short.clone())?;
    let (bytes, after) = after.split_at_checked(length).ok_or(short)?;
    *rest = after;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
