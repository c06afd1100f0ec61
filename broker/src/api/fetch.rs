//! Fetch: long poll, first batch whole, sessions declined.

use std::sync::Arc;
use std::time::Duration;

use common::Reservation;
use meta::Image;
use partition::{
    Batches, EpochCheck, EpochEnd, FetchWaiter, Isolation, Partition, ReadRequest, Subscription,
};
use protocol::fetch::{
    self, AbortedTransaction, FetchPartition, FetchTopic, LeaderIdAndEpoch, PartitionData,
    TopicData,
};
use protocol::{ApiKey, ErrorCode};
use storage::Class;
use tokio::time::Instant;

use super::{Request, Response};
use crate::{Context, topics};

/// Most bytes of records in one answer, whatever the client asks for; a larger first batch comes whole all the same.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Longest wait, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let version = request.header.version;
    let body = match fetch::Request::decode(version, &request.body) {
        Ok(body) => body,
        Err(error) => return request.unreadable(error),
    };
    if body.session_id != 0 && body.session_epoch > 0 {
        // No session was ever given out: the client falls back to a full request.
        let code = ErrorCode::FetchSessionIdNotFound;
        ctx.metrics.failed(ApiKey::Fetch, code);
        return Response::Body(fetch::Response::refused(code).encode(version));
    }
    let plan = Plan::new(ctx, version, body);
    let Pass { topics, held, .. } = plan.answer().await;
    for one in topics.iter().flat_map(|topic| &topic.partitions) {
        ctx.metrics.failed(ApiKey::Fetch, one.error);
    }
    let leaders = topics.iter().flat_map(|topic| &topic.partitions);
    let leaders = leaders.filter_map(|one| one.current_leader.map(|leader| leader.leader_id));
    let endpoints = topics::endpoints(&ctx.meta.image(), leaders);
    let mut response = fetch::Response::new(topics);
    response.node_endpoints = endpoints;
    Response::Counted(response.encode(version), held)
}

/// One request and how far an answer has come.
struct Plan<'a> {
    ctx: &'a Context,
    version: i16,
    isolation: Isolation,
    bytes_max: u64,
    bytes_min: u64,
    deadline: Option<Instant>,
    topics: Vec<FetchTopic>,
}

/// The result of one pass over all partitions.
struct Pass {
    topics: Vec<TopicData>,
    bytes: u64,
    failed: bool,
    /// Counts the bytes among the answers until they are written.
    held: Reservation,
}

/// How much more one pass may take.
#[derive(Clone, Copy)]
struct Left {
    bytes: u64,
    /// Nothing was taken yet: the first batch comes whole.
    first: bool,
}

impl<'a> Plan<'a> {
    fn new(ctx: &'a Context, version: i16, body: fetch::Request) -> Self {
        let wait = u64::try_from(body.max_wait_ms).ok().filter(|ms| *ms > 0);
        let wait = wait.map(|ms| Duration::from_millis(ms).min(WAIT_MAX));
        let isolation = if body.isolation_level == 1 {
            Isolation::ReadCommitted
        } else {
            Isolation::ReadUncommitted
        };
        Self {
            ctx,
            version,
            isolation,
            bytes_max: u64::try_from(body.max_bytes).unwrap_or(0).min(ANSWER_BYTES_MAX),
            bytes_min: u64::try_from(body.min_bytes).unwrap_or(0),
            deadline: wait.map(|wait| Instant::now() + wait),
            topics: body.topics,
        }
    }

    /// Reads until there is enough, something failed, or the time is over.
    async fn answer(&self) -> Pass {
        let pass = self.pass().await;
        let (Some(deadline), false) = (self.deadline, self.is_enough(&pass)) else {
            return pass;
        };
        drop(pass);
        let stop = self.ctx.shutdown.clone();
        let waiter = FetchWaiter::default();
        let _subscriptions = self.subscribe(&waiter);
        loop {
            let pass = self.pass().await;
            if self.is_enough(&pass) {
                return pass;
            }
            tokio::select! {
                biased;
                () = waiter.woken() => {}
                () = tokio::time::sleep_until(deadline) => return pass,
                () = stop.cancelled() => return pass,
            }
        }
    }

    fn is_enough(&self, pass: &Pass) -> bool {
        pass.failed || pass.bytes >= self.bytes_min || self.topics.is_empty()
    }

    fn subscribe(&self, waiter: &FetchWaiter) -> Vec<Subscription> {
        let image = self.ctx.meta.image();
        let mut subscriptions = Vec::new();
        for topic in &self.topics {
            let Ok(found) = self.find(&image, topic) else { continue };
            for wanted in &topic.partitions {
                let id = topics::partition_of(found, wanted.index).map(|(id, _)| id);
                let open = id.and_then(|id| self.ctx.partitions.opened(id));
                subscriptions.extend(open.map(|open| open.subscribe(waiter)));
            }
        }
        subscriptions
    }

