//! Checks what a pass wants to write against what it read, batch by batch and from the bytes, before any of it is
//! committed: the output is a part of the input, and no key loses its last committed record.

use bytes::Bytes;
use protocol::batch::Header;

use super::filter::{Fate, Pass};
use super::{Error, unreadable};
use crate::records::{BatchReader, Record};

/// What may be missing from the output.
pub(super) struct Allowed {
    /// Everything: an undone transaction, or a marker that is over.
    pub everything: bool,
    /// It is a batch of markers.
    pub control: bool,
    /// Records without a value.
    pub tombstones: bool,
}

/// The new batch stands in the place of the old one and holds nothing that the old one did not.
pub(super) fn subset(before: &Header, input: &BatchReader, after: &Bytes) -> Result<(), Error> {
    let offset = before.base_offset;
    let wrong = |reason| Err(Error::Unproved { offset, reason });
    let output = BatchReader::open(after).map_err(|error| unreadable(offset, &error))?;
    let new = output.header();
    let place = |header: &Header| {
        (
            (header.base_offset, header.last_offset_delta, header.leader_epoch),
            (header.producer_id, header.producer_epoch, header.base_sequence),
            (header.attributes.transactional(), header.attributes.control()),
            header.attributes.append_time(),
        )
    };
    if place(before) != place(new) {
        return wrong("its header names another place, producer or transaction");
    }
    if new.record_count > 0 && new.attributes.codec() != before.attributes.codec() {
        return wrong("its codec changed");
    }
    let mut left = input.records();
    for record in output.records() {
        let record = record.map_err(|error| unreadable(offset, &error))?;
        loop {
            match left.next() {
                Some(Ok(old)) if same(&old, &record) => break,
                Some(Ok(_)) => {}
                _ => return wrong("it holds a record that was not there"),
            }
        }
    }
    Ok(())
}

fn same(one: &Record<'_>, other: &Record<'_>) -> bool {
    one.offset == other.offset
        && one.timestamp == other.timestamp
        && one.key == other.key
        && one.value == other.value
        && one.headers.eq(other.headers)
}

/// What is missing from the output has a later record of its key below the end, or may go.
pub(super) fn nothing_lost(
    pass: &Pass<'_>,
    input: &BatchReader,
    allowed: &Allowed,
    fate: &Fate,
) -> Result<(), Error> {
    let offset = input.header().base_offset;
    if matches!(fate, Fate::Keep) || allowed.everything {
        return Ok(());
    }
    let output = match fate {
        Fate::Replace { bytes, .. } => {
            Some(BatchReader::open(bytes).map_err(|error| unreadable(offset, &error))?)
        }
        Fate::Keep | Fate::Drop => None,
    };
    let mut kept = Vec::new();
    for record in output.iter().flat_map(BatchReader::records) {
        kept.push(record.map_err(|error| unreadable(offset, &error))?.offset);
    }
    for record in input.records() {
        let record = record.map_err(|error| unreadable(offset, &error))?;
        if kept.binary_search(&record.offset).is_ok() {
            continue;
        }
        let later =
            |key| pass.map.get(key).is_some_and(|last| last > record.offset && last < pass.end);
        let over = allowed.tombstones && record.value.is_none();
        if allowed.control || !(over || record.key.is_none_or(later)) {
            let reason = "the last record of a key would be lost";
            return Err(Error::Unproved { offset, reason });
        }
    }
    Ok(())
}
