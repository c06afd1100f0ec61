use proptest::prelude::*;
use protocol::batch::{Builder, field};

use super::*;

const NOW: i64 = 1_700_000_000_000;

fn rules() -> Rules {
    Rules::produce(&TopicConfig::default(), &Options::default(), 9, false, NOW)
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    for n in 0..3 {
        builder.push(NOW - n, Some(b"key"), Some(b"value"), &[(b"h", None), (b"h", Some(b"x"))]);
    }
    builder
}

fn batch() -> Bytes {
    builder().build().expect("small")
}

/// The batch with `value` at `at` and a right checksum.
fn patched(batch: &Bytes, at: usize, value: &[u8]) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[at..at + value.len()].copy_from_slice(value);
    let crc = common::crc32c(&bytes[field::ATTRIBUTES..]);
    bytes[field::CRC..field::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn code(bytes: &Bytes, rules: &Rules) -> ErrorCode {
    match validate(bytes, rules) {
        Ok(_) => ErrorCode::None,
        Err(reject) => reject.code,
    }
}

#[test]
fn a_good_batch_keeps_its_bytes() {
    for codec in Codec::ALL {
        let bytes = builder().codec(codec).build().expect("small");
        let checked = validate(&bytes, &rules()).expect("good");
        assert_eq!((checked.count(), checked.span(), checked.max_timestamp()), (3, 3, NOW));
        assert_eq!((checked.log_append_time(), checked.sequenced()), (-1, None));
        let stamped = checked.stamp(77, 5);
        let written = Bytes::from(stamped.parts().concat());
        assert_eq!(written[16..], bytes[16..]);
        let header = Header::parse(&written).expect("a batch");
        assert_eq!((header.base_offset, header.leader_epoch), (77, 5));
        assert!(batch::crc_is_right(&written));
    }
}

#[test]
fn exactly_one_batch_of_format_2() {
    let good = batch();
    assert_eq!(code(&Bytes::new(), &rules()), ErrorCode::InvalidRecord);
    let two = Bytes::from([good.as_ref(), good.as_ref()].concat());
    assert_eq!(code(&two, &rules()), ErrorCode::InvalidRecord);
    for (magic, expected) in [
        (0, ErrorCode::InvalidRecord),
        (1, ErrorCode::InvalidRecord),
        (3, ErrorCode::CorruptMessage),
    ] {
        let bytes = patched(&good, field::MAGIC, &[magic]);
        assert_eq!(code(&bytes, &rules()), expected);
    }
}

#[test]
fn lengths_and_checksum() {
    let good = batch();
    for cut in 1..good.len() {
        assert_eq!(code(&good.slice(..cut), &rules()), ErrorCode::InvalidRecord, "{cut} bytes");
    }
    for length in [-1i32, 0, 48] {
        let bytes = patched(&good, field::LENGTH, &length.to_be_bytes());
        assert_eq!(code(&bytes, &rules()), ErrorCode::CorruptMessage);
    }
    let bytes = patched(&good, field::LENGTH, &i32::MAX.to_be_bytes());
    assert_eq!(code(&bytes, &rules()), ErrorCode::InvalidRecord);
    for at in field::ATTRIBUTES..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x40;
        let found = code(&bad.into(), &rules());
        assert_eq!(found, ErrorCode::CorruptMessage, "byte {at}");
    }
}

#[test]
fn zstd_needs_version_7_and_codecs_are_known() {
    let zstd = builder().codec(Codec::Zstd).build().expect("small");
    let old = Rules { api_version: 6, ..rules() };
    assert_eq!(code(&zstd, &old), ErrorCode::UnsupportedCompressionType);
    assert_eq!(code(&zstd, &Rules { api_version: 7, ..rules() }), ErrorCode::None);
    let unknown = patched(&batch(), field::ATTRIBUTES, &7i16.to_be_bytes());
    assert_eq!(code(&unknown, &rules()), ErrorCode::UnsupportedCompressionType);
}

#[test]
fn sizes_are_bounded_also_when_decompressed() {
    let good = batch();
    let exact = Rules { message_bytes_max: good.len(), ..rules() };
    assert_eq!(code(&good, &exact), ErrorCode::None);
    let less = Rules { message_bytes_max: good.len() - 1, ..rules() };
    assert_eq!(code(&good, &less), ErrorCode::MessageTooLarge);
    let mut bomb = Builder::new().codec(Codec::Zstd);
    bomb.push(NOW, Some(b"k"), Some(&vec![0; 1 << 20]), &[]);
    let bomb = bomb.build().expect("small");
    let capped = Rules { decompressed_bytes_max: 1 << 19, ..rules() };
    assert_eq!(code(&bomb, &capped), ErrorCode::MessageTooLarge);
    assert_eq!(code(&bomb, &rules()), ErrorCode::None);
}

