//! Keys.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{DecodeError, Reader, put_string};

/// A key of a kind this build knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Committed offset of a partition.
    Offset {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Metadata of a classic group.
    Group {
        /// The group.
        group: String,
    },
}

impl Key {
    const OFFSET_VERSION: i16 = 1;
    const GROUP_VERSION: i16 = 2;

    /// Encodes the key.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        match self {
            Self::Offset { group, topic, partition } => {
                out.put_i16(Self::OFFSET_VERSION);
                put_string(&mut out, group);
                put_string(&mut out, topic);
                out.put_i32(*partition);
            }
            Self::Group { group } => {
                out.put_i16(Self::GROUP_VERSION);
                put_string(&mut out, group);
            }
        }
        out.freeze()
    }

    /// Decodes a key; `Ok(None)` for a kind of record that this build does not know (another group protocol's).
    ///
    /// # Errors
    /// When a key of a known kind is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.i16("key version")? {
            0 | Self::OFFSET_VERSION => Ok(Some(Self::Offset {
                group: reader.string("group")?,
                topic: reader.string("topic")?,
                partition: reader.i32("partition")?,
            })),
            Self::GROUP_VERSION => Ok(Some(Self::Group { group: reader.string("group")? })),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_have_kafkas_bytes() {
        let offset = Key::Offset { group: "g".into(), topic: "tt".into(), partition: 7 };
        assert_eq!(&offset.encode()[..], b"\x00\x01\x00\x01g\x00\x02tt\x00\x00\x00\x07");
        let group = Key::Group { group: "grp".into() };
        assert_eq!(&group.encode()[..], b"\x00\x02\x00\x03grp");
    }

    #[test]
    fn unknown_kinds_are_left_alone_and_damage_is_named() {
        assert_eq!(Key::decode(b"\x00\x03\x00\x01g"), Ok(None));
        assert_eq!(Key::decode(b"\x00"), Err(DecodeError::Short { field: "key version" }));
        assert_eq!(Key::decode(b"\x00\x02\xff\xfe"), Err(DecodeError::Invalid { field: "group" }));
        assert_eq!(
            Key::decode(b"\x00\x01\x00\x01g\x00\x02tt\x00"),
            Err(DecodeError::Short { field: "partition" })
        );
    }

    proptest! {
        #[test]
        fn keys_survive_their_bytes(group in ".{0,40}", topic in ".{0,40}", partition: i32) {
            for key in [Key::Offset { group: group.clone(), topic, partition }, Key::Group { group }] {
                prop_assert_eq!(Key::decode(&key.encode()), Ok(Some(key)));
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Key::decode(&bytes);
        }
    }
}
