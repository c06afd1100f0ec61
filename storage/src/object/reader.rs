//! Reading an object, every part checked. All input is hostile: lengths are compared before they are used.

use bytes::Bytes;
use common::{ObjectId, StreamId, crc32c};

use super::layout::{
    BLOCK_HEAD_BYTES, BlockInfo, Codec, ENTRY_ROW_BYTES, EntryMeta, FOOTER_BYTES, INDEX_ROW_BYTES,
    Kind, MAGIC_BLOCK, MAGIC_FOOTER, check_version, i64_at, u16_at, u32_at, u64_at,
};

/// What is wrong with the bytes of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Fewer bytes than the part needs.
    #[error("{part} is cut short")]
    Short {
        /// The part.
        part: &'static str,
    },
    /// The part does not begin as it must.
    #[error("{part} does not begin with its magic bytes")]
    Magic {
        /// The part.
        part: &'static str,
    },
    /// Written by a later build, or not a version at all.
    #[error("format version {version} is not one this build reads; upgrade the broker")]
    Version {
        /// The version found.
        version: u8,
    },
    /// The checksum of a part is wrong.
    #[error("checksum of {part} is wrong")]
    Checksum {
        /// The part.
        part: &'static str,
    },
    /// A payload is wrong between two offsets.
    #[error("checksum of the entries of offsets [{start}, {end}) is wrong")]
    Payload {
        /// First damaged offset.
        start: i64,
        /// Offset after the last damaged one.
        end: i64,
    },
    /// A field holds what it cannot.
    #[error("{part} contradicts itself or its index")]
    Field {
        /// The part.
        part: &'static str,
    },
    /// A codec of a later build.
    #[error("codec {codec} is not one this build reads; upgrade the broker")]
    Codec {
        /// The codec found.
        codec: u8,
    },
}

/// The last bytes of an object.
///
/// ```text
/// 0                8              16           20          24          32        36     40
/// +----------------+--------------+------------+-----------+-----------+---------+------+
/// | index position | index length | block count| index CRC | object id | streams | zero |
/// +----------------+--------------+------------+-----------+-----------+---------+------+
/// 40     48              56              64       66   67      68    72      80
/// +------+---------------+---------------+--------+----+-------+-----+-------+
/// | size | min timestamp | max timestamp |store_id|kind|version| CRC | magic |
/// +------+---------------+---------------+--------+----+-------+-----+-------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    /// Where the block index begins.
    pub index_at: u64,
    /// Bytes of the block index.
    pub index_bytes: u64,
    /// Rows of the block index.
    pub blocks: u32,
    /// CRC-32C of the block index.
    pub index_crc: u32,
    /// The object's id.
    pub object: ObjectId,
    /// Number of streams.
    pub streams: u32,
    /// Size of the whole object.
    pub size: u64,
    /// Lowest of the entries' max timestamps; -1 without entries.
    pub min_timestamp: i64,
    /// Highest of the entries' max timestamps; -1 without entries.
    pub max_timestamp: i64,
    /// Which configured store it was put into.
    pub store: u16,
    /// What the object holds.
    pub kind: Kind,
    /// CRC-32C of the footer itself.
    pub crc: u32,
}

impl Footer {
    /// Reads the footer from the end of `tail`, whose last byte is the object's last.
    ///
    /// # Errors
    /// [`Damage`] that names what is wrong.
    pub fn parse(tail: &[u8]) -> Result<Self, Damage> {
        let part = "footer";
        let bytes = tail.last_chunk::<FOOTER_BYTES>().ok_or(Damage::Short { part })?;
        if &bytes[72..] != MAGIC_FOOTER {
            return Err(Damage::Magic { part });
        }
        check_version(bytes[67])?;
        let crc = u32_at(bytes, 68);
        if crc32c(&bytes[..68]) != crc {
            return Err(Damage::Checksum { part });
        }
        let footer = Self {
            index_at: u64_at(bytes, 0),
            index_bytes: u64_at(bytes, 8),
            blocks: u32_at(bytes, 16),
            index_crc: u32_at(bytes, 20),
            object: ObjectId(u64_at(bytes, 24)),
            streams: u32_at(bytes, 32),
            size: u64_at(bytes, 40),
            min_timestamp: i64_at(bytes, 48),
            max_timestamp: i64_at(bytes, 56),
            store: u16_at(bytes, 64),
            kind: Kind::from_byte(bytes[66]).ok_or(Damage::Field { part })?,
            crc,
        };
        let end = footer.index_at.checked_add(footer.index_bytes);
        let whole = end.and_then(|end| end.checked_add(FOOTER_BYTES as u64));
        let rows = u64::from(footer.blocks) * INDEX_ROW_BYTES as u64;
        if whole != Some(footer.size) || rows != footer.index_bytes {
            return Err(Damage::Field { part });
        }
        Ok(footer)
    }
}

