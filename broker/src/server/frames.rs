//! Request frames off a socket: length first, then as many bytes as really come.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use common::Reservation;
use tokio::net::tcp::ReadHalf;
use tokio::time::Instant;

use crate::budgets::{Budgets, SMALL_BYTES};
use crate::metrics::Metrics;

/// A frame that holds room brings its next bytes within this time,
const STALL_MAX: Duration = Duration::from_secs(10);
/// and so many bytes a second over all.
const RATE_MIN: u64 = 64 << 10;
/// How often a reader looks for room among the bytes in flight.
const ROOM_RETRY: Duration = Duration::from_millis(1);

/// What is read ahead of a length: four frames like the last one, within these bounds.
const AHEAD_BYTES: std::ops::RangeInclusive<usize> = 4 << 10..=SMALL_BYTES;

/// One frame without its length.
pub(crate) struct Frame {
    pub bytes: Bytes,
    /// Room among the bytes in flight; given back when the request no longer needs its buffer.
    pub room: Room,
}

/// Room held by one frame, in the bound for requests and in the memory budget.
pub(crate) struct Room {
    _requests: Reservation,
    _memory: Reservation,
}

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The declared length is out of bounds: nothing behind it can be trusted.
    #[error("frame of {length} bytes; socket.request.max.bytes is {bytes_max}")]
    Length { length: i32, bytes_max: u32 },
    /// The peer left in the middle of a frame.
    #[error("connection ended inside a frame")]
    Truncated,
    /// The peer holds room and sends too slowly: others wait for it.
    #[error("no progress inside a frame of {length} bytes")]
    Stalled { length: usize },
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Bounds on what a reader takes.
#[derive(Clone)]
pub(crate) struct Limits {
    pub frame_bytes_max: u32,
    pub budgets: Budgets,
}

impl Drop for Frames {
    fn drop(&mut self) {
        if let Some(large) = self.large.take() {
            self.limits.budgets.buffers.give(large);
        }
    }
}

/// Reads frames. [`Frames::next`] is cancel safe: what was read stays here.
pub(crate) struct Frames {
    /// Small frames, and the beginning of a large one.
    buffer: BytesMut,
    /// A large frame, once there is room for all of it.
    large: Option<Vec<u8>>,
    ahead: usize,
    /// Counts `buffer`.
    counted: Reservation,
    length: Option<usize>,
    room: Option<Room>,
    /// When the next bytes, and when the whole frame, must be here. Set while room is held.
    due: Option<(Instant, Instant)>,
    limits: Limits,
    metrics: Metrics,
}

impl Frames {
    pub(crate) fn new(limits: Limits, metrics: Metrics) -> Self {
        Self {
            buffer: BytesMut::new(),
            large: None,
            ahead: *AHEAD_BYTES.start(),
            counted: limits.budgets.memory.force(0),
            length: None,
            room: None,
            due: None,
            limits,
            metrics,
        }
    }

    /// True while part of a frame has been read.
    pub(crate) fn midway(&self) -> bool {
        self.length.is_some() || !self.buffer.is_empty()
    }

