//! One file against its manifest: bytes, then rows.

use object_store::path::Path;

use super::{Fault, Run};
use crate::blocks::RowFold;
use crate::layout;
use crate::manifest::{File, Manifest};
use crate::parquet_file::{self, ParquetFile};
use crate::record::Hole;
use crate::rowhash::Batch;
use crate::store;

/// Runs of offsets named per file and fault; more are summed into the last.
const RUNS_MAX: usize = 100;

pub(super) async fn check(run: &mut Run, manifest: &Manifest, file: &File) {
    let key = layout::join(&run.root, &file.name);
    let mut report = Reporter { run, manifest, file, key };
    let folder = format!("{}/partition={}/", manifest.topic, manifest.partition);
    if !file.name.starts_with(&folder) || file.name.contains("..") {
        return report.whole(Fault::ManifestForeign, "lies outside of the partition's folder");
    }
    let path = Path::from(report.key.as_str());
    let (length, sha256) = match store::digest(report.run.store.as_ref(), &path).await {
        Ok(Some(found)) => found,
        Ok(None) => return report.whole(Fault::FileMissing, "is not there"),
        Err(error) => return report.unchecked(&error.to_string()),
    };
    let intact = length == file.bytes && sha256 == file.sha256;
    let found = rows(&mut report, &path, length).await;
    let found = match found {
        Ok(found) => found,
        Err(parquet_file::Error::Store(error)) => return report.unchecked(&error.to_string()),
        Err(error) => return report.whole(Fault::FileUnreadable, &error.to_string()),
    };
    if !intact && !found {
        let detail = if length == file.bytes {
            "has other bytes than when it was written".to_owned()
        } else {
            format!("has {length} bytes, was written with {}", file.bytes)
        };
        report.whole(Fault::FileChanged, &detail);
    }
}

struct Reporter<'a> {
    run: &'a mut Run,
    manifest: &'a Manifest,
    file: &'a File,
    key: String,
}

impl Reporter<'_> {
    fn whole(&mut self, fault: Fault, detail: &str) {
        self.range(fault, (self.file.start, self.file.end), detail);
    }

    fn range(&mut self, fault: Fault, offsets: (i64, i64), detail: &str) {
        let Self { run, manifest, key, .. } = self;
        let partition = Some(manifest.partition);
        run.find(fault, &manifest.topic, partition, Some(offsets), key, detail);
    }

    fn unchecked(&mut self, error: &str) {
        self.run.unchecked.push(format!("{} cannot be read: {error}", self.key));
    }
}

