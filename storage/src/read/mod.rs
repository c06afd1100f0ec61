//! Reads: tail cache, then the log, then block cache, then ranges of objects.
//!
//! A read that the tail cache answers takes two short locks and waits for nothing. Everything else first asks for one of
//! the requests its class may have in flight.

mod ahead;
mod cache;
mod collect;
mod indexes;
mod objects;

use std::sync::Arc;

use common::{Lsn, StreamId};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::core::Core;
use crate::error::ReadError;
use crate::options::Options;
use crate::streams::Run;
use crate::tail::TailGroup;
use crate::types::{Class, Read};
pub(crate) use ahead::ReadAhead;
pub(crate) use cache::BlockCache;
use cache::{Cached, Key};
use collect::Collector;
pub(crate) use indexes::Indexes;
pub(crate) use objects::agree;

/// Runs looked at in one go: a read that wants more comes again.
const RUNS_MAX: usize = 256;
/// Times a read starts over because what it wanted moved from the log into objects meanwhile.
const MOVES_MAX: u32 = 8;

pub(crate) struct Reader {
    pub core: Arc<Core>,
    pub wal: wal::Wal,
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
    pub options: Options,
    pub cache: BlockCache,
    pub indexes: Indexes,
    pub ahead: ReadAhead,
    pub permits: Permits,
}

/// What each class may have in flight: requests, and bytes in units of [`PERMIT_BYTES`].
pub(crate) struct Permits([Share; 4]);

struct Share {
    requests: Semaphore,
    bytes: Semaphore,
    bytes_max: u32,
}

/// What one permit of bytes stands for.
const PERMIT_BYTES: u64 = 4096;

impl Permits {
    pub fn new(options: &Options) -> Self {
        // Bytes in flight are bounded by the memory that the class's blocks would go to.
        let share = |requests: usize, part: u64| {
            let bytes = (options.block_cache_bytes_max / part).max(PERMIT_BYTES);
            let bytes_max = u32::try_from(bytes / PERMIT_BYTES).unwrap_or(u32::MAX >> 3);
            let permits = usize::try_from(bytes_max).unwrap_or(usize::MAX >> 3);
            Share {
                requests: Semaphore::new(requests.max(1)),
                bytes: Semaphore::new(permits),
                bytes_max,
            }
        };
        Self([
            share(options.tail_requests_max, 2),
            share(options.catch_up_requests_max, 2),
            share(options.sink_requests_max, 4),
            share(options.compaction_requests_max, 4),
        ])
    }

    /// Waits for a request's turn. One that is larger than the whole share goes alone.
    async fn one(&self, class: Class, bytes: u64) -> (SemaphorePermit<'_>, SemaphorePermit<'_>) {
        let share = &self.0[class as usize];
        let bytes = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let bytes = bytes.min(share.bytes_max);
        let never = "these semaphores are never closed";
        let request = share.requests.acquire().await.expect(never);
        (request, share.bytes.acquire_many(bytes).await.expect(never))
    }
}

/// Where the bytes at an offset are.
enum Place {
    Nowhere,
    Log(Vec<Run>),
    Objects { until: i64 },
}

/// Groups did not give what was asked: it has moved into objects.
struct Moved;

impl Reader {
    /// See [`crate::Storage::read`].
    pub async fn read(
        &self,
        stream: StreamId,
        from: i64,
        until: i64,
        bytes_max: u64,
        class: Class,
    ) -> Result<Read, ReadError> {
        let started = self.core.clock.elapsed();
        let mut moves = 0;
        let (read, source) = loop {
            match self.locate(stream, from, until, bytes_max)? {
                Place::Nowhere => return Ok(Read::at(from)),
                Place::Log(runs) => {
                    match self.read_runs(stream, &runs, from, until, bytes_max, class).await? {
                        Ok(found) => break found,
                        Err(Moved) if moves < MOVES_MAX => moves += 1,
                        Err(Moved) => {
                            let last = runs.first().map_or(until, |run| run.end);
                            let until = until.min(last);
                            let read = self.read_objects(stream, from, until, bytes_max, class);
                            break (read.await?, "object");
                        }
                    }
                }
                Place::Objects { until } => {
                    let read = self.read_objects(stream, from, until, bytes_max, class).await?;
                    break (read, "object");
                }
            }
        };
        self.core.metrics.read(source, self.core.clock.elapsed().saturating_sub(started));
        // The start may have moved while the bytes were on their way.
        let start = self.bounds_start(stream)?;
        if from < start {
            return Err(ReadError::BelowStart { stream, offset: from, start });
        }
        Ok(read)
    }

