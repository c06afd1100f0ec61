//! What the log has to hold, kept as simply as can be.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::Rng;
use partition::BATCHES_MAX;
use protocol::batch::Builder;
use protocol::compression::Codec;

/// A batch as it was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub producer_id: i64,
    pub epoch: i16,
    pub first_sequence: i32,
    pub times: Vec<i64>,
    pub tag: u64,
    pub bytes: Bytes,
}

impl Sent {
    pub fn records(&self) -> i32 {
        i32::try_from(self.times.len()).expect("few records")
    }

    pub fn last_sequence(&self) -> i32 {
        next_sequence(self.first_sequence, self.records() - 1)
    }
}

/// A batch in the log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub sent: Sent,
}

impl Logged {
    pub fn end(&self) -> i64 {
        self.base_offset + i64::from(self.sent.records())
    }
}

/// What an append has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Appended(i64),
    Duplicate(i64),
    Fenced,
    OutOfOrder,
}

/// The reference: a list of batches. Everything is found by walking it.
#[derive(Debug, Default)]
pub struct Model {
    pub log: Vec<Logged>,
    /// Everything below was answered to somebody.
    pub acked: i64,
    tags: u64,
    /// Next sequence that each producer believes in.
    clients: BTreeMap<i64, (i16, i32)>,
}

impl Model {
    pub fn end(&self) -> i64 {
        self.log.last().map_or(0, Logged::end)
    }

    /// What the partition has to say to `sent`.
    pub fn expect(&self, sent: &Sent) -> Expected {
        if sent.producer_id < 0 {
            return Expected::Appended(self.end());
        }
        let of = |logged: &&Logged| logged.sent.producer_id == sent.producer_id;
        let own: Vec<&Logged> = self.log.iter().filter(of).collect();
        let Some(newest) = own.last() else { return Expected::Appended(self.end()) };
        let current = newest.sent.epoch;
        if sent.epoch < current {
            return Expected::Fenced;
        }
        if sent.epoch > current {
            return match sent.first_sequence {
                0 => Expected::Appended(self.end()),
                _ => Expected::OutOfOrder,
            };
        }
        let same = own.iter().rev().take(BATCHES_MAX).find(|old| {
            old.sent.epoch == sent.epoch
                && old.sent.first_sequence == sent.first_sequence
                && old.sent.last_sequence() == sent.last_sequence()
        });
        if let Some(same) = same {
            return Expected::Duplicate(same.base_offset);
        }
        if sent.first_sequence == next_sequence(newest.sent.last_sequence(), 1) {
            Expected::Appended(self.end())
        } else {
            Expected::OutOfOrder
        }
    }

    /// Draws the next batch to send: mostly the right one, sometimes a repeat, a gap, an old or a new epoch.
    pub fn draw(&mut self, rng: &Rng, now_ms: i64) -> Sent {
        let producer_id = i64::try_from(rng.below(5)).expect("small") - 1;
        let records = 1 + rng.below(4);
        let times = (0..records)
            .map(|_| now_ms - i64::try_from(rng.below(10_000)).expect("small"))
            .collect::<Vec<_>>();
        if producer_id < 0 {
            return self.build(rng, -1, -1, -1, times);
        }
        let own = self.log.iter().filter(|logged| logged.sent.producer_id == producer_id);
        let old: Vec<&Logged> = own.rev().take(8).collect();
        if !old.is_empty() && rng.one_in(4) {
            let at = usize::try_from(rng.below(old.len() as u64)).expect("small");
            return old[at].sent.clone();
        }
        let first = i32::MAX - 20 + i32::try_from(rng.below(20)).expect("small");
        let (mut epoch, mut sequence) = *self.clients.entry(producer_id).or_insert((0, first));
        match rng.below(20) {
            0 => sequence = next_sequence(sequence, 1),
            1 => epoch -= i16::from(epoch > 0),
            2 => (epoch, sequence) = (epoch + 1, 0),
            3 => epoch += 1,
            _ => {}
        }
        self.build(rng, producer_id, epoch, sequence, times)
    }

    fn build(&mut self, rng: &Rng, id: i64, epoch: i16, sequence: i32, times: Vec<i64>) -> Sent {
        self.tags += 1;
        let codec = Codec::ALL[usize::try_from(rng.below(8)).expect("small") % Codec::ALL.len()];
        let mut builder = Builder::new().codec(codec);
        if id >= 0 {
            builder = builder.producer(id, epoch, sequence);
        }
        let padding = vec![b'x'; usize::try_from(rng.below(3_000)).expect("small")];
        for time in &times {
            builder.push(*time, Some(&self.tags.to_be_bytes()), Some(&padding), &[]);
        }
        let bytes = builder.build().expect("small");
        Sent { producer_id: id, epoch, first_sequence: sequence, times, tag: self.tags, bytes }
    }

    /// Notes an appended batch.
    pub fn appended(&mut self, sent: &Sent, leader_epoch: i32) {
        if sent.producer_id >= 0 {
            let next = next_sequence(sent.last_sequence(), 1);
            self.clients.insert(sent.producer_id, (sent.epoch, next));
        }
        let base_offset = self.end();
        self.log.push(Logged { base_offset, leader_epoch, sent: sent.clone() });
    }

    pub fn answered(&mut self, end: i64) {
        self.acked = self.acked.max(end);
    }

    /// Cuts the log where a crash has cut it, and lets the producers send again what was lost.
    pub fn crashed(&mut self, end: i64) {
        assert!(end >= self.acked, "offsets [{end}, {}) were answered and are lost", self.acked);
        self.log.retain(|logged| logged.end() <= end);
        assert_eq!(self.end(), end, "a batch was torn apart");
        self.clients.clear();
        for Logged { sent, .. } in &self.log {
            if sent.producer_id >= 0 {
                let next = next_sequence(sent.last_sequence(), 1);
                self.clients.insert(sent.producer_id, (sent.epoch, next));
            }
        }
    }

    /// First record in `[0, bound)` with a time of at least `time`.
    pub fn by_time(&self, time: i64, bound: i64) -> Option<(i64, i64)> {
        self.records(bound).find(|(_, t)| *t >= time)
    }

    /// First record with the highest time.
    pub fn highest(&self, bound: i64) -> Option<(i64, i64)> {
        let highest = self.records(bound).map(|(_, time)| time).max()?;
        self.by_time(highest, bound)
    }

    fn records(&self, bound: i64) -> impl Iterator<Item = (i64, i64)> {
        self.log
            .iter()
            .flat_map(|logged| logged.sent.times.iter().zip(logged.base_offset..))
            .map(|(time, offset)| (offset, *time))
            .take_while(move |(offset, _)| *offset < bound)
    }

    /// End of the largest epoch at or below `epoch` that has records, within `bound`.
    pub fn end_of_epoch(&self, epoch: i32, bound: i64) -> i64 {
        let next = self.log.iter().find(|logged| logged.leader_epoch > epoch);
        next.map_or(bound, |next| next.base_offset.min(bound))
    }
}

fn next_sequence(sequence: i32, by: i32) -> i32 {
    let sum = (i64::from(sequence) + i64::from(by)) % (i64::from(i32::MAX) + 1);
    i32::try_from(sum).expect("below 2^31")
}
