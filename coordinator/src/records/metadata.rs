//! The value of a group's metadata.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{DecodeError, Reader, put_bytes, put_nullable_string, put_string};

/// A committed generation of a classic group. Version 3, after the i16 version:
///
/// ```text
/// | protocol type: string | generation: i32 | protocol: string? | leader: string? | state time: i64 | members: array |
/// member | id: string | instance: string? | client id: string | client host: string |
///        | rebalance time-out: i32 | session time-out: i32 | subscription: bytes | assignment: bytes |
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMetadata {
    /// Empty for a group that never had a member.
    pub protocol_type: String,
    /// Number of the generation.
    pub generation: i32,
    /// The chosen protocol; `None` without members.
    pub protocol: Option<String>,
    /// Id of the leader; `None` without members.
    pub leader: Option<String>,
    /// Wall time in milliseconds of the last change of state, -1 when not known.
    pub state_ms: i64,
    /// The members with what they were assigned.
    pub members: Vec<MemberMetadata>,
}

/// One member of a committed generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberMetadata {
    /// Id.
    pub member: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Address.
    pub client_host: String,
    /// Milliseconds.
    pub rebalance_timeout_ms: i32,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// Subscription under the chosen protocol.
    pub subscription: Bytes,
    /// Assignment of this generation.
    pub assignment: Bytes,
}

impl GroupMetadata {
    const VERSION: i16 = 3;

    /// Encodes the value.
    ///
    /// # Panics
    /// When there are more members than an i32 counts.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_i16(Self::VERSION);
        put_string(&mut out, &self.protocol_type);
        out.put_i32(self.generation);
        put_nullable_string(&mut out, self.protocol.as_deref());
        put_nullable_string(&mut out, self.leader.as_deref());
        out.put_i64(self.state_ms);
        out.put_i32(i32::try_from(self.members.len()).expect("fewer members than 2^31"));
        for member in &self.members {
            put_string(&mut out, &member.member);
            put_nullable_string(&mut out, member.instance.as_deref());
            put_string(&mut out, &member.client_id);
            put_string(&mut out, &member.client_host);
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out.freeze()
    }

    /// Decodes versions 0 to 4.
    ///
    /// # Errors
    /// When the bytes are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let version = reader.i16("group value version")?;
        if !(0..=4).contains(&version) {
            return Err(DecodeError::Version { version });
        }
        reader.set_flexible(version >= 4);
        let protocol_type = reader.string("protocol type")?;
        let generation = reader.i32("generation")?;
        let protocol = reader.nullable_string("protocol")?;
        let leader = reader.nullable_string("leader")?;
        let state_ms = if version >= 2 { reader.i64("state time")? } else { -1 };
        let count = reader.count("members")?;
        let members = (0..count)
            .map(|_| MemberMetadata::decode(&mut reader, version))
            .collect::<Result<_, _>>()?;
        reader.tags()?;
        Ok(Self { protocol_type, generation, protocol, leader, state_ms, members })
    }
}

impl MemberMetadata {
    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        let member = reader.string("member id")?;
        let instance = if version >= 3 { reader.nullable_string("instance id")? } else { None };
        let client_id = reader.string("client id")?;
        let client_host = reader.string("client host")?;
        let rebalance = if version >= 1 { reader.i32("rebalance time-out")? } else { -1 };
        let session_timeout_ms = reader.i32("session time-out")?;
        let subscription = reader.bytes("subscription")?;
        let assignment = reader.bytes("assignment")?;
        reader.tags()?;
        let rebalance_timeout_ms = if rebalance < 0 { session_timeout_ms } else { rebalance };
        Ok(Self {
            member,
            instance,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> GroupMetadata {
        GroupMetadata {
            protocol_type: "consumer".into(),
            generation: 3,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            state_ms: 7,
            members: vec![MemberMetadata {
                member: "m1".into(),
                instance: None,
                client_id: "c".into(),
                client_host: "/h".into(),
                rebalance_timeout_ms: 256,
                session_timeout_ms: 10,
                subscription: Bytes::from_static(b"s"),
                assignment: Bytes::from_static(b"as"),
            }],
        }
    }

    #[test]
    fn version_3_has_kafkas_bytes() {
        let golden = b"\x00\x03\
            \x00\x08consumer\
            \x00\x00\x00\x03\
            \x00\x05range\
            \x00\x02m1\
            \x00\x00\x00\x00\x00\x00\x00\x07\
            \x00\x00\x00\x01\
            \x00\x02m1\xff\xff\x00\x01c\x00\x02/h\
            \x00\x00\x01\x00\x00\x00\x00\x0a\
            \x00\x00\x00\x01s\x00\x00\x00\x02as";
        assert_eq!(&sample().encode()[..], golden);
        assert_eq!(GroupMetadata::decode(golden), Ok(sample()));
    }

    #[test]
    fn an_empty_group_has_null_protocol_and_leader() {
        let empty = GroupMetadata { state_ms: 1, ..GroupMetadata::default() };
        let golden = b"\x00\x03\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\
            \x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00";
        assert_eq!(&empty.encode()[..], golden);
        assert_eq!(GroupMetadata::decode(golden), Ok(empty));
    }

    #[test]
    fn version_0_and_4_are_read() {
        let v0 = b"\x00\x00\x00\x08consumer\x00\x00\x00\x03\x00\x05range\x00\x02m1\
            \x00\x00\x00\x01\x00\x02m1\x00\x01c\x00\x02/h\x00\x00\x00\x0a\
            \x00\x00\x00\x01s\x00\x00\x00\x02as";
        let mut older = sample();
        older.state_ms = -1;
        older.members[0].rebalance_timeout_ms = 10;
        assert_eq!(GroupMetadata::decode(v0), Ok(older));
        let v4 = b"\x00\x04\x09consumer\x00\x00\x00\x03\x06range\x03m1\
            \x00\x00\x00\x00\x00\x00\x00\x07\x02\
            \x03m1\x00\x02c\x03/h\x00\x00\x01\x00\x00\x00\x00\x0a\x02s\x03as\x00\x00";
        assert_eq!(GroupMetadata::decode(v4), Ok(sample()));
    }

    #[test]
    fn a_hostile_count_is_refused_before_it_allocates() {
        let bytes = b"\x00\x03\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\
            \x00\x00\x00\x00\x00\x00\x00\x01\x7f\xff\xff\xff";
        assert_eq!(GroupMetadata::decode(bytes), Err(DecodeError::Short { field: "members" }));
    }

    prop_compose! {
        fn any_member()(
            member in ".{0,20}", instance in proptest::option::of(".{0,9}"), client in ".{0,9}",
            session_timeout_ms: i32, rebalance_timeout_ms in 0..i32::MAX,
            subscription: Vec<u8>, assignment: Vec<u8>,
        ) -> MemberMetadata {
            MemberMetadata {
                member, instance, client_id: client.clone(), client_host: client,
                rebalance_timeout_ms, session_timeout_ms,
                subscription: subscription.into(), assignment: assignment.into(),
            }
        }
    }

    proptest! {
        #[test]
        fn values_survive_their_bytes(
            protocol_type in ".{0,20}", generation: i32, state_ms: i64,
            protocol in proptest::option::of(".{0,9}"), leader in proptest::option::of(".{0,9}"),
            members in proptest::collection::vec(any_member(), 0..4),
        ) {
            let value =
                GroupMetadata { protocol_type, generation, protocol, leader, state_ms, members };
            prop_assert_eq!(GroupMetadata::decode(&value.encode()), Ok(value));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = GroupMetadata::decode(&bytes);
        }
    }
}
