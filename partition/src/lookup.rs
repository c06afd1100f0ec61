//! Looking offsets up: by timestamp, by leader epoch, by Kafka's special timestamps.

use common::StreamKind;
use storage::{Class, Entry};

use crate::epochs::EpochEnd;
use crate::error::ReadError;
use crate::partition::Partition;
use crate::read::{Isolation, corrupt};
use crate::records::BatchReader;

/// ListOffsets: the high watermark, or the last stable offset for `read_committed`.
pub const LATEST: i64 = -1;
/// ListOffsets: the log start.
pub const EARLIEST: i64 = -2;
/// ListOffsets: the first record that carries the highest timestamp.
pub const MAX_TIMESTAMP: i64 = -3;
/// ListOffsets: the log start, as nothing is local.
pub const EARLIEST_LOCAL: i64 = -4;
/// ListOffsets: the last tiered offset; there is no tier to speak of.
pub const LATEST_TIERED: i64 = -5;

/// What ListOffsets answers; -1 in all for "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Timestamp of the record found, -1 for a special one.
    pub timestamp: i64,
    /// The offset.
    pub offset: i64,
    /// Leader epoch of that offset.
    pub leader_epoch: i32,
}

impl Listed {
    /// Nothing found.
    pub const NONE: Listed = Listed { timestamp: -1, offset: -1, leader_epoch: -1 };
}

/// What a client's idea of the leader epoch is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochCheck {
    /// It is the current one, or the client has none.
    Current,
    /// The client is behind: FENCED_LEADER_EPOCH.
    Fenced,
    /// The client is ahead: UNKNOWN_LEADER_EPOCH.
    Unknown,
}

/// Ranges of an index asked for at once.
const INDEX_RANGES: usize = 512;