/// Reads every row; true when something was found.
async fn rows(
    report: &mut Reporter<'_>,
    path: &Path,
    length: u64,
) -> Result<bool, parquet_file::Error> {
    let schema = report.run.schema(report.manifest).await.map(|schema| schema.arrow());
    let store = report.run.store.clone();
    let parquet = ParquetFile::open(&store, path, length).await?;
    let mut found = false;
    let cut = parquet.cut();
    if cut.as_deref().is_some_and(|cut| cut != report.manifest.cut) {
        found = true;
        let detail =
            format!("carries cut {}, not {}", cut.unwrap_or_default(), report.manifest.cut);
        report.whole(Fault::FileSwapped, &detail);
    }
    if parquet.rows_sha256().is_some_and(|hash| hash != report.file.rows_sha256.to_string()) {
        found = true;
        report.whole(Fault::FileSwapped, "carries another hash over rows than its manifest");
    }
    let partition = i32::try_from(report.manifest.partition).unwrap_or(i32::MAX);
    let mut compare = Compare::new(report.manifest, report.file, partition);
    let mut encoded = Vec::new();
    for index in 0..parquet.groups() {
        for batch in parquet.group(index).await? {
            let batch = match &schema {
                Some(schema) => parquet_file::conform(&batch, schema)?,
                None => batch,
            };
            let view = Batch::new(&batch)?;
            for row in 0..view.rows() {
                encoded.clear();
                view.encode(row, &mut encoded);
                compare.row(view.offset(row), view.partition(row), &encoded);
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(compare.finish(report) || found)
}

/// Compares rows, in the order of the file, with the offsets and hashes that a manifest names.
struct Compare<'a> {
    file: &'a File,
    partition: i32,
    expected: Expected<'a>,
    fold: RowFold,
    block: Block,
    missing: Runs,
    doubled: Runs,
    changed: Runs,
    foreign: Runs,
}

/// The block of rows that is being folded.
struct Block {
    index: u64,
    crc: common::Crc32c,
    offsets: Option<(i64, i64)>,
    whole: bool,
}

impl<'a> Compare<'a> {
    fn new(manifest: &'a Manifest, file: &'a File, partition: i32) -> Self {
        Self {
            file,
            partition,
            expected: Expected::new(&manifest.holes, file.start, file.end),
            fold: RowFold::new(file.rows),
            block: Block::new(0),
            missing: Runs::default(),
            doubled: Runs::default(),
            changed: Runs::default(),
            foreign: Runs::default(),
        }
    }

    fn row(&mut self, offset: i64, partition: i32, encoded: &[u8]) {
        self.fold.push(encoded);
        if partition != self.partition || !self.expected.holds(offset) {
            self.foreign.push(offset);
            return;
        }
        while let Some(next) = self.expected.peek() {
            if next > offset {
                break;
            }
            let ordinal = self.expected.ordinal;
            self.expected.advance();
            if next < offset {
                self.missing.push(next);
                self.in_block(ordinal, next, None);
            } else {
                return self.in_block(ordinal, offset, Some(encoded));
            }
        }
        // The offset lies behind: it was there before, or was counted as missing and comes out of order.
        self.doubled.push(offset);
    }

    fn in_block(&mut self, ordinal: u64, offset: i64, encoded: Option<&[u8]>) {
        let index = ordinal / self.file.blocks.rows.max(1);
        if index != self.block.index {
            self.end_block(index);
        }
        match encoded {
            Some(bytes) => self.block.crc.update(bytes),
            None => self.block.whole = false,
        }
        let (start, _) = self.block.offsets.unwrap_or((offset, offset));
        self.block.offsets = Some((start, offset + 1));
    }

    fn end_block(&mut self, next: u64) {
        let block = std::mem::replace(&mut self.block, Block::new(next));
        let Some((start, end)) = block.offsets.filter(|_| block.whole) else { return };
        if self.file.blocks.get(block.index) != Some(block.crc.finish()) {
            self.changed.range(start, end);
        }
    }

    fn finish(mut self, report: &mut Reporter<'_>) -> bool {
        while let Some(offset) = self.expected.peek() {
            let ordinal = self.expected.ordinal;
            self.expected.advance();
            self.missing.push(offset);
            self.in_block(ordinal, offset, None);
        }
        self.end_block(u64::MAX);
        let facts = self.fold.finish();
        let mut found = false;
        for (fault, runs, detail) in [
            (Fault::RowsMissing, self.missing, "lacks rows"),
            (Fault::RowsDoubled, self.doubled, "holds rows again or out of order"),
            (Fault::RowsForeign, self.foreign, "holds rows that are not of this file"),
            (Fault::RowsChanged, self.changed, "holds rows with other content"),
        ] {
            for run in runs.list {
                found = true;
                report.range(fault, run, detail);
            }
        }
        if !found && facts.sha256 != self.file.rows_sha256 {
            found = true;
            report.whole(Fault::RowsChanged, "has rows with another hash than its manifest says");
        }
        found
    }
}

impl Block {
    fn new(index: u64) -> Self {
        Self { index, crc: common::Crc32c::default(), offsets: None, whole: true }
    }
}

/// The offsets of a range that lie in no hole, ascending.
struct Expected<'a> {
    holes: &'a [Hole],
    /// Holes before this one end at or below `next`.
    hole: usize,
    next: i64,
    start: i64,
    end: i64,
    ordinal: u64,
}

impl<'a> Expected<'a> {
    fn new(holes: &'a [Hole], start: i64, end: i64) -> Self {
        let mut expected = Self { holes, hole: 0, next: start, start, end, ordinal: 0 };
        expected.skip();
        expected
    }

    fn peek(&self) -> Option<i64> {
        (self.next < self.end).then_some(self.next)
    }

    fn advance(&mut self) {
        self.next += 1;
        self.ordinal += 1;
        self.skip();
    }

    fn skip(&mut self) {
        while let Some(hole) = self.holes.get(self.hole) {
            if hole.end > self.next {
                if hole.start <= self.next {
                    self.next = hole.end;
                } else {
                    return;
                }
            }
            self.hole += 1;
        }
    }

    fn holds(&self, offset: i64) -> bool {
        let after = self.holes.partition_point(|hole| hole.end <= offset);
        let in_hole = self.holes.get(after).is_some_and(|hole| hole.start <= offset);
        (self.start..self.end).contains(&offset) && !in_hole
    }
}

/// Runs of offsets, joined; bounded.
#[derive(Default)]
struct Runs {
    list: Vec<(i64, i64)>,
}

impl Runs {
    fn push(&mut self, offset: i64) {
        self.range(offset, offset.saturating_add(1));
    }

    fn range(&mut self, start: i64, end: i64) {
        let full = self.list.len() >= RUNS_MAX;
        match self.list.last_mut() {
            Some(last) if last.1 == start || full => {
                *last = (last.0.min(start), last.1.max(end));
            }
            _ => self.list.push((start, end)),
        }
    }
}
