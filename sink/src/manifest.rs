//! The manifest: the small object beside the data that describes one cut's files. Its create-only put completes the
//! cut.
//!
//! Its bytes are a function of the cut and of the files, so that two owners who complete the same cut write the same
//! manifest. It is read strictly: bytes that are not exactly what this code writes are refused.

use serde::{Deserialize, Serialize};

use crate::blocks::Blocks;
use crate::hash::Hash;
use crate::planner::{Reading, Rule};
use crate::record::{self, Hole};

/// The version this code writes and reads.
pub const VERSION: u32 = 1;

/// One cut, completed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the manifest's form; 1.
    pub version: u32,
    /// Name of the sink.
    pub sink: String,
    /// Its id.
    pub sink_id: u64,
    /// Its output lineage.
    pub generation: u32,
    /// Name of the topic.
    pub topic: String,
    /// Its id. A topic recreated under the same name has another.
    pub topic_id: String,
    /// Index of the partition.
    pub partition: u32,
    /// First offset.
    pub start: i64,
    /// One past the last offset.
    pub end: i64,
    /// Rows in all files. Rows and offsets in holes make up `end - start`.
    pub rows: u64,
    /// Which records count.
    pub isolation: String,
    /// Hash of the schema.
    pub schema: Hash,
    /// Hash of the configuration.
    pub config_hash: Hash,
    /// The zone of the schedule.
    pub time_zone: String,
    /// What wrote the files.
    pub writer: String,
    /// The cut's id, as the files carry it.
    pub cut: String,
    /// The files, in the order of their offsets; they tile `[start, end)`.
    pub files: Vec<File>,
    /// Every run of offsets without rows, in order.
    pub holes: Vec<Hole>,
    /// Hash of the manifest before; `None` for the first of the sink in this partition.
    pub previous: Option<Hash>,
    /// CRC-32C of the manifest with this field empty, eight hexadecimal digits.
    pub checksum: String,
}

/// One file of a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Its key below `[<prefix>/]<topics.dir>/`.
    pub name: String,
    /// First offset covered.
    pub start: i64,
    /// One past the last offset covered.
    pub end: i64,
    /// Offset of the first row.
    pub first: i64,
    /// Rows.
    pub rows: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Bytes of keys, values and headers before they were encoded.
    pub raw_bytes: u64,
    /// SHA-256 of the file.
    pub sha256: Hash,
    /// SHA-256 over its rows.
    pub rows_sha256: Hash,
    /// CRC-32C of blocks of rows, to find a changed one.
    pub blocks: Blocks,
    /// The rule that closed it.
    pub rule: Rule,
    /// The clock that the rule read.
    pub reading: Reading,
    /// Wall clock at the close, milliseconds since 1970.
    pub closed_ms: i64,
    /// Ticks of the schedule that passed without records before it.
    pub skipped_ticks: u64,
}

impl Manifest {
    /// The stored form, with the checksum filled in.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut copy = self.clone();
        copy.checksum = String::new();
        let crc = common::crc32c(&copy.render());
        copy.checksum = format!("{crc:08x}");
        copy.render()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// One sentence on what is wrong: not JSON, another version, changed after it was written, or not consistent.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| format!("is no manifest of this version: {error}"))?;
        if manifest.version != VERSION {
            return Err(format!("has version {}, this sluice reads {VERSION}", manifest.version));
        }
        if manifest.to_bytes() != bytes {
            return Err("was changed after it was written: its checksum does not match".to_owned());
        }
        manifest.check().map(|()| manifest)
    }

    /// Hash of the stored form: what the next manifest names as `previous`.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }

    fn render(&self) -> Vec<u8> {
        let mut out = serde_json::to_vec_pretty(self).expect("a manifest always has a JSON form");
        out.push(b'\n');
        out
    }

    /// Rows and holes account for every offset, and files tile the range.
    fn check(&self) -> Result<(), String> {
        let mut at = self.start;
        for file in &self.files {
            if file.start != at || file.first < file.start || file.end <= file.first {
                return Err(format!("does not cover offset {at} by a file"));
            }
            at = file.end;
        }
        if at != self.end || self.files.is_empty() {
            return Err(format!("does not cover offset {at} by a file"));
        }
        let mut at = self.start;
        for hole in &self.holes {
            if hole.start < at || hole.end <= hole.start || hole.end > self.end {
                return Err(format!("has a hole [{}, {}) out of place", hole.start, hole.end));
            }
            at = hole.end;
        }
        let rows: u64 = self.files.iter().map(|file| file.rows).sum();
        let span = i128::from(self.end) - i128::from(self.start);
        let holes = i128::from(record::holes_span(&self.holes));
        if rows != self.rows || i128::from(rows) + holes != span {
            return Err(format!("has {rows} rows and {holes} offsets in holes for {span} offsets"));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::record::HoleKind;

    pub(crate) fn manifest() -> Manifest {
        let cut = crate::ledger::tests::cut();
        Manifest {
            version: VERSION,
            cut: cut.id(),
            sink: cut.sink,
            sink_id: cut.sink_id,
            generation: cut.generation,
            topic: cut.topic,
            topic_id: cut.topic_id,
            partition: cut.partition,
            start: cut.start,
            end: cut.end,
            rows: 9,
            isolation: cut.isolation,
            schema: cut.schema,
            config_hash: cut.config_hash,
            time_zone: cut.time_zone,
            writer: cut.writer,
            files: vec![File {
                name: "flights/partition=3/flights+3+0000000011.snappy.parquet".to_owned(),
                start: 10,
                end: 20,
                first: 11,
                rows: 9,
                bytes: 1234,
                raw_bytes: 900,
                sha256: Hash([3; 32]),
                rows_sha256: Hash([4; 32]),
                blocks: Blocks { rows: 1, crc32c: "00000000".repeat(9) },
                rule: Rule::Records,
                reading: Reading::None,
                closed_ms: 1_700_000_000_000,
                skipped_ticks: 0,
            }],
            holes: vec![Hole { start: 10, end: 11, kind: HoleKind::Control }],
            previous: None,
            checksum: String::new(),
        }
    }

    /// A change of these bytes is a change of the format: raise the version.
    #[test]
    fn golden_manifest() {
        let bytes = manifest().to_bytes();
        assert_eq!(String::from_utf8_lossy(&bytes), include_str!("../testdata/manifest.v1.json"));
        let read = Manifest::from_bytes(&bytes).expect("reads back");
        assert_eq!(read.hash(), Hash::of(&bytes));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = manifest().to_bytes();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Manifest::from_bytes(&bad).is_err(), "byte {at}");
        }
        let mut spaced = good.clone();
        spaced.push(b' ');
        assert!(Manifest::from_bytes(&spaced).is_err());
    }

    #[test]
    fn every_offset_must_be_accounted_for() {
        let mut bad = manifest();
        bad.holes.clear();
        assert!(Manifest::from_bytes(&bad.to_bytes()).expect_err("a gap").contains("0 offsets"));
    }
}
