//! Checks of a group that was read from the disk.

use bytes::Bytes;
use common::{Lsn, WalEpoch, crc32c, failpoint};

use crate::error::Damage;
use crate::format::{FLAG_ROLL, Header, NoHeader, Stamp, read_frames};
use crate::group::{FrameMeta, Group};

/// Why the bytes at a position are no group of the log there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Header(NoHeader),
    /// A group, but of another position.
    Position,
    /// A group of an epoch that has no claim to this position.
    Epoch,
    /// Does not follow the group before it.
    Link,
    /// Reaches past its segment.
    Shape,
    Table,
    Payload(Vec<Damage>),
}

impl Bad {
    pub fn what(&self) -> &'static str {
        match self {
            Self::Header(NoHeader::Zero) => "zeros instead of a group",
            Self::Header(NoHeader::Magic) => "no group header",
            Self::Header(NoHeader::Version) => "a group of another format version",
            Self::Header(NoHeader::Foreign(_)) => "a group of another log",
            Self::Header(NoHeader::Checksum) => "the header's checksum is wrong",
            Self::Header(NoHeader::Shape) | Self::Shape => "the header's lengths are wrong",
            Self::Position => "a group of another position",
            Self::Epoch => "a group of another epoch",
            Self::Link => "the link to the group before is wrong",
            Self::Table => "the frame table's checksum is wrong",
            Self::Payload(_) => "a payload's checksum is wrong",
        }
    }

    /// True when somebody has written here, in vain.
    pub fn is_torn(&self) -> bool {
        matches!(self, Self::Table | Self::Payload(_) | Self::Header(NoHeader::Checksum))
    }
}

/// The epoch that may write at `lsn`, and where the next one begins.
pub(crate) fn epoch_at(epochs: &[(WalEpoch, Lsn)], lsn: Lsn) -> Option<(WalEpoch, Option<Lsn>)> {
    let index = epochs.partition_point(|(_, first)| *first <= lsn).checked_sub(1)?;
    Some((epochs[index].0, epochs.get(index + 1).map(|(_, first)| *first)))
}

/// The header at `lsn`, with its checksum, if it has a claim to be there. `room` are the bytes left in its segment.
pub(crate) fn header_at(
    stamp: Stamp,
    epochs: &[(WalEpoch, Lsn)],
    lsn: Lsn,
    room: u64,
    bytes: &[u8],
) -> Result<(Header, u32), Bad> {
    let (header, crc) = Header::read(stamp, bytes).map_err(Bad::Header)?;
    if header.first != lsn {
        return Err(Bad::Position);
    }
    let span = header.end.0 - header.first.0;
    let roll = header.flags & FLAG_ROLL != 0;
    if span > room || (roll && span != room) {
        return Err(Bad::Shape);
    }
    if failpoint::planted("revive-behind-cut") {
        return Ok((header, crc));
    }
    match epoch_at(epochs, lsn) {
        Some((epoch, next))
            if epoch == header.epoch && next.is_none_or(|next| header.end <= next) =>
        {
            Ok((header, crc))
        }
        _ => Err(Bad::Epoch),
    }
}

/// True when `header` follows a group whose checksum is `link`, or the one before is not known.
pub(crate) fn follows(header: &Header, link: Option<u32>) -> bool {
    // Zero: the writer did not know the group before, which happens only to the first group of an epoch.
    link.is_none_or(|link| header.link == link || header.link == 0)
        || failpoint::planted("revive-behind-cut")
}

/// The frames of a whole group, table checked.
pub(crate) fn frames(stamp: Stamp, header: &Header, bytes: &[u8]) -> Result<Vec<FrameMeta>, Bad> {
    let table = header.table(bytes);
    if stamp.crc(table) != header.table_crc {
        return Err(Bad::Table);
    }
    read_frames(header, table).ok_or(Bad::Table)
}

/// The group with its payloads, everything checked.
pub(crate) fn group(stamp: Stamp, header: &Header, bytes: Bytes) -> Result<Group, Bad> {
    let frames = frames(stamp, header, &bytes)?;
    let at = |position: u32| usize::try_from(position).expect("32 bits fit a usize");
    let broken = |frame: &&FrameMeta| {
        crc32c(&bytes[at(frame.range.start)..at(frame.range.end)]) != frame.crc
    };
    let damage: Vec<Damage> = frames
        .iter()
        .filter(broken)
        .map(|frame| Damage::Payload {
            group: header.first,
            stream: frame.header.stream,
            start: frame.header.base_offset,
            end: frame.header.base_offset.saturating_add_unsigned(frame.header.span),
        })
        .collect();
    if !damage.is_empty() {
        return Err(Bad::Payload(damage));
    }
    Ok(Group {
        epoch: header.epoch,
        first: header.first,
        end: header.end,
        acked: header.acked,
        held: bytes.len(),
        counted: false,
        frames,
        bytes: Some(bytes),
    })
}
