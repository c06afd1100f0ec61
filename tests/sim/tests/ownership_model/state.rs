//! The state: two brokers, their logs, metadata, what is under way, and what clients were told.

use std::collections::BTreeMap;

/// Offsets that a declared loss passes over.
pub const SPAN: u8 = 8;
/// Records appended in all.
pub const VALUES_MAX: u8 = 2;

/// An entry: every record has another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame {
    pub offset: u8,
    pub value: u8,
}

/// A log and its medium.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log {
    pub owner: usize,
    pub survives: bool,
    /// The epoch that may commit.
    pub epoch: u8,
    pub fenced: bool,
    pub closed: bool,
    /// Frames of it that lie in objects.
    pub committed: usize,
    /// Everything that has landed.
    pub frames: Vec<Frame>,
    /// Writes of its broker land.
    pub attached: bool,
}

/// A takeover under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Take {
    pub log: usize,
    pub epoch: u8,
    pub fenced: bool,
    /// What recovery has read above `first`.
    pub read: Option<(usize, Vec<Frame>)>,
}

/// A broker's process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Broker {
    pub up: bool,
    pub log: usize,
    pub log_epoch: u8,
    pub lease: bool,
    /// Leader and epoch as it knows them.
    pub image: (Option<usize>, u8),
    /// Epoch under which the partition is open, and its end.
    pub open: Option<(u8, u8)>,
    /// Epoch under which it was sealed.
    pub sealed: Option<u8>,
    pub move_sent: bool,
    /// On their way to the medium.
    pub submitted: Vec<Frame>,
    /// Landed, not answered.
    pub landed: Vec<Frame>,
    pub take: Option<Take>,
}

/// A command under way: it may arrive at any time, or never.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    Commit { log: usize, epoch: u8, first: usize, frames: Vec<Frame> },
    Move { log: usize, log_epoch: u8, epoch: u8, end: u8, to: usize },
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Meta {
    pub leader: Option<usize>,
    pub epoch: u8,
    pub log: usize,
    pub end: u8,
    pub objects: Vec<Frame>,
    pub lost: Vec<(u8, u8)>,
    /// Leases that the leader has ended.
    pub ended: [bool; 2],
}

/// What may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Left {
    pub kills: u8,
    pub fences: u8,
    pub moves: u8,
    pub losses: u8,
    /// By a broker of its own log.
    pub uploads: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    pub logs: Vec<Log>,
    pub brokers: [Broker; 2],
    pub meta: Meta,
    pub under_way: Vec<Command>,
    pub told: BTreeMap<u8, u8>,
    /// The highest epoch under which anybody has opened the partition.
    pub opened: u8,
    pub values: u8,
    pub log_epochs: u8,
    pub left: Left,
}

impl State {
    pub fn new(left: Left) -> Self {
        let log = |owner| Log {
            owner,
            survives: owner == 0,
            epoch: 1 + u8::try_from(owner).expect("two"),
            fenced: false,
            closed: false,
            committed: 0,
            frames: Vec::new(),
            attached: true,
        };
        let broker = |number: usize| Broker {
            up: true,
            log: number,
            log_epoch: 1 + u8::try_from(number).expect("two"),
            lease: true,
            image: (Some(0), 1),
            open: None,
            sealed: None,
            move_sent: false,
            submitted: Vec::new(),
            landed: Vec::new(),
            take: None,
        };
        Self {
            logs: vec![log(0), log(1)],
            brokers: [broker(0), broker(1)],
            meta: Meta {
                leader: Some(0),
                epoch: 1,
                log: 0,
                end: 0,
                objects: Vec::new(),
                lost: Vec::new(),
                ended: [false; 2],
            },
            under_way: Vec::new(),
            told: BTreeMap::new(),
            opened: 0,
            values: 0,
            log_epochs: 2,
            left,
        }
    }

    /// What is to be found above the objects: in the log that the partition is assigned to.
    pub fn above(&self) -> &[Frame] {
        let log = &self.logs[self.meta.log];
        if log.closed { &[] } else { &log.frames[log.committed..] }
    }

    /// Told what is not so, or bytes in a second log.
    pub fn check(&self) -> Result<(), String> {
        let is_lost =
            |offset: u8| self.meta.lost.iter().any(|(start, end)| (*start..*end).contains(&offset));
        for (offset, value) in &self.told {
            let mut there = self.meta.objects.iter().chain(self.above());
            let found = there.find(|frame| frame.offset == *offset).map(|frame| frame.value);
            if found != Some(*value) && !(found.is_none() && is_lost(*offset)) {
                return Err(format!("offset {offset} was told as {value} and is {found:?}"));
            }
        }
        for (number, log) in self.logs.iter().enumerate() {
            let above = log.frames[log.committed..].iter();
            let mut above = above.filter(|frame| frame.offset >= self.meta.end);
            if !log.closed && number != self.meta.log && above.next().is_some() {
                return Err(format!("log {number} holds un-uploaded bytes as well"));
            }
        }
        Ok(())
    }

    /// A client is told of `frames`, under `epoch`.
    pub fn tell(&mut self, frames: &[Frame], epoch: u8, honest: bool) -> Result<(), String> {
        if honest && epoch < self.opened {
            return Err(format!("an answer under epoch {epoch}, {} is open", self.opened));
        }
        for frame in frames {
            let known = *self.told.entry(frame.offset).or_insert(frame.value);
            if known != frame.value {
                return Err(format!("offset {} is {} and {known}", frame.offset, frame.value));
            }
        }
        Ok(())
    }
}
