//! The medium: segments as they would be found after a power cut, and what has not ended yet.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use common::Rng;
use wal::SegmentFile;

use super::Behaviour;

/// The unit that a disk writes whole.
const SECTOR: usize = 512;

/// How often each thing has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Met {
    /// Segments created.
    pub created: u64,
    /// Segments that were given another number.
    pub reused: u64,
    /// Segments removed.
    pub removed: u64,
    /// Writes that were the first of their life in a segment above the one before.
    pub rolls: u64,
    /// Crashes.
    pub crashes: u64,
    /// Crashes that left a hole below a write that survived.
    pub holes: u64,
    /// Writes that a crash dropped.
    pub dropped: u64,
    /// Writes that a crash kept although they were not answered.
    pub kept: u64,
    /// Writes that a crash tore.
    pub torn: u64,
    /// Operations refused for lack of space.
    pub no_space: u64,
    /// Writes that failed.
    pub write_errors: u64,
    /// Reads that failed by chance.
    pub read_errors: u64,
    /// Reads with a wrong bit.
    pub read_flips: u64,
    /// Operations that took long.
    pub stalls: u64,
    /// Writes that ended before an older one.
    pub overtaking: u64,
}

/// A change of the medium.
#[derive(Debug)]
pub(super) enum Operation {
    Create { number: u64, len: u64 },
    Reuse { from: u64, to: u64 },
    Remove { number: u64 },
    Write { segment: u64, at: u64, bytes: Bytes },
}

#[derive(Debug, Default)]
pub(super) struct Medium {
    pub behaviour: Behaviour,
    pub met: Met,
    /// Raised by each crash.
    pub life: u64,
    /// Writes until they fail.
    pub writes_left: Option<u64>,
    segments: BTreeMap<u64, Vec<u8>>,
    pending: BTreeMap<u64, Operation>,
    next: u64,
    failed: bool,
    /// Segment of the newest write of this life.
    newest: Option<u64>,
    /// The highest position that this life has made durable.
    highest: u64,
}

impl Medium {
    pub fn list(&self) -> Vec<SegmentFile> {
        let file = |(number, bytes): (&u64, &Vec<u8>)| SegmentFile {
            number: *number,
            len: bytes.len() as u64,
        };
        self.segments.iter().map(file).collect()
    }

    pub fn used(&self) -> u64 {
        self.segments.values().map(|bytes| bytes.len() as u64).sum()
    }

    pub fn submit(&mut self, operation: Operation) -> u64 {
        if let Operation::Write { segment, .. } = &operation {
            if self.newest.is_some_and(|newest| newest < *segment) {
                self.met.rolls += 1;
            }
            self.newest = self.newest.max(Some(*segment));
        }
        self.next += 1;
        self.pending.insert(self.next, operation);
        self.next
    }

    /// Ends an operation; `None` when a crash came first.
    pub fn complete(&mut self, id: u64, rng: &Rng) -> Option<io::Result<()>> {
        let operation = self.pending.remove(&id)?;
        if let Operation::Write { segment, at, bytes } = &operation {
            let older = self.pending.range(..id);
            let writes = |(_, other): (&u64, &Operation)| matches!(other, Operation::Write { .. });
            self.met.overtaking += u64::from(older.into_iter().any(writes));
            match &mut self.writes_left {
                Some(0) => self.failed = true,
                Some(left) => *left -= 1,
                None => {}
            }
            if self.failed {
                self.met.write_errors += 1;
                if rng.one_in(2) {
                    let _ = self.put(*segment, *at, bytes);
                }
                return Some(Err(io::Error::other("input/output error")));
            }
        }
        Some(self.apply(operation))
    }

    fn apply(&mut self, operation: Operation) -> io::Result<()> {
        match operation {
            Operation::Create { number, len } => {
                if self.used() + len > self.behaviour.capacity {
                    self.met.no_space += 1;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                if self.segments.contains_key(&number) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                self.met.created += 1;
                let len = usize::try_from(len).expect("a simulated segment fits memory");
                self.segments.insert(number, vec![0; len]);
            }
            Operation::Reuse { from, to } => {
                if self.segments.contains_key(&to) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let bytes = self.segments.remove(&from).ok_or(io::ErrorKind::NotFound)?;
                self.met.reused += 1;
                self.segments.insert(to, bytes);
            }
            Operation::Remove { number } => {
                self.segments.remove(&number).ok_or(io::ErrorKind::NotFound)?;
                self.met.removed += 1;
            }
            Operation::Write { segment, at, bytes } => {
                self.put(segment, at, &bytes)?;
                self.highest = self.highest.max(segment + at + bytes.len() as u64);
            }
        }
        Ok(())
    }

    pub fn put(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.segments.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(at).expect("a simulated segment fits memory");
        let place = file.get_mut(at..at + bytes.len());
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }

    pub fn read(&self, segment: u64, at: u64, len: usize) -> io::Result<Bytes> {
        let file = self.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(at).expect("a simulated segment fits memory");
        let part = file.get(at..at + len).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Bytes::copy_from_slice(part))
    }

    pub fn byte(&mut self, segment: u64, at: u64) -> Option<&mut u8> {
        let at = usize::try_from(at).expect("a simulated segment fits memory");
        self.segments.get_mut(&segment).and_then(|file| file.get_mut(at))
    }

    pub fn flip(&mut self, segment: u64, at: u64, bit: u8) -> bool {
        self.byte(segment, at).map(|byte| *byte ^= 1 << (bit % 8)).is_some()
    }

    pub fn lose(&mut self, number: u64) {
        self.segments.remove(&number);
    }

    pub fn fingerprint(&self) -> u32 {
        let mut crc = common::Crc32c::default();
        for (number, bytes) in &self.segments {
            crc.update(&number.to_le_bytes());
            crc.update(bytes);
        }
        crc.finish()
    }

    pub fn crash(&mut self, rng: &Rng) {
        self.met.crashes += 1;
        self.life += 1;
        let mut lost = u64::MAX;
        for operation in std::mem::take(&mut self.pending).into_values() {
            let Operation::Write { segment, at, bytes } = &operation else {
                // Names change whole or not at all.
                if rng.one_in(2) {
                    let _ = self.apply(operation);
                }
                continue;
            };
            let position = segment + at;
            match rng.below(3) {
                0 => {
                    self.met.kept += 1;
                    let _ = self.apply(operation);
                }
                1 => {
                    self.met.dropped += 1;
                    lost = lost.min(position);
                }
                _ => {
                    self.tear(*segment, *at, bytes, rng);
                    lost = lost.min(position);
                }
            }
        }
        self.met.holes += u64::from(lost < self.highest);
        (self.failed, self.writes_left, self.newest, self.highest) = (false, None, None, 0);
    }

    /// Some sectors reach the medium, in any order, never none and never all.
    fn tear(&mut self, segment: u64, at: u64, bytes: &[u8], rng: &Rng) {
        self.met.torn += 1;
        let sectors = bytes.len().div_ceil(SECTOR) as u64;
        let (missing, present) = (rng.below(sectors), rng.below(sectors));
        for (index, sector) in (0..).zip(bytes.chunks(SECTOR)) {
            let kept = index == present || rng.one_in(2);
            if kept && index != missing {
                let _ = self.put(segment, at + index * SECTOR as u64, sector);
            }
        }
    }
}
