use bytes::Bytes;
use common::crc32c;
use common::{Lsn, ObjectId, PartitionId, StreamEpoch, StreamId, StreamKind, WalEpoch, WalId};
use proptest::prelude::*;

use super::*;

const GOLDEN: &str = include_str!("golden-v1.hex");

fn header() -> Header {
    Header {
        kind: Kind::StreamSet,
        store: 0,
        object: ObjectId((1 << 48) | 9),
        wal: WalId(3),
        wal_epoch: WalEpoch((1 << 48) | 4),
        first: Lsn(4096),
        end: Lsn(12288),
    }
}

fn stream(topic: u64, kind: StreamKind) -> StreamId {
    PartitionId { topic, index: 2 }.stream(kind)
}

fn part(base_offset: i64, span: u64, payload: &[u8]) -> EntryPart {
    let payload = Bytes::copy_from_slice(payload);
    let meta = EntryMeta {
        base_offset,
        span,
        count: span.min(3),
        max_timestamp: 1000 + base_offset,
        epoch: StreamEpoch(5),
        length: u32::try_from(payload.len()).expect("small"),
        crc: crc32c(&payload),
        kind: 1,
        flags: 0,
    };
    EntryPart { meta, payload }
}

fn whole(pieces: &[Bytes]) -> Bytes {
    Bytes::from(pieces.concat())
}

/// Two streams, two windows, a hole below a log start and one inside.
fn sample() -> (Bytes, Summary) {
    let mut out = Vec::new();
    let mut writer = Writer::new(header(), &mut out);
    let (data, index) = (stream(1, StreamKind::Data), stream(1, StreamKind::Index));
    let epoch = StreamEpoch(5);
    let first = [part(12, 2, b"first"), part(14, 1, b"second")];
    writer.stream(data, 10..15, epoch, &first, &mut out).expect("follows");
    writer.stream(index, 0..1, epoch, &[part(0, 1, b"fact")], &mut out).expect("follows");
    writer.stream(data, 15..20, epoch, &[part(16, 4, b"third")], &mut out).expect("follows");
    writer.stream(stream(2, StreamKind::Data), 0..7, epoch, &[], &mut out).expect("follows");
    let summary = writer.finish(&mut out);
    (whole(&out), summary)
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    bytes.chunks(32).map(|chunk| line(chunk) + "\n").collect()
}

#[test]
fn the_format_is_the_golden_file() {
    let (object, _) = sample();
    assert_eq!(hex(&object), GOLDEN, "a change of format needs a new version byte and file");
}

#[test]
fn an_object_describes_itself() {
    let (object, summary) = sample();
    assert_eq!(Header::parse(&object), Ok(header()));
    assert_eq!((summary.bytes, summary.crc), (object.len() as u64, crc32c(&object)));
    let at = usize::try_from(summary.index_at).expect("small");
    let index = ObjectIndex::parse(&object[at..]).expect("sound");
    assert_eq!(index.footer.crc, summary.footer_crc);
    assert_eq!((index.footer.streams, index.footer.blocks), (3, 4));
    assert_eq!((index.footer.min_timestamp, index.footer.max_timestamp), (1000, 1016));
    let data = summary.streams[0];
    assert_eq!((data.start, data.end, data.bytes, data.records), (10, 20, 16, 6));
    assert_eq!(summary.streams[2].epoch, StreamEpoch(5), "a range without entries keeps its epoch");
    assert_eq!(index.blocks_of(data.stream, 14, 15).len(), 1);
    assert_eq!(index.blocks_of(data.stream, 14, 16).len(), 2);
    assert_eq!(index.blocks_of(data.stream, 20, 30).len(), 0);
}

fn read_all(object: &Bytes) -> Result<Vec<(StreamId, EntryMeta, Bytes)>, Damage> {
    Header::parse(object)?;
    let index = ObjectIndex::parse(object)?;
    let mut out = Vec::new();
    for info in index.blocks() {
        let at = usize::try_from(info.position).expect("small");
        let end = usize::try_from(info.position + info.length).expect("small");
        let block = Block::parse(&object.slice(at..end), info)?;
        for (position, meta) in block.entries().iter().enumerate() {
            out.push((info.stream, *meta, block.payload(position)));
        }
    }
    Ok(out)
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (object, _) = sample();
    let sound = read_all(&object).expect("sound");
    assert_eq!(sound.len(), 4);
    for bit in 0..object.len() * 8 {
        let mut bytes = object.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read_all(&Bytes::from(bytes)).is_err(), "bit {bit} of {}", object.len() * 8);
    }
    for len in 0..object.len() {
        assert!(read_all(&object.slice(..len)).is_err(), "cut to {len}");
    }
}

#[test]
fn damage_of_a_payload_names_the_offsets() {
    let (object, _) = sample();
    let at = object.windows(6).position(|window| window == b"second").expect("there");
    let mut bytes = object.to_vec();
    bytes[at] ^= 0x40;
    let error = read_all(&Bytes::from(bytes)).expect_err("damaged");
    assert_eq!(error, Damage::Payload { start: 14, end: 15 });
}

#[test]
fn what_does_not_follow_or_is_damaged_is_not_written() {
    let mut out = Vec::new();
    let mut writer = Writer::new(header(), &mut out);
    let (id, epoch) = (stream(1, StreamKind::Data), StreamEpoch(5));
    writer.stream(id, 0..3, epoch, &[part(0, 3, b"x")], &mut out).expect("follows");
    let gap = writer.stream(id, 4..5, epoch, &[part(4, 1, b"x")], &mut out);
    assert_eq!(gap, Err(WriteError::Gap { stream: id, expected: 3, got: 4 }));
    let mut bad = part(5, 1, b"x");
    bad.meta.crc ^= 1;
    let damaged = writer.stream(id, 5..6, epoch, &[bad], &mut out);
    assert_eq!(damaged, Err(WriteError::Checksum { stream: id, offset: 5 }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn what_is_written_is_read(
        sizes in prop::collection::vec((0_u64..3, 1_u64..5, 0_usize..400_000), 0..24),
    ) {
        let mut ends = [0_i64, 1 << 31, (1 << 62) + 5];
        let starts = ends;
        let mut streams: [Vec<EntryPart>; 3] = Default::default();
        for (topic, span, size) in sizes {
            let which = usize::try_from(topic).expect("small");
            let byte = u8::try_from(size % 251).expect("below 251");
            streams[which].push(part(ends[which], span, &vec![byte; size]));
            ends[which] += i64::try_from(span).expect("small");
        }
        let mut out = Vec::new();
        let mut writer = Writer::new(header(), &mut out);
        let mut expected = Vec::new();
        for (which, entries) in streams.iter().enumerate().filter(|(_, entries)| !entries.is_empty()) {
            let id = stream(which as u64, StreamKind::Data);
            let range = starts[which]..ends[which];
            writer.stream(id, range, StreamEpoch(5), entries, &mut out).expect("follows");
            expected.extend(entries.iter().map(|entry| (id, entry.meta, entry.payload.clone())));
        }
        let summary = writer.finish(&mut out);
        let object = whole(&out);
        prop_assert_eq!(summary.crc, crc32c(&object));
        prop_assert_eq!(read_all(&object).expect("sound"), expected);
    }

    #[test]
    fn hostile_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read_all(&Bytes::from(bytes)).is_err());
    }
}
