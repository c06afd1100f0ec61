//! OffsetCommit, OffsetFetch and OffsetDelete.

use protocol::ErrorCode;

use crate::committed::CommittedGroup;
use crate::context::{After, Context};
use crate::effect::{Record, Token};
use crate::group::{Group, State};
use crate::join::validate_member;
use crate::records::{CommittedOffset, Key};
use crate::request::{
    CommitRequest, CommittedPartition, DeleteOffsetsRequest, FetchRequest, TopicPartitions,
};
use crate::response::{FetchResponse, FetchedOffset, PartitionErrors, Response, TopicOffsets};

impl Context {
    pub(crate) fn commit(&mut self, group: &mut Group, request: CommitRequest, token: Token) {
        if let Err(error) = check_commit(group, &request) {
            let response = Response::Commit(all_commits(&request, error));
            return self.respond(token, response);
        }
        if matches!(group.state(), State::Stable | State::PreparingRebalance) {
            self.renew_session(group, &request.member);
        }
        let mut records = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        let expire_ms = (request.retention_ms >= 0)
            .then(|| self.now.wall_ms.saturating_add(request.retention_ms));
        for topic in request.topics {
            let mut errors = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let index = partition.partition;
                if self.metadata_fits(&partition.metadata) {
                    records.push(self.offset_record(&group.id, &topic.topic, partition, expire_ms));
                    errors.push((index, ErrorCode::None));
                } else {
                    errors.push((index, ErrorCode::OffsetMetadataTooLarge));
                }
            }
            topics.push((topic.topic, errors));
        }
        let response = Response::Commit(PartitionErrors { error: ErrorCode::None, topics });
        if records.is_empty() {
            self.respond(token, response);
        } else {
            self.append(group, records, After::Reply { token, response });
        }
    }

    /// Kafka counts UTF-16 code units; the record itself has a 16-bit length in bytes.
    fn metadata_fits(&self, metadata: &str) -> bool {
        let max = self.settings.offset_metadata_max;
        let short = metadata.len() <= max || metadata.encode_utf16().count() <= max;
        short && i16::try_from(metadata.len()).is_ok()
    }

    fn offset_record(
        &self,
        group: &str,
        topic: &str,
        partition: CommittedPartition,
        expire_ms: Option<i64>,
    ) -> Record {
        let key = Key::Offset {
            group: group.to_owned(),
            topic: topic.to_owned(),
            partition: partition.partition,
        };
        let value = CommittedOffset {
            offset: partition.offset,
            leader_epoch: partition.leader_epoch,
            metadata: partition.metadata,
            commit_ms: self.now.wall_ms,
            expire_ms,
        };
        Record { key: key.encode(), value: Some(value.encode()) }
    }

    pub(crate) fn delete_offsets(
        &mut self,
        group: &mut Group,
        committed: Option<&CommittedGroup>,
        request: DeleteOffsetsRequest,
        token: Token,
    ) {
        if !group.is(State::Empty) && !group.uses_consumer_protocol() {
            let response = all_deletes(&request.topics, ErrorCode::NonEmptyGroup);
            return self.respond(token, Response::DeleteOffsets(response));
        }
        let mut records = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let in_use = group.reads(&topic.topic);
            let error = if in_use { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            for partition in topic.partitions.iter().filter(|_| !in_use) {
                if committed.is_some_and(|c| c.offset(&topic.topic, *partition).is_some()) {
                    records.push(tombstone(&group.id, &topic.topic, *partition));
                }
            }
            let errors = topic.partitions.into_iter().map(|partition| (partition, error));
            topics.push((topic.topic, errors.collect()));
        }
        let response = PartitionErrors { error: ErrorCode::None, topics };
        let response = Response::DeleteOffsets(response);
        if records.is_empty() {
            self.respond(token, response);
        } else {
            self.append_in_parts(group, records, After::Reply { token, response });
        }
    }
}

fn check_commit(group: &Group, request: &CommitRequest) -> Result<(), ErrorCode> {
    if request.generation < 0 && group.is(State::Empty) {
        // A client that assigns partitions by itself.
        return Ok(());
    }
    if request.generation >= 0 || !request.member.is_empty() || request.instance.is_some() {
        validate_member(group, &request.member, request.instance.as_deref())?;
        if request.generation != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
    } else if !group.is(State::Empty) {
        return Err(ErrorCode::UnknownMemberId);
    }
    if group.is(State::CompletingRebalance) {
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

/// `error` for each partition of a commit.
pub(crate) fn all_commits(request: &CommitRequest, error: ErrorCode) -> PartitionErrors {
    let topics = request.topics.iter().map(|topic| {
        let errors = topic.partitions.iter().map(|partition| (partition.partition, error));
        (topic.topic.clone(), errors.collect())
    });
    PartitionErrors { error, topics: topics.collect() }
}

/// `error` for each partition of a deletion.
pub(crate) fn all_deletes(topics: &[TopicPartitions], error: ErrorCode) -> PartitionErrors {
    let topics = topics.iter().map(|topic| {
        (
            topic.topic.clone(),
            topic.partitions.iter().map(|partition| (*partition, error)).collect(),
        )
    });
    PartitionErrors { error, topics: topics.collect() }
}

/// The tombstone of one committed offset.
pub(crate) fn tombstone(group: &str, topic: &str, partition: i32) -> Record {
    let key = Key::Offset { group: group.to_owned(), topic: topic.to_owned(), partition };
    Record { key: key.encode(), value: None }
}

/// Reads offsets from the durable image.
pub(crate) fn fetch(committed: Option<&CommittedGroup>, request: &FetchRequest) -> FetchResponse {
    let topics = match (&request.topics, committed) {
        (Some(topics), _) => topics
            .iter()
            .map(|topic| TopicOffsets {
                topic: topic.topic.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| {
                        let found = committed.and_then(|c| c.offset(&topic.topic, *partition));
                        fetched(*partition, found)
                    })
                    .collect(),
            })
            .collect(),
        (None, None) => Vec::new(),
        (None, Some(committed)) => committed
            .offsets
            .iter()
            .map(|(topic, partitions)| TopicOffsets {
                topic: topic.clone(),
                partitions: partitions.iter().map(|(p, found)| fetched(*p, Some(found))).collect(),
            })
            .collect(),
    };
    FetchResponse { error: ErrorCode::None, topics }
}

fn fetched(partition: i32, found: Option<&CommittedOffset>) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: found.map_or(-1, |found| found.offset),
        leader_epoch: found.map_or(-1, |found| found.leader_epoch),
        metadata: found.map(|found| found.metadata.clone()).unwrap_or_default(),
    }
}
