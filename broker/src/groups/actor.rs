//! The task of one shard.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use common::PartitionId;
use coordinator::{Effect, Record, Response, Shard, Time, Token, WriteError, WriteId};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use partition::{AppendError, Gone, Origin, Partition, StateKind};
use protocol::ErrorCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::load::SNAPSHOT_VERSION;
use super::{Ask, Groups, batch, load};

/// Requests taken in one go before their writes are started.
const GO_MAX: usize = 64;

/// Bytes of batches after which the image is written to the state stream, so that loading reads it and a short tail. A
/// large image waits for twice its own size, so that snapshots never write more than the log.
const SNAPSHOT_LOG_BYTES_MIN: usize = 1 << 20;

/// A batch that has passed the gate.
struct Durable {
    end_offset: i64,
    bytes: usize,
}

/// How a write ended; `Err` when nobody can say.
type Outcome = (WriteId, Instant, Result<Result<Durable, WriteError>, Gone>);

/// Runs the shard `id` until shutdown or until this broker loses the partition.
pub(super) async fn run(
    groups: Groups,
    id: PartitionId,
    asks: mpsc::Receiver<Ask>,
    ready: watch::Sender<bool>,
) {
    let shutdown = groups.0.deps.shutdown.clone();
    let started = groups.0.deps.clock.elapsed();
    let loading = shutdown.run_until_cancelled(load::load(&groups, id));
    let (partition, shard) = match loading.await {
        Some(Ok(loaded)) => loaded,
        Some(Err(failure)) => {
            groups.0.metrics.loads_failed.inc();
            if failure.is_damage() {
                error!(partition = id.index, %failure, "group coordinator cannot be loaded");
            } else {
                warn!(partition = id.index, %failure, "group coordinator not loaded");
            }
            return;
        }
        None => return,
    };
    let took = groups.0.deps.clock.elapsed().saturating_sub(started);
    groups.0.metrics.load_duration.observe(took.as_secs_f64());
    debug!(partition = id.index, groups = shard.group_count(), "group coordinator loaded");
    let space = groups.0.deps.storage.wal_space();
    let mut actor = Actor {
        groups,
        partition,
        shard,
        asks,
        replies: BTreeMap::new(),
        next_token: 0,
        unsent: VecDeque::new(),
        space,
        in_flight: FuturesOrdered::new(),
        groups_counted: 0,
        replayed_to: None,
        unsnapped_bytes: 0,
        snapshot_bytes: 0,
    };
    let effects = actor.shard.loaded(actor.now());
    let mut end = actor.execute(effects);
    if end.is_none() {
        end = actor.forget_deleted_topics();
    }
    ready.send_replace(true);
    let end = match end {
        Some(end) => end,
        None => actor.serve(&shutdown).await,
    };
    actor.close(end);
}

struct Actor {
    groups: Groups,
    partition: Arc<Partition>,
    shard: Shard,
    asks: mpsc::Receiver<Ask>,
    replies: BTreeMap<Token, oneshot::Sender<Response>>,
    next_token: u64,
    /// Writes that wait for room on the log; bounded by the shard's `writes_max`.
    // From before the first append, so that no room is missed.
    space: watch::Receiver<u64>,
    unsent: VecDeque<(WriteId, Result<partition::Checked, ErrorCode>)>,
    /// Writes under way, in order; bounded likewise.
    in_flight: FuturesOrdered<BoxFuture<'static, Outcome>>,
    groups_counted: i64,
    /// First offset that the image does not contain; `None` until the first write.
    replayed_to: Option<i64>,
    /// Bytes of the batches behind the last snapshot of this task.
    unsnapped_bytes: usize,
    snapshot_bytes: usize,
}

/// Why a task ends.
enum End {
    Shutdown,
    Gone(Gone),
}

impl Actor {
    fn now(&self) -> Time {
        let clock = &self.groups.0.deps.clock;
        let uptime_ms = i64::try_from(clock.elapsed().as_millis()).unwrap_or(i64::MAX);
        Time { wall_ms: clock.now_ms(), uptime_ms }
    }

