//! Records of the `state` stream: typed snapshots, the last of each kind wins. Bytes in `docs/formats/state.md`.

use bytes::{Buf, BufMut, Bytes};
use common::crc32c;

/// Size of the head of a frame, in bytes.
pub const HEAD_BYTES: usize = 44;
/// Payload bytes of one frame; a larger snapshot is written in several.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateKind(pub u16);

impl StateKind {
    /// Producers of the partition.
    pub const PRODUCERS: StateKind = StateKind(1);
    /// Leader epoch starts.
    pub const EPOCHS: StateKind = StateKind(2);
    /// Image of the groups of a coordinator partition. The payload is the coordinator's.
    pub const GROUPS: StateKind = StateKind(3);

    /// The kinds that every partition writes.
    pub(crate) const OF_PARTITIONS: [StateKind; 2] = [StateKind::PRODUCERS, StateKind::EPOCHS];
}

/// Where a snapshot lies in the state stream, half-open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub first: i64,
    pub end: i64,
    pub valid_for: i64,
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What it holds.
    pub kind: StateKind,
    /// Version of the payload.
    pub version: u16,
    /// Offset up to which it tells the state: of the data stream, or of the index stream for leader epochs.
    pub valid_for: i64,
    /// The payload.
    pub payload: Bytes,
}

/// A frame cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a state record cannot be read: {0}")]
pub struct Damaged(pub &'static str);

/// One frame of a snapshot.
///
/// ```text
/// 0      2         4       8        12          20      28        36          40           44
/// +------+---------+-------+--------+-----------+-------+---------+-----------+------------+---------
/// | kind | version | chunk | chunks | valid_for | first | length  | crc whole | crc header | payload
/// +------+---------+-------+--------+-----------+-------+---------+-----------+------------+---------
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    kind: StateKind,
    version: u16,
    chunk: u32,
    chunks: u32,
    valid_for: i64,
    first: i64,
    length: u64,
    crc_whole: u32,
    payload: Bytes,
}

impl Snapshot {
    /// The frames of this snapshot; the first is written at offset `first` of the state stream, each of the others at
    /// the next offset.
    #[must_use]
    pub fn frames(&self, first: i64) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(CHUNK_BYTES_MAX).max(1);
        let chunks = u32::try_from(count).expect("a snapshot of less than 2^52 bytes");
        let crc_whole = crc32c(&self.payload);
        (0..chunks)
            .map(|chunk| {
                let at = chunk as usize * CHUNK_BYTES_MAX;
                let end = self.payload.len().min(at + CHUNK_BYTES_MAX);
                let frame = Frame {
                    kind: self.kind,
                    version: self.version,
                    chunk,
                    chunks,
                    valid_for: self.valid_for,
                    first,
                    length: self.payload.len() as u64,
                    crc_whole,
                    payload: self.payload.slice(at..end),
                };
                frame.encode()
            })
            .collect()
    }
}

impl Frame {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.payload.len());
        out.put_u16_le(self.kind.0);
        out.put_u16_le(self.version);
        out.put_u32_le(self.chunk);
        out.put_u32_le(self.chunks);
        out.put_i64_le(self.valid_for);
        out.put_i64_le(self.first);
        out.put_u64_le(self.length);
        out.put_u32_le(self.crc_whole);
        let crc = crc32c(&out);
        out.put_u32_le(crc);
        out.extend_from_slice(&self.payload);
        out
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// [`Damaged`] when the head does not fit its checksum or the frame.
    pub fn decode(bytes: &Bytes) -> Result<Frame, Damaged> {
        if bytes.len() < HEAD_BYTES {
            return Err(Damaged("shorter than its head"));
        }
        let (head, payload) = (bytes.slice(..HEAD_BYTES), bytes.slice(HEAD_BYTES..));
        let mut rest = head.clone();
        let frame = Frame {
            kind: StateKind(rest.get_u16_le()),
            version: rest.get_u16_le(),
            chunk: rest.get_u32_le(),
            chunks: rest.get_u32_le(),
            valid_for: rest.get_i64_le(),
            first: rest.get_i64_le(),
            length: rest.get_u64_le(),
            crc_whole: rest.get_u32_le(),
            payload,
        };
        if rest.get_u32_le() != crc32c(&head[..HEAD_BYTES - 4]) {
            return Err(Damaged("its head does not match its checksum"));
        }
        if frame.chunk >= frame.chunks || frame.payload.len() > CHUNK_BYTES_MAX {
            return Err(Damaged("its chunk numbers disagree"));
        }
        Ok(frame)
    }
}

/// Finds the newest whole snapshot while frames are pushed from the newest to the oldest.
///
/// A snapshot whose last chunks never became durable, or whose `valid_for` lies above what is durable, is passed over.
#[derive(Debug)]
pub struct Finder {
    kind: StateKind,
    valid_for_max: i64,
    chunks: Vec<Frame>,
}

