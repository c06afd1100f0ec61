//! A group while it is open: frames are copied in, then it is closed, then sealed with header and table.
//!
//! ```text
//! staging chunk    | room for header and table (FRONT) | payloads back to back ...      |
//! large group      |           [header, table, gap     | payloads, zero padding]        |   sealed where it is
//! small group      [header, table, payloads, zero padding]     copied behind the one before, so it takes no chunk alone
//! ```

use bytes::Bytes;
use common::{Lsn, WalEpoch, crc32c};

use crate::disk::AlignedBuf;
use crate::format::{
    BLOCK, BLOCK_SIZE, FLAG_ROLL, FRAME_SIZE, HEADER_SIZE, Header, Stamp, write_frame,
};
use crate::group::{Frame, FrameMeta, Group};
use crate::pool::Pool;

/// Bytes before the payloads in a staging chunk: a table of 112 frames. A large group with more is copied.
const FRONT: usize = 2 * BLOCK_SIZE;
/// Payload bytes up to which a group is copied into a buffer of its own size: half of a usual group. The copy costs less than
/// a tail cache that is half empty, which the uploader would have to read back from the disk.
const SMALL_MAX: usize = 512 << 10;

/// Size of a chunk, which is the staging buffer for groups of `group_max` bytes.
pub(crate) fn staging_bytes(group_max: u64) -> usize {
    FRONT + usize::try_from(group_max).expect("a group fits memory") + BLOCK_SIZE
}

/// Bytes that a group of `frames` frames and `payload` bytes takes on the disk.
pub(crate) fn group_bytes(frames: usize, payload: u64) -> u64 {
    let table = (HEADER_SIZE + frames * FRAME_SIZE) as u64;
    if payload <= SMALL_MAX as u64 {
        (table + payload).next_multiple_of(BLOCK)
    } else {
        table.next_multiple_of(BLOCK) + payload.next_multiple_of(BLOCK)
    }
}

pub(crate) struct Builder {
    pub first: u64,
    limit: u64,
    buffer: AlignedBuf,
    front: usize,
    payload: usize,
    frames: Vec<FrameMeta>,
    pooled: bool,
}

impl Builder {
    /// A group at `first` that may take `limit` bytes of the segment.
    pub fn open(first: u64, limit: u64, pool: &Pool) -> Self {
        let buffer = pool.chunk();
        Self { first, limit, buffer, front: FRONT, payload: 0, frames: Vec::new(), pooled: true }
    }

    /// A group for one frame that is larger than the usual group.
    pub fn oversized(first: u64, payload: u64) -> Self {
        let bytes = group_bytes(1, payload);
        let front = BLOCK_SIZE;
        let payload = usize::try_from(payload).expect("checked against the limit");
        // A small payload may still be oversized under a tiny `group_bytes_max`; it is copied out when sealed.
        let buffer = AlignedBuf::zeroed((front + payload).next_multiple_of(BLOCK_SIZE));
        let frames = Vec::new();
        Self { first, limit: bytes, buffer, front, payload: 0, frames, pooled: false }
    }

    pub fn frames(&self) -> usize {
        self.frames.len()
    }

    pub fn payload_bytes(&self) -> u64 {
        self.payload as u64
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        group_bytes(self.frames.len(), self.payload as u64)
    }

