//! Which segments there are and what is to be done about them. Pure.

use std::collections::BTreeMap;

use crate::disk::SegmentFile;
use crate::options::Geometry;

/// One step of preparation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Create { number: u64, len: u64 },
    Reuse { from: u64, to: u64, len: u64 },
    Remove { number: u64 },
}

impl Job {
    pub fn number(self) -> u64 {
        match self {
            Self::Create { number, .. } | Self::Remove { number } => number,
            Self::Reuse { to, .. } => to,
        }
    }
}

/// Segments by their first LSN.
///
/// ```text
///   free (trimmed)      live                 ready
///   [seg][seg]   [seg][seg][seg ^cursor]   [seg][seg]
/// ```
#[derive(Clone, Debug)]
pub(crate) struct Segments {
    live: BTreeMap<u64, u64>,
    free: BTreeMap<u64, u64>,
}

impl Segments {
    /// Sorts files into trimmed ones and the others.
    pub fn new(files: &[SegmentFile], committed: u64) -> Self {
        let (free, live): (Vec<_>, Vec<_>) =
            files.iter().partition(|file| file.number.saturating_add(file.len) <= committed);
        let map =
            |files: Vec<&SegmentFile>| files.iter().map(|file| (file.number, file.len)).collect();
        Self { live: map(live), free: map(free) }
    }

    /// Live and ready segments, ascending: (first LSN, length).
    pub fn live(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.live.iter().map(|(number, len)| (*number, *len))
    }

    /// The segment that holds `lsn`: (number, position in it, bytes from there to its end).
    pub fn locate(&self, lsn: u64) -> Option<(u64, u64, u64)> {
        let (number, len) = self.live.range(..=lsn).next_back()?;
        let at = lsn - number;
        (at < *len).then(|| (*number, at, len - at))
    }

    /// Bytes that can be written at `cursor` without leaving its segment.
    pub fn room(&self, cursor: u64) -> u64 {
        self.locate(cursor).map_or(0, |(_, _, room)| room)
    }

    /// Where a group of `bytes` goes: the positions at which segments are left behind, and its place.
    pub fn place(&self, mut cursor: u64, bytes: u64) -> Option<u64> {
        loop {
            let room = self.room(cursor);
            if room >= bytes {
                return Some(cursor);
            }
            if room == 0 {
                return None;
            }
            cursor += room;
        }
    }

    pub fn total(&self) -> u64 {
        self.live.values().chain(self.free.values()).sum()
    }

    pub fn ready(&self, cursor: u64) -> usize {
        // A segment that begins at the cursor is the one in use next, not one ahead of it.
        self.live.range(cursor.saturating_add(1)..).count()
    }

    pub fn counts(&self) -> (usize, usize) {
        (self.live.len(), self.free.len())
    }

    /// Frees segments that lie wholly below `committed` and behind the writer.
    pub fn trim(&mut self, committed: u64, cursor: u64) {
        let below = committed.min(cursor);
        while let Some((number, len)) = self.live.first_key_value().map(|(n, l)| (*n, *l)) {
            if number + len > below {
                break;
            }
            self.live.remove(&number);
            self.free.insert(number, len);
        }
    }

    /// The next step towards `ready_max` segments ahead of the writer.
    pub fn next_job(&self, cursor: u64, geometry: Geometry, ready_max: usize) -> Option<Job> {
        let odd = self.free.iter().find(|(_, len)| **len != geometry.segment);
        if let Some((number, _)) = odd {
            return Some(Job::Remove { number: *number });
        }
        let over = self.total() > geometry.capacity;
        if let Some((number, _)) = self.free.first_key_value().filter(|_| over) {
            return Some(Job::Remove { number: *number });
        }
        let end = self.live.last_key_value().map_or(cursor, |(number, len)| number + len);
        let wanted = self.ready(cursor) < ready_max || self.locate(cursor).is_none();
        if !wanted {
            return None;
        }
        if let Some((from, len)) = self.free.first_key_value() {
            return Some(Job::Reuse { from: *from, to: end, len: *len });
        }
        let len = if end == 0 { geometry.first } else { geometry.segment };
        (self.total() + len <= geometry.capacity).then_some(Job::Create { number: end, len })
    }

    /// Takes note of a step that was done.
    pub fn apply(&mut self, job: Job) {
        match job {
            Job::Create { number, len } => {
                self.live.insert(number, len);
            }
            Job::Reuse { from, to, len } => {
                self.free.remove(&from);
                self.live.insert(to, len);
            }
            Job::Remove { number } => {
                self.free.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GEOMETRY: Geometry =
        Geometry { capacity: 40960, segment: 8192, first: 4096, group_max: 4096 };

    fn run(segments: &mut Segments, cursor: u64) -> Vec<Job> {
        let mut jobs = Vec::new();
        while let Some(job) = segments.next_job(cursor, GEOMETRY, 2) {
            segments.apply(job);
            jobs.push(job);
        }
        jobs
    }

    #[test]
    fn segments_are_made_ahead_then_reused_and_never_above_the_capacity() {
        let mut segments = Segments::new(&[], 0);
        run(&mut segments, 0);
        assert_eq!(segments.live().collect::<Vec<_>>(), [(0, 4096), (4096, 8192), (12288, 8192)]);
        run(&mut segments, 4096);
        run(&mut segments, 12288);
        run(&mut segments, 20480);
        assert_eq!(segments.total(), 4096 + 4 * 8192);
        assert_eq!(run(&mut segments, 28672), []);
        assert_eq!(segments.place(28672, 8192), Some(28672));
        assert_eq!(segments.place(32768, 8192), None);
        segments.trim(20480, 28672);
        let jobs = run(&mut segments, 28672);
        assert_eq!(jobs[0], Job::Remove { number: 0 });
        assert_eq!(jobs[1], Job::Reuse { from: 4096, to: 36864, len: 8192 });
        assert_eq!(segments.locate(36864 + 10), Some((36864, 10, 8182)));
        assert_eq!(segments.locate(5000), None);
    }

    #[test]
    fn the_writers_segment_is_never_freed() {
        let files = [SegmentFile { number: 0, len: 8192 }, SegmentFile { number: 8192, len: 8192 }];
        let mut segments = Segments::new(&files, 0);
        segments.trim(u64::MAX, 9000);
        assert_eq!(segments.live().collect::<Vec<_>>(), [(8192, 8192)]);
    }
}
