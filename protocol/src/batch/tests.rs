use bytes::BytesMut;
use kafka_protocol::records as theirs;
use proptest::prelude::*;

use super::*;

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;
type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Headers);

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..80)
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let headers = prop::collection::vec((bytes(), prop::option::of(bytes())), 0..4);
    let row = (0i64..1 << 45, prop::option::of(bytes()), prop::option::of(bytes()), headers);
    prop::collection::vec(row, 1..20)
}

fn built(builder: Builder, rows: &[Row]) -> Bytes {
    let mut builder = builder;
    for (timestamp, key, value, headers) in rows {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
        builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers);
    }
    builder.build().expect("a batch")
}

fn read(batch: &Bytes) -> Vec<Row> {
    let header = Header::parse(batch).expect("a header");
    let payload = payload(batch, &header, 1 << 20).expect("decompresses");
    let owned = |bytes: &[u8]| bytes.to_vec();
    Records::new(&payload, header.record_count)
        .enumerate()
        .map(|(index, record)| {
            let record = record.expect("a record");
            assert_eq!(usize::try_from(record.offset_delta), Ok(index));
            let headers = record.headers.map(|(k, v)| (owned(k), v.map(owned))).collect();
            (record.timestamp(&header), record.key.map(owned), record.value.map(owned), headers)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn batches_survive_in_every_codec(rows in rows()) {
        for codec in Codec::ALL {
            let builder = Builder::new().base_offset(70).leader_epoch(4).codec(codec);
            let batch = built(builder.producer(9, 2, 5).transactional(), &rows);
            let header = Header::parse(&batch).expect("a header");
            prop_assert!(crc_is_right(&batch));
            prop_assert_eq!(header.size(), batch.len());
            prop_assert_eq!(header.attributes.codec(), Some(codec));
            prop_assert!(header.attributes.transactional() && !header.attributes.control());
            prop_assert_eq!(header.last_offset(), 69 + i64::from(header.record_count));
            prop_assert_eq!(header.last_sequence(), 4 + header.record_count);
            let highest = rows.iter().map(|row| row.0).max();
            prop_assert_eq!(Some(header.max_timestamp), highest);
            prop_assert_eq!(&read(&batch), &rows);
        }
    }

    #[test]
    fn the_codec_crate_reads_the_same(mut rows in rows()) {
        // It wants header keys that are UTF-8 and drops repeated ones.
        rows.iter_mut().for_each(|row| row.3.clear());
        let batch = built(Builder::new().base_offset(7).leader_epoch(4), &rows);
        let set = theirs::RecordBatchDecoder::decode(&mut batch.clone()).expect("decodes");
        prop_assert_eq!(set.records.len(), rows.len());
        for (record, row) in set.records.iter().zip(&rows) {
            prop_assert_eq!(record.timestamp, row.0);
            prop_assert_eq!(record.key.as_deref(), row.1.as_deref());
            prop_assert_eq!(record.value.as_deref(), row.2.as_deref());
            prop_assert_eq!(record.partition_leader_epoch, 4);
        }
    }

    #[test]
    fn the_codec_crate_writes_the_same(
        values in prop::collection::vec((0i64..1 << 40, prop::option::of(bytes())), 1..9),
    ) {
        let records = values.iter().enumerate().map(|(at, (timestamp, value))| theirs::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: theirs::TimestampType::Creation,
            offset: i64::try_from(at).expect("small"),
            sequence: -1 + i32::try_from(at).expect("small"),
            timestamp: *timestamp,
            key: None,
            value: value.clone().map(Bytes::from),
            headers: Default::default(),
        });
        let records: Vec<_> = records.collect();
        let options = theirs::RecordEncodeOptions { version: 2, compression: theirs::Compression::None };
        let mut wanted = BytesMut::new();
        theirs::RecordBatchEncoder::encode(&mut wanted, &records, &options).expect("encodes");
        // The crate takes the lowest timestamp as the base; Kafka's clients and this builder the first.
        let ours = built(Builder::new(), &read(&wanted.clone().freeze()));
        let (mine, other) = (Header::parse(&ours).expect("mine"), Header::parse(&wanted).expect("other"));
        prop_assert_eq!(mine.record_count, other.record_count);
        prop_assert_eq!(mine.max_timestamp, other.max_timestamp);
        prop_assert_eq!(mine.last_offset_delta, other.last_offset_delta);
        prop_assert!(crc_is_right(&wanted));
    }

    #[test]
    fn damaged_records_never_panic(
        rows in rows(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        count in prop_oneof![Just(i32::MAX), Just(-5), 0i32..30],
    ) {
        let batch = built(Builder::new(), &rows);
        let mut payload = batch[HEADER_BYTES..].to_vec();
        for (at, byte) in &hits {
            let at = at.index(payload.len());
            payload[at] = *byte;
        }
        let mut errors = 0;
        for record in Records::new(&payload, count) {
            match record {
                Ok(record) => {
                    let headers = record.headers.count();
                    prop_assert!(headers <= payload.len());
                }
                Err(_) => errors += 1,
            }
        }
        prop_assert!(errors <= 1);
        for end in 0..payload.len() {
            Records::new(&payload[..end], count).for_each(drop);
        }
    }

    #[test]
    fn a_patch_keeps_the_crc_and_a_stamp_renews_it(rows in rows(), offset: i64, epoch: i32, time: i64) {
        let batch = built(Builder::new(), &rows);
        let header = Header::parse(&batch).expect("a header");
        prop_assert_eq!(&header.to_bytes()[..], &batch[..HEADER_BYTES]);
        let mut patched = batch.to_vec();
        patched[..16].copy_from_slice(&header.patched_head(offset, epoch));
        prop_assert!(crc_is_right(&patched));
        let read = Header::parse(&patched).expect("a header");
        prop_assert_eq!((read.base_offset, read.leader_epoch), (offset, epoch));
        let records = &batch[HEADER_BYTES..];
        let stamped = [&header.stamped_head(offset, epoch, time, records)[..], records].concat();
        prop_assert!(crc_is_right(&stamped));
        let read = Header::parse(&stamped).expect("a header");
        prop_assert!(read.attributes.append_time());
        prop_assert_eq!(read.max_timestamp, time);
        let record = Records::new(records, read.record_count).next();
        prop_assert_eq!(record.map(|record| record.expect("one").timestamp(&read)), Some(time));
    }
}

/// Two headers of one key are two headers; the codec crate makes one of them.
#[test]
fn repeated_header_keys_are_kept_in_order() {
    let headers: Headers = vec![
        (b"k".to_vec(), Some(b"1".to_vec())),
        (vec![0xff], None),
        (b"k".to_vec(), Some(vec![])),
    ];
    let rows = vec![(5, None, None, headers)];
    assert_eq!(read(&built(Builder::new(), &rows)), rows);
}

#[test]
fn bytes_that_are_not_a_batch_are_named() {
    let batch = built(Builder::new(), &[(1, None, Some(vec![1]), vec![])]);
    for end in 0..HEADER_BYTES {
        let short = Error::Short { wanted: HEADER_BYTES, found: end };
        assert_eq!(Header::parse(&batch[..end]), Err(short));
        assert!(!crc_is_right(&batch[..end]));
    }
    for magic in [0u8, 1, 3, 0xff] {
        let mut old = batch[..20].to_vec();
        old[field::MAGIC] = magic;
        assert_eq!(Header::parse(&old), Err(Error::Magic(magic.cast_signed())));
    }
    for length in [-1i32, 0, 48] {
        let mut bad = batch.to_vec();
        bad[field::LENGTH..field::LEADER_EPOCH].copy_from_slice(&length.to_be_bytes());
        assert_eq!(Header::parse(&bad), Err(Error::Length(length)));
    }
    let mut flipped = batch.to_vec();
    flipped[HEADER_BYTES] ^= 1;
    assert!(!crc_is_right(&flipped));
}

#[test]
fn batches_back_to_back_are_walked_and_a_torn_one_ends_the_walk() {
    let one = built(Builder::new(), &[(1, None, Some(vec![1]), vec![])]);
    let two = built(Builder::new().base_offset(1), &[(1, None, Some(vec![2; 50]), vec![])]);
    let both = Bytes::from([&one[..], &two[..]].concat());
    let walked: Vec<_> = Batches::new(both.clone()).map(|next| next.expect("a batch").1).collect();
    assert_eq!(walked, [one.clone(), two.clone()]);
    let torn: Vec<_> = Batches::new(both.slice(..both.len() - 1)).collect();
    assert_eq!(torn.len(), 2);
    let short = Error::Short { wanted: two.len(), found: two.len() - 1 };
    assert_eq!(torn[1].clone().map(|next| next.1), Err(short));
}

#[test]
fn counts_and_lengths_that_lie_are_errors() {
    let batch = built(Builder::new(), &[(1, None, Some(vec![1]), vec![]), (1, None, None, vec![])]);
    let payload = &batch[HEADER_BYTES..];
    let last = |count| Records::new(payload, count).last().expect("an item");
    assert!(last(2).is_ok());
    assert!(matches!(last(1), Err(RecordError::Trailing { count: 1, .. })));
    assert!(matches!(last(3), Err(RecordError::Wire { index: 2, .. })));
    assert!(matches!(last(0), Err(RecordError::Trailing { count: 0, .. })));
    // length 7; attributes, timestamp, offset, null key, null value, headers: 1,000,000
    let headers = [16, 0, 0, 0, 1, 1, 0x80, 0x89, 0x7a];
    let error = Records::new(&headers, 1).next().expect("an item");
    assert!(matches!(error, Err(RecordError::Wire { index: 0, .. })), "{error:?}");
    // A record longer than its parts.
    let slack = [14, 0, 0, 0, 1, 1, 0, 9];
    let error = Records::new(&slack, 1).next().expect("an item");
    assert_eq!(error, Err(RecordError::Slack { index: 0, left: 1 }));
}

#[test]
fn sequences_wrap_to_zero() {
    let batch = built(
        Builder::new().producer(1, 0, i32::MAX - 1),
        &[(1, None, None, vec![]), (1, None, None, vec![]), (1, None, None, vec![])],
    );
    assert_eq!(Header::parse(&batch).expect("a header").last_sequence(), 0);
    let none = built(Builder::new(), &[(1, None, None, vec![])]);
    assert_eq!(Header::parse(&none).expect("a header").last_sequence(), NO_SEQUENCE);
}

#[test]
fn markers_survive() {
    for kind in [ControlType::Abort, ControlType::Commit] {
        let marker = EndTransactionMarker { kind, coordinator_epoch: 6 };
        let batch = marker.batch(40, 3, 1000, 77, 2).expect("a batch");
        let header = Header::parse(&batch).expect("a header");
        assert!(header.attributes.control() && header.attributes.transactional());
        assert_eq!((header.base_offset, header.producer_id, header.producer_epoch), (40, 77, 2));
        let record = Records::new(&batch[HEADER_BYTES..], 1).next().expect("one").expect("reads");
        assert_eq!(EndTransactionMarker::from_record(&record), Some(marker));
    }
}

#[test]
fn empty_batches_are_not_built() {
    assert_eq!(Builder::new().build(), Err(BuildError::Empty));
}

/// Written down by hand from the format's description: one record, key "k", value "v", one header "h" = "x".
#[test]
fn a_batch_is_these_bytes() {
    let headers: [(&[u8], Option<&[u8]>); 1] = [(b"h", Some(b"x"))];
    let mut builder = Builder::new().base_offset(1).leader_epoch(2).producer(3, 4, 5);
    builder.push(6, Some(b"k"), Some(b"v"), &headers);
    let batch = builder.build().expect("a batch");
    let record = [24, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 2, b'x'];
    let mut wanted = Vec::new();
    wanted.extend_from_slice(&1i64.to_be_bytes());
    wanted.extend_from_slice(&(49i32 + 13).to_be_bytes());
    wanted.extend_from_slice(&2i32.to_be_bytes());
    wanted.push(2);
    let mut covered = Vec::new();
    covered.extend_from_slice(&0i16.to_be_bytes());
    covered.extend_from_slice(&0i32.to_be_bytes());
    covered.extend_from_slice(&6i64.to_be_bytes());
    covered.extend_from_slice(&6i64.to_be_bytes());
    covered.extend_from_slice(&3i64.to_be_bytes());
    covered.extend_from_slice(&4i16.to_be_bytes());
    covered.extend_from_slice(&5i32.to_be_bytes());
    covered.extend_from_slice(&1i32.to_be_bytes());
    covered.extend_from_slice(&record);
    wanted.extend_from_slice(&common::crc32c(&covered).to_be_bytes());
    wanted.extend_from_slice(&covered);
    assert_eq!(&batch[..], wanted);
}
