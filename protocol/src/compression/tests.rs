use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_survive(seed in prop::collection::vec(any::<u8>(), 0..300), repeat in 1usize..400) {
        let plain = Bytes::from(seed.repeat(repeat));
        for codec in Codec::ALL {
            let packed = compress(codec, plain.clone());
            prop_assert_eq!(decompress(codec, &packed, plain.len()), Ok(plain.clone()), "{}", codec);
            if !plain.is_empty() {
                let refused = Err(Error::TooLarge { codec, bytes_max: plain.len() - 1 });
                prop_assert_eq!(decompress(codec, &packed, plain.len() - 1), refused);
            }
        }
    }

    #[test]
    fn damage_is_an_error_or_bounded_never_a_panic(
        seed in prop::collection::vec(any::<u8>(), 1..300),
        at: prop::sample::Index,
        byte: u8,
        cut: prop::sample::Index,
    ) {
        for codec in Codec::ALL {
            let mut packed = compress(codec, Bytes::from(seed.repeat(9))).to_vec();
            let position = at.index(packed.len());
            packed[position] ^= byte;
            if let Ok(out) = decompress(codec, &packed, 4000) {
                prop_assert!(out.len() <= 4000);
            }
            packed.truncate(cut.index(packed.len()));
            let _ = decompress(codec, &packed, 4000);
        }
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let plain = Bytes::from(vec![0; 64 << 20]);
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let bomb = compress(codec, plain.clone());
        assert!(bomb.len() < 4 << 20, "{codec}");
        let refused = Err(Error::TooLarge { codec, bytes_max: 1 << 20 });
        assert_eq!(decompress(codec, &bomb, 1 << 20), refused);
    }
}

#[test]
fn raw_snappy_is_read_and_false_claims_are_not() {
    let raw = snap::raw::Encoder::new().compress_vec(b"abcabcabcabc").expect("small");
    assert_eq!(decompress(Codec::Snappy, &raw, 100), Ok(Bytes::from_static(b"abcabcabcabc")));
    let claim = [0xff, 0xff, 0xff, 0x7f, 0];
    assert!(matches!(
        decompress(Codec::Snappy, &claim, usize::MAX),
        Err(Error::Corrupt { codec: Codec::Snappy, .. })
    ));
}

#[test]
fn gzip_members_are_joined() {
    let mut two = compress(Codec::Gzip, Bytes::from_static(b"ab")).to_vec();
    two.extend_from_slice(&compress(Codec::Gzip, Bytes::from_static(b"cd")));
    assert_eq!(decompress(Codec::Gzip, &two, 4), Ok(Bytes::from_static(b"abcd")));
}

#[test]
fn names_and_numbers_find_their_codec() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_name(codec.name()), Some(codec));
        assert_eq!(Codec::from_number(codec.number()), Some(codec));
    }
    assert_eq!(Codec::from_name("uncompressed"), Some(Codec::None));
    assert_eq!(Codec::from_name("producer"), None);
    assert_eq!(Codec::from_number(5), None);
}
