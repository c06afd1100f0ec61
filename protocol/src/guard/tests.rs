//! Each schema against the codec, both ways: what the schema generates the codec reads whole and writes back the same;
//! what the codec writes the guard takes.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as kafka;
use kafka_protocol::protocol::Request;
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use super::schema::{Field, Kind};
use super::*;
use crate::api::SERVED;
use crate::wire::Writer;

type Decode = fn(i16, Bytes) -> Result<(Bytes, usize), String>;

/// Decodes and encodes again; gives the bytes and how many the decoder left.
fn again<T: Request>(version: i16, bytes: Bytes) -> Result<(Bytes, usize), String> {
    let mut rest = bytes;
    let message = T::decode(&mut rest, version).map_err(|error| error.to_string())?;
    let mut out = BytesMut::new();
    message.encode(&mut out, version).map_err(|error| error.to_string())?;
    Ok((out.freeze(), rest.len()))
}

fn default_bytes<T: Request + Default>(version: i16) -> Bytes {
    let mut out = BytesMut::new();
    T::default().encode(&mut out, version).expect("a default request encodes");
    out.freeze()
}

macro_rules! codecs {
    ($($name:ident)*) => {
        fn codec_of(key: ApiKey) -> Decode {
            match key {
                $(ApiKey::$name => again::<paste!($name)>,)*
            }
        }

        fn default_of(key: ApiKey, version: i16) -> Bytes {
            match key {
                $(ApiKey::$name => default_bytes::<paste!($name)>(version),)*
            }
        }
    };
}

macro_rules! paste {
    (Produce) => {
        kafka::ProduceRequest
    };
    (Fetch) => {
        kafka::FetchRequest
    };
    (ListOffsets) => {
        kafka::ListOffsetsRequest
    };
    (Metadata) => {
        kafka::MetadataRequest
    };
    (OffsetCommit) => {
        kafka::OffsetCommitRequest
    };
    (OffsetFetch) => {
        kafka::OffsetFetchRequest
    };
    (FindCoordinator) => {
        kafka::FindCoordinatorRequest
    };
    (JoinGroup) => {
        kafka::JoinGroupRequest
    };
    (Heartbeat) => {
        kafka::HeartbeatRequest
    };
    (LeaveGroup) => {
        kafka::LeaveGroupRequest
    };
    (SyncGroup) => {
        kafka::SyncGroupRequest
    };
    (DescribeGroups) => {
        kafka::DescribeGroupsRequest
    };
    (ListGroups) => {
        kafka::ListGroupsRequest
    };
    (ApiVersions) => {
        kafka::ApiVersionsRequest
    };
    (CreateTopics) => {
        kafka::CreateTopicsRequest
    };
    (DeleteTopics) => {
        kafka::DeleteTopicsRequest
    };
    (DeleteRecords) => {
        kafka::DeleteRecordsRequest
    };
    (InitProducerId) => {
        kafka::InitProducerIdRequest
    };
    (OffsetForLeaderEpoch) => {
        kafka::OffsetForLeaderEpochRequest
    };
    (DescribeConfigs) => {
        kafka::DescribeConfigsRequest
    };
    (CreatePartitions) => {
        kafka::CreatePartitionsRequest
    };
    (DeleteGroups) => {
        kafka::DeleteGroupsRequest
    };
    (IncrementalAlterConfigs) => {
        kafka::IncrementalAlterConfigsRequest
    };
    (DescribeCluster) => {
        kafka::DescribeClusterRequest
    };
    (DescribeTopicPartitions) => {
        kafka::DescribeTopicPartitionsRequest
    };
}

codecs! {
    Produce Fetch ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat
    LeaveGroup SyncGroup DescribeGroups ListGroups ApiVersions CreateTopics DeleteTopics DeleteRecords
    InitProducerId OffsetForLeaderEpoch DescribeConfigs CreatePartitions DeleteGroups
    IncrementalAlterConfigs DescribeCluster DescribeTopicPartitions
}

