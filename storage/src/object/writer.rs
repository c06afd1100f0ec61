//! Writing an object, block by block, payloads passed on without a copy.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use common::{Crc32c, StreamEpoch, StreamId, crc32c};

use super::layout::{
    BlockInfo, Codec, ENTRY_ROW_BYTES, EntryMeta, FOOTER_BYTES, HEADER_BYTES, Header,
    INDEX_ROW_BYTES, MAGIC_BLOCK, MAGIC_FOOTER, VERSION,
};

/// A block closes before the entry that would take its payload past this; a larger entry is a block of its own.
pub const BLOCK_BYTES_TARGET: u64 = 1 << 20;

/// One entry on its way into an object.
#[derive(Clone, Debug)]
pub struct EntryPart {
    /// Its row in the entry table.
    pub meta: EntryMeta,
    /// Its payload.
    pub payload: Bytes,
}

/// What the object covers of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSummary {
    /// The stream.
    pub stream: StreamId,
    /// First offset covered.
    pub start: i64,
    /// Offset after the last one covered.
    pub end: i64,
    /// Bytes of payload.
    pub bytes: u64,
    /// Records in the entries.
    pub records: u64,
    /// Highest max timestamp of the entries; -1 without entries.
    pub max_timestamp: i64,
    /// Highest stream epoch.
    pub epoch: StreamEpoch,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Size of the object.
    pub bytes: u64,
    /// Where the block index begins.
    pub index_at: u64,
    /// CRC-32C of the footer.
    pub footer_crc: u32,
    /// CRC-32C of the whole object.
    pub crc: u32,
    /// The streams, each once, sorted.
    pub streams: Vec<StreamSummary>,
}

/// Why an object cannot be written. Either way the input is not what the log promised.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// A payload in memory no longer has the checksum it was appended with.
    #[error(
        "entry of stream {stream} at offset {offset} no longer has the checksum it was appended with"
    )]
    Checksum {
        /// The stream.
        stream: StreamId,
        /// The entry's base offset.
        offset: i64,
    },
    /// An entry does not follow the one before it.
    #[error("stream {stream} goes on at offset {got}, expected {expected}")]
    Gap {
        /// The stream.
        stream: StreamId,
        /// Where it should go on.
        expected: i64,
        /// Where it does.
        got: i64,
    },
}

/// Writes one object. Pieces come out in order through `out` and are the object when put back to back.
pub struct Writer {
    header: Header,
    position: u64,
    crc: Crc32c,
    rows: Vec<BlockInfo>,
    // Up to where each stream is covered.
    ends: BTreeMap<StreamId, i64>,
}

impl Writer {
    /// Begins an object.
    #[must_use]
    pub fn new(header: Header, out: &mut Vec<Bytes>) -> Self {
        let crc = Crc32c::default();
        let (rows, ends) = (Vec::new(), BTreeMap::new());
        let mut writer = Self { header, position: 0, crc, rows, ends };
        writer.emit(Bytes::copy_from_slice(&header.to_bytes()), out);
        debug_assert_eq!(writer.position, HEADER_BYTES as u64);
        writer
    }

    /// Bytes so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The blocks so far, in file order.
    pub(crate) fn blocks(&self) -> &[BlockInfo] {
        &self.rows
    }

    /// Adds what comes next of one stream: the range `[start, end)` and its entries, split into blocks. `entries` may
    /// leave out offsets (bytes below the log start); the blocks cover them all the same. `epoch` is the highest stream
    /// epoch of the range, left-out entries included.
    ///
    /// # Errors
    /// [`WriteError`] when the range does not follow what the object already covers of the stream, or a payload is
    /// damaged. The object must be given up.
    pub fn stream(
        &mut self,
        stream: StreamId,
        range: Range<i64>,
        epoch: StreamEpoch,
        entries: &[EntryPart],
        out: &mut Vec<Bytes>,
    ) -> Result<(), WriteError> {
        let last = self.ends.insert(stream, range.end);
        if let Some(expected) = last.filter(|end| *end != range.start) {
            return Err(WriteError::Gap { stream, expected, got: range.start });
        }
        let mut start = range.start;
        let mut rest = entries;
        loop {
            let taken = block_len(rest);
            let (block, after) = rest.split_at(taken);
            let end = after.first().map_or(range.end, |next| next.meta.base_offset);
            self.block(stream, start..end, epoch, block, out)?;
            if after.is_empty() {
                return Ok(());
            }
            (start, rest) = (end, after);
        }
    }

    fn block(
        &mut self,
        stream: StreamId,
        cover: Range<i64>,
        epoch: StreamEpoch,
        entries: &[EntryPart],
        out: &mut Vec<Bytes>,
    ) -> Result<(), WriteError> {
        let info = self.describe(stream, &cover, epoch, entries);
        let payload_crc = check(stream, &cover, entries)?;
        let table = entries.len() * ENTRY_ROW_BYTES;
        let mut head = BytesMut::with_capacity(super::BLOCK_HEAD_BYTES + table);
        head.put_slice(MAGIC_BLOCK);
        head.put_u8(VERSION);
        head.put_u8(info.codec as u8);
        head.put_u16_le(0);
        head.put_u32_le(info.entries);
        head.put_u32_le(info.key);
        head.put_slice(&stream.to_bytes());
        head.put_i64_le(cover.start);
        head.put_i64_le(cover.end);
        head.put_u64_le(info.payload_bytes);
        let mut rows = BytesMut::with_capacity(table);
        for entry in entries {
            entry.meta.put(&mut rows);
        }
        let mut crc = Crc32c::default();
        crc.update(&head);
        crc.update(&rows);
        head.put_u32_le(crc.finish());
        head.put_u32_le(payload_crc);
        head.put_slice(&rows);
        self.rows.push(info);
        self.emit(head.freeze(), out);
        for entry in entries {
            self.emit(entry.payload.clone(), out);
        }
        Ok(())
    }

