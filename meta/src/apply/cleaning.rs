//! Retention time and how far partitions are cleaned.

use common::{NodeId, PartitionId, StreamEpoch};

use super::{Outcome, metadata_time};
use crate::command::{AdvanceRetention, SetCleaning};
use crate::keys;
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay};

/// How much of the time that a broker was down counts at its start: a wall clock that is wrong at boot ages records by
/// a day at most.
pub(super) const DOWN_MAX_MS: i64 = 24 * 3_600_000;

pub(super) fn advance_retention(state: &mut Overlay<'_>, command: &AdvanceRetention) -> Outcome {
    if command.now_ms < 0 {
        return Err(Reject::Malformed("negative time").into());
    }
    metadata_time(state, command.now_ms)?;
    let key = keys::retention(NodeId(command.node));
    let known: Option<record::Number> = state.load(&key)?;
    let known = known.and_then(|known| i64::try_from(known.value).ok());
    let elapsed = i64::try_from(command.elapsed_ms).unwrap_or(i64::MAX);
    let step = if command.started { elapsed.max(DOWN_MAX_MS) } else { elapsed };
    let at_ms = match known {
        None => command.now_ms,
        Some(known) => known.saturating_add(step).min(command.now_ms).max(known),
    };
    let value =
        u64::try_from(at_ms).expect("never below the proposer's time, which is not negative");
    state.put(key, &record::Number { value });
    Ok(Reply::RetentionTime { at_ms })
}

pub(super) fn set_cleaning(state: &mut Overlay<'_>, command: &SetCleaning) -> Outcome {
    let id = PartitionId { topic: command.topic, index: command.index };
    let owner: record::Partition =
        state.load(&keys::partition(id))?.ok_or(Reject::UnknownPartition(id))?;
    if owner.epoch != command.epoch {
        return Err(Reject::StaleStreamEpoch { current: StreamEpoch(owner.epoch) }.into());
    }
    let mut record: record::Cleaning = state.load(&keys::cleaning(id))?.unwrap_or_default();
    if let Some(clean_end) = command.clean_end {
        record.clean_end = record.clean_end.max(clean_end);
    }
    if let Some(horizon_ms) = command.horizon_ms {
        record.horizon_ms = horizon_ms;
    }
    if let Some(hidden_below) = command.hidden_below {
        record.hidden_below = record.hidden_below.max(hidden_below);
    }
    state.put(keys::cleaning(id), &record);
    Ok(Reply::CleaningSet)
}

#[cfg(test)]
mod tests {
    use super::super::world::{World, rejected};
    use super::*;
    use crate::facts;

    fn at(world: &mut World, now_ms: i64, elapsed_ms: u64, started: bool) -> i64 {
        match world.run(AdvanceRetention { node: 1, now_ms, elapsed_ms, started }) {
            Reply::RetentionTime { at_ms } => at_ms,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_jump_of_the_wall_clock_moves_retention_by_what_passed() {
        let (mut world, _) = World::with_nodes(1);
        let start = 1_000_000_000;
        assert_eq!(at(&mut world, start, 0, true), start);
        assert_eq!(at(&mut world, start + 60_000, 60_000, false), start + 60_000);
        let years = 10 * 365 * DOWN_MAX_MS;
        assert_eq!(at(&mut world, start + years, 60_000, false), start + 120_000);
        // Back again: it never falls, and goes on with the wall clock.
        assert_eq!(at(&mut world, start + 90_000, 60_000, false), start + 120_000);
        assert_eq!(at(&mut world, start + 180_000, 60_000, false), start + 180_000);
    }

    #[test]
    fn a_start_counts_at_most_a_day_of_the_time_it_was_down() {
        let (mut world, _) = World::with_nodes(1);
        let start = 1_000_000_000;
        at(&mut world, start, 0, true);
        assert_eq!(at(&mut world, start + 5_000, 0, true), start + 5_000);
        assert_eq!(at(&mut world, start + 9 * DOWN_MAX_MS, 0, true), start + 5_000 + DOWN_MAX_MS);
    }

    #[test]
    fn cleaning_only_rises_and_belongs_to_the_owner() {
        let (mut world, _) = World::with_nodes(1);
        let (topic, id) = world.topic("t", 1);
        let set = |clean_end, hidden_below, epoch| SetCleaning {
            topic,
            index: 0,
            epoch,
            clean_end,
            horizon_ms: Some(7),
            hidden_below,
        };
        let owner = PartitionId { topic, index: 0 };
        assert_eq!(facts::cleaning(&world.state, owner), Ok(facts::Cleaning::default()));
        assert_eq!(world.run(set(Some(9), None, 0)), Reply::CleaningSet);
        assert_eq!(world.run(set(Some(4), Some(3), 0)), Reply::CleaningSet);
        let known = facts::Cleaning { clean_end: 9, horizon_ms: 7, hidden_below: 3 };
        assert_eq!(facts::cleaning(&world.state, owner), Ok(known));
        let stale = rejected(world.run(set(None, None, 5)));
        assert_eq!(stale, Reject::StaleStreamEpoch { current: StreamEpoch(0) });
        world.delete(&id);
        assert_eq!(facts::cleaning(&world.state, owner), Ok(facts::Cleaning::default()));
        assert_eq!(rejected(world.run(set(None, None, 0))), Reject::UnknownPartition(owner));
    }
}
