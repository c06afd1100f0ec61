use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{CONSUMER_REPLICA_ID, FetchPartition, FetchTopic, Request, TOPIC_ID_SINCE};
use crate::ApiKey;
use crate::guard::GuardError;
use crate::wire::slices::Slices;

impl Request {
    /// Reads the body of a request of `version`. Needs no guard before it.
    ///
    /// # Errors
    /// See [`GuardError`]; the connection must be closed.
    pub fn decode(version: i16, body: &Bytes) -> Result<Request, GuardError> {
        let mut input = Slices::new(ApiKey::Fetch, version, body)?;
        let replica_id = if version <= 14 { input.i32("ReplicaId")? } else { CONSUMER_REPLICA_ID };
        let mut request = Request {
            replica_id,
            max_wait_ms: input.i32("MaxWaitMs")?,
            min_bytes: input.i32("MinBytes")?,
            max_bytes: input.i32("MaxBytes")?,
            isolation_level: input.i8("IsolationLevel")?,
            session_id: if version >= 7 { input.i32("SessionId")? } else { 0 },
            session_epoch: if version >= 7 { input.i32("SessionEpoch")? } else { -1 },
            topics: topics(&mut input, version)?,
            rack_id: StrBytes::default(),
        };
        if version >= 7 {
            skip_forgotten(&mut input, version)?;
        }
        if version >= 11 {
            request.rack_id = input.string("RackId")?;
        }
        input.tags(|input, tag| match tag {
            0 => input.nullable_string("ClusterId").map(|_| true),
            1 if version >= 15 => {
                request.replica_id = input.i32("ReplicaId")?;
                input.i64("ReplicaEpoch")?;
                input.tags(|_, _| Ok(false))?;
                Ok(true)
            }
            1 => Err(GuardError::Tag { tag }),
            _ => Ok(false),
        })?;
        input.end()?;
        Ok(request)
    }
}

fn topics(input: &mut Slices<'_>, version: i16) -> Result<Vec<FetchTopic>, GuardError> {
    let topic_bytes_min = if version >= TOPIC_ID_SINCE { 18 } else { 3 };
    input.array("Topics", topic_bytes_min, |input| {
        let (name, id) = topic(input, version)?;
        let partitions = input.array("Partitions", 16, |input| partition(input, version))?;
        input.tags(|_, _| Ok(false))?;
        Ok(FetchTopic { name, id, partitions })
    })
}

fn topic(input: &mut Slices<'_>, version: i16) -> Result<(StrBytes, Uuid), GuardError> {
    if version >= TOPIC_ID_SINCE {
        Ok((StrBytes::default(), input.uuid("TopicId")?))
    } else {
        Ok((input.string("Topic")?, Uuid::nil()))
    }
}

fn partition(input: &mut Slices<'_>, version: i16) -> Result<FetchPartition, GuardError> {
    let index = input.i32("Partition")?;
    let current_leader_epoch = if version >= 9 { input.i32("CurrentLeaderEpoch")? } else { -1 };
    let fetch_offset = input.i64("FetchOffset")?;
    let last_fetched_epoch = if version >= 12 { input.i32("LastFetchedEpoch")? } else { -1 };
    if version >= 5 {
        input.i64("LogStartOffset")?;
    }
    let partition_max_bytes = input.i32("PartitionMaxBytes")?;
    input.tags(|input, tag| match tag {
        0 if version >= 17 => input.uuid("ReplicaDirectoryId").map(|_| true),
        1 if version >= 18 => input.i64("HighWatermark").map(|_| true),
        0 | 1 => Err(GuardError::Tag { tag }),
        _ => Ok(false),
    })?;
    Ok(FetchPartition {
        index,
        current_leader_epoch,
        fetch_offset,
        last_fetched_epoch,
        partition_max_bytes,
    })
}

/// Partitions that leave a session: there are no sessions.
fn skip_forgotten(input: &mut Slices<'_>, version: i16) -> Result<(), GuardError> {
    input.array("ForgottenTopicsData", 3, |input| {
        topic(input, version)?;
        input.array("Partitions", 4, |input| input.i32("Partitions").map(|_| ()))?;
        input.tags(|_, _| Ok(false))
    })?;
    Ok(())
}
