//! Swaps in the random lives.

use common::{ObjectId, StreamId};

use super::{Life, ModelObject, ModelStream};
use crate::apply::world::{part_of, rejected, swap_of};
use crate::command::{SwapOutput, SwapRanges, SwapStream};
use crate::facts::ObjectStage;
use crate::reply::{Reject, Reply};

impl Life {
    /// Replaces random runs of ranges of one log's streams, sometimes with one thing wrong.
    pub(super) fn swap(&mut self) {
        let Some(position) = self.pick(0..self.model.logs.len()) else { return };
        let one = self.model.logs[position];
        let new: Vec<ObjectId> =
            (0..1 + self.rng.below(2)).map(|_| self.world.register(one.log)).collect();
        let expires_ms = self.world.now_ms + 60_000;
        for id in &new {
            let stage = ObjectStage::Registered;
            self.model.objects.insert(*id, ModelObject { stage, wal: one.log.wal, expires_ms });
        }
        let mut swap = swap_of(one.log, &new, self.world.now_ms);
        let mut below = false;
        for (stream, model) in &self.model.streams {
            let Some((owner, epoch)) = self.model.partitions.get(&stream.partition) else {
                continue;
            };
            if *owner != Some(one.log.wal) || self.rng.one_in(2) {
                continue;
            }
            let Some((part, under)) = self.part(*stream, model, *epoch, &mut swap) else {
                continue;
            };
            below |= under;
            swap.streams.push(part);
        }
        let used = |object: usize| {
            let outputs = swap.streams.iter().flat_map(|part| &part.outputs);
            outputs.into_iter().any(|output| usize::try_from(output.object) == Ok(object))
        };
        if !(0..new.len()).all(used) {
            let reject = rejected(self.world.run(swap));
            assert!(below || matches!(reject, Reject::Malformed(_)), "{reject:?}");
            return;
        }
        if below {
            assert!(matches!(rejected(self.world.run(swap)), Reject::BelowLogStart { .. }));
            self.met("swap below the log start");
            return;
        }
        if let Some(expected) = self.spoil_swap(&mut swap) {
            let reject = rejected(self.world.run(swap));
            let kinds = [&reject, &expected].map(std::mem::discriminant);
            assert_eq!(kinds[0], kinds[1], "{reject:?} instead of {expected:?}");
            self.met("swap refused");
            return;
        }
        assert_eq!(self.world.run(swap.clone()), Reply::RangesSwapped { again: false });
        self.met("swapped");
        self.take_swap(&swap);
        if self.rng.one_in(4) {
            let before = self.world.state.clone();
            assert_eq!(self.world.run(swap), Reply::RangesSwapped { again: true });
            assert_eq!(self.world.state, before);
            self.met("swap again");
        }
    }

    /// A random run of adjacent ranges of `stream`; true when it begins below the log start.
    fn part(
        &self,
        stream: StreamId,
        model: &ModelStream,
        epoch: i32,
        swap: &mut SwapRanges,
    ) -> Option<(SwapStream, bool)> {
        let ranges: Vec<_> =
            model.ranges.iter().map(|(start, (end, id))| (*start, *end, *id)).collect();
        let first = self.pick(0..ranges.len())?;
        let mut run = vec![ranges[first]];
        for next in &ranges[first + 1..] {
            if next.0 != run[run.len() - 1].1 || self.rng.one_in(3) {
                break;
            }
            run.push(*next);
        }
        let (start, end) = (run[0].0, run[run.len() - 1].1);
        let inputs: Vec<ObjectId> = run.iter().map(|one| one.2).collect();
        let middle = start + (end - start) / 2;
        let last = u32::try_from(swap.objects.len() - 1).expect("few");
        let outputs = match middle {
            middle if middle > start && self.rng.one_in(2) => vec![(0, middle), (last, end)],
            _ => vec![(last, end)],
        };
        Some((part_of(swap, stream, epoch, start, &inputs, &outputs), start < model.start))
    }

    /// Makes one thing wrong with the swap and says what is to be answered.
    fn spoil_swap(&mut self, swap: &mut SwapRanges) -> Option<Reject> {
        let Some(last) = swap.streams.len().checked_sub(1) else {
            return Some(Reject::Malformed("no part"));
        };
        let stream = swap.streams[last].stream().expect("a stream");
        let changed = Some(Reject::CoverChanged { stream, start: 0, end: 0 });
        let part = &mut swap.streams[last];
        match self.rng.below(16) {
            0 => {
                swap.epoch -= 1;
                Some(Reject::StaleWalEpoch { current: common::WalEpoch(0) })
            }
            1 => {
                part.epoch += 1;
                Some(Reject::StaleStreamEpoch { current: common::StreamEpoch(0) })
            }
            2 => {
                let expired = self.model.objects.iter().find(|(_, object)| {
                    object.stage == ObjectStage::Expired && object.wal == swap.wal
                });
                swap.objects[0].object = expired?.0.0;
                Some(Reject::ObjectExpired(ObjectId(0)))
            }
            // An end that no live range has.
            3 => {
                part.outputs.last_mut().expect("one").end += 100;
                changed
            }
            // One range less than covers the part.
            4 if part.inputs.len() > 1 => {
                part.inputs.pop();
                changed
            }
            5 => {
                part.start += 1;
                let first: &mut SwapOutput = part.outputs.first_mut()?;
                first.end = first.end.max(part.start + 1);
                if part.outputs.len() == 2 && part.outputs[1].end <= part.outputs[0].end {
                    part.outputs.remove(0);
                }
                changed
            }
            // The right offsets, another object.
            6 => {
                let at = usize::try_from(part.inputs[0]).expect("few");
                swap.inputs[at] += 1_000_000;
                changed
            }
            _ => None,
        }
    }

    fn take_swap(&mut self, swap: &SwapRanges) {
        for part in &swap.streams {
            let stream = part.stream().expect("a stream");
            let model = self.model.streams.get_mut(&stream).expect("known");
            let end = part.outputs.last().expect("one").end;
            model.ranges.retain(|start, _| !(part.start..end).contains(start));
            let mut start = part.start;
            for output in &part.outputs {
                let object = swap.objects[usize::try_from(output.object).expect("few")].object;
                model.ranges.insert(start, (output.end, ObjectId(object)));
                start = output.end;
            }
        }
        for new in &swap.objects {
            let object = self.model.objects.get_mut(&ObjectId(new.object)).expect("registered");
            object.stage = ObjectStage::Committed;
        }
    }
}
