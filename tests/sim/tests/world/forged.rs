//! Commits that must be refused: each is sound but for one thing, and metadata names that thing.

use common::{PartitionId, StreamKind, WalId};
use meta::command::{CommitUpload, LeftOut, ObjectFacts, RegisterObject, StreamRange};
use meta::{Broken, Reject, Reply};
use sim::edges;

use super::World;
use super::clients::Env;
use super::life::Life;

/// What is wrong with a commit.
#[derive(Clone, Copy, Debug)]
enum Forgery {
    StaleEpoch,
    UnknownWal,
    UnknownObject,
    OtherObject,
    RoundStart,
    RoundEmpty,
    StreamTwice,
    StreamKind,
    NeverCreated,
    StillThere,
    RangeStart,
    RangeLength,
    RangeEpoch,
}

const FORGERIES: [Forgery; 13] = [
    Forgery::StaleEpoch,
    Forgery::UnknownWal,
    Forgery::UnknownObject,
    Forgery::OtherObject,
    Forgery::RoundStart,
    Forgery::RoundEmpty,
    Forgery::StreamTwice,
    Forgery::StreamKind,
    Forgery::NeverCreated,
    Forgery::StillThere,
    Forgery::RangeStart,
    Forgery::RangeLength,
    Forgery::RangeEpoch,
];

/// The edge that a refusal is.
fn edge(reject: &Reject) -> Option<&'static str> {
    Some(match reject {
        Reject::StaleWalEpoch { .. } => "commit.refused.stale.epoch",
        Reject::UnknownWal(_) => "commit.refused.unknown.wal",
        Reject::UnknownObject(_) => "commit.refused.unknown.object",
        Reject::ObjectExpired(_) => "commit.refused.expired",
        Reject::BrokenInvariant(broken) => match broken {
            Broken::ObjectOfOther(_) => "commit.refused.other.object",
            Broken::RoundStart { .. } => "commit.refused.round.start",
            Broken::RoundEmpty { .. } => "commit.refused.round.empty",
            Broken::StreamTwice(_) => "commit.refused.stream.twice",
            Broken::StreamKind(_) => "commit.refused.stream.kind",
            Broken::NeverCreated(_) => "commit.refused.never.created",
            Broken::StillThere(_) => "commit.refused.still.there",
            Broken::RangeStart { .. } => "commit.refused.range.start",
            Broken::RangeLength { .. } => "commit.refused.range.length",
            Broken::RangeEpoch { .. } => "commit.refused.range.epoch",
            _ => return None,
        },
        _ => return None,
    })
}

impl World {
    /// A commit comes once more, as after a lost answer: it is answered again and changes nothing.
    pub async fn commit_again(&self, env: &Env, life: &Life) -> Option<()> {
        let stream = life.opened.first()?.id().stream(StreamKind::Data);
        let before = life.meta.stream_index(stream, 0, 1000).await.ok()?;
        let object = before.objects.first()?.object;
        let facts = life.meta.object(object).await.ok()??;
        let commit = CommitUpload {
            object: object.0,
            wal: facts.wal.0,
            epoch: env.storage.wal_epoch().0,
            first: facts.lsns.0.0,
            end: facts.lsns.1.0,
            facts: facts.facts,
            now_ms: env.clock.now_ms(),
            ..CommitUpload::default()
        };
        match life.meta.propose(commit).await {
            Ok(Reply::UploadCommitted { again: true, .. }) => edges::met("commit.again"),
            // A rewrite made it, no round.
            Ok(Reply::Rejected(Reject::BrokenInvariant(Broken::ObjectOfOther(_)))) => {}
            Ok(other) => env.fail(format_args!("a repeated commit of {object} gave {other:?}")),
            Err(_) => return None,
        }
        let after = life.meta.stream_index(stream, 0, 1000).await.ok()?;
        let kept = after.objects.iter().map(|range| (range.start, range.object));
        if !kept.clone().zip(&before.objects).all(|(one, other)| one == (other.start, other.object))
        {
            env.fail(format_args!("a repeated commit changed {:?}", before.objects));
        }
        Some(())
    }

    /// Proposes one forged commit.
    pub async fn forge(&self, env: &Env, life: &Life) {
        let forgery = FORGERIES[usize::try_from(self.rng.below(13)).expect("small")];
        let Some(commit) = self.forged(forgery, env, life).await else { return };
        match life.meta.propose(commit).await {
            Ok(Reply::Rejected(reject)) => {
                env.trace(format_args!("{forgery:?}: {reject}"));
                match edge(&reject) {
                    Some(edge) => edges::met(edge),
                    None => env.fail(format_args!("{forgery:?} was refused as {reject}")),
                }
            }
            Ok(other) => env.fail(format_args!("{forgery:?} was taken: {other:?}")),
            Err(_) => {}
        }
    }

    /// A commit with one fault; `None` when metadata does not answer, or has no object to repeat.
    async fn forged(&self, forgery: Forgery, env: &Env, life: &Life) -> Option<CommitUpload> {
        let (wal, epoch) = (life.wal.0, env.storage.wal_epoch().0);
        let now_ms = env.clock.now_ms();
        let register = RegisterObject { wal, epoch, ttl_ms: 60_000, now_ms };
        let Ok(Reply::ObjectRegistered { object, .. }) = life.meta.propose(register).await else {
            return None;
        };
        let first = life.meta.committed(WalId(wal)).await.ok()??.0;
        let id = life.opened.first()?.id();
        let data = life.meta.stream_index(id.stream(StreamKind::Data), 0, 1).await.ok()?;
        let stream_epoch = life.meta.image().topics.get(&id.topic)?.partitions[0].epoch.0;
        let at = data.committed_end;
        let range = StreamRange::of(id.stream(StreamKind::Data), at, at + 1, stream_epoch);
        let mut commit = CommitUpload {
            object: object.0,
            wal,
            epoch,
            first,
            end: first + 4096,
            facts: Some(ObjectFacts::default()),
            ranges: vec![range.clone()],
            now_ms,
            ..CommitUpload::default()
        };
        let ranges = &mut commit.ranges;
        match forgery {
            Forgery::StaleEpoch => commit.epoch -= 1,
            Forgery::UnknownWal => commit.wal += 1_000,
            Forgery::UnknownObject => commit.object += 1_000_000,
            Forgery::OtherObject => commit.object = data.objects.first()?.object.0,
            // Never where a true round could end meanwhile.
            Forgery::RoundStart => commit.first += 1,
            Forgery::RoundEmpty => commit.end = first,
            Forgery::StreamTwice => ranges.push(range),
            Forgery::StreamKind => ranges[0].kind = 9,
            Forgery::NeverCreated => ranges[0].topic += 1_000_000,
            Forgery::StillThere => {
                let PartitionId { topic, index } = id;
                commit.left_out.push(LeftOut { topic, index });
            }
            Forgery::RangeStart => ranges[0].start += 1,
            Forgery::RangeLength => ranges[0].end = at,
            Forgery::RangeEpoch => ranges[0].epoch += 1,
        }
        Some(commit)
    }
}