#[test]
fn counts_agree_with_what_is_inside() {
    for codec in Codec::ALL {
        let good = builder().codec(codec).build().expect("small");
        for (count, delta) in [(0i32, 0i32), (0, -1), (3, 3), (4, 2), (2, 1), (4, 3), (-1, -2)] {
            let bytes = patched(&good, field::RECORD_COUNT, &count.to_be_bytes());
            let bytes = patched(&bytes, field::LAST_OFFSET_DELTA, &delta.to_be_bytes());
            assert_eq!(code(&bytes, &rules()), ErrorCode::InvalidRecord, "{codec} {count} {delta}");
        }
        let far = patched(&good, field::BASE_OFFSET, &1i64.to_be_bytes());
        assert_eq!(code(&far, &rules()), ErrorCode::InvalidRecord);
    }
}

#[test]
fn offset_deltas_rise_by_one_from_zero() {
    let good = batch();
    // Record: length, attributes, timestamp delta, offset delta, ... all one byte in the first record.
    let delta_at = HEADER_BYTES + 3;
    assert_eq!(good[delta_at], 0);
    let bytes = patched(&good, delta_at, &[2]);
    let reject = validate(&bytes, &rules()).expect_err("delta 1 comes first");
    assert_eq!(reject.code, ErrorCode::InvalidRecord);
    assert_eq!(reject.record_errors.len(), 1);
    assert_eq!(reject.record_errors[0].index, 0);
}

#[test]
fn what_only_brokers_may_set() {
    let control = builder().control().build().expect("small");
    assert_eq!(code(&control, &rules()), ErrorCode::InvalidRecord);
    let append_time = builder().append_time().build().expect("small");
    let cleared = validate(&append_time, &rules()).expect("the topic's own type counts");
    assert!(!cleared.header().attributes.append_time());
    let by_append = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    let reject = validate(&append_time, &by_append).expect_err("not the client's to set");
    assert_eq!(reject.code, ErrorCode::InvalidTimestamp);
    assert!(reject.by_the_log && !reject.record_errors.is_empty());
    let negative = builder().producer(5, 0, -1).build().expect("small");
    assert_eq!(code(&negative, &rules()), ErrorCode::InvalidRecord);
    let transactional = builder().producer(5, 0, 0).transactional().build().expect("small");
    assert_eq!(code(&transactional, &rules()), ErrorCode::TransactionalIdAuthorizationFailed);
    let with_id = Rules { transactional_id: true, ..rules() };
    assert_eq!(code(&transactional, &with_id), ErrorCode::InvalidTxnState);
    let idempotent = builder().producer(5, 1, 7).build().expect("small");
    let expected = Sequenced { producer_id: 5, epoch: 1, first_sequence: 7, last_offset_delta: 2 };
    let checked = validate(&idempotent, &rules()).expect("good");
    assert_eq!(checked.sequenced(), Some(expected));
}

#[test]
fn a_compacted_topic_names_the_records_without_a_key() {
    for codec in Codec::ALL {
        let mut builder = Builder::new().codec(codec);
        builder.push(NOW, Some(b"key"), None, &[]);
        builder.push(NOW, None, Some(b"value"), &[]);
        builder.push(NOW, None, None, &[]);
        let bytes = builder.build().expect("small");
        assert_eq!(code(&bytes, &rules()), ErrorCode::None);
        let compacted = Rules { compacted: true, ..rules() };
        let reject = validate(&bytes, &compacted).expect_err("two have no key");
        let indexes: Vec<i32> = reject.record_errors.iter().map(|error| error.index).collect();
        assert_eq!((reject.code, indexes), (ErrorCode::InvalidRecord, vec![1, 2]));
    }
}

#[test]
fn create_times_have_a_range() {
    let of = |times: &[i64]| {
        let mut builder = Builder::new();
        times.iter().for_each(|time| builder.push(*time, None, None, &[]));
        builder.build().expect("small")
    };
    assert_eq!(code(&of(&[NOW + 3_600_000, 0, -1]), &rules()), ErrorCode::None);
    let reject = validate(&of(&[NOW, NOW + 3_600_001]), &rules()).expect_err("too far ahead");
    assert_eq!(reject.code, ErrorCode::InvalidTimestamp);
    assert_eq!(reject.record_errors[0].index, 1);
    let before = Rules { timestamp_before_max_ms: 1000, ..rules() };
    assert_eq!(code(&of(&[NOW - 1000]), &before), ErrorCode::None);
    assert_eq!(code(&of(&[NOW - 1001]), &before), ErrorCode::InvalidTimestamp);
    let append = Rules { timestamp_type: TimestampType::LogAppendTime, ..before };
    assert_eq!(code(&of(&[NOW - 1001]), &append), ErrorCode::None);
}

