//! The value of an offset commit.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{DecodeError, Reader, put_string};

/// A committed offset. Version 3 (1 with an explicit expiry), after the i16 version:
///
/// ```text
/// v3 | offset: i64 | leader epoch: i32 | metadata: string | commit time: i64 |
/// v1 | offset: i64 | metadata: string | commit time: i64 | expiry: i64 |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 when not known.
    pub leader_epoch: i32,
    /// Free text of the client.
    pub metadata: String,
    /// Wall time of the commit in milliseconds.
    pub commit_ms: i64,
    /// Wall time in milliseconds after which the offset may go; `None` for the configured retention.
    pub expire_ms: Option<i64>,
}

impl CommittedOffset {
    /// Encodes the value.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(if self.expire_ms.is_some() { 1 } else { 3 });
        out.put_i64(self.offset);
        if self.expire_ms.is_none() {
            out.put_i32(self.leader_epoch);
        }
        put_string(&mut out, &self.metadata);
        out.put_i64(self.commit_ms);
        if let Some(expire_ms) = self.expire_ms {
            out.put_i64(expire_ms);
        }
        out.freeze()
    }

    /// Decodes versions 0 to 4.
    ///
    /// # Errors
    /// When the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16("offset value version")?;
        if !(0..=4).contains(&version) {
            return Err(DecodeError::Version { version });
        }
        reader.set_flexible(version >= 4);
        let offset = reader.i64("offset")?;
        let leader_epoch = if version >= 3 { reader.i32("leader epoch")? } else { -1 };
        let metadata = reader.string("metadata")?;
        let commit_ms = reader.i64("commit time")?;
        let expire_ms = match version {
            1 => Some(reader.i64("expiry")?).filter(|ms| *ms >= 0),
            _ => None,
        };
        reader.tags()?;
        Ok(Self { offset, leader_epoch, metadata, commit_ms, expire_ms })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> CommittedOffset {
        CommittedOffset {
            offset: 5,
            leader_epoch: 2,
            metadata: "m".into(),
            commit_ms: 1,
            expire_ms: None,
        }
    }

    #[test]
    fn version_3_has_kafkas_bytes() {
        let golden = b"\x00\x03\
            \x00\x00\x00\x00\x00\x00\x00\x05\
            \x00\x00\x00\x02\
            \x00\x01m\
            \x00\x00\x00\x00\x00\x00\x00\x01";
        assert_eq!(&sample().encode()[..], golden);
        assert_eq!(CommittedOffset::decode(golden), Ok(sample()));
    }

    #[test]
    fn version_1_carries_the_expiry_and_no_epoch() {
        let golden = b"\x00\x01\
            \x00\x00\x00\x00\x00\x00\x00\x05\
            \x00\x01m\
            \x00\x00\x00\x00\x00\x00\x00\x01\
            \x00\x00\x00\x00\x00\x00\x00\x09";
        let expiring = CommittedOffset { leader_epoch: -1, expire_ms: Some(9), ..sample() };
        assert_eq!(&expiring.encode()[..], golden);
        assert_eq!(CommittedOffset::decode(golden), Ok(expiring));
    }

    #[test]
    fn other_versions_are_read() {
        let v0 =
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x01m\x00\x00\x00\x00\x00\x00\x00\x01";
        let v2 =
            b"\x00\x02\x00\x00\x00\x00\x00\x00\x00\x05\x00\x01m\x00\x00\x00\x00\x00\x00\x00\x01";
        let older = CommittedOffset { leader_epoch: -1, ..sample() };
        assert_eq!(CommittedOffset::decode(v0), Ok(older.clone()));
        assert_eq!(CommittedOffset::decode(v2), Ok(older));
        // Flexible: compact string, one tagged field of three bytes.
        let v4 = b"\x00\x04\
            \x00\x00\x00\x00\x00\x00\x00\x05\
            \x00\x00\x00\x02\
            \x02m\
            \x00\x00\x00\x00\x00\x00\x00\x01\
            \x01\x00\x03abc";
        assert_eq!(CommittedOffset::decode(v4), Ok(sample()));
        assert_eq!(CommittedOffset::decode(b"\x00\x05"), Err(DecodeError::Version { version: 5 }));
    }

    proptest! {
        #[test]
        fn values_survive_their_bytes(
            offset: i64, leader_epoch: i32, metadata in ".{0,60}", commit_ms: i64,
            expire_ms in proptest::option::of(0..i64::MAX),
        ) {
            let leader_epoch = if expire_ms.is_some() { -1 } else { leader_epoch };
            let value = CommittedOffset { offset, leader_epoch, metadata, commit_ms, expire_ms };
            prop_assert_eq!(CommittedOffset::decode(&value.encode()), Ok(value));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = CommittedOffset::decode(&bytes);
        }
    }
}
