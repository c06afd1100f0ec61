//! Append: all frames of a call, in order, or none.

use std::sync::Arc;

use common::Lsn;

use crate::builder::{Builder, Closed, group_bytes};
use crate::error::AppendError;
use crate::format::{FRAMES_MAX, GROUP_BYTES_LIMIT};
use crate::group::Frame;
use crate::options::{FRAME_BYTES_MAX, Geometry};
use crate::state::{Inner, State};

/// Where a frame is: durable when the log's durable LSN is above `group`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// First LSN of the group.
    pub group: Lsn,
    /// Index of the frame in it.
    pub frame: u32,
}

/// The open group as far as its limits go.
#[derive(Clone, Copy)]
struct Shape {
    frames: usize,
    payload: u64,
    limit: u64,
}

impl Shape {
    fn bytes(self) -> u64 {
        group_bytes(self.frames, self.payload)
    }

    fn with(self, payload: u64) -> Option<Self> {
        let next = Self { frames: self.frames + 1, payload: self.payload + payload, ..self };
        (next.frames <= FRAMES_MAX && next.bytes() <= self.limit).then_some(next)
    }
}

/// What the log does with one frame, as a function of the places left.
enum Step {
    /// Into the open group.
    Join(Shape),
    /// A new group at the position, which may take that many bytes.
    Open { at: u64, limit: u64, oversized: bool },
}

fn step(
    state: &State,
    geometry: Geometry,
    open: Option<Shape>,
    cursor: u64,
    payload: u64,
) -> Option<Step> {
    if let Some(next) = open.and_then(|open| open.with(payload)) {
        return Some(Step::Join(next));
    }
    let bytes = group_bytes(1, payload);
    let from = cursor + open.map_or(0, Shape::bytes);
    let at = state.segments.place(from, bytes)?;
    let oversized = bytes > geometry.group_max;
    let limit = if oversized { bytes } else { geometry.group_max.min(state.segments.room(at)) };
    Some(Step::Open { at, limit, oversized })
}

impl Inner {
    /// The largest payload that this log takes.
    pub fn frame_bytes_max(&self) -> u64 {
        let group = self.geometry.segment.min(GROUP_BYTES_LIMIT);
        FRAME_BYTES_MAX.min(group.saturating_sub(group_bytes(1, 0)))
    }

    pub fn append(self: &Arc<Self>, frames: &[Frame<'_>]) -> Result<Position, AppendError> {
        let max = self.frame_bytes_max();
        for frame in frames {
            let bytes = frame.payload_bytes();
            if bytes > max {
                return Err(AppendError::TooLarge { bytes, max });
            }
        }
        let mut state = self.state.lock();
        if state.failed || state.closed {
            return Err(AppendError::Closed);
        }
        if !self.has_room(&state, frames) {
            self.metrics.appends_refused.inc();
            state.refused = true;
            self.prepare(&mut state);
            return Err(AppendError::Full);
        }
        let mut position = Position { group: Lsn(state.cursor), frame: 0 };
        for frame in frames {
            position = self.place(&mut state, frame);
        }
        if !state.queue.is_empty() {
            self.pump(&mut state);
        }
        Ok(position)
    }

    fn has_room(&self, state: &State, frames: &[Frame<'_>]) -> bool {
        if state.queued_bytes >= self.options.queue_bytes_max {
            return false;
        }
        let mut open = state.open.as_ref().map(shape);
        let mut cursor = state.cursor;
        for frame in frames {
            match step(state, self.geometry, open, cursor, frame.payload_bytes()) {
                None => return false,
                Some(Step::Join(next)) => open = Some(next),
                Some(Step::Open { at, limit, oversized }) => {
                    let first = Shape { frames: 1, payload: frame.payload_bytes(), limit };
                    cursor = if oversized { at + first.bytes() } else { at };
                    open = (!oversized).then_some(first);
                }
            }
        }
        true
    }

    fn place(&self, state: &mut State, frame: &Frame<'_>) -> Position {
        let payload = frame.payload_bytes();
        let open = state.open.as_ref().map(shape);
        let step = step(state, self.geometry, open, state.cursor, payload);
        match step.expect("has_room has walked the same steps") {
            Step::Join(_) => {
                let open = state.open.as_mut().expect("only an open group is joined");
                open.push(frame);
                position(open)
            }
            Step::Open { at, limit, oversized } => {
                state.close_open();
                while state.cursor < at {
                    let room = state.segments.room(state.cursor);
                    let end = state.cursor + room;
                    state.enqueue(Closed::roll(state.cursor, end));
                }
                let mut builder = if oversized {
                    Builder::oversized(at, payload)
                } else {
                    Builder::open(at, limit, &self.pool)
                };
                builder.push(frame);
                let position = position(&builder);
                state.open = Some(builder);
                if oversized {
                    state.close_open();
                }
                position
            }
        }
    }
}

fn shape(open: &Builder) -> Shape {
    Shape { frames: open.frames(), payload: open.payload_bytes(), limit: open.limit() }
}

fn position(open: &Builder) -> Position {
    let frame = u32::try_from(open.frames() - 1).expect("FRAMES_MAX fits 32 bits");
    Position { group: Lsn(open.first), frame }
}