/// The footer and block index of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectIndex {
    /// The footer.
    pub footer: Footer,
    blocks: Vec<BlockInfo>,
}

impl ObjectIndex {
    /// Reads the index from `tail`, which must reach from the start of the index (or before it) to the object's end.
    ///
    /// # Errors
    /// [`Damage`] that names what is wrong; [`Damage::Short`] when `tail` begins behind the index.
    pub fn parse(tail: &[u8]) -> Result<Self, Damage> {
        let part = "block index";
        let footer = Footer::parse(tail)?;
        let rows = usize::try_from(footer.index_bytes).map_err(|_| Damage::Field { part })?;
        let end = tail.len() - FOOTER_BYTES;
        let start = end.checked_sub(rows).ok_or(Damage::Short { part })?;
        let rows = &tail[start..end];
        if crc32c(rows) != footer.index_crc {
            return Err(Damage::Checksum { part });
        }
        let blocks = rows.chunks_exact(INDEX_ROW_BYTES).map(BlockInfo::get);
        let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
        let fits = |block: &BlockInfo| {
            let end = block.position.checked_add(block.length);
            let table = u64::from(block.entries) * ENTRY_ROW_BYTES as u64;
            let parts = (table + BLOCK_HEAD_BYTES as u64).checked_add(block.payload_bytes);
            end.is_some_and(|end| end <= footer.index_at)
                && parts == Some(block.length)
                && block.start <= block.end
        };
        let tiles = blocks.windows(2).all(|pair| match pair[0].stream.cmp(&pair[1].stream) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => pair[0].end == pair[1].start,
            std::cmp::Ordering::Greater => false,
        });
        if !blocks.iter().all(fits) || !tiles {
            return Err(Damage::Field { part });
        }
        Ok(Self { footer, blocks })
    }

    /// All blocks, by stream and offset.
    #[must_use]
    pub fn blocks(&self) -> &[BlockInfo] {
        &self.blocks
    }

    /// The blocks of `stream` that cover an offset of `[from, until)`, in order.
    #[must_use]
    pub fn blocks_of(&self, stream: StreamId, from: i64, until: i64) -> &[BlockInfo] {
        let before = |block: &BlockInfo| (block.stream, block.end) <= (stream, from);
        let first = self.blocks.partition_point(before);
        let rest = &self.blocks[first..];
        let inside = |block: &BlockInfo| block.stream == stream && block.start < until;
        &rest[..rest.partition_point(inside)]
    }

    /// Bytes held in memory.
    #[must_use]
    pub fn bytes_held(&self) -> u64 {
        (self.blocks.len() * size_of::<BlockInfo>() + size_of::<Self>()) as u64
    }
}

/// One block: its entry table and its payload.
///
/// ```text
/// 0       4       5     6      8         12       16          32            40          48
/// +-------+-------+-----+------+---------+--------+-----------+-------------+-----------+
/// | magic |version|codec| zero | entries | key id | stream id | cover start | cover end |
/// +-------+-------+-----+------+---------+--------+-----------+-------------+-----------+
/// 48               56          60            64
/// +----------------+-----------+-------------+-------------------+----------------------+
/// | payload length | table CRC | payload CRC | entries * 48 byte | payload, back to back |
/// +----------------+-----------+-------------+-------------------+----------------------+
/// ```
/// The table CRC covers bytes 0..56 and the entry table.
#[derive(Clone, Debug)]
pub struct Block {
    entries: Vec<EntryMeta>,
    // Where entry i begins in the payload; one more than entries.
    starts: Vec<usize>,
    payload: Bytes,
    payload_crc: u32,
}

impl Block {
    /// Reads the whole block that `info` describes, and checks all of it.
    ///
    /// # Errors
    /// [`Damage`] that names what is wrong, with the damaged offsets where only payloads are hit.
    pub fn parse(bytes: &Bytes, info: &BlockInfo) -> Result<Self, Damage> {
        let block = Self::open(bytes, info)?;
        block.check(0, block.entries.len())?;
        Ok(block)
    }

