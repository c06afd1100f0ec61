//! The bytes of a group. Byte diagrams in `docs/formats/wal.md`.

use common::{Crc32c, Lsn, StreamEpoch, StreamId, WalEpoch, WalId};

use crate::group::{FrameHeader, FrameMeta};

/// Unit of alignment in bytes: every group begins and ends on it.
pub const BLOCK: u64 = 4096;
pub(crate) const BLOCK_SIZE: usize = 4096;
/// First bytes of a group.
pub const MAGIC: [u8; 8] = *b"SLUICEWG";
/// Version of the format.
pub const VERSION: u16 = 1;

pub(crate) const HEADER_SIZE: usize = 128;
pub(crate) const FRAME_SIZE: usize = 72;
/// Frames in a group at most.
pub(crate) const FRAMES_MAX: usize = 4096;
/// Bytes of a group at most, whatever the settings of its writer.
pub(crate) const GROUP_BYTES_LIMIT: u64 = 64 << 20;

/// The rest of the segment behind this group is skipped; the next group begins the next segment.
pub(crate) const FLAG_ROLL: u16 = 1;

/// The fixed part of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub flags: u16,
    pub frames: u32,
    pub wal: WalId,
    pub epoch: WalEpoch,
    pub first: Lsn,
    pub end: Lsn,
    pub acked: Lsn,
    pub bytes: u32,
    pub payload_at: u32,
    pub payload_bytes: u32,
    pub table_crc: u32,
    pub link: u32,
}

/// What the bytes at a position are, if not a header of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    Zero,
    Magic,
    Version,
    Foreign(WalId),
    Checksum,
    Shape,
}

/// The identity that a group must carry, with the start value of its checksums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub wal: WalId,
    pub salt: u64,
}

impl Stamp {
    pub fn crc(self, bytes: &[u8]) -> u32 {
        let mut crc = Crc32c::default();
        crc.update(&self.salt.to_le_bytes());
        crc.update(bytes);
        crc.finish()
    }

    /// Tells this log from another one with the same id; not zero.
    pub fn tag(self) -> u32 {
        self.crc(&self.wal.0.to_le_bytes()) | 1
    }
}

impl Header {
    /// Writes the header into the first bytes of `out` and returns its checksum, the next group's link.
    pub fn write(&self, stamp: Stamp, out: &mut [u8]) -> u32 {
        let out = &mut out[..HEADER_SIZE];
        out.fill(0);
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&self.flags.to_le_bytes());
        out[12..16].copy_from_slice(&self.frames.to_le_bytes());
        out[16..24].copy_from_slice(&self.wal.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.end.0.to_le_bytes());
        out[48..56].copy_from_slice(&self.acked.0.to_le_bytes());
        let words = [self.bytes, self.payload_at, self.payload_bytes, self.table_crc, self.link];
        for (position, word) in words.into_iter().chain([stamp.tag()]).enumerate() {
            out[56 + 4 * position..60 + 4 * position].copy_from_slice(&word.to_le_bytes());
        }
        let crc = stamp.crc(&out[..HEADER_SIZE - 4]);
        out[HEADER_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
        crc
    }

    /// Reads a header of the log `stamp`, and its checksum.
    pub fn read(stamp: Stamp, bytes: &[u8]) -> Result<(Self, u32), NoHeader> {
        let header = Self::read_unchecked(bytes)?;
        let tag = u32_at(bytes, 76);
        let crc = u32_at(bytes, HEADER_SIZE - 4);
        if header.wal != stamp.wal || tag != stamp.tag() {
            return Err(NoHeader::Foreign(header.wal));
        }
        if stamp.crc(&bytes[..HEADER_SIZE - 4]) != crc {
            return Err(NoHeader::Checksum);
        }
        if !header.is_sound() {
            return Err(NoHeader::Shape);
        }
        Ok((header, crc))
    }

