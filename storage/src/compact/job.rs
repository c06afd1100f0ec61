//! The executor of one job: input blocks in, output blocks out, in bounded memory, proved before the swap.

use std::collections::BTreeMap;
use std::ops::Range;

use common::{Lsn, ObjectId, StreamEpoch, StreamId, crc32c, failpoint};
use meta::ObjectRange;

use super::digest::{Counting, Digest};
use super::output::{Output, Written};
use super::source::Source;
use super::{CompactError, Compactor, Filter, Verdict};
use crate::object::{BLOCK_BYTES_TARGET, Block, BlockInfo, EntryMeta, EntryPart, Kind};
use crate::types::Entry;

/// Entries of one output block, at most.
const BLOCK_ENTRIES_MAX: usize = 16_384;

/// What is to be rewritten into which shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// One object for each part, or one for all.
    pub kind: Kind,
    /// Sorted by stream, each once.
    pub parts: Vec<Part>,
    /// An output is closed at about this size.
    pub object_bytes_max: u64,
}

/// A part of one stream: adjacent live ranges.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub stream: StreamId,
    /// The partition's epoch under which this broker owns it.
    pub epoch: StreamEpoch,
    /// Ascending, each beginning where the one before ends; at least one.
    pub inputs: Vec<ObjectRange>,
}

impl Part {
    pub fn start(&self) -> i64 {
        self.inputs.first().map_or(0, |range| range.start)
    }

    pub fn end(&self) -> i64 {
        self.inputs.last().map_or(0, |range| range.end)
    }
}

impl Job {
    /// The span of the log's order that the outputs stand for.
    pub fn lsns(&self) -> (Lsn, Lsn) {
        let all = || self.parts.iter().flat_map(|part| &part.inputs).map(|range| range.lsns);
        let first = all().map(|(first, _)| first).min();
        (first.unwrap_or_default(), all().map(|(_, end)| end).max().unwrap_or_default())
    }
}

/// A part of a part that one object holds.
pub(super) struct Cut {
    pub object: ObjectId,
    pub start: i64,
    pub end: i64,
}

/// What a job did.
pub(super) struct Done {
    pub objects: Vec<ObjectId>,
    /// Input and output of each part.
    pub digests: Vec<(Digest, Digest)>,
}

/// A filter and the offsets it is asked about.
type Asked<'f> = (Range<i64>, &'f mut dyn Filter);

struct Run<'a, 'f> {
    compactor: &'a Compactor,
    job: &'a Job,
    filter: Option<Asked<'f>>,
    wanted: BTreeMap<ObjectId, Vec<(StreamId, Range<i64>)>>,
    sources: BTreeMap<ObjectId, Source>,
    output: Option<Output>,
    written: Vec<Written>,
    cuts: Vec<Vec<Cut>>,
    // Of the part that is being rewritten.
    pending: Vec<EntryPart>,
    pending_bytes: u64,
    pending_start: i64,
    epoch: StreamEpoch,
    counting: Counting,
}

impl Compactor {
    /// Runs `job` to its commit.
    pub(super) async fn run(
        &self,
        job: &Job,
        filter: Option<Asked<'_>>,
    ) -> Result<Done, CompactError> {
        let result = self.attempt(job, filter).await;
        match &result {
            Ok(_) => drop(self.metrics.jobs.inc()),
            Err(error) => {
                self.metrics.abandoned(error.reason());
                match error {
                    CompactError::Damaged(_) | CompactError::Unproved(_) => {
                        tracing::error!(%error, "compaction was given up");
                    }
                    error => tracing::debug!(%error, "compaction was given up"),
                }
            }
        };
        result
    }

    async fn attempt(&self, job: &Job, filter: Option<Asked<'_>>) -> Result<Done, CompactError> {
        let bytes = self.options.compaction_part_bytes.saturating_add(4 * BLOCK_BYTES_TARGET);
        // Counted past the budget when there is no room: the number of jobs bounds it, and caches are worth more.
        let budget = &self.core.budget;
        let _held = budget.reserve(bytes).unwrap_or_else(|_| budget.force(bytes));
        let mut run = Run::new(self, job, filter);
        let result = run.all().await;
        if let Some(output) = run.output.take() {
            output.abort().await;
        }
        let digests = result?;
        failpoint::hit("storage.compact.put");
        if let Some((_, filter)) = run.filter.as_mut() {
            for (input, output) in &digests {
                filter.prove(input, output).map_err(CompactError::Unproved)?;
            }
        }
        self.swap(job, &run.written, &run.cuts).await?;
        Ok(Done { objects: run.written.iter().map(|one| one.object).collect(), digests })
    }
}

