//! Produce: check, append in request order, answer when everything is durable.

use std::sync::Arc;
use std::time::Duration;

use common::NodeId;
use meta::{Image, Topic};
use partition::{
    AppendError, Appended, Checked, Origin, Partition, Pending, Reject, Rules, validate,
};
use protocol::produce::{
    self, LeaderIdAndEpoch, NodeEndpoint, PartitionData, PartitionOutcome, RecordFault, TopicData,
    TopicOutcome,
};
use protocol::{ApiKey, ErrorCode, StrBytes};
use tokio::time::Instant;

use super::{Begun, Request, Response};
use crate::config::Validate;
use crate::metrics::Metrics;
use crate::{Context, topics};

/// Longest that a request waits for room in a full log before its client is told to try again.
const SPACE_PATIENCE_MAX: Duration = Duration::from_secs(10);

/// A batch on its way: its outcome, and what has to happen before it may be told.
struct Appending {
    outcome: PartitionOutcome,
    pending: Option<Pending>,
}

/// Checks and appends the batches, one after the other; what is left is the wait for durability. Nothing goes to the disk
/// before the caller kicks the log. Dropping the rest gives up the answer, not the records.
pub(crate) async fn begin(ctx: &Context, request: Request) -> Begun {
    let version = request.header.version;
    let body = match produce::Request::decode(version, &request.body) {
        Ok(body) => body,
        Err(error) => return ready(request.unreadable(error)),
    };
    let request_bytes = request.body.len();
    // The records stay slices of the frame until they are appended.
    drop(request);
    let deadline = Instant::now() + wait_max(body.timeout_ms);
    let job = Job {
        ctx,
        image: ctx.meta.image(),
        version,
        transactional: body.transactional_id.is_some(),
        acks: body.acks,
        request_bytes,
        space_until: deadline.min(Instant::now() + SPACE_PATIENCE_MAX),
    };
    let mut topics = Vec::with_capacity(body.topics.len());
    for topic in body.topics {
        topics.push(job.topic(topic).await);
    }
    if body.acks == 0 {
        return ready(unanswered(&ctx.metrics, &topics));
    }
    let waited = (body.acks == -1).then_some(deadline);
    Box::pin(finish(ctx.metrics.clone(), Arc::clone(&job.image), version, topics, waited))
}

fn ready(response: Response) -> Begun {
    Box::pin(std::future::ready(response))
}

fn wait_max(timeout_ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}

/// Without acknowledgement nobody is told of an error but by the end of the connection.
fn unanswered(metrics: &Metrics, topics: &[(TopicOutcome, Vec<Appending>)]) -> Response {
    for (topic, partitions) in topics {
        for one in partitions {
            if one.outcome.error != ErrorCode::None {
                metrics.failed(ApiKey::Produce, one.outcome.error);
                let (name, index, error) = (&topic.name, one.outcome.index, one.outcome.error);
                return Response::Close(format!("produce without acks to {name}-{index}: {error}"));
            }
        }
    }
    Response::Nothing
}

async fn finish(
    metrics: Metrics,
    image: Arc<Image>,
    version: i16,
    topics: Vec<(TopicOutcome, Vec<Appending>)>,
    deadline: Option<Instant>,
) -> Response {
    let mut response = produce::Response::default();
    for (mut topic, partitions) in topics {
        topic.partitions.reserve(partitions.len());
        for Appending { mut outcome, pending } in partitions {
            if let Some(pending) = pending {
                let error = durable(pending, deadline).await;
                if error != ErrorCode::None {
                    outcome = PartitionOutcome::refused(outcome.index, error);
                }
            }
            metrics.failed(ApiKey::Produce, outcome.error);
            topic.partitions.push(outcome);
        }
        response.topics.push(topic);
    }
    response.node_endpoints = endpoints(&image, &response.topics);
    Response::Body(vec![response.encode(version)])
}

async fn durable(pending: Pending, deadline: Option<Instant>) -> ErrorCode {
    let done = match deadline {
        None => pending.await,
        Some(deadline) => match tokio::time::timeout_at(deadline, pending).await {
            Ok(done) => done,
            // The records may still become durable: the client has to ask again, as with Kafka.
            Err(_) => return ErrorCode::RequestTimedOut,
        },
    };
    done.map_or_else(partition::Gone::code, |()| ErrorCode::None)
}

fn endpoints(image: &Image, topics: &[TopicOutcome]) -> Vec<NodeEndpoint> {
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let leaders = partitions.filter_map(|one| one.current_leader.map(|leader| leader.leader_id));
    topics::endpoints(image, leaders)
}

/// What the batches of one request share.
struct Job<'a> {
    ctx: &'a Context,
    image: Arc<Image>,
    version: i16,
    transactional: bool,
    acks: i16,
    request_bytes: usize,
    space_until: Instant,
}

