//! Payloads of the partition's own snapshots: producers and leader epochs. Bytes in `docs/formats/state.md`.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes};

use crate::epochs::{EpochStart, Epochs};
use crate::producers::{BATCHES_MAX, BatchMemory, Producer, Producers};
use crate::state::Damaged;

/// Version written and read.
pub const VERSION: u16 = 1;

const BATCH_BYTES: usize = 34;
const PRODUCER_BYTES: usize = 20;
const EPOCH_BYTES: usize = 12;

/// The producers, the one that appended longest ago first.
#[must_use]
pub fn encode_producers(producers: &Producers) -> Bytes {
    let each = PRODUCER_BYTES + BATCHES_MAX * BATCH_BYTES;
    let mut out = Vec::with_capacity(4 + producers.len() * each);
    out.put_u32_le(u32::try_from(producers.len()).expect("capped far below 2^32"));
    for (id, producer) in producers.iter_by_use() {
        out.put_i64_le(id);
        out.put_i64_le(producer.last_append_ms);
        out.put_i16_le(producer.epoch);
        out.put_u16_le(u16::try_from(producer.batches.len()).expect("at most five"));
        for batch in &producer.batches {
            out.put_i16_le(batch.epoch);
            out.put_i32_le(batch.first_sequence);
            out.put_i32_le(batch.last_sequence);
            out.put_i64_le(batch.base_offset);
            out.put_i64_le(batch.last_offset);
            out.put_i64_le(batch.log_append_time);
        }
    }
    out.into()
}

/// Reads producers into `into`.
///
/// # Errors
/// [`Damaged`] for a version this build does not read or bytes that end early or late.
pub fn decode_producers(
    version: u16,
    payload: &Bytes,
    into: &mut Producers,
) -> Result<(), Damaged> {
    check_version(version)?;
    let mut rest = payload.clone();
    let count = need(&rest, 4).map(|()| rest.get_u32_le())?;
    for _ in 0..count {
        need(&rest, PRODUCER_BYTES)?;
        let (id, last_append_ms) = (rest.get_i64_le(), rest.get_i64_le());
        let (epoch, batches) = (rest.get_i16_le(), usize::from(rest.get_u16_le()));
        if batches > BATCHES_MAX {
            return Err(Damaged("a producer has more batches than are ever kept"));
        }
        need(&rest, batches * BATCH_BYTES)?;
        let batches: VecDeque<BatchMemory> = (0..batches)
            .map(|_| BatchMemory {
                epoch: rest.get_i16_le(),
                first_sequence: rest.get_i32_le(),
                last_sequence: rest.get_i32_le(),
                base_offset: rest.get_i64_le(),
                last_offset: rest.get_i64_le(),
                log_append_time: rest.get_i64_le(),
            })
            .collect();
        into.restore(id, Producer::remembered(epoch, last_append_ms, batches));
    }
    ended(&rest)
}

/// The epoch starts, ascending.
#[must_use]
pub fn encode_epochs(epochs: &Epochs) -> Bytes {
    let mut out = Vec::with_capacity(4 + epochs.starts().len() * EPOCH_BYTES);
    out.put_u32_le(u32::try_from(epochs.starts().len()).expect("fewer than there are epochs"));
    for start in epochs.starts() {
        out.put_i32_le(start.epoch);
        out.put_i64_le(start.start_offset);
    }
    out.into()
}

/// Reads epoch starts.
///
/// # Errors
/// [`Damaged`] for a version this build does not read or bytes that end early or late.
pub fn decode_epochs(version: u16, payload: &Bytes) -> Result<Epochs, Damaged> {
    check_version(version)?;
    let mut rest = payload.clone();
    let count = need(&rest, 4).map(|()| rest.get_u32_le())?;
    let mut epochs = Epochs::default();
    for _ in 0..count {
        epochs.assign(decode_epoch_start(&mut rest)?);
    }
    ended(&rest)?;
    Ok(epochs)
}

/// The payload of an index record that marks where an epoch begins.
#[must_use]
pub fn encode_epoch_start(start: EpochStart) -> [u8; EPOCH_BYTES] {
    let mut out = [0; EPOCH_BYTES];
    out[..4].copy_from_slice(&start.epoch.to_le_bytes());
    out[4..].copy_from_slice(&start.start_offset.to_le_bytes());
    out
}

/// Reads one epoch start and moves `rest` behind it.
///
/// # Errors
/// [`Damaged`] when the bytes end early.
pub fn decode_epoch_start(rest: &mut Bytes) -> Result<EpochStart, Damaged> {
    need(rest, EPOCH_BYTES)?;
    Ok(EpochStart { epoch: rest.get_i32_le(), start_offset: rest.get_i64_le() })
}

fn check_version(version: u16) -> Result<(), Damaged> {
    if version == VERSION {
        Ok(())
    } else {
        Err(Damaged("its version is newer than this build; start the build that wrote it"))
    }
}

fn need(rest: &Bytes, bytes: usize) -> Result<(), Damaged> {
    if rest.remaining() < bytes { Err(Damaged("it ends early")) } else { Ok(()) }
}

fn ended(rest: &Bytes) -> Result<(), Damaged> {
    if rest.has_remaining() { Err(Damaged("bytes follow its end")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::producers::Sequenced;

    proptest! {
        #[test]
        fn producers_survive_their_bytes(appends in prop::collection::vec((0i64..20, 1i32..9), 0..200)) {
            let mut producers = Producers::new(12);
            let mut next = std::collections::BTreeMap::new();
            for (at, (producer_id, records)) in (0i64..).zip(appends) {
                let first = next.entry(producer_id).or_insert(0);
                let batch = Sequenced {
                    producer_id, epoch: 2, first_sequence: *first, last_offset_delta: records - 1,
                };
                *first += records;
                producers.note(&batch, at * 10, -1, at);
            }
            let bytes = encode_producers(&producers);
            let mut back = Producers::new(12);
            decode_producers(VERSION, &bytes, &mut back).expect("written by us");
            prop_assert_eq!(encode_producers(&back), bytes.clone());
            for cut in 0..bytes.len() {
                let mut into = Producers::new(12);
                prop_assert!(decode_producers(VERSION, &bytes.slice(..cut), &mut into).is_err());
            }
        }
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let mut producers = Producers::new(2);
        let batch = Sequenced { producer_id: 9, epoch: 3, first_sequence: 5, last_offset_delta: 1 };
        producers.note(&batch, 100, -1, 4);
        let mut expected = vec![1, 0, 0, 0];
        expected.extend([9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 1, 0]);
        expected.extend([3, 0, 5, 0, 0, 0, 6, 0, 0, 0]);
        expected.extend([100, 0, 0, 0, 0, 0, 0, 0, 101, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([255; 8]);
        assert_eq!(encode_producers(&producers), expected);

        let mut epochs = Epochs::default();
        epochs.assign(EpochStart { epoch: 3, start_offset: 258 });
        let expected = [1, 0, 0, 0, 3, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(encode_epochs(&epochs), expected.as_slice());
        assert_eq!(decode_epochs(VERSION, &Bytes::from(expected.to_vec())), Ok(epochs));
    }

    #[test]
    fn damage_and_other_versions_are_refused() {
        let empty = encode_producers(&Producers::new(1));
        let mut into = Producers::new(1);
        assert!(decode_producers(2, &empty, &mut into).is_err());
        let mut long = empty.to_vec();
        long.push(0);
        assert!(decode_producers(VERSION, &long.into(), &mut into).is_err());
        assert!(decode_epochs(VERSION, &Bytes::from_static(&[255; 9])).is_err());
    }
}