impl<'a, 'f> Run<'a, 'f> {
    fn new(compactor: &'a Compactor, job: &'a Job, filter: Option<Asked<'f>>) -> Self {
        let mut wanted: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for part in &job.parts {
            for range in &part.inputs {
                wanted.entry(range.object).or_default().push((part.stream, range.start..range.end));
            }
        }
        Self {
            compactor,
            job,
            filter,
            wanted,
            sources: BTreeMap::new(),
            output: None,
            written: Vec::new(),
            cuts: Vec::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            pending_start: 0,
            epoch: StreamEpoch(0),
            counting: Counting::default(),
        }
    }

    async fn all(&mut self) -> Result<Vec<(Digest, Digest)>, CompactError> {
        let mut digests = Vec::with_capacity(self.job.parts.len());
        let mut left: BTreeMap<ObjectId, usize> =
            self.wanted.iter().map(|(id, wanted)| (*id, wanted.len())).collect();
        for part in &self.job.parts {
            digests.push(self.part(part).await?);
            for range in &part.inputs {
                let left = left.entry(range.object).or_default();
                *left = left.saturating_sub(1);
                if *left == 0 {
                    self.sources.remove(&range.object);
                }
            }
            if self.job.kind == Kind::Stream {
                self.close().await?;
            }
        }
        self.close().await?;
        Ok(digests)
    }

    /// Ends the object that is being written.
    async fn close(&mut self) -> Result<(), CompactError> {
        if let Some(output) = self.output.take() {
            self.written.push(output.finish(self.compactor).await?);
        }
        Ok(())
    }

    async fn part(&mut self, part: &Part) -> Result<(Digest, Digest), CompactError> {
        self.cuts.push(Vec::new());
        self.counting = Counting::default();
        (self.pending_start, self.pending_bytes, self.epoch) = (part.start(), 0, StreamEpoch(0));
        let (mut input, mut expected) = (Counting::default(), Counting::default());
        for range in &part.inputs {
            for info in self.open(part.stream, range).await? {
                if self.compactor.core.is_closed() {
                    return Err(CompactError::Closed);
                }
                let source = self.sources.get_mut(&range.object).expect("opened above");
                let block = source.block(self.compactor, &info).await?;
                self.epoch = self.epoch.max(info.epoch_last);
                let count = taken(&block);
                for (meta, position) in block.entries()[..count].iter().zip(0..) {
                    input.add(meta).map_err(CompactError::Unproved)?;
                    let Some(entry) = self.judge(*meta, &block, position)? else { continue };
                    expected.add(&entry.meta).map_err(CompactError::Unproved)?;
                    self.add(part.stream, entry).await?;
                }
            }
        }
        self.flush(part.stream, part.end()).await?;
        let digests = (input.finish(), self.counting.finish());
        self.prove(part, &digests, &expected.finish())?;
        Ok(digests)
    }

    /// The blocks of one range, which they must tile.
    async fn open(
        &mut self,
        stream: StreamId,
        range: &ObjectRange,
    ) -> Result<Vec<BlockInfo>, CompactError> {
        if !self.sources.contains_key(&range.object) {
            let wanted = self.wanted.get(&range.object).map_or(&[][..], Vec::as_slice);
            let source = Source::open(self.compactor, range, wanted).await?;
            self.sources.insert(range.object, source);
        }
        let index = &self.sources[&range.object].index;
        let blocks = index.blocks_of(stream, range.start, range.end);
        let covered = blocks.first().is_some_and(|block| block.start == range.start)
            && blocks.last().is_some_and(|block| block.end == range.end);
        if !covered {
            let (object, start, end) = (range.object, range.start, range.end);
            return Err(CompactError::Damaged(format!(
                "object {object} does not cover offsets [{start}, {end}) of stream {stream}"
            )));
        }
        Ok(blocks.to_vec())
    }