    fn describe(
        &self,
        stream: StreamId,
        cover: &Range<i64>,
        epoch: StreamEpoch,
        entries: &[EntryPart],
    ) -> BlockInfo {
        let payload_bytes = entries.iter().map(|entry| entry.payload.len() as u64).sum::<u64>();
        let table = (super::BLOCK_HEAD_BYTES + entries.len() * ENTRY_ROW_BYTES) as u64;
        let epoch = |entry: Option<&EntryPart>| entry.map_or(epoch, |entry| entry.meta.epoch);
        let times = || entries.iter().map(|entry| entry.meta.max_timestamp);
        BlockInfo {
            stream,
            start: cover.start,
            end: cover.end,
            position: self.position,
            length: table + payload_bytes,
            records: entries.iter().map(|entry| entry.meta.count).sum(),
            payload_bytes,
            min_timestamp: times().min().unwrap_or(-1),
            max_timestamp: times().max().unwrap_or(-1),
            entries: u32::try_from(entries.len()).expect("a block holds few entries"),
            key: 0,
            epoch_first: epoch(entries.first()),
            epoch_last: epoch(entries.last()),
            codec: Codec::None,
        }
    }

    fn emit(&mut self, piece: Bytes, out: &mut Vec<Bytes>) {
        self.position += piece.len() as u64;
        self.crc.update(&piece);
        if !piece.is_empty() {
            out.push(piece);
        }
    }

    /// Ends the object with its block index and footer.
    #[must_use]
    pub fn finish(mut self, out: &mut Vec<Bytes>) -> Summary {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| (row.stream, row.start));
        let mut index = BytesMut::with_capacity(rows.len() * INDEX_ROW_BYTES);
        for row in &rows {
            row.put(&mut index);
        }
        let streams = summaries(&rows);
        let index_at = self.position;
        let index = index.freeze();
        let footer = self.footer(&index, &rows, streams.len());
        let footer_crc = super::layout::u32_at(&footer, 68);
        self.emit(index, out);
        self.emit(footer, out);
        let crc = self.crc.finish();
        Summary { bytes: self.position, index_at, footer_crc, crc, streams }
    }

    fn footer(&self, index: &[u8], rows: &[BlockInfo], streams: usize) -> Bytes {
        let full = || rows.iter().filter(|row| row.entries > 0);
        let count = |n: usize| u32::try_from(n).expect("an object holds few blocks");
        let mut out = BytesMut::with_capacity(FOOTER_BYTES);
        out.put_u64_le(self.position);
        out.put_u64_le(index.len() as u64);
        out.put_u32_le(count(rows.len()));
        out.put_u32_le(crc32c(index));
        out.put_u64_le(self.header.object.0);
        out.put_u32_le(count(streams));
        out.put_u32_le(0);
        out.put_u64_le(self.position + (index.len() + FOOTER_BYTES) as u64);
        out.put_i64_le(full().map(|row| row.min_timestamp).min().unwrap_or(-1));
        out.put_i64_le(full().map(|row| row.max_timestamp).max().unwrap_or(-1));
        out.put_u16_le(self.header.store);
        out.put_u8(self.header.kind as u8);
        out.put_u8(VERSION);
        out.put_u32_le(crc32c(&out));
        out.put_slice(MAGIC_FOOTER);
        out.freeze()
    }
}

/// How many of `entries` go into the next block.
fn block_len(entries: &[EntryPart]) -> usize {
    let mut bytes = 0_u64;
    for (index, entry) in entries.iter().enumerate() {
        bytes += entry.payload.len() as u64;
        if index > 0 && bytes > BLOCK_BYTES_TARGET {
            return index;
        }
    }
    entries.len()
}

/// Checks order and checksums; the CRC-32C of the whole payload.
fn check(stream: StreamId, cover: &Range<i64>, entries: &[EntryPart]) -> Result<u32, WriteError> {
    let mut crc = Crc32c::default();
    let mut offset = cover.start;
    for entry in entries {
        let got = entry.meta.base_offset;
        if got < offset {
            return Err(WriteError::Gap { stream, expected: offset, got });
        }
        offset = entry.meta.end_offset();
        if crc32c(&entry.payload) != entry.meta.crc {
            return Err(WriteError::Checksum { stream, offset: got });
        }
        crc.update(&entry.payload);
    }
    if offset > cover.end {
        return Err(WriteError::Gap { stream, expected: cover.end, got: offset });
    }
    Ok(crc.finish())
}

fn summaries(rows: &[BlockInfo]) -> Vec<StreamSummary> {
    let mut out: Vec<StreamSummary> = Vec::new();
    for row in rows {
        match out.last_mut().filter(|last| last.stream == row.stream) {
            Some(last) => {
                last.end = row.end;
                last.bytes += row.payload_bytes;
                last.records += row.records;
                last.max_timestamp = last.max_timestamp.max(row.max_timestamp);
                last.epoch = last.epoch.max(row.epoch_last);
            }
            None => out.push(StreamSummary {
                stream: row.stream,
                start: row.start,
                end: row.end,
                bytes: row.payload_bytes,
                records: row.records,
                max_timestamp: row.max_timestamp,
                epoch: row.epoch_last,
            }),
        }
    }
    out
}
