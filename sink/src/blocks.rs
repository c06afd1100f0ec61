//! Row hashes of a file as its manifest keeps them.

use common::Crc32c;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hash::Hash;

/// Most blocks of one file; the manifest of a file stays below about 32 KiB.
pub(crate) const BLOCKS_MAX: u64 = 4096;

/// CRC-32C of each block of rows, eight hexadecimal digits a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocks {
    /// Rows in a block; the last one may hold fewer.
    pub rows: u64,
    /// The checksums, back to back.
    pub crc32c: String,
}

impl Blocks {
    /// Rows in a block of a file of `rows` rows: 1 up to 4,096 rows.
    pub(crate) fn rows_of(rows: u64) -> u64 {
        rows.div_ceil(BLOCKS_MAX).max(1)
    }

    /// The checksum of the block numbered `index`.
    pub(crate) fn get(&self, index: u64) -> Option<u32> {
        let at = usize::try_from(index).ok()?.checked_mul(8)?;
        u32::from_str_radix(self.crc32c.get(at..at.checked_add(8)?)?, 16).ok()
    }
}

/// Folds encoded rows, in the order of the file.
pub(crate) struct RowFold {
    rows_per_block: u64,
    rows: u64,
    all: Sha256,
    block: Crc32c,
    crc32c: String,
}

/// What a fold found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RowFacts {
    pub rows: u64,
    pub sha256: Hash,
    pub blocks: Blocks,
}

impl RowFold {
    /// For a file that is to hold `rows` rows.
    pub(crate) fn new(rows: u64) -> Self {
        Self {
            rows_per_block: Blocks::rows_of(rows),
            rows: 0,
            all: Sha256::new(),
            block: Crc32c::default(),
            crc32c: String::new(),
        }
    }

    pub(crate) fn push(&mut self, encoded: &[u8]) {
        self.all.update(encoded);
        self.block.update(encoded);
        self.rows += 1;
        if self.rows.is_multiple_of(self.rows_per_block) {
            self.end_block();
        }
    }

    pub(crate) fn finish(mut self) -> RowFacts {
        if !self.rows.is_multiple_of(self.rows_per_block) {
            self.end_block();
        }
        let blocks = Blocks { rows: self.rows_per_block, crc32c: self.crc32c };
        RowFacts { rows: self.rows, sha256: Hash::from_digest(self.all), blocks }
    }

    fn end_block(&mut self) {
        let crc = std::mem::take(&mut self.block).finish();
        self.crc32c.push_str(&format!("{crc:08x}"));
    }
}