    /// The entry as it is to be written, or `None` when it goes.
    fn judge(
        &mut self,
        meta: EntryMeta,
        block: &Block,
        position: usize,
    ) -> Result<Option<EntryPart>, CompactError> {
        let payload = block.payload(position);
        let keep = EntryPart { meta, payload };
        let Some((asked, filter)) = self.filter.as_mut() else { return Ok(Some(keep)) };
        if meta.base_offset < asked.start || meta.end_offset() > asked.end {
            return Ok(Some(keep));
        }
        let entry = Entry {
            base_offset: meta.base_offset,
            span: meta.span,
            count: meta.count,
            max_timestamp: meta.max_timestamp,
            epoch: meta.epoch,
            bytes: keep.payload.clone(),
        };
        match filter.entry(&entry).map_err(CompactError::Unproved)? {
            Verdict::Keep => Ok(Some(keep)),
            Verdict::Drop => Ok(None),
            Verdict::Replace { bytes, count, max_timestamp } => {
                let length = u32::try_from(bytes.len()).ok().filter(|_| count <= meta.span);
                let length = length.ok_or_else(|| {
                    CompactError::Unproved(format!("replacement at offset {}", meta.base_offset))
                })?;
                let meta = EntryMeta { count, max_timestamp, length, crc: crc32c(&bytes), ..meta };
                Ok(Some(EntryPart { meta, payload: bytes }))
            }
        }
    }

    async fn add(&mut self, stream: StreamId, entry: EntryPart) -> Result<(), CompactError> {
        let bytes = u64::from(entry.meta.length);
        let full = self.pending_bytes.saturating_add(bytes) > BLOCK_BYTES_TARGET
            || self.pending.len() >= BLOCK_ENTRIES_MAX;
        if full && !self.pending.is_empty() {
            self.flush(stream, entry.meta.base_offset).await?;
        }
        self.pending_bytes += bytes;
        self.pending.push(entry);
        Ok(())
    }

    /// Writes what waits as a block that covers everything up to `end`.
    async fn flush(&mut self, stream: StreamId, end: i64) -> Result<(), CompactError> {
        let start = self.pending_start;
        if end <= start {
            return Ok(());
        }
        let full = |output: &Output| {
            output.bytes().saturating_add(self.pending_bytes) > self.job.object_bytes_max
        };
        // An object that holds nothing of this stream yet takes its first block, so that none is empty.
        if self.output.as_ref().is_some_and(full) {
            self.close().await?;
        }
        if self.output.is_none() {
            let output = Output::begin(self.compactor, self.job.kind, self.job.lsns()).await?;
            self.output = Some(output);
        }
        let output = self.output.as_mut().expect("begun above");
        let entries = std::mem::take(&mut self.pending);
        let cover = start..end;
        let counting = &mut self.counting;
        output.block(self.compactor, stream, cover, self.epoch, &entries, counting).await?;
        let cuts = self.cuts.last_mut().expect("one list for each part");
        match cuts.last_mut().filter(|cut| cut.object == output.object) {
            Some(cut) => cut.end = end,
            None => cuts.push(Cut { object: output.object, start, end }),
        }
        (self.pending_start, self.pending_bytes) = (end, 0);
        Ok(())
    }

    /// The output is what was meant, and the input is what metadata counts.
    fn prove(
        &self,
        part: &Part,
        (input, output): &(Digest, Digest),
        expected: &Digest,
    ) -> Result<(), CompactError> {
        let stream = part.stream;
        if output != expected || (self.filter.is_none() && output != input) {
            return Err(CompactError::Unproved(format!(
                "stream {stream}: read {input:?}, meant {expected:?}, wrote {output:?}"
            )));
        }
        let sum = |of: fn(&ObjectRange) -> u64| {
            part.inputs.iter().try_fold(0_u64, |sum, range| sum.checked_add(of(range)))
        };
        let counted = (sum(|range| range.records), sum(|range| range.bytes));
        let found = (Some(input.records), Some(input.bytes));
        let inside = input.first.is_none_or(|first| first >= part.start())
            && input.end.is_none_or(|end| end <= part.end());
        if (counted != found || !inside) && !failpoint::planted("compaction-bound") {
            return Err(CompactError::Damaged(format!(
                "stream {stream}: metadata counts {counted:?} records and bytes, the objects hold {found:?}"
            )));
        }
        Ok(())
    }
}

/// Entries of `block` that are taken: all of them.
fn taken(block: &Block) -> usize {
    let all = block.entries().len();
    if failpoint::planted("compaction-bound") { all.saturating_sub(1) } else { all }
}