    fn bounds_start(&self, stream: StreamId) -> Result<i64, ReadError> {
        let start = self.core.table.with(stream, |state| state.bounds.start);
        start.ok_or(ReadError::NotOpen(stream.partition))
    }

    fn locate(
        &self,
        stream: StreamId,
        from: i64,
        until: i64,
        bytes_max: u64,
    ) -> Result<Place, ReadError> {
        let slot = self.core.table.get(stream.partition);
        let slot = slot.ok_or(ReadError::NotOpen(stream.partition))?;
        let mut state = slot.state.lock();
        if !state.opened {
            return Err(ReadError::NotOpen(stream.partition));
        }
        let state = state.stream(stream.kind);
        let bounds = state.bounds;
        if from < bounds.start {
            return Err(ReadError::BelowStart { stream, offset: from, start: bounds.start });
        }
        let until = until.min(bounds.durable_end);
        if from >= until {
            return Ok(Place::Nowhere);
        }
        if let Some(index) = state.run_at(from) {
            let (mut bytes, mut end) = (0_u64, None);
            let wanted = |run: &&Run| {
                let before = bytes;
                bytes = bytes.saturating_add(run.bytes);
                // A group that has moved into objects leaves a gap between runs: the next read goes there.
                let follows = end.is_none_or(|end| end == run.start);
                end = Some(run.end);
                follows && run.start < until && (before == 0 || before < bytes_max)
            };
            let runs = state.runs.range(index..).take_while(wanted).take(RUNS_MAX).copied();
            return Ok(Place::Log(runs.collect()));
        }
        if from >= bounds.committed_end {
            let committed_end = bounds.committed_end;
            return Err(ReadError::Uncovered { stream, offset: from, committed_end });
        }
        let next = state.runs.iter().map(|run| run.start).find(|start| *start > from);
        let until = until.min(bounds.committed_end).min(next.unwrap_or(i64::MAX));
        Ok(Place::Objects { until })
    }

    /// Reads from groups: those in memory at once; one that is not, only when nothing else was found.
    async fn read_runs(
        &self,
        stream: StreamId,
        runs: &[Run],
        from: i64,
        until: i64,
        bytes_max: u64,
        class: Class,
    ) -> Result<Result<(Read, &'static str), Moved>, ReadError> {
        let mut collector = Collector::new(from, until, bytes_max);
        let (mut source, mut at, mut damaged) = ("tail", 0, false);
        while let Some(run) = runs.get(at) {
            let group = match self.core.tail.get(run.group) {
                Some(group) => group,
                None if !collector.is_empty() => break,
                None => {
                    source = "wal";
                    match self.group(stream, run, class).await? {
                        Some(group) => group,
                        None => return Ok(Err(Moved)),
                    }
                }
            };
            match collector.group(&group, run.first..run.first + run.count) {
                Ok(true) => at += 1,
                Ok(false) => break,
                Err(offset) => {
                    self.drop_damaged(stream, run, offset);
                    if !collector.is_empty() {
                        break;
                    }
                    if std::mem::replace(&mut damaged, true) {
                        return Err(self.damaged_twice(stream, run));
                    }
                }
            }
        }
        self.core.metrics.hit(source);
        Ok(Ok((collector.finish(), source)))
    }

    /// Memory no longer holds what was appended: the buffer goes, the log is read instead.
    fn drop_damaged(&self, stream: StreamId, run: &Run, offset: i64) {
        self.core.metrics.error("tail_check");
        let group = run.group;
        tracing::warn!(%stream, offset, %group, "a batch in memory is damaged, it is read again from the log");
        self.core.tail.drop_buffer(group);
        self.cache.remove(&Key::Group(group));
    }

    fn damaged_twice(&self, stream: StreamId, run: &Run) -> ReadError {
        let reason = "entries read back twice do not have their checksums".to_owned();
        let error = ReadError::CorruptLog {
            lsn: run.group,
            stream,
            start: run.start,
            end: run.end,
            reason,
        };
        tracing::error!(%error, "a range of a stream is refused");
        error
    }