    fn find<'i>(&self, image: &'i Image, topic: &FetchTopic) -> Result<&'i meta::Topic, ErrorCode> {
        let found = if self.version >= fetch::TOPIC_ID_SINCE {
            image.topic_by_id(topic.id).ok_or(ErrorCode::UnknownTopicId)
        } else {
            image.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)
        };
        found.map(|topic| &**topic)
    }

    async fn pass(&self) -> Pass {
        let image = self.ctx.meta.image();
        let budgets = &self.ctx.budgets;
        // Room for all that may be read is taken before, so that many readers together stay within the bound.
        let room = budgets.answers.reserve(self.bytes_max.min(budgets.fetch_bytes_max())).ok();
        let bytes_max = room.as_ref().map_or(0, Reservation::bytes);
        let topics = Vec::with_capacity(self.topics.len());
        let mut pass = Pass { topics, bytes: 0, failed: false, held: budgets.answers.force(0) };
        for topic in &self.topics {
            let found = self.find(&image, topic);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let data = match found {
                    Ok(found) => {
                        let bytes = bytes_max.saturating_sub(pass.bytes);
                        self.partition(found, wanted, Left { bytes, first: pass.bytes == 0 }).await
                    }
                    Err(code) => absent(wanted.index, code),
                };
                pass.bytes += u64::try_from(data.record_bytes()).unwrap_or(u64::MAX);
                pass.failed |= data.error != ErrorCode::None || data.diverging_epoch.is_some();
                partitions.push(data);
            }
            pass.topics.push(TopicData { name: topic.name.clone(), id: topic.id, partitions });
        }
        pass.held = budgets.answers.force(pass.bytes);
        pass
    }

    async fn partition(
        &self,
        topic: &meta::Topic,
        wanted: &FetchPartition,
        left: Left,
    ) -> PartitionData {
        let refused = |code| PartitionData::refused(wanted.index, code);
        let Some((id, meta)) = topics::partition_of(topic, wanted.index) else {
            return absent(wanted.index, ErrorCode::UnknownTopicOrPartition);
        };
        let leader = LeaderIdAndEpoch {
            leader_id: meta.leader.map_or(-1, |node| node.0),
            leader_epoch: meta.epoch.0,
        };
        let elsewhere = |code| PartitionData { current_leader: Some(leader), ..refused(code) };
        let partition = match self.ctx.partitions.opened(id) {
            Some(open) => open,
            None => match self.ctx.partitions.get(id).await {
                Ok(open) => open,
                Err(error) if error.code() == ErrorCode::NotLeaderOrFollower => {
                    return elsewhere(error.code());
                }
                Err(error) => return refused(error.code()),
            },
        };
        match partition.check_epoch(wanted.current_leader_epoch) {
            EpochCheck::Current => {}
            EpochCheck::Fenced => return elsewhere(ErrorCode::FencedLeaderEpoch),
            EpochCheck::Unknown => return refused(ErrorCode::UnknownLeaderEpoch),
        }
        if let Some(end) = diverging(&partition, wanted) {
            return PartitionData { diverging_epoch: Some(end), ..refused(ErrorCode::None) };
        }
        self.read(&partition, wanted, left).await.unwrap_or_else(|error| match error.code() {
            ErrorCode::NotLeaderOrFollower => elsewhere(ErrorCode::NotLeaderOrFollower),
            code => refused(code),
        })
    }

    async fn read(
        &self,
        partition: &Arc<Partition>,
        wanted: &FetchPartition,
        left: Left,
    ) -> Result<PartitionData, partition::ReadError> {
        let bytes_max = u64::try_from(wanted.partition_max_bytes).unwrap_or(0);
        let tail = wanted.fetch_offset >= partition.offsets().committed_end;
        let request = ReadRequest {
            offset: wanted.fetch_offset,
            bytes_max: bytes_max.min(left.bytes),
            at_least_one: left.first,
            isolation: self.isolation,
            class: if tail { Class::Tail } else { Class::CatchUp },
        };
        let Batches { slices, high_watermark, last_stable, log_start, aborted, .. } =
            partition.read(request).await?;
        let aborted = (self.isolation == Isolation::ReadCommitted).then(|| {
            let one = |one: &partition::Aborted| AbortedTransaction {
                producer_id: one.producer_id,
                first_offset: one.first_offset,
            };
            aborted.iter().map(one).collect()
        });
        Ok(PartitionData {
            high_watermark,
            last_stable_offset: last_stable,
            log_start_offset: log_start,
            aborted,
            records: slices,
            ..PartitionData::refused(wanted.index, ErrorCode::None)
        })
    }
}

/// What is answered for a partition that does not exist: Kafka's list of aborted transactions is empty then, not null.
fn absent(index: i32, code: ErrorCode) -> PartitionData {
    PartitionData { aborted: Some(Vec::new()), ..PartitionData::refused(index, code) }
}

/// Where the client's log ends that the leader's does not have, if it is ahead in an old epoch.
fn diverging(partition: &Partition, wanted: &FetchPartition) -> Option<fetch::EpochEnd> {
    if wanted.last_fetched_epoch < 0 {
        return None;
    }
    let end: EpochEnd = partition.end_of_epoch(wanted.last_fetched_epoch);
    let ahead = end.epoch < wanted.last_fetched_epoch || end.end_offset < wanted.fetch_offset;
    ahead.then_some(fetch::EpochEnd { epoch: end.epoch, end_offset: end.end_offset })
}