    /// Reads a header without its checksum: for inspection, where the salt is not at hand.
    pub fn read_unchecked(bytes: &[u8]) -> Result<Self, NoHeader> {
        let bytes = bytes.get(..HEADER_SIZE).ok_or(NoHeader::Magic)?;
        if bytes[..8] != MAGIC {
            let zero = bytes.iter().all(|byte| *byte == 0);
            return Err(if zero { NoHeader::Zero } else { NoHeader::Magic });
        }
        if u16_at(bytes, 8) != VERSION {
            return Err(NoHeader::Version);
        }
        Ok(Self {
            flags: u16_at(bytes, 10),
            frames: u32_at(bytes, 12),
            wal: WalId(u64_at(bytes, 16)),
            epoch: WalEpoch(u64_at(bytes, 24)),
            first: Lsn(u64_at(bytes, 32)),
            end: Lsn(u64_at(bytes, 40)),
            acked: Lsn(u64_at(bytes, 48)),
            bytes: u32_at(bytes, 56),
            payload_at: u32_at(bytes, 60),
            payload_bytes: u32_at(bytes, 64),
            table_crc: u32_at(bytes, 68),
            link: u32_at(bytes, 72),
        })
    }

    /// True when lengths and positions fit each other, so that they can be used to slice.
    pub fn is_sound(&self) -> bool {
        let bytes = u64::from(self.bytes);
        let table_end = HEADER_SIZE as u64 + u64::from(self.frames) * FRAME_SIZE as u64;
        let payload_end = u64::from(self.payload_at) + u64::from(self.payload_bytes);
        let span = self.end.0.checked_sub(self.first.0);
        let roll = self.flags & FLAG_ROLL != 0;
        bytes >= BLOCK
            && bytes.is_multiple_of(BLOCK)
            && bytes <= GROUP_BYTES_LIMIT
            && usize::try_from(self.frames).is_ok_and(|frames| frames <= FRAMES_MAX)
            && table_end <= u64::from(self.payload_at)
            && payload_end <= bytes
            && self.first.0.is_multiple_of(BLOCK)
            && self.end.0.is_multiple_of(BLOCK)
            && span.is_some_and(|span| if roll { span >= bytes } else { span == bytes })
            && self.acked <= self.first
    }

    /// The frame table's bytes in a whole group.
    pub fn table<'a>(&self, group: &'a [u8]) -> &'a [u8] {
        let len = usize::try_from(self.frames).expect("checked against FRAMES_MAX") * FRAME_SIZE;
        &group[HEADER_SIZE..HEADER_SIZE + len]
    }
}

/// Writes one entry of the frame table.
pub(crate) fn write_frame(frame: &FrameMeta, out: &mut [u8]) {
    let out = &mut out[..FRAME_SIZE];
    out.fill(0);
    let header = &frame.header;
    out[..16].copy_from_slice(&header.stream.to_bytes());
    out[16] = header.kind;
    out[17] = header.flags;
    out[20..24].copy_from_slice(&header.epoch.0.to_le_bytes());
    out[24..32].copy_from_slice(&header.base_offset.to_le_bytes());
    out[32..40].copy_from_slice(&header.span.to_le_bytes());
    out[40..48].copy_from_slice(&header.count.to_le_bytes());
    out[48..56].copy_from_slice(&header.max_timestamp.to_le_bytes());
    out[56..60].copy_from_slice(&header.key_id.to_le_bytes());
    out[60..64].copy_from_slice(&(frame.range.end - frame.range.start).to_le_bytes());
    out[64..68].copy_from_slice(&frame.crc.to_le_bytes());
}

/// Reads the frame table of a sound header; `None` when an entry makes no sense or lengths do not add up.
pub(crate) fn read_frames(header: &Header, table: &[u8]) -> Option<Vec<FrameMeta>> {
    let mut at = header.payload_at;
    let end = header.payload_at + header.payload_bytes;
    let mut frames = Vec::with_capacity(table.len() / FRAME_SIZE);
    for entry in table.chunks_exact(FRAME_SIZE) {
        let length = u32_at(entry, 60);
        let next = at.checked_add(length).filter(|next| *next <= end)?;
        let stream = StreamId::from_bytes(entry.first_chunk()?)?;
        let header = FrameHeader {
            kind: entry[16],
            flags: entry[17],
            stream,
            epoch: StreamEpoch(i32::from_le_bytes(*entry[20..].first_chunk()?)),
            base_offset: i64::from_le_bytes(*entry[24..].first_chunk()?),
            span: u64_at(entry, 32),
            count: u64_at(entry, 40),
            max_timestamp: i64::from_le_bytes(*entry[48..].first_chunk()?),
            key_id: u32_at(entry, 56),
        };
        frames.push(FrameMeta { header, range: at..next, crc: u32_at(entry, 64) });
        at = next;
    }
    (at == end).then_some(frames)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has checked the length"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has checked the length"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has checked the length"))
}
