//! Reads from objects: which blocks, in one request where they lie back to back, with read-ahead, checked, cached.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use common::{ObjectId, Reservation, StreamId};
use meta::ObjectRange;
use object_store::Error;
use tokio::time::timeout;

use super::Reader;
use super::cache::{Cached, Held, Key};
use super::collect::Collector;
use crate::error::ReadError;
use crate::key::data_key;
use crate::object::{Block, BlockInfo, Damage, FOOTER_BYTES, ObjectIndex};
use crate::remote::Cause;
use crate::types::{Class, Read};

/// Objects opened by one read.
const OBJECTS_MAX: u32 = 8;
/// Times an object is asked for again under a fresh index before it counts as missing.
const MISSES_MAX: u32 = 2;

/// Why an object did not give a range.
enum Failure {
    NotFound,
    Damaged(Damage),
    Other(ReadError),
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl Reader {
    /// Reads `[from, until)`, all of it below the committed end.
    pub(super) async fn read_objects(
        &self,
        stream: StreamId,
        from: i64,
        until: i64,
        bytes_max: u64,
        class: Class,
    ) -> Result<Read, ReadError> {
        let now = self.core.clock.elapsed();
        let (ahead_max, share) = (self.options.read_ahead_bytes_max, self.cache.share(class));
        let ahead = self.ahead.window(stream, class, from, now, ahead_max, share);
        let mut collector = Collector::new(from, until, bytes_max);
        let (mut opened, mut fresh, mut gone) = (0, false, None);
        while collector.next() < until && !collector.is_full() && opened < OBJECTS_MAX {
            let at = collector.next();
            let part = self.indexes.at(stream, at, fresh).await?;
            if at < part.start {
                if !collector.is_empty() {
                    break;
                }
                return Err(ReadError::BelowStart { stream, offset: at, start: part.start });
            }
            if let Some((_, end)) = part.lost.iter().find(|(start, end)| *start <= at && at < *end)
            {
                collector.pass(*end);
                continue;
            }
            let Some(range) = part.objects.iter().find(|r| r.start <= at && at < r.end) else {
                if fresh {
                    let committed_end = part.committed_end;
                    return self.refuse(ReadError::Uncovered { stream, offset: at, committed_end });
                }
                fresh = true;
                continue;
            };
            if gone == Some((range.object, MISSES_MAX)) {
                let (object, start, end) = (range.object, range.start, range.end);
                return self.refuse(ReadError::Missing { object, stream, start, end });
            }
            opened += 1;
            match self.read_range(stream, range, &mut collector, at, until, ahead, class).await {
                Ok(true) => fresh = false,
                Ok(false) => break,
                // What metadata lists now is there, or it is missing.
                Err(Failure::NotFound) => {
                    fresh = true;
                    let before = gone.filter(|(object, _)| *object == range.object);
                    gone = Some((range.object, before.map_or(1, |(_, misses)| misses + 1)));
                }
                Err(_) if !collector.is_empty() => break,
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::Damaged(damage)) => {
                    return self.refuse(corrupt(stream, range, &damage));
                }
            }
        }
        let read = collector.finish();
        self.ahead.note(stream, class, from, read.next, now, ahead);
        Ok(read)
    }

    fn refuse<T>(&self, error: ReadError) -> Result<T, ReadError> {
        self.core.metrics.error("refused_range");
        tracing::error!(%error, "a range of a stream is refused");
        Err(error)
    }

