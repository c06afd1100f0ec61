//! Inspection: walks a log's directory without writing, also beside a running broker.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use common::{Lsn, WalEpoch, WalId, crc32c};

use crate::disk::{Disk, SegmentFile, wait};
use crate::format::{BLOCK, BLOCK_SIZE, FLAG_ROLL, Header, NoHeader, Stamp, read_frames};
use crate::group::FrameMeta;

/// Why blocks hold no group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Never written.
    Zero,
    /// Content of groups that were overwritten, or no content of a log.
    Other,
    /// A header of another log, version, or with a wrong checksum.
    Header,
}

/// One thing met in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A segment begins.
    Segment(SegmentFile),
    /// A group. Groups behind a cut and in segments waiting for reuse are shown too: only metadata knows them apart.
    Group {
        /// The log.
        wal: WalId,
        /// The epoch that wrote it.
        epoch: WalEpoch,
        /// First LSN; differs from the place in a segment that was reused and not yet overwritten.
        first: Lsn,
        /// End LSN.
        end: Lsn,
        /// Durable position when it was written.
        acked: Lsn,
        /// Bytes on the disk.
        bytes: u64,
        /// True when it only skips the rest of its segment.
        roll: bool,
        /// True when it lies where its LSN says.
        in_place: bool,
        /// Frames with whether each payload matches its checksum; empty when the table is damaged.
        frames: Vec<(FrameMeta, bool)>,
        /// True when the table makes sense (and matches its checksum, where the salt is known).
        table_intact: bool,
    },
    /// Blocks without a group.
    Gap {
        /// First position.
        first: Lsn,
        /// End position.
        end: Lsn,
        /// Why.
        why: Unreadable,
    },
}

/// Walks all segments from the lowest on.
pub struct Inspector {
    disk: Arc<dyn Disk>,
    salt: Option<u64>,
    segments: std::vec::IntoIter<SegmentFile>,
    current: Option<(SegmentFile, u64)>,
    window: Option<(u64, Bytes)>,
    pending: Option<Item>,
}

impl Inspector {
    /// Inspects the segments of `disk`. Checksums of headers and tables are checked only with the log's `salt`; those of
    /// payloads always.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn open(disk: Arc<dyn Disk>, salt: Option<u64>) -> io::Result<Self> {
        let segments = disk.list()?.into_iter();
        Ok(Self { disk, salt, segments, current: None, window: None, pending: None })
    }

    /// The next item; `None` at the end.
    ///
    /// # Errors
    /// When a read fails.
    pub async fn next(&mut self) -> io::Result<Option<Item>> {
        if let Some(item) = self.pending.take() {
            return Ok(Some(item));
        }
        let Some((segment, mut at)) =
            self.current.filter(|(segment, at)| *at + BLOCK <= segment.len)
        else {
            self.window = None;
            self.current = self.segments.next().map(|segment| (segment, 0));
            return Ok(self.current.map(|(segment, _)| Item::Segment(segment)));
        };
        let mut gap: Option<(u64, Unreadable)> = None;
        while at + BLOCK <= segment.len {
            let block = match self.bytes(segment, at, BLOCK_SIZE).await {
                Ok(block) => block,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // A running broker has given the segment another number since it was listed.
                    at = segment.len;
                    break;
                }
                Err(error) => return Err(error),
            };
            let why = match self.header(&block) {
                Ok(header) => {
                    let group = self.group(segment, at, &header).await?;
                    let len = if header.flags & FLAG_ROLL != 0 {
                        header.end.0 - header.first.0
                    } else {
                        u64::from(header.bytes)
                    };
                    self.current = Some((segment, at.saturating_add(len).min(segment.len)));
                    return Ok(Some(match gap {
                        None => group,
                        Some(gap) => {
                            self.pending = Some(group);
                            gap_item(segment, gap, at)
                        }
                    }));
                }
                Err(why) => why,
            };
            match gap {
                Some(open) if open.1 != why => {
                    self.current = Some((segment, at));
                    return Ok(Some(gap_item(segment, open, at)));
                }
                Some(_) => {}
                None => gap = Some((at, why)),
            }
            at += BLOCK;
        }
        self.current = None;
        match gap {
            Some(gap) => Ok(Some(gap_item(segment, gap, at))),
            None => Box::pin(self.next()).await,
        }
    }

    fn header(&self, block: &[u8]) -> Result<Header, Unreadable> {
        let kind = |no| match no {
            NoHeader::Zero if block.iter().all(|byte| *byte == 0) => Unreadable::Zero,
            NoHeader::Zero | NoHeader::Magic => Unreadable::Other,
            _ => Unreadable::Header,
        };
        let header = Header::read_unchecked(block).map_err(kind)?;
        match self.salt {
            Some(salt) => {
                let stamp = Stamp { wal: header.wal, salt };
                Header::read(stamp, block).map(|(header, _)| header).map_err(kind)
            }
            None if header.is_sound() => Ok(header),
            None => Err(Unreadable::Header),
        }
    }

    async fn group(&mut self, segment: SegmentFile, at: u64, header: &Header) -> io::Result<Item> {
        let len = u64::from(header.bytes).min(segment.len - at);
        let len = usize::try_from(len).expect("a group fits memory");
        let bytes = self.bytes(segment, at, len).await?;
        let whole = u64::from(header.bytes) == len as u64;
        let table = if whole { header.table(&bytes) } else { &[] };
        let stamp = self.salt.map(|salt| Stamp { wal: header.wal, salt });
        let matches = stamp.is_none_or(|stamp| stamp.crc(table) == header.table_crc);
        let frames = if whole && matches { read_frames(header, table) } else { None };
        let position = |at: u32| usize::try_from(at).expect("32 bits fit a usize");
        let checked = |frame: FrameMeta| {
            let payload = &bytes[position(frame.range.start)..position(frame.range.end)];
            let intact = crc32c(payload) == frame.crc;
            (frame, intact)
        };
        Ok(Item::Group {
            wal: header.wal,
            epoch: header.epoch,
            first: header.first,
            end: header.end,
            acked: header.acked,
            bytes: u64::from(header.bytes),
            roll: header.flags & FLAG_ROLL != 0,
            in_place: header.first.0 == segment.number + at,
            table_intact: frames.is_some(),
            frames: frames.unwrap_or_default().into_iter().map(checked).collect(),
        })
    }

    async fn bytes(&mut self, segment: SegmentFile, at: u64, len: usize) -> io::Result<Bytes> {
        if let Some((first, window)) = &self.window
            && let Some(skip) = at.checked_sub(*first).and_then(|skip| usize::try_from(skip).ok())
            && skip + len <= window.len()
        {
            return Ok(window.slice(skip..skip + len));
        }
        let want = (segment.len - at).min(1 << 20);
        let want = usize::try_from(want).expect("bounded above").max(len);
        let window = wait(|done| self.disk.read(segment.number, at, want, done)).await?;
        let bytes = window.slice(..len);
        self.window = Some((at, window));
        Ok(bytes)
    }
}

fn gap_item(segment: SegmentFile, (from, why): (u64, Unreadable), to: u64) -> Item {
    Item::Gap { first: Lsn(segment.number + from), end: Lsn(segment.number + to), why }
}
