//! Where each leader epoch of a partition began.

/// First offset of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The leader epoch.
    pub epoch: i32,
    /// Offset of the first record under it.
    pub start_offset: i64,
}

/// The end of an epoch, as OffsetForLeaderEpoch answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch that the answer is about, -1 for none.
    pub epoch: i32,
    /// First offset behind it, -1 for none.
    pub end_offset: i64,
}

impl EpochEnd {
    /// No such epoch.
    pub const UNDEFINED: EpochEnd = EpochEnd { epoch: -1, end_offset: -1 };
}

/// Epoch starts, ascending in both epoch and offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Epochs {
    starts: Vec<EpochStart>,
}

impl Epochs {
    /// Adds a start. One that repeats or precedes the last epoch changes nothing; an epoch that held no record gives
    /// way to the one that begins at its offset.
    pub fn assign(&mut self, start: EpochStart) {
        if self.starts.last().is_some_and(|last| start.epoch <= last.epoch) {
            return;
        }
        while self.starts.last().is_some_and(|last| last.start_offset >= start.start_offset) {
            self.starts.pop();
        }
        self.starts.push(start);
    }

    /// Forgets what ended below `start`. The epoch of `start` begins there from now on.
    pub fn truncate_below(&mut self, start: i64) {
        let behind = self.starts.partition_point(|one| one.start_offset <= start);
        if let Some(at) = behind.checked_sub(1) {
            self.starts.drain(..at);
            self.starts[0].start_offset = start;
        }
    }

    /// All starts, ascending.
    #[must_use]
    pub fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// The epoch of the record at `offset`, or `None` below the first start.
    #[must_use]
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let behind = self.starts.partition_point(|start| start.start_offset <= offset);
        behind.checked_sub(1).map(|at| self.starts[at].epoch)
    }

    /// End of the largest epoch at or below `epoch`, where `current` is the epoch of now that began at its offset and
    /// ends at `end`. As Kafka's `LeaderEpochFileCache.endOffsetFor`. A lost range lies before the start of the epoch
    /// that reopened the partition, so an older epoch ends where the lost range ends.
    #[must_use]
    pub fn end_of(&self, epoch: i32, current: EpochStart, end: i64) -> EpochEnd {
        if epoch < 0 || epoch > current.epoch {
            return EpochEnd::UNDEFINED;
        }
        if epoch == current.epoch {
            return EpochEnd { epoch, end_offset: end };
        }
        let behind = self.starts.partition_point(|start| start.epoch <= epoch);
        let next = self.starts.get(behind).copied().unwrap_or(current);
        let own = behind.checked_sub(1).map_or(epoch, |at| self.starts[at].epoch);
        EpochEnd { epoch: own, end_offset: next.start_offset.min(end) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: i32, start_offset: i64) -> EpochStart {
        EpochStart { epoch, start_offset }
    }

    fn epochs(starts: &[EpochStart]) -> Epochs {
        let mut epochs = Epochs::default();
        starts.iter().for_each(|start| epochs.assign(*start));
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = epochs(&[at(1, 0), at(3, 100), at(7, 250)]);
        let current = at(9, 400);
        let end = |epoch| epochs.end_of(epoch, current, 400);
        assert_eq!(end(1), EpochEnd { epoch: 1, end_offset: 100 });
        assert_eq!(end(2), EpochEnd { epoch: 1, end_offset: 100 });
        assert_eq!(end(3), EpochEnd { epoch: 3, end_offset: 250 });
        assert_eq!(end(7), EpochEnd { epoch: 7, end_offset: 400 });
        assert_eq!(end(8), EpochEnd { epoch: 7, end_offset: 400 });
        assert_eq!(end(9), EpochEnd { epoch: 9, end_offset: 400 });
        assert_eq!(end(10), EpochEnd::UNDEFINED);
        assert_eq!(end(-1), EpochEnd::UNDEFINED);
        assert_eq!(end(0), EpochEnd { epoch: 0, end_offset: 0 });
    }

    #[test]
    fn after_a_loss_an_older_epoch_ends_behind_the_lost_range() {
        let lost_end = 50 + (1_i64 << 32);
        let epochs = epochs(&[at(1, 0), at(3, lost_end)]);
        let current = at(3, lost_end);
        assert_eq!(epochs.end_of(2, current, lost_end + 9).end_offset, lost_end);
        let unannounced = Epochs { starts: vec![at(1, 0)] };
        assert_eq!(unannounced.end_of(1, current, lost_end).end_offset, lost_end);
    }

    #[test]
    fn what_ended_below_the_log_start_is_forgotten() {
        let mut epochs = epochs(&[at(1, 0), at(3, 100), at(7, 250)]);
        epochs.truncate_below(99);
        assert_eq!(epochs.starts(), [at(1, 99), at(3, 100), at(7, 250)]);
        epochs.truncate_below(100);
        assert_eq!(epochs.starts(), [at(3, 100), at(7, 250)]);
        epochs.truncate_below(900);
        assert_eq!(epochs.starts(), [at(7, 900)]);
        Epochs::default().truncate_below(5);
    }

    #[test]
    fn offsets_know_their_epoch() {
        let epochs = epochs(&[at(1, 10), at(3, 100), at(2, 300), at(4, 100)]);
        assert_eq!(epochs.starts(), [at(1, 10), at(4, 100)]);
        assert_eq!(epochs.epoch_at(9), None);
        assert_eq!(epochs.epoch_at(99), Some(1));
        assert_eq!(epochs.epoch_at(100), Some(4));
    }
}