    /// Collects from one object. True when it was read to the end of its range.
    #[expect(clippy::too_many_arguments, reason = "the parameters of one read, passed on")]
    async fn read_range(
        &self,
        stream: StreamId,
        range: &ObjectRange,
        collector: &mut Collector,
        from: i64,
        until: i64,
        ahead: u64,
        class: Class,
    ) -> Result<bool, Failure> {
        let until = until.min(range.end);
        let index = self.object_index(range, class).await?;
        let blocks = index.value.blocks_of(stream, from, until);
        let covered = blocks.first().is_some_and(|block| block.start <= from)
            && blocks.last().is_some_and(|block| block.end >= until);
        if !covered {
            return Err(Damage::Field { part: "block index" }.into());
        }
        let mut rest = blocks;
        while !rest.is_empty() {
            let (loaded, count) = self.load(range.object, rest, collector, ahead, class).await?;
            for (block, info) in loaded.iter().zip(rest) {
                let goes_on = match collector.block(&block.value, info.end) {
                    Ok(goes_on) => goes_on,
                    Err(damage) => {
                        let block = self.once_more(range.object, info, &damage, class).await?;
                        collector.block(&block.value, info.end)?
                    }
                };
                if collector.next() >= info.end {
                    self.cache.passed(&Key::Block(range.object, info.position));
                }
                if !goes_on {
                    return Ok(collector.next() >= until && !collector.is_full());
                }
            }
            rest = &rest[count..];
            if collector.is_full() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads a block again whose payload is damaged, in memory or on its way: another copy may be sound.
    async fn once_more(
        &self,
        object: ObjectId,
        info: &BlockInfo,
        damage: &Damage,
        class: Class,
    ) -> Result<Arc<Held<Block>>, Failure> {
        self.core.metrics.error("block_check");
        tracing::warn!(%object, stream = %info.stream, %damage, "a block is damaged, it is read again");
        self.cache.remove(&Key::Block(object, info.position));
        let again = self.fetch_blocks(object, std::slice::from_ref(info), &[0], class).await?;
        let block = again.into_iter().next().ok_or(Damage::Short { part: "block" })?;
        block.value.check(0, block.value.entries().len()).inspect_err(|_| {
            self.cache.remove(&Key::Block(object, info.position));
        })?;
        Ok(block)
    }

    /// Loads the first blocks of `rest`: what the collector still wants and `ahead` bytes more, bounded.
    async fn load(
        &self,
        object: ObjectId,
        rest: &[BlockInfo],
        collector: &Collector,
        ahead: u64,
        class: Class,
    ) -> Result<(Vec<Arc<Held<Block>>>, usize), Failure> {
        let bytes_max = self.options.read_ahead_bytes_max;
        let wanted = collector.wanted().saturating_add(ahead).min(bytes_max);
        let mut bytes = 0_u64;
        let mut count = 0;
        for info in rest {
            // A block that lies apart would be a request of its own: only when it is wanted.
            let adjacent =
                count == 0 || rest[count - 1].position + rest[count - 1].length == info.position;
            let fits = bytes.saturating_add(info.length) <= bytes_max && bytes < wanted;
            let apart = !adjacent && bytes >= collector.wanted();
            if count > 0 && (!fits || apart) {
                break;
            }
            bytes += info.length;
            count += 1;
        }
        let blocks = self.blocks(object, &rest[..count], class).await?;
        Ok((blocks, count))
    }

    async fn blocks(
        &self,
        object: ObjectId,
        infos: &[BlockInfo],
        class: Class,
    ) -> Result<Vec<Arc<Held<Block>>>, Failure> {
        let cached = |info: &BlockInfo| match self.cache.get(&Key::Block(object, info.position)) {
            Some(Cached::Block(block)) => Some(block),
            _ => None,
        };
        let mut blocks: Vec<_> = infos.iter().map(cached).collect();
        let missing: Vec<_> = (0..infos.len()).filter(|index| blocks[*index].is_none()).collect();
        if missing.is_empty() {
            self.core.metrics.hit("block");
        } else {
            self.core.metrics.block_cache_misses.inc_by(missing.len() as u64);
            let loaded = self.fetch_blocks(object, infos, &missing, class).await?;
            for (index, block) in missing.into_iter().zip(loaded) {
                blocks[index] = Some(block);
            }
        }
        Ok(blocks.into_iter().flatten().collect())
    }

    async fn fetch_blocks(
        &self,
        object: ObjectId,
        infos: &[BlockInfo],
        missing: &[usize],
        class: Class,
    ) -> Result<Vec<Arc<Held<Block>>>, Failure> {
        let range = |index: &usize| {
            let info = &infos[*index];
            info.position..info.position + info.length
        };
        let ranges: Vec<_> = missing.iter().map(range).collect();
        let mut tries = 0;
        loop {
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            let expected = self.cache.expect(class, bytes);
            let held = self.reserve(bytes);
            let found = self.get(object, &ranges, class).await?;
            // Each in a buffer of its own; payloads are checked when they are used.
            let parsed = missing.iter().zip(found).map(|(index, bytes)| {
                Block::open(&bytes, &infos[*index]).map(|block| (infos[*index].position, block))
            });
            let parsed: Result<Vec<_>, Damage> = parsed.collect();
            drop((held, expected));
            match parsed {
                Ok(blocks) => return Ok(self.keep(object, blocks, class)),
                // Once more: the damage may have happened on the way.
                Err(damage) if tries > 0 => return Err(damage.into()),
                Err(_) => tries += 1,
            }
        }
    }

    fn keep(
        &self,
        object: ObjectId,
        blocks: Vec<(u64, Block)>,
        class: Class,
    ) -> Vec<Arc<Held<Block>>> {
        let mut out = Vec::with_capacity(blocks.len());
        for (position, value) in blocks {
            let (held, fits) = self.hold(value.bytes_held());
            let block = Arc::new(Held { value, held });
            if fits {
                let key = Key::Block(object, position);
                self.cache.insert(key, Cached::Block(block.clone()), class);
            }
            out.push(block);
        }
        self.core.metrics.block_cache_bytes(self.cache.bytes());
        out
    }

    /// Counts bytes that are to be cached; false when the budget has no room and they are used once only.
    fn hold(&self, bytes: u64) -> (Reservation, bool) {
        match self.core.budget.reserve(bytes) {
            Ok(held) => {
                if self.core.budget.used() < self.core.budget.bytes_max() / 2 {
                    self.cache.grow();
                }
                (held, true)
            }
            Err(_) => {
                self.cache.shrink(bytes);
                match self.core.budget.reserve(bytes) {
                    Ok(held) => (held, true),
                    Err(_) => (self.core.budget.force(bytes), false),
                }
            }
        }
    }

    /// Makes room for bytes on their way, in the block cache alone: what reads from objects pushes out no tail. The
    /// shares of requests and bytes of the classes bound what is forced.
    fn reserve(&self, bytes: u64) -> Reservation {
        self.core.budget.reserve(bytes).unwrap_or_else(|_| {
            self.cache.shrink(bytes);
            self.core.budget.force(bytes)
        })
    }

    async fn object_index(
        &self,
        range: &ObjectRange,
        class: Class,
    ) -> Result<Arc<Held<ObjectIndex>>, Failure> {
        let key = Key::Index(range.object);
        if let Some(Cached::Index(index)) = self.cache.get(&key) {
            return Ok(index);
        }
        let (at, end) = (range.facts.index_at, range.facts.bytes);
        if at >= end || end - at < FOOTER_BYTES as u64 {
            return Err(Damage::Field { part: "metadata of the object" }.into());
        }
        let mut tries = 0;
        let index = loop {
            let tail = self.get(range.object, std::slice::from_ref(&(at..end)), class).await?;
            let parsed = tail.first().ok_or(Damage::Short { part: "footer" });
            let parsed = parsed.and_then(|tail| ObjectIndex::parse(tail));
            match parsed.and_then(|index| agree(&index, range).map(|()| index)) {
                Ok(index) => break index,
                Err(damage) if tries > 0 => return Err(damage.into()),
                Err(_) => tries += 1,
            }
        };
        let (held, fits) = self.hold(index.bytes_held());
        let index = Arc::new(Held { value: index, held });
        if fits {
            self.cache.insert(key, Cached::Index(index.clone()), class);
        }
        Ok(index)
    }

    /// Gets ranges of an object; the store is asked with its own deadlines and retries.
    async fn get(
        &self,
        object: ObjectId,
        ranges: &[Range<u64>],
        class: Class,
    ) -> Result<Vec<Bytes>, Failure> {
        let key = data_key(&self.prefix, object);
        let asked = async {
            let bytes = ranges.iter().map(|range| range.end - range.start).sum();
            let _permit = self.permits.one(class, bytes).await;
            self.core.metrics.gets.inc();
            self.store.get_ranges(&key, ranges).await
        };
        let error = match timeout(self.options.read_timeout, asked).await {
            Ok(Ok(found)) => {
                let bytes = found.iter().map(|bytes| bytes.len() as u64).sum();
                self.core.metrics.get_bytes.inc_by(bytes);
                return Ok(found);
            }
            Ok(Err(Error::NotFound { .. })) => {
                self.forget_object(object, ranges);
                return Err(Failure::NotFound);
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.core.metrics.error("get");
                let reason = "the object store took too long".to_owned();
                return Err(Failure::Other(ReadError::Unavailable(reason)));
            }
        };
        self.core.metrics.error("get");
        // An object that is too short is damage, not an outage.
        if Cause::of(&error) == Cause::Short {
            return Err(Damage::Short { part: "object" }.into());
        }
        Err(Failure::Other(ReadError::Unavailable(error.to_string())))
    }

    fn forget_object(&self, object: ObjectId, ranges: &[Range<u64>]) {
        self.cache.remove(&Key::Index(object));
        ranges.iter().for_each(|range| self.cache.remove(&Key::Block(object, range.start)));
    }
}

/// The object is the one metadata means.
pub(crate) fn agree(index: &ObjectIndex, range: &ObjectRange) -> Result<(), Damage> {
    let footer = &index.footer;
    let same = footer.object == range.object
        && footer.size == range.facts.bytes
        && footer.index_at == range.facts.index_at
        && footer.crc == range.facts.footer_crc;
    if same { Ok(()) } else { Err(Damage::Field { part: "footer" }) }
}

fn corrupt(stream: StreamId, range: &ObjectRange, damage: &Damage) -> ReadError {
    let (start, end) = match damage {
        Damage::Payload { start, end } => (*start, *end),
        _ => (range.start, range.end),
    };
    ReadError::Corrupt { object: range.object, stream, start, end, reason: damage.to_string() }
}
