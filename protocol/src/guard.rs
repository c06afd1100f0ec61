//! The guard: walks a request body by its schema before a decoder sees it.
//!
//! The codec allocates from counts it reads, so that a body of twelve bytes can end the process. The guard refuses a
//! count that the bytes left cannot hold, strings longer than Kafka's, numbers that are too long, tagged fields whose
//! size is false, null where null is not legal, bytes behind the message, and a body whose decoded form would take
//! more than [`MEMORY_FACTOR`] times its size plus [`MEMORY_FLOOR_BYTES`]. Nesting is that of the schema, so it has no
//! depth of its own.

use crate::ApiKey;
use crate::api;
use crate::wire::{self, Reader};

mod admin;
mod data;
mod groups;
mod schema;
#[cfg(test)]
mod tests;

use schema::{Field, Kind};

/// The decoded form may take this many times the bytes of the body...
pub const MEMORY_FACTOR: usize = 8;
/// ...plus this many bytes, so that a small body is never refused for its shape.
pub const MEMORY_FLOOR_BYTES: usize = 1 << 20;

/// A map with one entry takes a whole node.
const FIRST_TAG_BYTES: usize = 480;
/// Nodes are half full at worst.
const NEXT_TAG_BYTES: usize = 128;

/// A request body that no decoder may see. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The version is not served.
    #[error("{key} version {version} is not served")]
    Version {
        /// The API.
        key: ApiKey,
        /// The version.
        version: i16,
    },
    /// A field cannot be read.
    #[error("field {field}: {error}")]
    Field {
        /// Kafka's name of the field.
        field: &'static str,
        /// What is wrong.
        error: wire::Error,
    },
    /// Null in a field that must not be.
    #[error("field {field} is null")]
    Null {
        /// Kafka's name of the field.
        field: &'static str,
    },
    /// A tagged field that its version does not have, or whose size is not that of its value.
    #[error("tagged field {tag} is not legal here")]
    Tag {
        /// The tag.
        tag: u32,
    },
    /// Bytes behind the message.
    #[error("{left} bytes behind the message")]
    Trailing {
        /// How many.
        left: usize,
    },
    /// The decoded form would be too large for a body of its size.
    #[error("field {field} has too many elements for a request of its size")]
    Memory {
        /// Kafka's name of the field.
        field: &'static str,
    },
}

/// Walks `body`, the whole body of a request.
///
/// # Errors
/// See [`GuardError`].
pub fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<(), GuardError> {
    measure(key, version, body).map(|_| ())
}

/// As [`check`]; gives the bytes that decoding takes at most besides the body itself.
///
/// # Errors
/// See [`GuardError`].
pub fn measure(key: ApiKey, version: i16, body: &[u8]) -> Result<usize, GuardError> {
    if !key.serves(version) {
        return Err(GuardError::Version { key, version });
    }
    let allowance = Allowance::for_body(body.len());
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        flexible: api::flexible(key, version),
        allowance,
    };
    walk.fields(fields_of(key))?;
    match walk.reader.remaining() {
        0 => Ok(allowance.left - walk.allowance.left),
        left => Err(GuardError::Trailing { left }),
    }
}

fn fields_of(key: ApiKey) -> &'static [Field] {
    match key {
        ApiKey::Produce => data::PRODUCE,
        ApiKey::Fetch => data::FETCH,
        ApiKey::ListOffsets => data::LIST_OFFSETS,
        ApiKey::Metadata => data::METADATA,
        ApiKey::InitProducerId => data::INIT_PRODUCER_ID,
        ApiKey::OffsetForLeaderEpoch => data::OFFSET_FOR_LEADER_EPOCH,
        ApiKey::OffsetCommit => groups::OFFSET_COMMIT,
        ApiKey::OffsetFetch => groups::OFFSET_FETCH,
        ApiKey::FindCoordinator => groups::FIND_COORDINATOR,
        ApiKey::JoinGroup => groups::JOIN_GROUP,
        ApiKey::Heartbeat => groups::HEARTBEAT,
        ApiKey::LeaveGroup => groups::LEAVE_GROUP,
        ApiKey::SyncGroup => groups::SYNC_GROUP,
        ApiKey::DescribeGroups => groups::DESCRIBE_GROUPS,
        ApiKey::ListGroups => groups::LIST_GROUPS,
        ApiKey::DeleteGroups => groups::DELETE_GROUPS,
        ApiKey::ApiVersions => admin::API_VERSIONS,
        ApiKey::CreateTopics => admin::CREATE_TOPICS,
        ApiKey::DeleteTopics => admin::DELETE_TOPICS,
        ApiKey::DeleteRecords => admin::DELETE_RECORDS,
        ApiKey::DescribeConfigs => admin::DESCRIBE_CONFIGS,
        ApiKey::CreatePartitions => admin::CREATE_PARTITIONS,
        ApiKey::IncrementalAlterConfigs => admin::INCREMENTAL_ALTER_CONFIGS,
        ApiKey::DescribeCluster => admin::DESCRIBE_CLUSTER,
        ApiKey::DescribeTopicPartitions => admin::DESCRIBE_TOPIC_PARTITIONS,
    }
}