impl Partition {
    /// Answers ListOffsets for `timestamp`, special or not.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn list_offset(
        &self,
        timestamp: i64,
        isolation: Isolation,
    ) -> Result<Listed, ReadError> {
        self.gate()?;
        let listed = match timestamp {
            LATEST => self.at(self.visible_end(isolation)),
            EARLIEST | EARLIEST_LOCAL => self.at(self.offsets().log_start),
            MAX_TIMESTAMP => self.max_timestamp(isolation).await?,
            time if time >= 0 => self.offset_for_timestamp(time, isolation).await?,
            _ => Listed::NONE,
        };
        self.gate()?;
        Ok(listed)
    }

    /// The first record at or behind the log start with a timestamp of at least `timestamp`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        isolation: Isolation,
    ) -> Result<Listed, ReadError> {
        self.cover_from_objects().await?;
        let bound = self.visible_end(isolation);
        let log_start = self.offsets().log_start;
        let mut at = self.time_index.lock().search_from(timestamp, log_start);
        while at < bound {
            let entries = self.scan(at, bound).await?;
            for entry in entries.0.iter().filter(|entry| entry.max_timestamp >= timestamp) {
                if let Some((offset, time)) = find_in(entry, timestamp, at, bound)? {
                    return Ok(Listed { timestamp: time, ..self.at(offset) });
                }
            }
            at = moved_on(at, entries.1)?;
        }
        Ok(Listed::NONE)
    }

    async fn max_timestamp(&self, isolation: Isolation) -> Result<Listed, ReadError> {
        self.cover_from_objects().await?;
        let bound = self.visible_end(isolation);
        // The gate locks the state first and the index inside: never the other way round.
        let log_start = self.offsets().log_start;
        let mut at = self.time_index.lock().covered_end().max(log_start);
        while at < bound {
            at = moved_on(at, self.scan(at, bound).await?.1)?;
        }
        let highest = self.time_index.lock().timestamp_max();
        match highest.filter(|highest| *highest >= 0) {
            Some(highest) => self.offset_for_timestamp(highest, isolation).await,
            None => Ok(Listed::NONE),
        }
    }

    /// Reads entries of `[at, bound)` and notes them in the time index.
    async fn scan(&self, at: i64, bound: i64) -> Result<(Vec<Entry>, i64), ReadError> {
        let stream = self.stream(StreamKind::Data);
        let bytes_max = self.shared.options.scan_bytes_max;
        let read = self.shared.storage.read(stream, at, bound, bytes_max, Class::CatchUp).await;
        let read = read.map_err(|error| self.read_error(error))?;
        let mut times = self.time_index.lock();
        // Only a scan that begins inside the known part may declare the holes it crosses.
        if times.covered_end() >= at {
            for entry in &read.entries {
                times.skip_to(entry.base_offset);
                let bytes = entry.bytes.len() as u64;
                times.note(entry.base_offset, entry.end_offset(), entry.max_timestamp, bytes);
            }
            times.skip_to(read.next);
        }
        Ok((read.entries, read.next))
    }

    /// Extends the time index over what lies in objects without reading any: the stream index tells the highest
    /// timestamp of each range.
    async fn cover_from_objects(&self) -> Result<(), ReadError> {
        let stream = self.stream(StreamKind::Data);
        loop {
            let Some(bounds) = self.shared.storage.bounds(stream) else { return Ok(()) };
            let at = self.time_index.lock().covered_end().max(bounds.start);
            if at >= bounds.committed_end {
                return Ok(());
            }
            let index = self.shared.meta.stream_index(stream, at, INDEX_RANGES).await;
            let index =
                index.map_err(|error| ReadError::Unavailable { reason: error.to_string() })?;
            let mut times = self.time_index.lock();
            times.skip_to(at);
            for range in &index.objects {
                // What lies between two ranges was lost and holds no record.
                times.skip_to(range.start);
                times.note(range.start, range.end, range.max_timestamp, range.bytes);
            }
            if !index.more {
                times.skip_to(index.committed_end);
            }
            let covered = times.covered_end();
            drop(times);
            moved_on(at, covered)?;
        }
    }

    fn visible_end(&self, isolation: Isolation) -> i64 {
        let offsets = self.offsets();
        match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
            Isolation::Uploaded => offsets.last_stable.min(offsets.committed_end),
        }
    }

    fn at(&self, offset: i64) -> Listed {
        let state = self.state.lock();
        let epoch = if offset >= state.current.start_offset {
            Some(state.current.epoch)
        } else {
            state.epochs.epoch_at(offset)
        };
        Listed { timestamp: -1, offset, leader_epoch: epoch.unwrap_or(-1) }
    }

    /// Answers OffsetForLeaderEpoch: the end of the largest epoch at or below `epoch`. Only what is durable counts; an
    /// epoch whose tail was lost ends behind the lost range.
    #[must_use]
    pub fn end_of_epoch(&self, epoch: i32) -> EpochEnd {
        let state = self.state.lock();
        state.epochs.end_of(epoch, state.current, state.high_watermark)
    }

    /// Compares a client's leader epoch (-1 for none) with this one.
    #[must_use]
    pub fn check_epoch(&self, client: i32) -> EpochCheck {
        match client {
            -1 => EpochCheck::Current,
            older if older < self.epoch.0 => EpochCheck::Fenced,
            newer if newer > self.epoch.0 => EpochCheck::Unknown,
            _ => EpochCheck::Current,
        }
    }
}

/// The first record of the batch in `[from, bound)` with a timestamp of at least `timestamp`: its offset and time.
fn find_in(
    entry: &Entry,
    timestamp: i64,
    from: i64,
    bound: i64,
) -> Result<Option<(i64, i64)>, ReadError> {
    let wrong = |error: &dyn std::fmt::Display| corrupt(entry.base_offset, error);
    let reader = BatchReader::open(&entry.bytes).map_err(|error| wrong(&error))?;
    for record in reader.records() {
        let record = record.map_err(|error| wrong(&error))?;
        let visible = record.offset >= from && record.offset < bound;
        if visible && record.timestamp >= timestamp {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

fn moved_on(at: i64, next: i64) -> Result<i64, ReadError> {
    if next > at {
        return Ok(next);
    }
    Err(ReadError::Unavailable { reason: format!("reading at offset {at} does not move on") })
}
