//! Read-ahead: how far beyond what was asked a read from objects goes.

use std::collections::BTreeMap;
use std::time::Duration;

use common::StreamId;
use parking_lot::Mutex;

use crate::types::Class;

/// Streams and classes whose reading is watched; at the bound those that rest are forgotten, then all.
const WATCHED_MAX: usize = 1024;
/// Readers of one stream and class that are told apart; at the bound the longest unused is forgotten.
const CURSORS_MAX: usize = 4;
/// First read-ahead, when a read goes on where one ended.
const AHEAD_BYTES_MIN: u64 = 256 << 10;
/// A reader that rests for so long shares no memory.
const RESTS: Duration = Duration::from_secs(10);

/// Where one reader's last read ended, and how far ahead it went.
#[derive(Clone, Copy)]
struct Cursor {
    next: i64,
    window: u64,
    at: Duration,
}

/// Where each reader of a (class, stream) stands. Readers are known by the offset they go on at.
#[derive(Default)]
pub(crate) struct ReadAhead(Mutex<BTreeMap<(Class, StreamId), Vec<Cursor>>>);

impl ReadAhead {
    /// Bytes to read beyond what was asked at `from`: doubles with each read that goes on where one ended, none for a
    /// read that jumps. At most `bytes_max`, and this reader's part of `share`, the memory of its class.
    pub fn window(
        &self,
        stream: StreamId,
        class: Class,
        from: i64,
        now: Duration,
        bytes_max: u64,
        share: u64,
    ) -> u64 {
        let watched = self.0.lock();
        let Some(cursors) = watched.get(&(class, stream)) else { return 0 };
        let Some(cursor) = cursors.iter().find(|cursor| cursor.next == from) else { return 0 };
        let active = |cursor: &&Cursor| now.saturating_sub(cursor.at) < RESTS && cursor.window > 0;
        let mine = watched.iter().filter(|((other, _), _)| *other == class);
        let readers = mine.flat_map(|(_, cursors)| cursors).filter(active).count().max(1) as u64;
        let most = bytes_max.min(share / readers);
        cursor.window.saturating_mul(2).max(AHEAD_BYTES_MIN).min(most)
    }

    /// A read that began at `from` ended at `next`, with this `window`.
    pub fn note(
        &self,
        stream: StreamId,
        class: Class,
        from: i64,
        next: i64,
        now: Duration,
        window: u64,
    ) {
        let mut watched = self.0.lock();
        if watched.len() >= WATCHED_MAX && !watched.contains_key(&(class, stream)) {
            let rests = |cursor: &Cursor| now.saturating_sub(cursor.at) >= RESTS;
            watched.retain(|_, cursors| !cursors.iter().all(rests));
            if watched.len() >= WATCHED_MAX {
                watched.clear();
            }
        }
        let cursors = watched.entry((class, stream)).or_default();
        let cursor = Cursor { next, window, at: now };
        if let Some(same) = cursors.iter_mut().find(|cursor| cursor.next == from) {
            *same = cursor;
        } else {
            if cursors.len() >= CURSORS_MAX {
                let oldest = cursors.iter().enumerate().min_by_key(|(_, cursor)| cursor.at);
                let oldest = oldest.map_or(0, |(index, _)| index);
                cursors.swap_remove(oldest);
            }
            cursors.push(cursor);
        }
    }
}

#[cfg(test)]
mod tests {
    use common::{PartitionId, StreamKind};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn stream(index: u32) -> StreamId {
        PartitionId { topic: 1, index }.stream(StreamKind::Data)
    }

    fn read(ahead: &ReadAhead, stream: StreamId, from: i64, next: i64) -> u64 {
        let now = Duration::ZERO;
        let window = ahead.window(stream, Class::CatchUp, from, now, 4 * MIB, 5 * MIB);
        ahead.note(stream, Class::CatchUp, from, next, now, window);
        window
    }

    #[test]
    fn the_window_grows_in_sequence_and_a_jump_ends_it() {
        let ahead = ReadAhead::default();
        let windows: Vec<_> = (0..7).map(|n| read(&ahead, stream(0), n, n + 1) >> 10).collect();
        assert_eq!(windows, [0, 256, 512, 1024, 2048, 4096, 4096]);
        assert_eq!(read(&ahead, stream(0), 100, 101), 0);
        assert_eq!(read(&ahead, stream(0), 101, 102), AHEAD_BYTES_MIN);
        assert_eq!(read(&ahead, stream(0), 7, 8) >> 10, 2560, "the first reader shares now");
    }

    #[test]
    fn many_readers_share_the_memory_of_their_class() {
        let ahead = ReadAhead::default();
        let mut sum = 0;
        for round in 0..20 {
            sum = (0..50).map(|index| read(&ahead, stream(index), round, round + 1)).sum();
        }
        assert!(sum <= 5 * MIB, "{sum}");
        assert!(sum > 2 * MIB, "{sum}");
    }
}