/// Memory that the decoded form of one body may still take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    left: usize,
}

impl Allowance {
    pub(crate) fn for_body(bytes: usize) -> Self {
        Self { left: bytes.saturating_mul(MEMORY_FACTOR).saturating_add(MEMORY_FLOOR_BYTES) }
    }

    pub(crate) fn take(
        &mut self,
        field: &'static str,
        count: usize,
        bytes: usize,
    ) -> Result<(), GuardError> {
        let wanted = count.saturating_mul(bytes);
        self.left = self.left.checked_sub(wanted).ok_or(GuardError::Memory { field })?;
        Ok(())
    }
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    allowance: Allowance,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &'static [Field]) -> Result<(), GuardError> {
        for field in fields {
            if field.tag.is_none() && field.present(self.version) {
                self.field(field)?;
            }
        }
        if self.flexible { self.tags(fields) } else { Ok(()) }
    }

    fn field(&mut self, field: &'static Field) -> Result<(), GuardError> {
        let null_is_legal = field.is_nullable(self.version);
        if null_is_legal && let Kind::Struct(fields) = field.kind {
            // A struct that may be null has a byte before it: 1, or below 0 for null. Decoders differ about the rest,
            // and one that reads on elsewhere than the guard has not been guarded.
            let at = self.reader.position();
            let present = self.reader.i8().map_err(|error| named(field, error))?;
            if present == 1 {
                return self.fields(fields);
            }
            let error = wire::Error::Length { at, length: i64::from(present) };
            return if present < 0 { Ok(()) } else { Err(named(field, error)) };
        }
        if self.value(field, &field.kind)? || null_is_legal {
            Ok(())
        } else {
            Err(GuardError::Null { field: field.name })
        }
    }

    /// Walks one value; false for null.
    fn value(&mut self, field: &'static Field, kind: &'static Kind) -> Result<bool, GuardError> {
        let wire = |error| named(field, error);
        match kind {
            Kind::Fixed(size) => self.reader.take(*size).map(|_| true).map_err(wire),
            Kind::String => {
                self.reader.string_bytes(self.flexible).map(|value| value.is_some()).map_err(wire)
            }
            Kind::Bytes => {
                self.reader.bytes(self.flexible).map(|value| value.is_some()).map_err(wire)
            }
            Kind::Struct(fields) => self.fields(fields).map(|()| true),
            Kind::Array(element) => {
                let element_bytes_min = element.wire_min(self.version, self.flexible);
                let count = self.reader.count(self.flexible, element_bytes_min).map_err(wire)?;
                let Some(count) = count else { return Ok(false) };
                self.allowance.take(field.name, count, element.memory())?;
                for _ in 0..count {
                    if !self.value(field, element)? {
                        return Err(GuardError::Null { field: field.name });
                    }
                }
                Ok(true)
            }
        }
    }

    fn tags(&mut self, fields: &'static [Field]) -> Result<(), GuardError> {
        const NAME: &str = "tagged fields";
        let wire = |error| GuardError::Field { field: NAME, error };
        let mut charge = FIRST_TAG_BYTES;
        for _ in 0..self.reader.uvarint().map_err(wire)? {
            let tag = self.reader.uvarint().map_err(wire)?;
            let size = self.reader.uvarint().map_err(wire)?;
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let Some(field) = fields.iter().find(|field| field.tag == Some(tag)) else {
                self.reader.take(size).map_err(wire)?;
                self.allowance.take(NAME, 1, charge)?;
                charge = NEXT_TAG_BYTES;
                continue;
            };
            let start = self.reader.position();
            if !field.present(self.version) {
                return Err(GuardError::Tag { tag });
            }
            self.field(field)?;
            if self.reader.position() - start != size {
                return Err(GuardError::Tag { tag });
            }
        }
        Ok(())
    }
}

fn named(field: &Field, error: wire::Error) -> GuardError {
    GuardError::Field { field: field.name, error }
}
