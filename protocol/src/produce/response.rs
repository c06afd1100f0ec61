use bytes::Bytes;

use super::{LeaderIdAndEpoch, NodeEndpoint, PartitionOutcome, Response, TOPIC_ID_SINCE};
use crate::ApiKey;
use crate::api;
use crate::wire::Writer;

const MESSAGE_BYTES_MAX: usize = 1000;

impl Response {
    /// The body of a response of `version`. Fields that the version lacks are left out.
    ///
    /// # Panics
    /// When a name is longer than a request can carry.
    #[must_use]
    pub fn encode(&self, version: i16) -> Bytes {
        let flexible = api::flexible(ApiKey::Produce, version);
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut out = Writer::with_capacity(64 + 48 * self.topics.len() + 48 * partitions);
        out.count(flexible, Some(self.topics.len()));
        for topic in &self.topics {
            if version >= TOPIC_ID_SINCE {
                out.uuid(topic.id);
            } else {
                out.string(flexible, Some(&topic.name));
            }
            out.count(flexible, Some(topic.partitions.len()));
            for partition in &topic.partitions {
                put_partition(&mut out, version, flexible, partition);
            }
            out.no_tags(flexible);
        }
        out.i32(self.throttle_time_ms);
        if flexible {
            put_endpoints(&mut out, version >= 10, &self.node_endpoints);
        }
        out.finish()
    }
}

fn put_partition(out: &mut Writer, version: i16, flexible: bool, partition: &PartitionOutcome) {
    out.i32(partition.index);
    out.i16(partition.error.code());
    out.i64(partition.base_offset);
    out.i64(partition.log_append_time_ms);
    if version >= 5 {
        out.i64(partition.log_start_offset);
    }
    if version >= 8 {
        out.count(flexible, Some(partition.record_errors.len()));
        for fault in &partition.record_errors {
            out.i32(fault.batch_index);
            out.string(flexible, fault.message.as_deref().map(clipped));
            out.no_tags(flexible);
        }
        out.string(flexible, partition.error_message.as_deref().map(clipped));
    }
    if flexible {
        match partition.current_leader.filter(|_| version >= 10) {
            Some(leader) => {
                out.uvarint(1);
                put_leader(out, 0, leader);
            }
            None => out.uvarint(0),
        }
    }
}

/// Writes the tagged field `tag`: a leader and its epoch.
pub(crate) fn put_leader(out: &mut Writer, tag: u32, leader: LeaderIdAndEpoch) {
    out.uvarint(tag);
    out.uvarint(9);
    out.i32(leader.leader_id);
    out.i32(leader.leader_epoch);
    out.no_tags(true);
}

/// Writes the tagged fields of a response that has, from some version on, the endpoints of leaders.
///
/// # Panics
/// When a host name is longer than 32,767 bytes.
pub(crate) fn put_endpoints(out: &mut Writer, known: bool, endpoints: &[NodeEndpoint]) {
    if !known || endpoints.is_empty() {
        out.uvarint(0);
        return;
    }
    let mut value = Writer::with_capacity(32 * endpoints.len());
    value.count(true, Some(endpoints.len()));
    for endpoint in endpoints {
        value.i32(endpoint.node_id);
        value.string(true, Some(&endpoint.host));
        value.i32(endpoint.port);
        value.string(true, endpoint.rack.as_deref());
        value.no_tags(true);
    }
    out.uvarint(1);
    out.uvarint(0);
    out.uvarint(u32::try_from(value.len()).expect("endpoints of one cluster"));
    out.raw(&value.finish());
}

fn clipped(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}
