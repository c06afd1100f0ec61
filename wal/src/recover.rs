//! Recovery: what the log holds above the committed position, where it ends, or why it cannot be used.
//!
//! ```text
//!   committed                      H (unreadable)     later valid headers
//!      | group | group | group ... | ?????????? | group  acked_lsn <= H | group  acked_lsn <= H |   -> cut at H
//!                                  | ?????????? | group  acked_lsn >  H |                           -> damage, refused
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use common::{Lsn, WalEpoch, WalId, failpoint};

use crate::disk::{Disk, SegmentFile, wait};
use crate::error::{Damage, ReadError, RecoverError};
use crate::format::{BLOCK, BLOCK_SIZE, Header, NoHeader, Stamp};
use crate::group::Group;
use crate::options::{FRAME_BYTES_MAX, Geometry, Options, WINDOW_GROUPS_MAX};
use crate::scan::{self, Bad};
use crate::segments::{Job, Segments};
use crate::state::submit_job;

/// Bytes read at a time.
const READ_BYTES: u64 = 1 << 20;

/// A log as metadata knows it.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id.
    pub wal: WalId,
    /// Start value of its group checksums.
    pub salt: u64,
    /// Epochs that may have groups above `committed`, with their first LSN, ascending.
    pub epochs: Vec<(WalEpoch, Lsn)>,
    /// Everything below lies in objects. A group boundary.
    pub committed: Lsn,
    /// Never opened: no segments are to be expected.
    pub fresh: bool,
}

/// What recovery met, for the log line and the metrics of a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Groups found.
    pub groups: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes read whole.
    pub bytes: u64,
    /// Valid groups behind the cut, which were never acknowledged.
    pub groups_behind_cut: u64,
    /// True when an unacknowledged tail was cut.
    pub cut: bool,
}

/// A recovered log, not yet open.
pub struct Recovered {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) stamp: Stamp,
    pub(crate) options: Options,
    pub(crate) geometry: Geometry,
    pub(crate) segments: Segments,
    pub(crate) epochs: Vec<(WalEpoch, Lsn)>,
    pub(crate) committed: Lsn,
    pub(crate) end: Lsn,
    pub(crate) link: u32,
    groups: Vec<Arc<Group>>,
    report: Report,
}

impl Recovered {
    /// Where the log ends: the first LSN of the next epoch, block aligned.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }

    /// True when an unacknowledged tail was cut.
    #[must_use]
    pub fn cut(&self) -> bool {
        self.report.cut
    }

    /// The groups from the committed position to the end, in order. The newest, up to `recovered_bytes_max`, have their
    /// payloads; see [`Group::has_payloads`].
    #[must_use]
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// Reads one of the groups back from the disk, checked: the older ones were not kept in memory.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_group(&self, first: Lsn) -> Result<Arc<Group>, ReadError> {
        let place = self.segments.locate(first.0).filter(|_| first < self.end);
        let (segment, at, room) = place.ok_or(ReadError::Moved { lsn: first })?;
        let read = async |len| -> Result<Bytes, ReadError> {
            let bytes = wait(|done| self.disk.read(segment, at, len, done)).await;
            bytes.map_err(|source| ReadError::Io { lsn: first, source })
        };
        let corrupt = |bad: Bad| ReadError::Corrupt { lsn: first, what: bad.what() };
        let head = read(BLOCK_SIZE).await?;
        let header = scan::header_at(self.stamp, &self.epochs, first, room, &head);
        let (header, _) = header.map_err(corrupt)?;
        let len = usize::try_from(header.bytes).expect("32 bits fit a usize");
        let bytes = if len == BLOCK_SIZE { head } else { read(len).await? };
        scan::group(self.stamp, &header, bytes).map(Arc::new).map_err(corrupt)
    }

    /// What was met.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

pub(crate) async fn recover(
    disk: Arc<dyn Disk>,
    options: &Options,
    identity: &Identity,
) -> Result<Recovered, RecoverError> {
    let list = |source| RecoverError::List { wal: identity.wal, source };
    let files = disk.list().map_err(list)?;
    let geometry = options.geometry(disk.space().map_err(list)?);
    let stamp = Stamp { wal: identity.wal, salt: identity.salt };
    if files.is_empty() && !identity.fresh {
        return Err(RecoverError::Missing { wal: identity.wal });
    }
    let mut segments = Segments::new(&files, identity.committed.0);
    if files.is_empty() {
        let job = Job::Create { number: 0, len: geometry.first };
        let made = wait(|done| submit_job(&*disk, job, done)).await;
        made.map_err(|source| RecoverError::List { wal: identity.wal, source })?;
        segments.apply(job);
    }
    let mut scan = Scan { disk: &disk, identity, stamp, segments: &segments, window: None };
    let heads = scan.heads(&files).await?;
    scan.check_coverage(&files)?;
    let found = scan.walk(options, &heads).await?;
    failpoint::hit("wal.recovery");
    let Found { end, link, groups, report } = found;
    tracing::info!(
        wal = %identity.wal, committed = %identity.committed, %end, groups = report.groups,
        bytes = report.bytes, cut = report.cut, behind_cut = report.groups_behind_cut,
        "write-ahead log recovered"
    );
    Ok(Recovered {
        stamp,
        options: options.clone(),
        geometry,
        segments,
        epochs: identity.epochs.clone(),
        committed: identity.committed,
        end,
        link: link.unwrap_or(0),
        groups,
        report,
        disk,
    })
}