#[test]
fn append_time_rewrites_the_header_with_a_new_checksum() {
    let rules = Rules { timestamp_type: TimestampType::LogAppendTime, ..rules() };
    let bytes = batch();
    let checked = validate(&bytes, &Rules { now_ms: NOW + 9, ..rules }).expect("good");
    assert_eq!((checked.log_append_time(), checked.max_timestamp()), (NOW + 9, NOW + 9));
    let written = Bytes::from(checked.stamp(40, 2).parts().concat());
    assert!(batch::crc_is_right(&written));
    let header = Header::parse(&written).expect("a batch");
    assert!(header.attributes.append_time());
    assert_eq!((header.base_offset, header.leader_epoch, header.max_timestamp), (40, 2, NOW + 9));
    assert_eq!(written[HEADER_BYTES..], bytes[HEADER_BYTES..]);
}

#[test]
fn a_highest_timestamp_that_lies_is_corrected() {
    let lying = patched(&batch(), field::MAX_TIMESTAMP, &5i64.to_be_bytes());
    let checked = validate(&lying, &rules()).expect("Kafka takes it");
    assert_eq!((checked.max_timestamp(), checked.log_append_time()), (NOW, -1));
    let written = Bytes::from(checked.stamp(0, 0).parts().concat());
    assert!(batch::crc_is_right(&written));
    assert_eq!(Header::parse(&written).expect("a batch").max_timestamp, NOW);
}

#[test]
fn records_that_do_not_parse_are_invalid() {
    for codec in Codec::ALL.into_iter().filter(|codec| *codec != Codec::None) {
        let attributes = codec.number().to_be_bytes();
        // Plain records that pose as compressed ones.
        let bytes = patched(&batch(), field::ATTRIBUTES, &attributes);
        assert_eq!(code(&bytes, &rules()), ErrorCode::InvalidRecord, "{codec}");
        let lax = Rules { full: false, ..rules() };
        assert_eq!(code(&bytes, &lax), ErrorCode::None, "{codec}");
    }
    let long = patched(&batch(), HEADER_BYTES, &[0x7f]);
    assert_eq!(code(&long, &rules()), ErrorCode::InvalidRecord);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        at in 0usize..200,
        value in prop::collection::vec(any::<u8>(), 1..9),
        seal: bool,
        codec in 0i16..5,
    ) {
        let codec = Codec::from_number(codec).expect("in range");
        let good = builder().codec(codec).build().expect("small");
        let at = at % (good.len() - value.len().min(good.len() - 1));
        let value = &value[..value.len().min(good.len() - at)];
        let bytes = if seal {
            patched(&good, at, value)
        } else {
            let mut bytes = good.to_vec();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes.into()
        };
        if let Ok(checked) = validate(&bytes, &rules()) {
            let written = checked.stamp(3, 4).parts().concat();
            prop_assert_eq!(written.len(), checked.len());
        }
    }
}

#[test]
fn batches_are_brought_into_the_topics_codec() {
    for from in Codec::ALL {
        for target in Codec::ALL {
            let sent = builder().codec(from).build().expect("small");
            let wanted = Rules { codec: Some(target), ..rules() };
            let checked = validate(&sent, &wanted).expect("a good batch");
            let stored = Bytes::from(checked.stamp(0, 0).parts().concat());
            let header = Header::parse(&stored).expect("a batch");
            assert_eq!(header.attributes.codec(), Some(target), "{from} to {target}");
            assert!(batch::crc_is_right(&stored));
            let open = |bytes: &Bytes| {
                let header = Header::parse(bytes).expect("a batch");
                batch::payload(bytes, &header, 1 << 20).expect("opens")
            };
            assert_eq!(open(&stored), open(&sent), "{from} to {target}");
            if from == target {
                assert_eq!(checked.len(), sent.len());
            }
        }
    }
    let tight = Rules { codec: Some(Codec::None), message_bytes_max: 70, ..rules() };
    assert_eq!(code(&batch(), &tight), ErrorCode::MessageTooLarge);
}