    /// True when the next frame is here, whole: [`Self::next`] yields it without a wait for the socket.
    pub(crate) fn has_next(&self) -> bool {
        let length = match (self.length, self.buffer.first_chunk::<4>()) {
            (Some(length), _) => length,
            (None, Some(length)) => {
                // A length that is out of bounds ends the connection; that is no wait either.
                4 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0)
            }
            (None, None) => return false,
        };
        self.large.is_none() && length <= SMALL_BYTES && self.buffer.len() >= length
    }

    /// The next frame; `None` when the peer has closed between frames.
    pub(crate) async fn next(
        &mut self,
        socket: &ReadHalf<'_>,
    ) -> Result<Option<Frame>, FrameError> {
        loop {
            if self.length.is_none() && self.buffer.len() >= 4 {
                self.length = Some(self.take_length()?);
            }
            if let Some(length) = self.length {
                let evidence = self.large.as_ref().map_or(self.buffer.len(), Vec::len);
                if self.room.is_none() && evidence >= length.min(SMALL_BYTES) {
                    self.room = Some(self.take_room(length).await);
                    let bytes = u64::try_from(length).expect("an address fits 64 bits");
                    let whole = STALL_MAX + Duration::from_secs(bytes / RATE_MIN);
                    self.due = Some((Instant::now() + STALL_MAX, Instant::now() + whole));
                    self.enlarge(length);
                }
                if evidence >= length {
                    return Ok(Some(self.take_frame(length)));
                }
            }
            self.readable(socket).await?;
            match self.read(socket) {
                Ok(0) if self.midway() => return Err(FrameError::Truncated),
                Ok(0) => return Ok(None),
                Ok(read) => {
                    self.metrics.received(u64::try_from(read).unwrap_or(0));
                    if let Some((next, _)) = &mut self.due {
                        *next = Instant::now() + STALL_MAX;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn readable(&self, socket: &ReadHalf<'_>) -> Result<(), FrameError> {
        let (Some((next, whole)), Some(length)) = (self.due, self.length) else {
            return Ok(socket.readable().await?);
        };
        match tokio::time::timeout_at(next.min(whole), socket.readable()).await {
            Ok(readable) => Ok(readable?),
            Err(_) => Err(FrameError::Stalled { length }),
        }
    }

    fn take_length(&mut self) -> Result<usize, FrameError> {
        let length = self.buffer.get_i32();
        let bytes_max = self.limits.frame_bytes_max;
        match u32::try_from(length) {
            Ok(bytes) if bytes <= bytes_max => {
                Ok(usize::try_from(bytes).expect("32 bits fit an address"))
            }
            _ => Err(FrameError::Length { length, bytes_max }),
        }
    }

    fn take_frame(&mut self, length: usize) -> Frame {
        let bytes = match self.large.take() {
            Some(large) => self.limits.budgets.buffers.share(large),
            None => self.buffer.split_to(length).freeze(),
        };
        self.ahead = length.saturating_mul(4).clamp(*AHEAD_BYTES.start(), *AHEAD_BYTES.end());
        (self.length, self.due) = (None, None);
        if self.buffer.is_empty() {
            // An idle connection holds no buffer.
            self.buffer = BytesMut::new();
            self.counted.resize(0);
        }
        let room = self.room.take().expect("taken before the frame was whole");
        Frame { bytes, room }
    }

    /// Goes on in a buffer for the whole frame, for which there is room now.
    fn enlarge(&mut self, length: usize) {
        if self.buffer.len() >= length {
            return;
        }
        let mut large = self.limits.budgets.buffers.take(length);
        large.extend_from_slice(&self.buffer);
        self.buffer = BytesMut::new();
        self.counted.resize(0);
        self.large = Some(large);
    }

    fn read(&mut self, socket: &ReadHalf<'_>) -> io::Result<usize> {
        if let (Some(large), Some(length)) = (&mut self.large, self.length) {
            let missing = length - large.len();
            return socket.try_read_buf(&mut large.limit(missing));
        }
        let more = match self.length {
            Some(length) => (length - self.buffer.len().min(length)).min(SMALL_BYTES),
            None => self.ahead,
        };
        self.buffer.reserve(more);
        let capacity = self.buffer.capacity() as u64;
        if capacity != self.counted.bytes() {
            self.counted.resize(capacity);
        }
        socket.try_read_buf(&mut self.buffer)
    }

    /// Waits for room for a whole frame at once, so that no two half-read frames wait for each other.
    async fn take_room(&self, length: usize) -> Room {
        let bytes = u64::try_from(length).expect("an address fits 64 bits");
        let budget = self.limits.budgets.for_request(length);
        let asked = bytes.min(budget.bytes_max());
        let mut waited = false;
        loop {
            if let Ok(requests) = budget.reserve(asked) {
                // Counted past the bound: the caches give way, the bound for requests is the one above.
                let memory = self.limits.budgets.memory.force(bytes);
                return Room { _requests: requests, _memory: memory };
            }
            if !waited {
                waited = true;
                self.metrics.in_flight_wait();
            }
            tokio::time::sleep(ROOM_RETRY).await;
        }
    }
}
