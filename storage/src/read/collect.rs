//! Gathers entries of one stream out of groups and blocks.

use std::ops::Range;

use bytes::BytesMut;
use common::crc32c;

use crate::object::{Block, Damage, EntryMeta};
use crate::tail::TailGroup;
use crate::types::{Entry, Read};

/// Payloads of group buffers below this are copied together, so that they pin no buffer and leave as one slice.
const JOIN_BYTES_MAX: usize = 4096;
/// A joined slice ends at this size.
const JOINED_BYTES_MAX: usize = 256 << 10;

pub(super) struct Collector {
    from: i64,
    until: i64,
    bytes_max: u64,
    bytes: u64,
    taken: u64,
    read: Read,
    joined: BytesMut,
    joined_entries: Vec<EntryMeta>,
}

impl Collector {
    /// Collects entries that overlap `[from, until)` up to `bytes_max` bytes, at least one.
    pub fn new(from: i64, until: i64, bytes_max: u64) -> Self {
        let (joined, joined_entries) = (BytesMut::new(), Vec::new());
        Self {
            from,
            until,
            bytes_max,
            bytes: 0,
            taken: 0,
            read: Read::at(from),
            joined,
            joined_entries,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.taken == 0
    }

    pub fn is_full(&self) -> bool {
        !self.is_empty() && self.bytes >= self.bytes_max
    }

    /// Bytes that still fit.
    pub fn wanted(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// Where to read on.
    pub fn next(&self) -> i64 {
        let joined = self.joined_entries.last().map_or(i64::MIN, EntryMeta::end_offset);
        self.read.next.max(joined)
    }

    fn takes(&mut self, meta: &EntryMeta) -> bool {
        let length = u64::from(meta.length);
        let fits = self.is_empty() || self.bytes.saturating_add(length) <= self.bytes_max;
        if meta.base_offset >= self.until || !fits {
            return false;
        }
        self.bytes += length;
        self.taken += 1;
        true
    }

    /// Adds from the entries at `positions` of `group`. False when no more fits or `until` is reached.
    ///
    /// # Errors
    /// The offset of an entry whose bytes in memory are no longer those that were appended; those before are added.
    pub fn group(&mut self, group: &TailGroup, positions: Range<u32>) -> Result<bool, i64> {
        let first = partition_point(positions.clone(), |position| {
            group.meta(position).end_offset() <= self.from
        });
        for position in first..positions.end {
            let meta = group.meta(position);
            let before = (self.bytes, self.taken);
            if !self.takes(&meta) {
                return Ok(false);
            }
            let payload = group.payload(position);
            if crc32c(&payload) != meta.crc {
                (self.bytes, self.taken) = before;
                return Err(meta.base_offset);
            }
            if payload.len() >= JOIN_BYTES_MAX {
                self.flush();
                self.read.push_run([entry(&meta, payload.clone())], payload);
                continue;
            }
            if self.joined.len() + payload.len() > JOINED_BYTES_MAX {
                self.flush();
            }
            self.joined.extend_from_slice(&payload);
            self.joined_entries.push(meta);
        }
        Ok(true)
    }

    /// Adds from `block`, which covers `[.., end)`. False when no more fits or `until` is reached.
    ///
    /// # Errors
    /// The damage; nothing is added then.
    pub fn block(&mut self, block: &Block, end: i64) -> Result<bool, Damage> {
        self.flush();
        let entries = block.entries();
        // Not from where the read began: an index that was asked for again may name an object made by compaction
        // meanwhile, whose block begins before what has been collected from the old ones.
        let next = self.read.next;
        let first = entries.partition_point(|meta| meta.end_offset() <= next);
        let mut last = first;
        let before = (self.bytes, self.taken);
        while last < entries.len() && self.takes(&entries[last]) {
            last += 1;
        }
        if last > first {
            if let Err(damage) = block.check(first, last) {
                (self.bytes, self.taken) = before;
                return Err(damage);
            }
            let metas = (first..last).map(|index| entry(&entries[index], block.payload(index)));
            self.read.push_run(metas, block.payloads(first, last));
        }
        Ok(match entries.get(last) {
            None => {
                self.pass(end.min(self.until));
                end < self.until
            }
            Some(rest) if rest.base_offset >= self.until => {
                self.pass(self.until);
                false
            }
            Some(_) => false,
        })
    }

    /// There is nothing below `offset` that was not collected.
    pub fn pass(&mut self, offset: i64) {
        self.read.next = self.read.next.max(offset);
    }

    fn flush(&mut self) {
        if self.joined_entries.is_empty() {
            return;
        }
        let slice = self.joined.split().freeze();
        let mut at = 0;
        let metas = std::mem::take(&mut self.joined_entries);
        let entries = metas.iter().map(|meta| {
            let length = usize::try_from(meta.length).expect("a payload in memory fits a usize");
            let bytes = slice.slice(at..at + length);
            at += length;
            entry(meta, bytes)
        });
        let entries: Vec<_> = entries.collect();
        self.read.push_run(entries, slice);
    }

    pub fn finish(mut self) -> Read {
        self.flush();
        self.read
    }
}

fn entry(meta: &EntryMeta, bytes: bytes::Bytes) -> Entry {
    Entry {
        base_offset: meta.base_offset,
        span: meta.span,
        count: meta.count,
        max_timestamp: meta.max_timestamp,
        epoch: meta.epoch,
        bytes,
    }
}

/// The first position for which `before` is false; it is true for a prefix of `positions`.
fn partition_point(positions: Range<u32>, before: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (positions.start, positions.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
