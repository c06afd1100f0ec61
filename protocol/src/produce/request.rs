use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{PartitionData, Request, TOPIC_ID_SINCE, TopicData};
use crate::ApiKey;
use crate::guard::GuardError;
use crate::wire::slices::Slices;

impl Request {
    /// Reads the body of a request of `version`. Needs no guard before it.
    ///
    /// # Errors
    /// See [`GuardError`]; the connection must be closed.
    pub fn decode(version: i16, body: &Bytes) -> Result<Request, GuardError> {
        let mut input = Slices::new(ApiKey::Produce, version, body)?;
        let transactional_id = input.nullable_string("TransactionalId")?;
        let acks = input.i16("Acks")?;
        let timeout_ms = input.i32("TimeoutMs")?;
        let by_id = version >= TOPIC_ID_SINCE;
        let topics = input.array("TopicData", if by_id { 18 } else { 3 }, |input| {
            let (name, id) = if by_id {
                (StrBytes::default(), input.uuid("TopicId")?)
            } else {
                (input.string("Name")?, Uuid::nil())
            };
            let partitions = input.array("PartitionData", 6, |input| {
                let index = input.i32("Index")?;
                let records = input.nullable_bytes("Records")?;
                input.tags(|_, _| Ok(false))?;
                Ok(PartitionData { index, records })
            })?;
            input.tags(|_, _| Ok(false))?;
            Ok(TopicData { name, id, partitions })
        })?;
        input.tags(|_, _| Ok(false))?;
        input.end()?;
        Ok(Request { transactional_id, acks, timeout_ms, topics })
    }
}
