//! `apply`: what each command does to the state. Pure and deterministic: it sees the command and the keys, nothing else.
//!
//! A refusal changes nothing. Each command's work is bounded: what can be large (the ranges of a deleted topic) is worked
//! off in portions by later commands.

mod cleaning;
mod cluster;
mod commit;
mod configs;
mod objects;
mod ownership;
mod rebuild;
mod sinks;
mod streams;
mod swap;
mod topics;
mod wals;

#[cfg(test)]
mod commit_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod ownership_tests;
#[cfg(test)]
mod rebuild_tests;
#[cfg(test)]
mod swap_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use common::{IdSpace, NodeId, PartitionId, WalEpoch, WalId};

use crate::command::Command;
use crate::keys::{self, Counter};
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay, View, ViewError, Write};

pub use swap::{SWAP_OBJECTS_MAX, SWAP_RANGES_MAX};

/// The most partitions one topic may have.
pub const PARTITIONS_MAX: u32 = 100_000;
/// How many producer ids one block holds.
pub const PRODUCER_BLOCK: u32 = 1000;
/// No owner assigns an offset at or past the committed end by this; after a declared loss a stream goes on there.
pub const LOST_SPAN: i64 = 1 << 32;

enum Stop {
    Reject(Reject),
    View(ViewError),
}

impl<R: Into<Reject>> From<R> for Stop {
    fn from(reject: R) -> Self {
        Self::Reject(reject.into())
    }
}

impl From<ViewError> for Stop {
    fn from(error: ViewError) -> Self {
        Self::View(error)
    }
}

type Outcome<T = Reply> = Result<T, Stop>;

/// What `command` does to the state in `view`, and its reply. `None` is a command that this build does not know.
///
/// # Errors
/// When the state cannot be read; the process ends.
pub fn apply(view: &dyn View, command: Option<&Command>) -> Result<(Vec<Write>, Reply), ViewError> {
    let mut state = Overlay::over(view);
    match dispatch(&mut state, command) {
        Ok(reply) => Ok((state.into_writes(), reply)),
        Err(Stop::Reject(reject)) => Ok((Vec::new(), Reply::Rejected(reject))),
        Err(Stop::View(error)) => Err(error),
    }
}

fn dispatch(state: &mut Overlay<'_>, command: Option<&Command>) -> Outcome {
    let command = command.ok_or(Reject::UnknownCommand)?;
    if let Command::Bootstrap(command) = command {
        return cluster::bootstrap(state, command);
    }
    let cluster: record::Cluster = state.load(&keys::cluster())?.ok_or(Reject::NotBootstrapped)?;
    if cluster.rebuilding {
        return rebuild::dispatch(state, cluster, command);
    }
    match command {
        Command::Bootstrap(_) => unreachable!("handled above"),
        Command::StartNode(command) => cluster::start_node(state, command),
        Command::RaiseFeatureLevel(command) => cluster::raise_level(state, cluster, command),
        Command::AllocateProducerIds(_) => cluster::allocate_producer_ids(state),
        Command::CreateWal(command) => wals::create(state, command),
        Command::OpenWal(command) => wals::open(state, command),
        Command::DeclareWalLost(command) => wals::declare_lost(state, command),
        Command::CreateTopic(command) => topics::create(state, command),
        Command::DeleteTopic(command) => topics::delete(state, command),
        Command::CreatePartitions(command) => topics::create_partitions(state, command),
        Command::AlterConfigs(command) => configs::alter(state, command),
        Command::RegisterObject(command) => objects::register(state, command),
        Command::CommitUpload(command) => commit::commit_upload(state, command),
        Command::ExpireObjects(command) => objects::expire(state, command),
        Command::ObjectsDeleted(command) => objects::deleted(state, command),
        Command::CreateSink(command) => sinks::create(state, command),
        Command::AlterSink(command) => sinks::alter(state, command),
        Command::DeleteSink(command) => sinks::delete(state, command),
        Command::AdvanceFloor(command) => sinks::advance_floor(state, command),
        Command::SetLogStart(command) => streams::set_log_start(state, command),
        Command::MovePartition(command) => ownership::move_partition(state, command),
        Command::FenceWal(command) => ownership::fence_wal(state, command),
        Command::HandOutWal(command) => ownership::hand_out(state, command),
        Command::SwapRanges(command) => swap::swap_ranges(state, command),
        Command::AdvanceRetention(command) => cleaning::advance_retention(state, command),
        Command::SetCleaning(command) => cleaning::set_cleaning(state, command),
        Command::BeginRebuild(command) => rebuild::begin(state, cluster, command),
        Command::AdoptObject(_) | Command::FinishRebuild(_) => Err(Reject::NotRebuilding.into()),
    }
}