/// Writes random bodies that a schema allows.
struct Generator<'r> {
    rng: &'r mut TestRng,
    version: i16,
    flexible: bool,
    /// Writes null, legal or not, at the place of this number.
    null_at: Option<usize>,
    places: usize,
    /// Whether the null was written where the schema forbids it.
    illegal: bool,
}

impl Generator<'_> {
    fn below(&mut self, limit: u32) -> u32 {
        self.rng.random::<u32>() % limit
    }

    fn fields(&mut self, out: &mut Writer, fields: &'static [Field]) {
        for field in fields {
            if field.tag.is_none() && field.present(self.version) {
                self.field(out, field);
            }
        }
        if self.flexible {
            self.tags(out, fields);
        }
    }

    fn field(&mut self, out: &mut Writer, field: &'static Field) {
        let nullable = field.is_nullable(self.version);
        if nullable && let Kind::Struct(fields) = field.kind {
            if self.below(2) == 0 {
                return out.i8(-1);
            }
            out.i8(1);
            return self.fields(out, fields);
        }
        self.value(out, &field.kind, nullable);
    }

    fn value(&mut self, out: &mut Writer, kind: &'static Kind, nullable: bool) {
        if !matches!(kind, Kind::Fixed(_) | Kind::Struct(_)) {
            let forced = self.null_at == Some(self.places);
            self.places += 1;
            if forced || (nullable && self.null_at.is_none() && self.below(4) == 0) {
                self.illegal |= !nullable;
                return match kind {
                    Kind::String => out.string(self.flexible, None),
                    _ => out.count(self.flexible, None),
                };
            }
        }
        match kind {
            // Booleans are written back as 0 or 1.
            Kind::Fixed(1) => out.u8(u8::try_from(self.below(2)).expect("a bit")),
            Kind::Fixed(size) => {
                (0..*size).for_each(|_| out.u8(self.rng.random::<u32>().to_le_bytes()[0]));
            }
            Kind::String => {
                let length = usize::try_from(self.below(200)).expect("small");
                out.string(self.flexible, Some(&"x".repeat(length)));
            }
            Kind::Bytes => {
                let length = usize::try_from(self.below(200)).expect("small");
                out.bytes(self.flexible, Some(&vec![7; length]));
            }
            Kind::Struct(fields) => self.fields(out, fields),
            Kind::Array(element) => {
                let count = usize::try_from(self.below(4)).expect("small");
                out.count(self.flexible, Some(count));
                (0..count).for_each(|_| self.value(out, element, false));
            }
        }
    }

    fn tags(&mut self, out: &mut Writer, fields: &'static [Field]) {
        let mut tagged: Vec<(u32, Bytes)> = Vec::new();
        for field in fields {
            let Some(tag) = field.tag.filter(|_| field.present(self.version)) else { continue };
            if self.below(2) == 0 {
                let mut value = Writer::default();
                // A value that is the default, null among them, is not written back.
                let null_at = self.null_at.replace(usize::MAX);
                self.field(&mut value, field);
                self.null_at = null_at;
                let value = value.finish();
                if value.iter().any(|byte| *byte != 0) {
                    tagged.push((tag, value));
                }
            }
        }
        for tag in 900..900 + self.below(3) {
            tagged.push((tag, Bytes::from_static(b"unknown")));
        }
        out.uvarint(u32::try_from(tagged.len()).expect("few"));
        for (tag, value) in tagged {
            out.uvarint(tag);
            out.uvarint(u32::try_from(value.len()).expect("short"));
            out.raw(&value);
        }
    }
}

fn generate(rng: &mut TestRng, key: ApiKey, version: i16, null_at: Option<usize>) -> Generated {
    let flexible = api::flexible(key, version);
    let mut generator = Generator { rng, version, flexible, null_at, places: 0, illegal: false };
    let mut out = Writer::default();
    generator.fields(&mut out, fields_of(key));
    Generated { body: out.finish(), places: generator.places, illegal: generator.illegal }
}

struct Generated {
    body: Bytes,
    places: usize,
    illegal: bool,
}