impl Finder {
    /// Looks for `kind` with `valid_for` at most `valid_for_max`.
    #[must_use]
    pub fn new(kind: StateKind, valid_for_max: i64) -> Self {
        Self { kind, valid_for_max, chunks: Vec::new() }
    }

    /// Takes the next older frame, found at `offset`. Returns the snapshot once its first chunk was seen.
    ///
    /// # Errors
    /// [`Damaged`] when the chunks do not give the whole they promise.
    pub fn push(&mut self, offset: i64, frame: Frame) -> Result<Option<Snapshot>, Damaged> {
        if frame.kind != self.kind || frame.valid_for > self.valid_for_max {
            return Ok(None);
        }
        if offset.checked_sub(frame.first) != Some(i64::from(frame.chunk)) {
            return Err(Damaged("a chunk stands at another offset than it says"));
        }
        let follows = self.chunks.last().map_or(frame.chunk + 1 == frame.chunks, |newer| {
            newer.first == frame.first && newer.chunk == frame.chunk + 1
        });
        if !follows {
            self.chunks.clear();
            if frame.chunk + 1 != frame.chunks {
                return Ok(None);
            }
        }
        let done = frame.chunk == 0;
        self.chunks.push(frame);
        if done { self.whole().map(Some) } else { Ok(None) }
    }

    fn whole(&mut self) -> Result<Snapshot, Damaged> {
        let chunks = std::mem::take(&mut self.chunks);
        let head = chunks.last().expect("called with the first chunk in place").clone();
        let payload = match chunks.as_slice() {
            [one] => one.payload.clone(),
            many => {
                let parts: Vec<&[u8]> = many.iter().rev().map(|c| c.payload.as_ref()).collect();
                Bytes::from(parts.concat())
            }
        };
        if payload.len() as u64 != head.length || crc32c(&payload) != head.crc_whole {
            return Err(Damaged("a snapshot does not match its checksum"));
        }
        let Frame { kind, version, valid_for, .. } = head;
        Ok(Snapshot { kind, version, valid_for, payload })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn snapshot(valid_for: i64, bytes: usize) -> Snapshot {
        let payload: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        Snapshot { kind: StateKind::PRODUCERS, version: 1, valid_for, payload: payload.into() }
    }

    fn find(frames: &[Vec<u8>], first: i64, valid_for_max: i64) -> Option<Snapshot> {
        let mut finder = Finder::new(StateKind::PRODUCERS, valid_for_max);
        let numbered: Vec<_> = (first..).zip(frames).collect();
        for (offset, bytes) in numbered.into_iter().rev() {
            let frame = Frame::decode(&Bytes::from(bytes.clone())).expect("written by us");
            let found = finder.push(offset, frame).expect("intact");
            if found.is_some() {
                return found;
            }
        }
        None
    }

    proptest! {
        #[test]
        fn snapshots_survive_their_frames(bytes in 0usize..(CHUNK_BYTES_MAX * 5 / 2), first in 0i64..1000) {
            let whole = snapshot(77, bytes);
            let frames = whole.frames(first);
            prop_assert_eq!(frames.len(), bytes.div_ceil(CHUNK_BYTES_MAX).max(1));
            prop_assert_eq!(find(&frames, first, 77), Some(whole));
        }
    }

    #[test]
    fn an_incomplete_or_too_new_one_gives_way_to_the_older() {
        let old = snapshot(10, 100);
        let new = snapshot(20, CHUNK_BYTES_MAX + 5);
        let mut frames = old.frames(0);
        frames.extend(new.frames(1));
        assert_eq!(find(&frames, 0, 100), Some(new));
        assert_eq!(find(&frames, 0, 15), Some(old.clone()));
        frames.pop();
        assert_eq!(find(&frames, 0, 100), Some(old));
        assert_eq!(find(&[], 0, 100), None);
    }

    #[test]
    fn damage_is_named() {
        let good = snapshot(10, 100).frames(3).remove(0);
        for at in 0..HEAD_BYTES {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(Frame::decode(&Bytes::from(bad)).is_err(), "byte {at}");
        }
        assert!(Frame::decode(&Bytes::from(good[..20].to_vec())).is_err());
        let mut bad = good.clone();
        bad[HEAD_BYTES] ^= 1;
        let frame = Frame::decode(&Bytes::from(bad)).expect("the head is intact");
        let mut finder = Finder::new(StateKind::PRODUCERS, 100);
        assert!(finder.push(3, frame.clone()).is_err());
        assert!(finder.push(4, frame).is_err());
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let payload = Bytes::from_static(b"abc");
        let one = Snapshot { kind: StateKind::EPOCHS, version: 1, valid_for: 5, payload };
        let frame = one.frames(7).remove(0);
        let mut expected = vec![2, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        expected.extend([5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(0x364b_3fb7_u32.to_le_bytes());
        expected.extend(crc32c(&expected).to_le_bytes());
        expected.extend(b"abc");
        assert_eq!(frame, expected);
    }
}
