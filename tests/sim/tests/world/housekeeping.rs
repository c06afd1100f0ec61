//! What goes on behind the clients: ranges are rewritten, and swaps that must be refused are.

use std::collections::BTreeMap;
use std::time::Duration;

use common::{PartitionId, StreamKind};
use meta::command::{NewObject, ObjectFacts, RegisterObject, SwapOutput, SwapRanges, SwapStream};
use meta::{Reject, Reply};
use sim::edges;
use storage::{CompactError, Digest, Entry, Filter, Verdict};

use super::clients::Env;
use super::life::Life;

/// Keeps every entry, and knows what it kept.
#[derive(Default)]
struct KeepAll(BTreeMap<i64, usize>);

impl Filter for KeepAll {
    fn entry(&mut self, entry: &Entry) -> Result<Verdict, String> {
        let before = self.0.insert(entry.base_offset, entry.bytes.len());
        before.map_or(Ok(Verdict::Keep), |_| Err(format!("{} came twice", entry.base_offset)))
    }

    fn prove(&mut self, input: &Digest, output: &Digest) -> Result<(), String> {
        let same = (input.entries, input.records, input.bytes, input.crc)
            == (output.entries, output.records, output.bytes, output.crc);
        same.then_some(()).ok_or_else(|| format!("{input:?} became {output:?}"))
    }
}

/// Rewrites parts of the partitions' streams now and then; whoever loses a race gives up without harm.
pub async fn rewrite_now_and_then(env: Env, meta: meta::Handle, partitions: Vec<PartitionId>) {
    while !env.is_over() {
        tokio::time::sleep(Duration::from_millis(20 + env.rng.below(400))).await;
        env.rest().await;
        let at = usize::try_from(env.rng.below(partitions.len() as u64)).expect("small");
        let kind = StreamKind::ALL[usize::try_from(env.rng.below(3)).expect("small")];
        let stream = partitions[at].stream(kind);
        let Some(topic) = meta.image().topics.get(&partitions[at].topic).cloned() else { continue };
        let index = usize::try_from(partitions[at].index).expect("small");
        let epoch = topic.partitions[index].epoch;
        let Ok(known) = meta.stream_index(stream, 0, 1).await else { return };
        let from = i64::try_from(env.rng.below(known.committed_end.unsigned_abs() + 1));
        let from = from.expect("small");
        let until = from + 1 + i64::try_from(env.rng.below(400)).expect("small");
        if env.is_over() {
            return;
        }
        match env.storage.rewrite(stream, from..until, epoch, &mut KeepAll::default()).await {
            _ if env.is_over() => return,
            Ok(done) => {
                env.trace(format_args!("rewrote {stream} {:?}", done.range));
                edges::met("rewrite.done");
            }
            Err(CompactError::Nothing) => {}
            Err(error @ CompactError::Unproved(_)) => {
                return env.fail(format_args!("rewrite of {stream}: {error}"));
            }
            // A wrong bit on the way, a lost race, an outage: nothing has changed.
            Err(error) => {
                env.trace(format_args!("rewrite of {stream}: {error}"));
                edges::met("rewrite.given.up");
            }
        }
    }
}

/// What is wrong with a swap.
#[derive(Clone, Copy, Debug)]
enum Forgery {
    WalEpoch,
    StreamEpoch,
    Partition,
    Object,
    Cover,
    Bounds,
}

const FORGERIES: [Forgery; 6] = [
    Forgery::WalEpoch,
    Forgery::StreamEpoch,
    Forgery::Partition,
    Forgery::Object,
    Forgery::Cover,
    Forgery::Bounds,
];

/// Proposes a swap of the first range of a partition that is sound but for one thing.
pub async fn forge_swap(env: &Env, life: &Life) -> Option<()> {
    let forgery = FORGERIES[usize::try_from(env.rng.below(6)).expect("small")];
    let (wal, epoch) = (life.wal.0, env.storage.wal_epoch().0);
    let now_ms = env.clock.now_ms();
    let id = life.opened.first()?.id();
    let stream = id.stream(StreamKind::Data);
    let index = life.meta.stream_index(stream, 0, 1).await.ok()?;
    let range = index.objects.first()?.clone();
    let register = RegisterObject { wal, epoch, ttl_ms: 60_000, now_ms };
    let Reply::ObjectRegistered { object, .. } = life.meta.propose(register).await.ok()? else {
        return None;
    };
    let stream_epoch = life.meta.image().topics.get(&id.topic)?.partitions[0].epoch.0;
    let mut part = SwapStream::of(stream, stream_epoch, range.start);
    part.inputs = vec![0];
    part.outputs = vec![SwapOutput {
        object: 0,
        end: range.end,
        bytes: range.bytes,
        records: range.records,
        max_timestamp: range.max_timestamp,
        epoch: range.epoch,
    }];
    let facts = Some(ObjectFacts::default());
    let new = NewObject { object: object.0, facts, first: 0, end: 4096 };
    let inputs = vec![range.object.0];
    let (objects, streams) = (vec![new], vec![part]);
    let mut swap = SwapRanges { wal, epoch, objects, inputs, streams, now_ms };
    match forgery {
        Forgery::WalEpoch => swap.epoch -= 1,
        Forgery::StreamEpoch => swap.streams[0].epoch -= 1,
        Forgery::Partition => swap.streams[0].topic += 1_000_000,
        Forgery::Object => swap.objects[0].object += 1_000_000,
        Forgery::Cover => swap.inputs[0] += 1_000_000,
        Forgery::Bounds => swap.streams[0].outputs[0].end -= 1,
    }
    match life.meta.propose(swap).await {
        Ok(Reply::Rejected(reject)) => edges::met(match reject {
            Reject::StaleWalEpoch { .. } => "swap.refused.log.epoch",
            Reject::StaleStreamEpoch { .. } => "swap.refused.stream.epoch",
            Reject::UnknownPartition(_) => "swap.refused.partition",
            Reject::UnknownObject(_) => "swap.refused.object",
            Reject::CoverChanged { .. } => "swap.refused.cover",
            // The range held one offset only.
            Reject::Malformed(_) => return Some(()),
            other => {
                env.fail(format_args!("{forgery:?} was refused as {other}"));
                return None;
            }
        }),
        Ok(other) => env.fail(format_args!("{forgery:?} of a swap was taken: {other:?}")),
        Err(_) => {}
    }
    Some(())
}