struct Found {
    end: Lsn,
    link: Option<u32>,
    groups: Vec<Arc<Group>>,
    report: Report,
}

struct Scan<'a> {
    disk: &'a Arc<dyn Disk>,
    identity: &'a Identity,
    stamp: Stamp,
    segments: &'a Segments,
    /// The last read: first position and bytes.
    window: Option<(u64, Bytes)>,
}

impl Scan<'_> {
    /// The first block of each segment: its group, if it is one of this log. Only a header of ours is ever written
    /// there, so a foreign one tells that the directory is not the one metadata knows.
    async fn heads(&self, files: &[SegmentFile]) -> Result<BTreeMap<u64, Header>, RecoverError> {
        let mut heads = BTreeMap::new();
        for file in files.iter().filter(|file| file.len >= BLOCK) {
            let block = self.read(file.number, 0, BLOCK_SIZE, file.number).await?;
            match Header::read(self.stamp, &block) {
                Ok(_) if self.identity.fresh => {
                    return Err(self.foreign(self.identity.wal));
                }
                Ok((header, _)) => {
                    heads.insert(file.number, header);
                }
                Err(NoHeader::Foreign(found)) => return Err(self.foreign(found)),
                Err(_) => {}
            }
        }
        Ok(heads)
    }

    fn foreign(&self, found: WalId) -> RecoverError {
        RecoverError::Foreign { wal: self.identity.wal, found }
    }

    /// From the committed position on there are segments without a gap.
    fn check_coverage(&self, files: &[SegmentFile]) -> Result<(), RecoverError> {
        let (wal, committed) = (self.identity.wal, self.identity.committed);
        let mut expected: Option<u64> = None;
        for (number, len) in self.segments.live() {
            let gap = match expected {
                None => number > committed.0,
                Some(expected) => number != expected,
            };
            if gap {
                return Err(RecoverError::Gap { wal, at: Lsn(expected.unwrap_or(committed.0)) });
            }
            expected = Some(number.saturating_add(len));
        }
        let ends_there =
            files.iter().any(|file| file.number.saturating_add(file.len) == committed.0);
        if expected.is_none() && !ends_there {
            return Err(RecoverError::Gap { wal, at: committed });
        }
        Ok(())
    }

    async fn walk(
        &mut self,
        options: &Options,
        heads: &BTreeMap<u64, Header>,
    ) -> Result<Found, RecoverError> {
        let mut kept = Kept::new(options.recovered_bytes_max);
        let (mut at, mut link, mut report) = (self.identity.committed, None, Report::default());
        let mut bad = None;
        while self.segments.locate(at.0).is_some() {
            match self.group_at(at, link).await? {
                Ok((group, crc)) => {
                    report.groups += 1;
                    report.frames += group.frames.len() as u64;
                    report.bytes += group.held as u64;
                    (at, link) = (group.end, Some(crc));
                    kept.push(group);
                }
                Err(reason) => {
                    bad = Some(reason);
                    break;
                }
            }
        }
        if let Some(bad) = bad {
            let later = self.later(at, options, heads).await?;
            self.judge(at, &bad, &later)?;
            report.groups_behind_cut = later.len() as u64;
            report.cut = !later.is_empty() || bad.is_torn();
        }
        for (epoch, first) in &self.identity.epochs {
            if *first > at {
                let (wal, epoch, first) = (self.identity.wal, *epoch, *first);
                return Err(RecoverError::Short { wal, found: at, epoch, first });
            }
        }
        if failpoint::planted("lost-last-frame") {
            kept.lose_last_frame();
        }
        Ok(Found { end: at, link, groups: kept.finish(), report })
    }

    /// Cut or damage: `later` are the positions of valid headers behind the hole at `hole`, with their `acked_lsn`.
    fn judge(&self, hole: Lsn, bad: &Bad, later: &[(Lsn, Lsn)]) -> Result<(), RecoverError> {
        let acked = later.iter().map(|(_, acked)| *acked).max();
        let in_window = later.len() < WINDOW_GROUPS_MAX;
        if in_window && acked.is_none_or(|acked| acked <= hole) {
            return Ok(());
        }
        let damage = match bad {
            Bad::Payload(damage) => damage.clone(),
            _ => vec![Damage::Range { first: hole, end: later.first().map(|(first, _)| *first) }],
        };
        Err(RecoverError::Damaged { wal: self.identity.wal, damage })
    }

    /// Valid headers behind `hole`: in the rest of its segment, as far into the next as writes in flight may reach, and
    /// at the head of each later one.
    async fn later(
        &mut self,
        hole: Lsn,
        options: &Options,
        heads: &BTreeMap<u64, Header>,
    ) -> Result<Vec<(Lsn, Lsn)>, RecoverError> {
        let (_, _, room) = self.segments.locate(hole.0).expect("the hole is in a segment");
        let reach = options.window_bytes_max.max(FRAME_BYTES_MAX + BLOCK);
        let mut later = Vec::new();
        self.headers(hole.0 + BLOCK, hole.0 + room, &mut later).await?;
        let mut rest = self.segments.live().filter(|(number, _)| *number > hole.0);
        if let Some((number, len)) = rest.next() {
            self.headers(number, number + len.min(reach), &mut later).await?;
        }
        for (number, _) in rest {
            let claim = |header: &&Header| {
                header.first.0 == number
                    && scan::epoch_at(&self.identity.epochs, header.first)
                        .is_some_and(|(epoch, _)| epoch == header.epoch)
            };
            later.extend(
                heads.get(&number).filter(claim).map(|header| (header.first, header.acked)),
            );
        }
        Ok(later)
    }

    async fn headers(
        &mut self,
        mut at: u64,
        end: u64,
        later: &mut Vec<(Lsn, Lsn)>,
    ) -> Result<(), RecoverError> {
        while at < end {
            let (_, _, room) = self.segments.locate(at).expect("inside a segment");
            let block = self.bytes(at, BLOCK_SIZE).await?;
            let epochs = &self.identity.epochs;
            match scan::header_at(self.stamp, epochs, Lsn(at), room, &block) {
                Ok((header, _)) => {
                    later.push((header.first, header.acked));
                    at = header.end.0;
                }
                Err(_) => at += BLOCK,
            }
        }
        Ok(())
    }

    /// The group at `at` with its checksum, or why there is none.
    async fn group_at(
        &mut self,
        at: Lsn,
        link: Option<u32>,
    ) -> Result<Result<(Group, u32), Bad>, RecoverError> {
        let (_, _, room) = self.segments.locate(at.0).expect("the caller has looked");
        let block = self.bytes(at.0, BLOCK_SIZE).await?;
        let header = scan::header_at(self.stamp, &self.identity.epochs, at, room, &block);
        let (header, crc) = match header {
            Ok(header) => header,
            Err(bad) => return Ok(Err(bad)),
        };
        if !scan::follows(&header, link) {
            return Ok(Err(Bad::Link));
        }
        let len = usize::try_from(header.bytes).expect("32 bits fit a usize");
        let bytes = self.bytes(at.0, len).await?;
        Ok(scan::group(self.stamp, &header, bytes).map(|group| (group, crc)))
    }

    /// `len` bytes at position `at`, which lie in one segment, through a window of larger reads.
    async fn bytes(&mut self, at: u64, len: usize) -> Result<Bytes, RecoverError> {
        if let Some((first, window)) = &self.window
            && let Some(skip) = at.checked_sub(*first).and_then(|skip| usize::try_from(skip).ok())
            && skip + len <= window.len()
        {
            return Ok(window.slice(skip..skip + len));
        }
        let (segment, offset, room) = self.segments.locate(at).expect("inside a segment");
        let want = usize::try_from(READ_BYTES.min(room)).expect("a read fits memory").max(len);
        let window = self.read(segment, offset, want, at).await?;
        let bytes = window.slice(..len);
        self.window = Some((at, window));
        Ok(bytes)
    }

    async fn read(
        &self,
        segment: u64,
        at: u64,
        len: usize,
        lsn: u64,
    ) -> Result<Bytes, RecoverError> {
        let result: io::Result<Bytes> = wait(|done| self.disk.read(segment, at, len, done)).await;
        let wal = self.identity.wal;
        result.map_err(|source| RecoverError::Read { wal, at: Lsn(lsn), source })
    }
}

/// Recovered groups; the oldest lose their payloads when the bound is passed.
struct Kept {
    bytes_max: u64,
    bytes: u64,
    facts: Vec<Group>,
    whole: VecDeque<Group>,
}

impl Kept {
    fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, facts: Vec::new(), whole: VecDeque::new() }
    }

    fn push(&mut self, group: Group) {
        self.bytes += group.held as u64;
        self.whole.push_back(group);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.whole.pop_front() else { break };
            self.bytes -= oldest.held as u64;
            self.facts.push(Group { bytes: None, held: 0, ..oldest });
        }
    }

    fn lose_last_frame(&mut self) {
        if let Some(last) = self.whole.back_mut() {
            last.frames.pop();
        }
    }

    fn finish(self) -> Vec<Arc<Group>> {
        self.facts.into_iter().chain(self.whole).map(Arc::new).collect()
    }
}