/// Takes `count` consecutive ids from `counter` and gives the first.
fn take_ids(state: &mut Overlay<'_>, counter: Counter, count: u64) -> Outcome<u64> {
    let space = id_space(state)?;
    let next = next_id(state, counter)?;
    let exhausted = || Reject::IdsExhausted(counter.name());
    let end = next.checked_add(count).ok_or_else(exhausted)?;
    let first = space.id(next).ok_or_else(exhausted)?;
    space.id(end - 1).ok_or_else(exhausted)?;
    state.put(keys::counter(counter), &record::Number { value: end });
    Ok(first)
}

fn next_id(state: &Overlay<'_>, counter: Counter) -> Outcome<u64> {
    let first = if counter == Counter::Producer { 0 } else { 1 };
    let next: Option<record::Number> = state.load(&keys::counter(counter))?;
    Ok(next.map_or(first, |next| next.value))
}

fn id_space(state: &Overlay<'_>) -> Outcome<IdSpace> {
    let cluster: record::Cluster = state.load(&keys::cluster())?.ok_or(Reject::NotBootstrapped)?;
    let incarnation = u16::try_from(cluster.incarnation).ok().and_then(IdSpace::new);
    Ok(incarnation.ok_or(Reject::Malformed("incarnation"))?)
}

/// True when `id` was issued by `counter`, in this incarnation or an earlier one.
fn was_issued(state: &Overlay<'_>, counter: Counter, id: u64) -> Outcome<bool> {
    let next = id_space(state)?.id(next_id(state, counter)?);
    Ok(next.is_none_or(|next| id < next))
}

/// Metadata time: the highest time any proposer has told. Retention and expiry go by it.
fn metadata_time(state: &mut Overlay<'_>, now_ms: i64) -> Outcome<i64> {
    let known: Option<record::Number> = state.load(&keys::time())?;
    let known = known.map_or(0, |known| known.value);
    let now = u64::try_from(now_ms).unwrap_or(0);
    if now > known {
        state.put(keys::time(), &record::Number { value: now });
    }
    Ok(i64::try_from(now.max(known)).unwrap_or(i64::MAX))
}

/// The record of a log that is open under `epoch`.
fn wal_under(state: &Overlay<'_>, id: WalId, epoch: u64) -> Outcome<record::Wal> {
    let wal: record::Wal = state.load(&keys::wal(id))?.ok_or(Reject::UnknownWal(id))?;
    if wal.closed {
        return Err(Reject::WalClosed(id).into());
    }
    if wal.epochs.is_empty() || wal.epoch() != epoch {
        return Err(Reject::StaleWalEpoch { current: WalEpoch(wal.epoch()) }.into());
    }
    Ok(wal)
}

/// A broker whose log is open and can own partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    node: NodeId,
    wal: WalId,
}

/// Brokers that can own partitions, by id.
fn owners(state: &Overlay<'_>) -> Outcome<Vec<Owner>> {
    let mut found = Vec::new();
    state.each(vec![keys::tag::BROKER], |key, value| {
        let broker: record::Broker = crate::view::read(key, value)?;
        let node = keys::split_u32(&key[1..]).ok_or_else(|| crate::view::bad_key(key))?.0;
        if let Some(wal) = broker.wal {
            found.push(Owner { node: NodeId(node.cast_signed()), wal: WalId(wal) });
        }
        Ok(())
    })?;
    let mut open = Vec::new();
    for owner in found {
        let wal: Option<record::Wal> = state.load(&keys::wal(owner.wal))?;
        if wal.is_some_and(|wal| wal.is_open()) {
            open.push(owner);
        }
    }
    Ok(open)
}

/// All partitions that `wanted` picks.
fn partitions_where(
    state: &Overlay<'_>,
    wanted: impl Fn(&record::Partition) -> bool,
) -> Outcome<Vec<(PartitionId, record::Partition)>> {
    let mut found = Vec::new();
    state.each(vec![keys::tag::PARTITION], |key, value| {
        let partition: record::Partition = crate::view::read(key, value)?;
        if wanted(&partition) {
            let shape = || crate::view::bad_key(key);
            let (topic, rest) = keys::split_u64(&key[1..]).ok_or_else(shape)?;
            let (index, _) = keys::split_u32(rest).ok_or_else(shape)?;
            found.push((PartitionId { topic, index }, partition));
        }
        Ok(())
    })?;
    Ok(found)
}
