use bytes::Bytes;

use super::{JOINED_BYTES_MAX, PartitionData, Response, TOPIC_ID_SINCE, TopicData};
use crate::ApiKey;
use crate::ErrorCode;
use crate::api;
use crate::produce::{put_endpoints, put_leader};
use crate::wire::Writer;

/// Most bytes of the fields before a partition's records, its aborted transactions apart.
const PARTITION_HEAD_BYTES: usize = 64;

impl Response {
    /// A response that was read without an error of the whole.
    #[must_use]
    pub fn new(topics: Vec<TopicData>) -> Self {
        Self { throttle_time_ms: 0, error: ErrorCode::None, topics, node_endpoints: Vec::new() }
    }

    /// A response with an error of the whole request and no partitions.
    #[must_use]
    pub fn refused(error: ErrorCode) -> Self {
        Self { error, ..Self::new(Vec::new()) }
    }

    /// The body of a response of `version`, as slices to be written one after the other. Records come as the slices
    /// given, or copied when short. Fields that the version lacks are left out.
    ///
    /// # Panics
    /// When the records of one partition reach 2^31 bytes, or a name is longer than a request can carry.
    #[must_use]
    pub fn encode(self, version: i16) -> Vec<Bytes> {
        let flexible = api::flexible(ApiKey::Fetch, version);
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut gather = Gather {
            head: Writer::with_capacity(
                64 + 48 * self.topics.len() + PARTITION_HEAD_BYTES * partitions,
            ),
            parts: Vec::new(),
        };
        let head = &mut gather.head;
        head.i32(self.throttle_time_ms);
        if version >= 7 {
            head.i16(self.error.code());
            head.i32(0);
        }
        head.count(flexible, Some(self.topics.len()));
        for topic in self.topics {
            gather.topic(version, flexible, topic);
        }
        if flexible {
            put_endpoints(&mut gather.head, version >= 16, &self.node_endpoints);
        }
        gather.finish()
    }
}

struct Gather {
    head: Writer,
    parts: Vec<Bytes>,
}

impl Gather {
    fn topic(&mut self, version: i16, flexible: bool, topic: TopicData) {
        if version >= TOPIC_ID_SINCE {
            self.head.uuid(topic.id);
        } else {
            self.head.string(flexible, Some(&topic.name));
        }
        self.head.count(flexible, Some(topic.partitions.len()));
        for partition in topic.partitions {
            self.partition(version, flexible, partition);
        }
        self.head.no_tags(flexible);
    }

    fn partition(&mut self, version: i16, flexible: bool, partition: PartitionData) {
        let record_bytes = partition.record_bytes();
        let head = &mut self.head;
        head.i32(partition.index);
        head.i16(partition.error.code());
        head.i64(partition.high_watermark);
        head.i64(partition.last_stable_offset);
        if version >= 5 {
            head.i64(partition.log_start_offset);
        }
        head.count(flexible, partition.aborted.as_ref().map(Vec::len));
        for transaction in partition.aborted.iter().flatten() {
            head.i64(transaction.producer_id);
            head.i64(transaction.first_offset);
            head.no_tags(flexible);
        }
        if version >= 11 {
            // No replica is better than the leader.
            head.i32(-1);
        }
        head.count(flexible, Some(record_bytes));
        for records in partition.records {
            self.records(records);
        }
        if !flexible {
            return;
        }
        let tags = u32::from(partition.diverging_epoch.is_some())
            + u32::from(partition.current_leader.is_some());
        self.head.uvarint(tags);
        if let Some(end) = partition.diverging_epoch {
            self.head.uvarint(0);
            self.head.uvarint(13);
            self.head.i32(end.epoch);
            self.head.i64(end.end_offset);
            self.head.no_tags(true);
        }
        if let Some(leader) = partition.current_leader {
            put_leader(&mut self.head, 1, leader);
        }
    }

    fn records(&mut self, records: Bytes) {
        if records.len() < JOINED_BYTES_MAX {
            self.head.raw(&records);
            return;
        }
        self.flush();
        self.parts.push(records);
    }

    fn flush(&mut self) {
        if !self.head.is_empty() {
            self.parts.push(self.head.split());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.flush();
        self.parts
    }
}
