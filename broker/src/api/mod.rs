//! One file per Kafka API. A handler takes the shared [`Context`] and one decoded frame and yields one response:
//!
//! ```text
//! pub async fn handle(ctx: &Context, request: Request) -> Response
//! ```
//!
//! A connection runs its requests in order, as Kafka does: the next one starts when the one before has its answer.
//! Only `Produce` differs: [`produce::begin`] returns once the batches are appended, and the wait for durability
//! overlaps with the requests behind it.

use std::collections::BTreeSet;

use bytes::Bytes;
use common::Reservation;
use futures::future::BoxFuture;
use protocol::{ApiKey, StrBytes};

use crate::Context;

mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_topic_partitions;
pub(crate) mod errors;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod sync_group;

/// What stands before a body.
#[derive(Clone, Debug)]
pub struct Header {
    /// The API.
    pub key: ApiKey,
    /// The version, one that is served.
    pub version: i16,
    /// What the response carries back.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<StrBytes>,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Key, version, correlation id and client id.
    pub header: Header,
    /// Everything behind the header: a slice of the frame, not yet checked by the guard.
    pub body: Bytes,
    /// The peer, for group membership (`client_host`) and logs.
    pub peer: std::net::SocketAddr,
}

impl Request {
    /// Decodes the body with the generated codec, behind the guard.
    ///
    /// # Errors
    /// [`Response::Close`], as Kafka ends the connection on a request it cannot read.
    pub fn decode<T: protocol::messages::Request>(&self) -> Result<T, Response> {
        protocol::messages::decode(self.header.version, &self.body)
            .map_err(|error| self.unreadable(error))
    }

    /// Encodes `message` as the answer to this request.
    #[must_use]
    pub fn answer<T: protocol::messages::Encodable>(&self, message: &T) -> Response {
        Response::message(self.header.version, message)
    }

    pub(crate) fn unreadable(&self, error: impl std::fmt::Display) -> Response {
        Response::Close(format!("{} v{}: {error}", self.header.key, self.header.version))
    }
}

/// What a handler yields.
#[derive(Debug)]
pub enum Response {
    /// The body, as parts in order; the connection puts length and response header before them.
    Body(Vec<Bytes>),
    /// A body whose bytes count among the answers until they are written.
    Counted(Vec<Bytes>, Reservation),
    /// No answer at all (`acks=0`).
    Nothing,
    /// End the connection, with the reason for the log.
    Close(String),
}

impl Response {
    /// A body encoded by the generated codec.
    pub fn message<T: protocol::messages::Encodable>(version: i16, message: &T) -> Self {
        match protocol::messages::encode(message, version) {
            Ok(body) => Self::Body(vec![body]),
            Err(error) => Self::Close(format!("response cannot be encoded: {error}")),
        }
    }
}

/// A request that was started: what is left is the wait for its answer.
pub(crate) type Begun = BoxFuture<'static, Response>;

/// Answers `request`. `Produce` does not come here: see [`begin_produce`].
pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    match request.header.key {
        ApiKey::Produce => {
            let answer = produce::begin(ctx, request).await;
            ctx.partitions.kick();
            answer.await
        }
        ApiKey::Fetch => fetch::handle(ctx, request).await,
        ApiKey::ListOffsets => list_offsets::handle(ctx, request).await,
        ApiKey::Metadata => metadata::handle(ctx, request).await,
        ApiKey::OffsetCommit => offset_commit::handle(ctx, request).await,
        ApiKey::OffsetFetch => offset_fetch::handle(ctx, request).await,
        ApiKey::FindCoordinator => find_coordinator::handle(ctx, request).await,
        ApiKey::JoinGroup => join_group::handle(ctx, request).await,
        ApiKey::Heartbeat => heartbeat::handle(ctx, request).await,
        ApiKey::LeaveGroup => leave_group::handle(ctx, request).await,
        ApiKey::SyncGroup => sync_group::handle(ctx, request).await,
        ApiKey::DescribeGroups => describe_groups::handle(ctx, request).await,
        ApiKey::ListGroups => list_groups::handle(ctx, request).await,
        ApiKey::ApiVersions => api_versions::handle(ctx, request).await,
        ApiKey::CreateTopics => create_topics::handle(ctx, request).await,
        ApiKey::DeleteTopics => delete_topics::handle(ctx, request).await,
        ApiKey::DeleteRecords => delete_records::handle(ctx, request).await,
        ApiKey::InitProducerId => init_producer_id::handle(ctx, request).await,
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::handle(ctx, request).await,
        ApiKey::DescribeConfigs => describe_configs::handle(ctx, request).await,
        ApiKey::CreatePartitions => create_partitions::handle(ctx, request).await,
        ApiKey::DeleteGroups => delete_groups::handle(ctx, request).await,
        ApiKey::IncrementalAlterConfigs => incremental_alter_configs::handle(ctx, request).await,
        ApiKey::DescribeCluster => describe_cluster::handle(ctx, request).await,
        ApiKey::DescribeTopicPartitions => describe_topic_partitions::handle(ctx, request).await,
    }
}

/// Starts a produce request: returns when its batches are appended, in request order. The caller kicks the log.
pub(crate) async fn begin_produce(ctx: &Context, request: Request) -> Begun {
    produce::begin(ctx, request).await
}

/// What a request names more than once.
pub(crate) fn repeated<T: Ord + Clone>(named: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    named.filter(|one| !seen.insert(one.clone())).collect()
}

/// The answer to a version of ApiVersions that is not served.
pub(crate) fn unsupported_api_versions() -> Response {
    api_versions::unsupported()
}