impl Job<'_> {
    async fn topic(&self, data: TopicData) -> (TopicOutcome, Vec<Appending>) {
        let TopicData { name, id, partitions } = data;
        let found = self.find(&name, id);
        let mut appending = Vec::with_capacity(partitions.len());
        for data in partitions {
            let index = data.index;
            let one = match &found {
                Ok(topic) => self.partition(topic, data).await,
                Err(code) => Err(PartitionOutcome::refused(index, *code)),
            };
            appending.push(one.unwrap_or_else(|outcome| Appending { outcome, pending: None }));
        }
        (TopicOutcome { name, id, partitions: Vec::new() }, appending)
    }

    fn find(&self, name: &StrBytes, id: uuid::Uuid) -> Result<Arc<Topic>, ErrorCode> {
        if !matches!(self.acks, -1..=1) {
            return Err(ErrorCode::InvalidRequiredAcks);
        }
        if self.transactional {
            // Transactions are not served yet: no producer has begun one here.
            return Err(ErrorCode::InvalidTxnState);
        }
        let topic = if self.version >= produce::TOPIC_ID_SINCE {
            self.image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?
        } else {
            self.image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition)?
        };
        if topic.internal { Err(ErrorCode::InvalidTopicException) } else { Ok(Arc::clone(topic)) }
    }

    async fn partition(
        &self,
        topic: &Topic,
        data: PartitionData,
    ) -> Result<Appending, PartitionOutcome> {
        let index = data.index;
        let refused = |code| PartitionOutcome::refused(index, code);
        let (id, _) = topics::partition_of(topic, index)
            .ok_or_else(|| refused(ErrorCode::UnknownTopicOrPartition))?;
        let partition = match self.ctx.partitions.opened(id) {
            Some(open) => open,
            None => self.ctx.partitions.get(id).await.map_err(|error| {
                self.led_elsewhere(topic, index, refused(error.code()), &error.to_string())
            })?,
        };
        let records = data.records.unwrap_or_default();
        let rules = self.rules(topic, &partition);
        let checked = validate(&records, &rules).map_err(|reject| {
            self.ctx.partitions.metrics().reject(reject.code);
            let log_start = if reject.by_the_log { partition.offsets().log_start } else { -1 };
            PartitionOutcome { log_start_offset: log_start, ..rejected(index, reject) }
        })?;
        drop(records);
        let appended = match partition.append(&checked, Origin::Client) {
            Err(error) if error.waits_for_space() => {
                self.ctx.metrics.produce_wait();
                self.wait_for_space(&partition, &checked, error).await
            }
            other => other,
        };
        let appended = appended.map_err(|error: AppendError| {
            self.led_elsewhere(topic, index, refused(error.code()), &error.to_string())
        })?;
        let (base, time) = (appended.base_offset, appended.log_append_time);
        let outcome = PartitionOutcome::appended(index, base, time, appended.log_start);
        Ok(Appending { outcome, pending: Some(appended.done) })
    }

    /// Waits for room in the log. A disk that is behind gets on with it, and everybody waits; but of those that wait for
    /// an upload, too many would keep out all other requests: they are told to come again, and their buffers are free.
    async fn wait_for_space(
        &self,
        partition: &Arc<Partition>,
        checked: &Checked,
        error: AppendError,
    ) -> Result<Appended, AppendError> {
        let patience = self.space_until.saturating_duration_since(Instant::now());
        let waiting = self.ctx.budgets.for_waiting(self.request_bytes);
        let bytes = (self.request_bytes as u64).min(waiting.bytes_max());
        let held = waiting.reserve(bytes);
        if held.is_err() && !self.ctx.storage.occupancy().queue_full {
            return Err(error);
        }
        partition.append_waiting(checked, Origin::Client, patience).await
    }

    fn rules(&self, topic: &Topic, partition: &Partition) -> Rules {
        let options = self.ctx.partitions.options();
        let config =
            topics::config(self.ctx, &self.image, topic).unwrap_or_else(|| partition.config());
        let now_ms = self.ctx.clock.now_ms();
        let mut rules = Rules::produce(&config, options, self.version, self.transactional, now_ms);
        rules.full = self.ctx.settings.topics.validate == Validate::Full;
        rules
    }

    /// Adds the words, and the leader when the client asked the wrong broker.
    fn led_elsewhere(
        &self,
        topic: &Topic,
        index: i32,
        mut outcome: PartitionOutcome,
        message: &str,
    ) -> PartitionOutcome {
        outcome.error_message = Some(message.to_owned());
        if outcome.error == ErrorCode::NotLeaderOrFollower
            && let Some((_, meta)) = topics::partition_of(topic, index)
        {
            outcome.current_leader = Some(LeaderIdAndEpoch {
                leader_id: meta.leader.map_or(-1, |NodeId(id)| id),
                leader_epoch: meta.epoch.0,
            });
        }
        outcome
    }
}

fn rejected(index: i32, reject: Reject) -> PartitionOutcome {
    let fault = |error: partition::RecordError| RecordFault {
        batch_index: error.index,
        message: Some(error.message),
    };
    PartitionOutcome {
        error_message: Some(reject.message),
        record_errors: reject.record_errors.into_iter().map(fault).collect(),
        ..PartitionOutcome::refused(index, reject.code)
    }
}
