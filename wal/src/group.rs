//! Frames and sealed groups.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use common::{Lsn, StreamEpoch, StreamId, WalEpoch};

/// The facts of a frame that its payload does not carry in a form the log could read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Meaning of the payload, for the layers above.
    pub kind: u8,
    /// Flags, for the layers above.
    pub flags: u8,
    /// The stream it extends.
    pub stream: StreamId,
    /// Epoch of the stream.
    pub epoch: StreamEpoch,
    /// First offset.
    pub base_offset: i64,
    /// Offsets covered, at least `count`.
    pub span: u64,
    /// Records inside.
    pub count: u64,
    /// Highest timestamp inside, in milliseconds.
    pub max_timestamp: i64,
    /// Encryption key; 0 is none.
    pub key_id: u32,
}

/// A frame to append. The payload is `parts` back to back; they are copied once.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its facts.
    pub header: FrameHeader,
    /// Its payload.
    pub parts: &'a [&'a [u8]],
}

impl Frame<'_> {
    /// Payload bytes.
    #[must_use]
    pub fn payload_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }
}

/// A frame of a sealed group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Its facts.
    pub header: FrameHeader,
    /// Where its payload lies in the group.
    pub range: Range<u32>,
    /// CRC-32C of the payload, unsalted.
    pub crc: u32,
}

/// A sealed group: [first, end) of the log. Its buffer goes back to the pool when the last payload slice is dropped.
pub struct Group {
    pub(crate) epoch: WalEpoch,
    pub(crate) first: Lsn,
    pub(crate) end: Lsn,
    pub(crate) acked: Lsn,
    pub(crate) frames: Vec<FrameMeta>,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) held: usize,
    pub(crate) counted: bool,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group([{}, {}), {} frames)", self.first, self.end, self.frames.len())
    }
}

impl Group {
    /// The WAL epoch that wrote it.
    #[must_use]
    pub fn epoch(&self) -> WalEpoch {
        self.epoch
    }

    /// First LSN, block aligned.
    #[must_use]
    pub fn first(&self) -> Lsn {
        self.first
    }

    /// End LSN, exclusive, block aligned: where the next group begins.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// The contiguous durable position when the group was written.
    #[must_use]
    pub fn acked(&self) -> Lsn {
        self.acked
    }

    /// The frames in the order they were appended. Empty for a group that only publishes `acked` or ends a segment.
    #[must_use]
    pub fn frames(&self) -> &[FrameMeta] {
        &self.frames
    }

    /// False for a recovered group whose buffer was not kept; read it with [`crate::Wal::read_group`].
    #[must_use]
    pub fn has_payloads(&self) -> bool {
        self.bytes.is_some()
    }

    /// The payload of frame `index`: a slice of the group's buffer.
    ///
    /// # Panics
    /// When there is no such frame, or [`Self::has_payloads`] is false.
    #[must_use]
    pub fn payload(&self, index: usize) -> Bytes {
        let bytes = self.bytes.as_ref().expect("the caller has asked has_payloads");
        let range = &self.frames[index].range;
        let at = |position: u32| usize::try_from(position).expect("32 bits fit a usize");
        bytes.slice(at(range.start)..at(range.end))
    }

    /// Bytes of memory that stay in use while the group or a payload slice lives.
    #[must_use]
    pub fn bytes_held(&self) -> usize {
        self.held
    }

    /// True when those bytes are counted in the log's budget already.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.counted
    }
}