    /// Copies a frame in. The caller has checked that it fits.
    pub fn push(&mut self, frame: &Frame<'_>) {
        let start = self.payload;
        let mut at = self.front + start;
        for part in frame.parts {
            self.buffer[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.payload = at - self.front;
        // The copy is in the processor's cache now.
        let crc = crc32c(&self.buffer[self.front + start..at]);
        let range = narrow(start)..narrow(self.payload);
        self.frames.push(FrameMeta { header: frame.header, range, crc });
    }
}

/// A group whose place and content are fixed, waiting for the in-flight window.
pub(crate) struct Closed {
    pub first: u64,
    pub end: u64,
    pub bytes: u64,
    body: Option<Builder>,
    flags: u16,
}

impl Closed {
    pub fn of(builder: Builder) -> Self {
        let (first, bytes) = (builder.first, builder.bytes());
        Self { first, end: first + bytes, bytes, body: Some(builder), flags: 0 }
    }

    /// A group without frames, which publishes the durable position.
    pub fn empty(first: u64) -> Self {
        Self { first, end: first + BLOCK, bytes: BLOCK, body: None, flags: 0 }
    }

    /// A group without frames that skips what is left of a segment.
    pub fn roll(first: u64, end: u64) -> Self {
        Self { first, end, bytes: BLOCK, body: None, flags: FLAG_ROLL }
    }

    pub fn is_roll(&self) -> bool {
        self.flags & FLAG_ROLL != 0
    }

    /// Writes header and table. Returns the group and the checksum of its header.
    pub fn seal(
        self,
        stamp: Stamp,
        epoch: WalEpoch,
        acked: Lsn,
        link: u32,
        pool: &Pool,
    ) -> (Group, u32) {
        let (first, end) = (Lsn(self.first), Lsn(self.end));
        let (frames, payload) = match &self.body {
            Some(body) => (body.frames.len(), body.payload),
            None => (0, 0),
        };
        let size = usize::try_from(self.bytes).expect("checked against the limit");
        let table_end = HEADER_SIZE + frames * FRAME_SIZE;
        let small = payload <= SMALL_MAX;
        let payload_at = if small { table_end } else { table_end.next_multiple_of(BLOCK_SIZE) };
        let mut header = Header {
            flags: self.flags,
            frames: narrow(frames),
            wal: stamp.wal,
            epoch,
            first,
            end,
            acked,
            bytes: narrow(size),
            payload_at: narrow(payload_at),
            payload_bytes: narrow(payload),
            table_crc: 0,
            link,
        };
        let Some(mut body) = self.body else {
            let (mut buffer, counted) = room(pool, size);
            let crc = finish(&mut header, stamp, &mut [], &mut buffer);
            let bytes = Some(Bytes::from_owner(buffer));
            let frames = Vec::new();
            return (Group { epoch, first, end, acked, frames, bytes, held: size, counted }, crc);
        };
        let mut frames = std::mem::take(&mut body.frames);
        let in_place = !small && payload_at <= body.front;
        let (bytes, held, counted, crc) = if in_place {
            let start = body.front - payload_at;
            let mut buffer = body.buffer;
            drop(buffer.split_to(start));
            let mut group = buffer.split_to(size);
            let crc = finish(&mut header, stamp, &mut frames, &mut group);
            if body.pooled {
                pool.offer(buffer);
            }
            (Bytes::from_owner(group), start + size, body.pooled, crc)
        } else {
            let (mut buffer, counted) = room(pool, size);
            let source = &body.buffer[body.front..body.front + payload];
            buffer[payload_at..payload_at + payload].copy_from_slice(source);
            let crc = finish(&mut header, stamp, &mut frames, &mut buffer);
            (Bytes::from_owner(buffer), size, counted, crc)
        };
        (Group { epoch, first, end, acked, frames, bytes: Some(bytes), held, counted }, crc)
    }
}

/// Memory for a group that is copied, and whether the pool counts it.
fn room(pool: &Pool, size: usize) -> (AlignedBuf, bool) {
    match pool.piece(size) {
        Some(piece) => (piece, true),
        None => (AlignedBuf::zeroed(size), false),
    }
}

/// Fills in table, header and padding; payloads are in place. Frame ranges become relative to the group.
fn finish(header: &mut Header, stamp: Stamp, frames: &mut [FrameMeta], out: &mut [u8]) -> u32 {
    for (frame, entry) in frames.iter_mut().zip(out[HEADER_SIZE..].chunks_exact_mut(FRAME_SIZE)) {
        frame.range = frame.range.start + header.payload_at..frame.range.end + header.payload_at;
        write_frame(frame, entry);
    }
    let table_end = HEADER_SIZE + frames.len() * FRAME_SIZE;
    let at = |position: u32| usize::try_from(position).expect("32 bits fit a usize");
    out[table_end..at(header.payload_at)].fill(0);
    out[at(header.payload_at + header.payload_bytes)..].fill(0);
    header.table_crc = stamp.crc(&out[HEADER_SIZE..table_end]);
    header.write(stamp, out)
}

fn narrow(value: usize) -> u32 {
    u32::try_from(value).expect("a group is far below 4 GiB")
}