    /// Reads the whole block that `info` describes, and checks all of it but the payloads: [`Self::check`] is for when
    /// they are used, so that each byte is summed once and what memory has changed meanwhile is found as well.
    ///
    /// # Errors
    /// [`Damage`] that names what is wrong.
    pub fn open(bytes: &Bytes, info: &BlockInfo) -> Result<Self, Damage> {
        let part = "block";
        if bytes.len() as u64 != info.length || bytes.len() < BLOCK_HEAD_BYTES {
            return Err(Damage::Short { part });
        }
        if &bytes[..4] != MAGIC_BLOCK {
            return Err(Damage::Magic { part });
        }
        check_version(bytes[4])?;
        let rows = usize::try_from(info.entries).map_err(|_| Damage::Field { part })?;
        let table_end = BLOCK_HEAD_BYTES + rows * ENTRY_ROW_BYTES;
        let table = bytes.get(BLOCK_HEAD_BYTES..table_end).ok_or(Damage::Short { part })?;
        let mut crc = common::Crc32c::default();
        crc.update(&bytes[..56]);
        crc.update(table);
        if crc.finish() != u32_at(bytes, 56) {
            return Err(Damage::Checksum { part: "entry table" });
        }
        let agrees = bytes[5] == Codec::None as u8
            && u32_at(bytes, 8) == info.entries
            && bytes[16..32] == info.stream.to_bytes()
            && i64_at(bytes, 32) == info.start
            && i64_at(bytes, 40) == info.end
            && u64_at(bytes, 48) == info.payload_bytes;
        if !agrees {
            return Err(Damage::Field { part });
        }
        let payload = bytes.slice(table_end..);
        let entries: Vec<_> = table.chunks_exact(ENTRY_ROW_BYTES).map(EntryMeta::get).collect();
        let starts = starts(&entries, &payload, info)?;
        Ok(Self { starts, entries, payload, payload_crc: u32_at(bytes, 60) })
    }

    /// Checks the payloads of entries `[first, end)`.
    ///
    /// # Errors
    /// [`Damage`] with the damaged offsets.
    ///
    /// # Panics
    /// When the range is not one of entries.
    pub fn check(&self, first: usize, end: usize) -> Result<(), Damage> {
        if first == 0 && end == self.entries.len() {
            if crc32c(&self.payload) == self.payload_crc {
                return Ok(());
            }
            let whole = Damage::Checksum { part: "block payload" };
            return Err(self.damaged(first, end).unwrap_or(whole));
        }
        self.damaged(first, end).map_or(Ok(()), Err)
    }

    /// The range from the first to the last entry of `[first, end)` whose own checksum is wrong.
    fn damaged(&self, first: usize, end: usize) -> Option<Damage> {
        let bad = |index: &usize| {
            let payload = &self.payload[self.starts[*index]..self.starts[*index + 1]];
            crc32c(payload) != self.entries[*index].crc
        };
        let last = (first..end).rfind(bad)?;
        let first = (first..end).find(bad)?;
        let (start, end) = (self.entries[first].base_offset, self.entries[last].end_offset());
        Some(Damage::Payload { start, end })
    }

    /// The entries, by offset.
    #[must_use]
    pub fn entries(&self) -> &[EntryMeta] {
        &self.entries
    }

    /// The payload of one entry.
    ///
    /// # Panics
    /// When there is no entry `index`.
    #[must_use]
    pub fn payload(&self, index: usize) -> Bytes {
        self.payloads(index, index + 1)
    }

    /// The payloads of entries `[first, end)` as one slice.
    ///
    /// # Panics
    /// When the range is not one of entries.
    #[must_use]
    pub fn payloads(&self, first: usize, end: usize) -> Bytes {
        self.payload.slice(self.starts[first]..self.starts[end])
    }

    /// Bytes held in memory.
    #[must_use]
    pub fn bytes_held(&self) -> u64 {
        let rows = self.entries.len() * (size_of::<EntryMeta>() + size_of::<usize>());
        (self.payload.len() + self.entries.len() * ENTRY_ROW_BYTES + rows + 256) as u64
    }
}

/// Where each payload begins; the entries must rise, lie in the cover and fill the payload.
fn starts(entries: &[EntryMeta], payload: &Bytes, info: &BlockInfo) -> Result<Vec<usize>, Damage> {
    let part = "entry table";
    let mut starts = Vec::with_capacity(entries.len() + 1);
    let (mut at, mut offset) = (0_usize, info.start);
    for entry in entries {
        starts.push(at);
        let length = usize::try_from(entry.length).map_err(|_| Damage::Field { part })?;
        at = at.checked_add(length).ok_or(Damage::Field { part })?;
        if entry.base_offset < offset || entry.end_offset() > info.end {
            return Err(Damage::Field { part });
        }
        offset = entry.end_offset();
    }
    starts.push(at);
    if at != payload.len() { Err(Damage::Field { part }) } else { Ok(starts) }
}