    async fn serve(&mut self, shutdown: &common::Shutdown) -> End {
        loop {
            let deadline = self.deadline();
            let end = tokio::select! {
                biased;
                () = shutdown.cancelled() => Some(End::Shutdown),
                Some(outcome) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.written(outcome)
                }
                Ok(()) = self.space.changed(), if !self.unsent.is_empty() => self.send_writes(),
                () = tokio::time::sleep_until(deadline) => {
                    let effects = self.shard.tick(self.now());
                    self.execute(effects)
                }
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => Some(End::Shutdown),
                },
            };
            if let Some(end) = end {
                return end;
            }
            self.count_groups();
        }
    }

    fn deadline(&self) -> Instant {
        let ms = self.shard.next_deadline().map(|at| at.saturating_sub(self.now().uptime_ms));
        // One more: the clock counts whole milliseconds, and a tick must not come before its deadline.
        let ms = ms.map(|ms| u64::try_from(ms).map_or(0, |ms| ms.saturating_add(1)));
        Instant::now() + Duration::from_millis(ms.unwrap_or(60_000).min(60_000))
    }

    /// Takes `first` and what is queued behind it, then starts their writes together.
    fn take(&mut self, first: Ask) -> Option<End> {
        let mut next = Some(first);
        for _ in 0..GO_MAX {
            let Some(ask) = next.take().or_else(|| self.asks.try_recv().ok()) else { break };
            // An answer may leave only while the partition is open here.
            if let Err(gone) = self.partition.gate() {
                return Some(End::Gone(gone));
            }
            let effects = match ask {
                Ask::Request { request, reply } => {
                    let token = Token(self.next_token);
                    self.next_token += 1;
                    self.replies.insert(token, reply);
                    self.shard.handle(self.now(), token, request)
                }
                Ask::TopicDeleted(topic) => self.shard.topic_deleted(self.now(), &topic),
            };
            self.queue(effects);
        }
        self.send_writes()
    }

    fn execute(&mut self, effects: Vec<Effect>) -> Option<End> {
        self.queue(effects);
        self.send_writes()
    }

    fn queue(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { write, records } => self.prepare(write, &records),
                Effect::Respond { token, response } => {
                    if let Some(reply) = self.replies.remove(&token) {
                        // The connection may be gone; nobody is left to tell.
                        let _ = reply.send(response);
                    }
                }
            }
        }
    }

    fn prepare(&mut self, write: WriteId, records: &[Record]) {
        let built = batch::build(records, self.groups.0.deps.clock.now_ms());
        if let Err(error) = &built {
            // A client that commits more offsets in one request than a batch holds gets here, nobody else.
            warn!(
                partition = self.partition.id().index,
                code = error.name(),
                "group records refused"
            );
        }
        self.unsent.push_back((write, built));
    }

    fn send_writes(&mut self) -> Option<End> {
        let mut any = false;
        while !self.unsent.is_empty() {
            match self.send_one() {
                Ok(()) => any = true,
                Err(AppendError::Gone(gone)) => return Some(End::Gone(gone)),
                // No room: the loop waits for it.
                Err(_) => break,
            }
        }
        if any || !self.unsent.is_empty() {
            self.groups.0.deps.storage.kick();
        }
        None
    }

    /// Appends the oldest unsent batch, or passes its refusal on. `Err` leaves it in the queue.
    fn send_one(&mut self) -> Result<(), AppendError> {
        let Some((write, built)) = self.unsent.front() else { return Ok(()) };
        let (write, started) = (*write, Instant::now());
        let appended = match built {
            Ok(checked) => match self.partition.append(checked, Origin::Coordinator) {
                Ok(appended) => Ok((appended, checked.len())),
                Err(error) if error.waits_for_space() || matches!(error, AppendError::Gone(_)) => {
                    return Err(error);
                }
                Err(error) => {
                    warn!(partition = self.partition.id().index, %error, "group records refused");
                    Err(error.code())
                }
            },
            Err(error) => Err(*error),
        };
        self.unsent.pop_front();
        self.in_flight.push_back(match appended {
            Ok((appended, bytes)) => Box::pin(async move {
                let durable = Durable { end_offset: appended.end_offset, bytes };
                (write, started, appended.done.await.map(|()| Ok(durable)))
            }),
            Err(error) => {
                self.groups.0.metrics.append_errors.inc();
                let refused = Ok(Err(WriteError(error)));
                Box::pin(std::future::ready((write, started, refused)))
            }
        });
        Ok(())
    }

    fn written(&mut self, (write, started, outcome): Outcome) -> Option<End> {
        let result = match outcome {
            Ok(result) => result,
            Err(gone) => return Some(End::Gone(gone)),
        };
        self.groups.0.metrics.append_duration.observe(started.elapsed().as_secs_f64());
        let outcome = result.as_ref().map(|_| ()).map_err(|error| *error);
        let effects = self.shard.written(self.now(), write, outcome);
        let end = self.execute(effects);
        if let Ok(durable) = result {
            self.replayed_to = Some(durable.end_offset);
            self.unsnapped_bytes += durable.bytes;
            if self.unsnapped_bytes >= SNAPSHOT_LOG_BYTES_MIN.max(2 * self.snapshot_bytes) {
                self.snapshot();
            }
        }
        end
    }

    /// Queues the image as it is below `replayed_to`. Losing a snapshot costs the next start a longer replay.
    fn snapshot(&mut self) {
        let Some(offset) = self.replayed_to else { return };
        let payload = self.shard.committed().snapshot();
        self.unsnapped_bytes = 0;
        self.snapshot_bytes = payload.len();
        let queued =
            self.partition.append_state(StateKind::GROUPS, SNAPSHOT_VERSION, offset, payload);
        match queued {
            Ok(_) => self.groups.0.deps.storage.kick(),
            Err(error) => debug!(partition = self.partition.id().index, %error, "no snapshot"),
        }
    }

    /// Topics that were deleted while no shard was open.
    fn forget_deleted_topics(&mut self) -> Option<End> {
        let image = self.groups.0.deps.meta.image();
        for topic in self.shard.topics() {
            if image.topic(&topic).is_none() {
                let effects = self.shard.topic_deleted(self.now(), &topic);
                if let Some(end) = self.execute(effects) {
                    return Some(end);
                }
            }
        }
        None
    }

    fn count_groups(&mut self) {
        let now = i64::try_from(self.shard.group_count()).unwrap_or(i64::MAX);
        if now != self.groups_counted {
            self.groups.0.metrics.groups.inc_by(now - self.groups_counted);
            self.groups_counted = now;
        }
    }

    fn close(mut self, end: End) {
        self.asks.close();
        self.groups.0.metrics.groups.dec_by(self.groups_counted);
        let index = self.partition.id().index;
        match end {
            End::Shutdown => {
                // The next start replays nothing.
                self.snapshot();
                debug!(partition = index, "group coordinator stopped");
            }
            End::Gone(gone) => info!(partition = index, %gone, "group coordinator resigned"),
        }
        let effects = self.shard.close(ErrorCode::NotCoordinator);
        self.queue(effects);
    }
}
