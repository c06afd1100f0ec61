//! The ledger: the durable sequence of cuts of one sink and partition. `docs/formats/ledger.md` draws the record.
//!
//! ```text
//! 0         1      2       4          8          12
//! +---------+------+-------+----------+----------+--------------------+
//! | version | kind |   0   |  length  |  crc32c  | JSON, length bytes |
//! +---------+------+-------+----------+----------+--------------------+
//! ```

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::planner::FilePlan;

/// Version of the frame.
pub const VERSION: u8 = 1;
const KIND_CUT: u8 = 1;
const HEADER: usize = 12;

/// Name and version of the code that turns a cut into files.
pub const WRITER: &str = "sluice-parquet-1";

/// A sink's durable decision that `[start, end)` of a partition becomes files. All that the files depend on is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Id of the sink, from metadata.
    pub sink_id: u64,
    /// Its name.
    pub sink: String,
    /// Number of its output lineage.
    pub generation: u32,
    /// Id of the topic.
    pub topic_id: String,
    /// Its name.
    pub topic: String,
    /// Index of the partition.
    pub partition: u32,
    /// First offset.
    pub start: i64,
    /// One past the last offset.
    pub end: i64,
    /// Which records count: always `read_committed`.
    pub isolation: String,
    /// Hash of the resolved schema, stored beside the manifests.
    pub schema: Hash,
    /// Hash of `config`.
    pub config_hash: Hash,
    /// The configuration under which the cut was made, so that a redo does not depend on a later one.
    pub config: BTreeMap<String, String>,
    /// The zone of the schedule.
    pub time_zone: String,
    /// The files, 1 or more; they tile `[start, end)`. Each names the clock that closed it and its reading.
    pub files: Vec<FilePlan>,
    /// Hash of the manifest before this cut's; `None` for the first.
    pub previous: Option<Hash>,
    /// What writes the files.
    pub writer: String,
}

impl Cut {
    /// The text that files of this cut carry.
    #[must_use]
    pub fn id(&self) -> String {
        let Self { sink_id, generation, topic_id, partition, start, end, .. } = self;
        format!("{sink_id:016x}.g{generation}.{topic_id}.{partition}.{start}-{end}")
    }

    /// The ledger's form.
    ///
    /// # Panics
    /// When the record passes 4 GiB, which the bound on files of a cut rules out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a cut always has a JSON form");
        let length = u32::try_from(json.len()).expect("a cut is far smaller than 4 GiB");
        let mut out = Vec::with_capacity(HEADER + json.len());
        out.extend([VERSION, KIND_CUT, 0, 0]);
        out.extend(length.to_le_bytes());
        let crc = checksum(&out, &json);
        out.extend(crc.to_le_bytes());
        out.extend(json);
        out
    }

    /// Reads the ledger's form.
    ///
    /// # Errors
    /// When it is damaged or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        let (head, json) = bytes.split_at_checked(HEADER).ok_or(Damaged::Short)?;
        if head[0] != VERSION {
            return Err(Damaged::Version(head[0]));
        }
        let number =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        if usize::try_from(number(4)).ok() != Some(json.len()) {
            return Err(Damaged::Short);
        }
        if number(8) != checksum(&head[..8], json) {
            return Err(Damaged::Checksum);
        }
        if head[1..4] != [KIND_CUT, 0, 0] {
            return Err(Damaged::Kind(head[1]));
        }
        let cut: Self = serde_json::from_slice(json).map_err(|e| Damaged::Json(e.to_string()))?;
        if !cut.tiles() {
            return Err(Damaged::Tiles);
        }
        Ok(cut)
    }

    /// Whether the files tile the range.
    fn tiles(&self) -> bool {
        let mut at = self.start;
        self.files.iter().all(|file| {
            let fits = file.start == at && file.first >= at && file.end > file.first;
            at = file.end;
            fits && file.records > 0
        }) && !self.files.is_empty()
            && at == self.end
    }
}

fn checksum(head: &[u8], json: &[u8]) -> u32 {
    let mut crc = common::Crc32c::default();
    crc.update(&head[..8]);
    crc.update(json);
    crc.finish()
}

/// A record of the ledger that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Cut off, or longer than it says.
    #[error("ledger record is cut off or longer than it says")]
    Short,
    /// Written by another version.
    #[error("ledger record has version {0}; this sluice reads version {VERSION}")]
    Version(u8),
    /// A kind that this version does not know.
    #[error("ledger record has the unknown kind {0}")]
    Kind(u8),
    /// CRC-32C does not match.
    #[error("ledger record fails its checksum")]
    Checksum,
    /// Not the JSON of a cut.
    #[error("ledger record is not a cut: {0}")]
    Json(String),
    /// The files do not cover the range.
    #[error("the files of a ledger record do not tile its range")]
    Tiles,
}

/// What the log or the ledger could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// It may work later: a store out of reach, a partition that moves.
    #[error("{0}")]
    Retry(String),
    /// It will not: damage, a range that is gone.
    #[error("{0}")]
    Stop(String),
}

/// The ledger of one partition, as one sink uses it.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The last cut of `sink_id` under `generation` that is durable, with the search beginning at offset `from`.
    async fn last(
        &self,
        sink_id: u64,
        generation: u32,
        from: i64,
    ) -> Result<Option<Cut>, AccessError>;

    /// Makes `cut` durable. Returns when the cut and the range it covers lie in objects.
    async fn append(&self, cut: &Cut) -> Result<(), AccessError>;

    /// Tells metadata that every offset below `floor` is in files or a named hole. A copy: it may lag.
    async fn move_floor(&self, sink_id: u64, floor: i64) -> Result<(), AccessError>;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::planner::{Reading, Rule};

    pub(crate) fn cut() -> Cut {
        Cut {
            sink_id: 5,
            sink: "s".to_owned(),
            generation: 0,
            topic_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
            topic: "flights".to_owned(),
            partition: 3,
            start: 10,
            end: 20,
            isolation: "read_committed".to_owned(),
            schema: Hash([1; 32]),
            config_hash: Hash([2; 32]),
            config: BTreeMap::from([("flush.size".to_owned(), "9".to_owned())]),
            time_zone: "UTC".to_owned(),
            files: vec![FilePlan {
                start: 10,
                end: 20,
                first: 11,
                records: 9,
                raw_bytes: 900,
                rule: Rule::Records,
                reading: Reading::None,
                closed_ms: 1_700_000_000_000,
                skipped_ticks: 0,
            }],
            previous: None,
            writer: WRITER.to_owned(),
        }
    }

    /// A change of these bytes is a change of the format: raise the version.
    #[test]
    fn golden_cut() {
        let bytes = cut().encode();
        let golden = include_str!("../testdata/cut.v1.hex");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden.trim());
        assert_eq!(Cut::decode(&bytes), Ok(cut()));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = cut().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Cut::decode(&bad).is_err(), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(Cut::decode(&good[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn files_must_tile_the_range() {
        let mut bad = cut();
        bad.files[0].end = 19;
        assert_eq!(Cut::decode(&bad.encode()), Err(Damaged::Tiles));
    }
}