    /// Reads a group back from the log; `None` when it has moved into objects.
    async fn group(
        &self,
        stream: StreamId,
        run: &Run,
        class: Class,
    ) -> Result<Option<Arc<TailGroup>>, ReadError> {
        let key = Key::Group(run.group);
        if let Some(Cached::Group(group)) = self.cache.get(&key) {
            return Ok(Some(group));
        }
        if self.is_moved(stream, run.group) {
            return Ok(None);
        }
        let _permit = self.permits.one(class, run.bytes).await;
        let group = match self.wal.read_group(run.group).await {
            Ok(group) => group,
            Err(wal::ReadError::Moved { .. }) => {
                // The commit that trimmed it has been noted before, so the next look finds the objects.
                return Ok(None);
            }
            // Damaged, but in objects meanwhile: another copy.
            Err(wal::ReadError::Corrupt { .. }) if self.is_moved(stream, run.group) => {
                return Ok(None);
            }
            Err(error) => return Err(self.log_error(stream, run, &error)),
        };
        let group = Arc::new(TailGroup::new(group, &self.core.budget));
        self.cache.insert(key, Cached::Group(group.clone()), class);
        self.core.metrics.block_cache_bytes(self.cache.bytes());
        Ok(Some(group))
    }

    /// True when the group lies in objects; its runs are forgotten then.
    fn is_moved(&self, stream: StreamId, group: Lsn) -> bool {
        let committed = self.core.tail.pending_from();
        if group >= committed {
            return false;
        }
        let horizon = self.core.tail.horizon();
        self.core.table.with(stream, |state| {
            state.prune(horizon);
            // Evicted out of order (its buffer was dropped as damaged): only this one is forgotten.
            state.runs.retain(|run| run.group != group);
        });
        true
    }

    fn log_error(&self, stream: StreamId, run: &Run, error: &wal::ReadError) -> ReadError {
        self.core.metrics.error("wal_read");
        match error {
            wal::ReadError::Corrupt { .. } => ReadError::CorruptLog {
                lsn: run.group,
                stream,
                start: run.start,
                end: run.end,
                reason: error.to_string(),
            },
            other => ReadError::Unavailable(format!("cannot read the write-ahead log: {other}")),
        }
    }

    /// See [`crate::Storage::read_back`].
    pub async fn read_back(
        &self,
        stream: StreamId,
        before: i64,
        bytes_max: u64,
    ) -> Result<Read, ReadError> {
        let slot = self.core.table.get(stream.partition);
        let slot = slot.ok_or(ReadError::NotOpen(stream.partition))?;
        let bounds = slot.state.lock().stream(stream.kind).bounds;
        let end = before.min(bounds.durable_end);
        let mut reach = 64_i64;
        loop {
            let from = end.saturating_sub(reach).max(bounds.start);
            if from >= end {
                return Ok(Read::at(end));
            }
            let (entries, whole) = self.newest(stream, from, end, bytes_max).await?;
            if whole || from == bounds.start {
                let mut read = Read::at(entries.front().map_or(from, |entry| entry.base_offset));
                for entry in entries {
                    let slice = entry.bytes.clone();
                    read.push_run([entry], slice);
                }
                return Ok(read);
            }
            reach = reach.saturating_mul(8);
        }
    }

    /// The newest entries of `[from, end)` that together hold `bytes_max` bytes or more, and whether there were so many.
    async fn newest(
        &self,
        stream: StreamId,
        from: i64,
        end: i64,
        bytes_max: u64,
    ) -> Result<(std::collections::VecDeque<crate::types::Entry>, bool), ReadError> {
        let mut entries = std::collections::VecDeque::new();
        let (mut bytes, mut whole, mut at) = (0_u64, false, from);
        while at < end {
            let read = self.read(stream, at, end, bytes_max.max(1 << 20), Class::Tail).await?;
            if read.next <= at {
                break;
            }
            at = read.next;
            for entry in read.entries.into_iter().filter(|entry| entry.end_offset() <= end) {
                bytes += entry.bytes.len() as u64;
                entries.push_back(entry);
            }
            let first = |entries: &std::collections::VecDeque<crate::types::Entry>| {
                entries.front().map_or(0, |entry| entry.bytes.len() as u64)
            };
            while entries.len() > 1 && bytes - first(&entries) >= bytes_max {
                bytes -= first(&entries);
                entries.pop_front();
                whole = true;
            }
        }
        Ok((entries, whole || bytes >= bytes_max))
    }
}