fn every_version() -> impl Iterator<Item = (ApiKey, i16)> {
    SERVED.iter().flat_map(|row| (row.min..=row.max).map(|version| (row.key, version)))
}

#[test]
fn default_requests_are_taken_at_every_version() {
    for (key, version) in every_version() {
        let body = default_of(key, version);
        assert_eq!(check(key, version, &body), Ok(()), "{key} {version}");
    }
}

#[test]
fn what_the_schema_generates_the_codec_reads_and_writes_back() {
    let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    for (key, version) in every_version() {
        for _ in 0..100 {
            let body = generate(&mut rng, key, version, None).body;
            assert_eq!(check(key, version, &body), Ok(()), "{key} {version} {body:?}");
            let (again, left) = codec_of(key)(version, body.clone())
                .unwrap_or_else(|error| panic!("{key} {version}: {error}: {body:?}"));
            assert_eq!(left, 0, "{key} {version} {body:?}");
            assert_eq!(again, body, "{key} {version}");
        }
    }
}

#[test]
fn null_is_refused_only_where_the_codec_refuses_it() {
    let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    for (key, version) in every_version() {
        for place in 0..12 {
            for _ in 0..20 {
                let made = generate(&mut rng, key, version, Some(place));
                if made.places <= place {
                    continue;
                }
                let guarded = check(key, version, &made.body);
                assert_eq!(guarded.is_err(), made.illegal, "{key} {version}: {guarded:?}");
                let decoded = codec_of(key)(version, made.body.clone());
                // The codec is laxer than Kafka where null came with a later version of the field.
                let later =
                    matches!((key, version), (ApiKey::Metadata, 0..10) | (ApiKey::OffsetFetch, 1));
                let same = decoded.is_ok() == guarded.is_ok();
                assert!(
                    same || (later && guarded.is_err()),
                    "{key} {version} place {place}: {guarded:?} {decoded:?}"
                );
            }
        }
    }
}

#[test]
fn every_prefix_is_refused() {
    let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
    for (key, version) in every_version() {
        let body = generate(&mut rng, key, version, None).body;
        for end in 0..body.len() {
            assert!(check(key, version, &body[..end]).is_err(), "{key} {version} {end}");
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(check(key, version, &longer), Err(GuardError::Trailing { left: 1 }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A decoder that ends elsewhere than the guard has read counts the guard never saw.
    #[test]
    fn damaged_bodies_leave_guard_and_codec_in_step(
        row in 0..SERVED.len(),
        version in any::<prop::sample::Index>(),
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        mut rng in any::<u64>().prop_perturb(|_, rng| rng),
    ) {
        let row = &SERVED[row];
        let versions = usize::try_from(row.max - row.min).expect("a range") + 1;
        let version = row.min + i16::try_from(version.index(versions)).expect("small");
        for _ in 0..20 {
            let mut body = generate(&mut rng, row.key, version, None).body.to_vec();
            for (at, byte) in &hits {
                if !body.is_empty() {
                    let at = at.index(body.len());
                    body[at] = *byte;
                }
            }
            let body = Bytes::from(body);
            if check(row.key, version, &body).is_ok()
                && let Ok((_, left)) = codec_of(row.key)(version, body)
            {
                prop_assert_eq!(left, 0, "{} {}", row.key, version);
            }
        }
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic(
        row in 0..SERVED.len(),
        body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..200),
    ) {
        let row = &SERVED[row];
        for version in row.min..=row.max {
            let _ = check(row.key, version, &body);
        }
    }
}

#[test]
fn a_body_that_would_grow_too_much_is_refused() {
    let mut out = Writer::default();
    let names = 40_000_000;
    out.count(false, Some(names));
    (0..names).for_each(|_| out.i16(0));
    let error = check(ApiKey::Metadata, 0, &out.finish()).expect_err("72 bytes from two");
    assert_eq!(error, GuardError::Memory { field: "Topics" });
}

#[test]
fn versions_that_are_not_served_are_refused() {
    let error = GuardError::Version { key: ApiKey::Produce, version: 2 };
    assert_eq!(check(ApiKey::Produce, 2, &[]), Err(error));
}
