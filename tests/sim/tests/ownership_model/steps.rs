//! The steps that may be taken from a state.

use crate::state::{Command, Frame, Log, SPAN, State, Take, VALUES_MAX};

/// Which guards stand.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Clocks run: a lease has ended at its broker before the leader ends it.
    pub honest_clock: bool,
    /// The gate asks the lease.
    pub lease: bool,
    /// A takeover fences the medium before it reads.
    pub fence: bool,
    /// A loss goes on behind its span.
    pub span: bool,
    /// A seal stays once its command is under way.
    pub keep_seal: bool,
    /// A sealed partition is not opened again under its epoch.
    pub remember_seal: bool,
    /// An opening reads owner and ends of streams in one.
    pub read_owner: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            honest_clock: true,
            lease: true,
            fence: true,
            span: true,
            keep_seal: true,
            remember_seal: true,
            read_owner: true,
        }
    }
}

/// All kinds of steps.
pub const KINDS: [&str; 24] = [
    "open",
    "append",
    "land",
    "fail",
    "answer",
    "read",
    "learn",
    "lapse",
    "renew",
    "end lease",
    "upload",
    "seal",
    "unseal",
    "ask to move",
    "arrive",
    "kill",
    "start",
    "fence",
    "fence disk",
    "recover",
    "upload taken",
    "hand out",
    "lose",
    "close",
];

pub struct Step {
    pub kind: &'static str,
    pub what: String,
    pub state: State,
    /// Whether what clients were told in it can be.
    pub told: Result<(), String>,
}

struct Steps<'a> {
    now: &'a State,
    rules: Rules,
    steps: Vec<Step>,
}

/// Every step from `now`.
pub fn next(now: &State, rules: Rules) -> Vec<Step> {
    let mut steps = Steps { now, rules, steps: Vec::new() };
    for broker in 0..2 {
        if now.brokers[broker].up {
            steps.serve(broker);
            steps.upload(broker);
            steps.leases(broker);
            steps.moves(broker);
            steps.takeover(broker);
            steps.kill(broker);
        } else {
            steps.start(broker);
        }
        steps.end_lease(broker);
    }
    steps.arrive();
    steps.lose();
    steps.steps
}

impl Steps<'_> {
    fn take(&mut self, kind: &'static str, broker: usize, change: impl FnOnce(&mut State)) {
        self.told(kind, broker, |state| {
            change(state);
            Ok(())
        });
    }

    fn told(
        &mut self,
        kind: &'static str,
        broker: usize,
        change: impl FnOnce(&mut State) -> Result<(), String>,
    ) {
        let mut state = self.now.clone();
        let told = change(&mut state);
        self.steps.push(Step { kind, what: format!("{broker}"), state, told });
    }

    /// The gate of an open partition: lease, and the image as this broker knows it.
    fn gate(&self, number: usize, epoch: u8) -> bool {
        let broker = &self.now.brokers[number];
        let lease = broker.lease || !self.rules.lease;
        lease && broker.image == (Some(number), epoch)
    }

    fn serve(&mut self, number: usize) {
        let now = self.now;
        let broker = &now.brokers[number];
        match broker.open {
            None => {
                let (leader, epoch) = broker.image;
                let sealed =
                    self.rules.remember_seal && broker.sealed.is_some_and(|at| at >= epoch);
                // What was queued before is waited for.
                let settled = broker.submitted.is_empty();
                let current = broker.image == (now.meta.leader, now.meta.epoch);
                let ours = self.gate(number, epoch) && (current || !self.rules.read_owner);
                if leader == Some(number) && ours && !sealed && settled {
                    self.take("open", number, |state| open(state, number, epoch));
                }
            }
            Some((epoch, end)) => {
                if !self.gate(number, epoch) {
                    self.take("close", number, |state| close(state, number));
                    return;
                }
                let sealed = broker.sealed == Some(epoch);
                if !sealed && now.values < VALUES_MAX {
                    self.take("append", number, |state| {
                        state.values += 1;
                        let frame = Frame { offset: end, value: state.values };
                        let broker = &mut state.brokers[number];
                        broker.open = Some((epoch, end + 1));
                        broker.submitted.push(frame);
                    });
                }
                if !broker.landed.is_empty() {
                    let honest = self.rules.honest_clock;
                    self.told("answer", number, |state| {
                        let landed = std::mem::take(&mut state.brokers[number].landed);
                        state.tell(&landed, epoch, honest)
                    });
                } else if broker.submitted.is_empty() {
                    let honest = self.rules.honest_clock;
                    let mut known = now.meta.objects.clone();
                    let log = &now.logs[broker.log];
                    known.extend(&log.frames[log.committed..]);
                    known.retain(|frame| frame.offset < end);
                    self.told("read", number, |state| state.tell(&known, epoch, honest));
                }
            }
        }
        if !broker.submitted.is_empty() {
            let attached = now.logs[broker.log].attached;
            self.take(if attached { "land" } else { "fail" }, number, |state| {
                if attached {
                    land(state, number);
                } else {
                    down(state, number);
                }
            });
        }
        if broker.image != (now.meta.leader, now.meta.epoch) {
            self.take("learn", number, |state| {
                state.brokers[number].image = (state.meta.leader, state.meta.epoch);
            });
        }
    }

    fn upload(&mut self, number: usize) {
        let now = self.now;
        let broker = &now.brokers[number];
        let log = &now.logs[broker.log];
        if log.frames.len() > log.committed && now.left.uploads > 0 {
            // Sent: it arrives at once, late, or never. Only under the epoch that this process has.
            self.take("upload", number, |state| {
                state.left.uploads -= 1;
                let broker = &state.brokers[number];
                let log = &state.logs[broker.log];
                let (first, epoch) = (log.committed, broker.log_epoch);
                let frames = log.frames[first..].to_vec();
                let command = Command::Commit { log: broker.log, epoch, first, frames };
                send(state, command);
            });
        }
    }

    fn leases(&mut self, number: usize) {
        if self.now.brokers[number].lease {
            self.take("lapse", number, |state| state.brokers[number].lease = false);
        } else if !self.now.meta.ended[number] {
            self.take("renew", number, |state| state.brokers[number].lease = true);
        }
    }

    fn end_lease(&mut self, number: usize) {
        let broker = &self.now.brokers[number];
        let over = !broker.up || !broker.lease || !self.rules.honest_clock;
        if over && !self.now.meta.ended[number] {
            self.take("end lease", number, |state| state.meta.ended[number] = true);
        }
    }

    fn moves(&mut self, number: usize) {
        let now = self.now;
        let broker = &now.brokers[number];
        if broker.sealed.is_some() && (!broker.move_sent || !self.rules.keep_seal) {
            self.take("unseal", number, |state| state.brokers[number].sealed = None);
        }
        let Some((epoch, end)) = broker.open else { return };
        if broker.sealed != Some(epoch) {
            if now.left.moves > 0 && self.gate(number, epoch) {
                self.take("seal", number, |state| {
                    state.left.moves -= 1;
                    state.brokers[number].sealed = Some(epoch);
                    state.brokers[number].move_sent = false;
                });
            }
            return;
        }
        let log = &now.logs[broker.log];
        let uploaded = broker.submitted.is_empty() && log.committed == log.frames.len();
        if uploaded && !broker.move_sent {
            self.take("ask to move", number, |state| {
                let (log, log_epoch) = (broker.log, broker.log_epoch);
                state.brokers[number].move_sent = true;
                // Nothing is answered any more once the command is under way.
                close(state, number);
                send(state, Command::Move { log, log_epoch, epoch, end, to: 1 - number });
            });
        }
    }

    fn takeover(&mut self, number: usize) {
        let now = self.now;
        let other = 1 - number;
        let theirs = now.brokers[other].log;
        let log = &now.logs[theirs];
        let able = is_open(now, number) && log.survives && now.meta.ended[other];
        if able && !log.closed && now.left.fences > 0 && now.brokers[number].take.is_none() {
            self.take("fence", number, |state| {
                state.left.fences -= 1;
                let epoch = fence(state, theirs);
                state.brokers[number].take =
                    Some(Take { log: theirs, epoch, fenced: false, read: None });
            });
        }
        let Some(take) = now.brokers[number].take.clone() else { return };
        if !take.fenced {
            let fence = self.rules.fence;
            self.take("fence disk", number, |state| {
                state.logs[take.log].attached &= !fence;
                state.brokers[number].take.as_mut().expect("there").fenced = true;
            });
            return;
        }
        let log = &now.logs[take.log];
        let stale = log.closed || log.epoch != take.epoch;
        match &take.read {
            None => self.take("recover", number, |state| {
                let log = &state.logs[take.log];
                let read = Some((log.committed, log.frames[log.committed..].to_vec()));
                state.brokers[number].take.as_mut().expect("there").read = read;
            }),
            // Somebody else holds the log: refused, given up.
            Some(_) if stale => {
                self.take("close", number, |state| state.brokers[number].take = None);
            }
            Some((first, frames)) if !frames.is_empty() => {
                let (first, frames) = (*first, frames.clone());
                self.take("upload taken", number, |state| {
                    commit(state, take.log, take.epoch, first, &frames);
                    let read = Some((first + frames.len(), Vec::new()));
                    state.brokers[number].take.as_mut().expect("there").read = read;
                });
            }
            Some(_) => self.take("hand out", number, |state| hand_out(state, number, &take)),
        }
    }

    fn kill(&mut self, number: usize) {
        if self.now.left.kills == 0 {
            return;
        }
        for lands in [false, true] {
            if lands && self.now.brokers[number].submitted.is_empty() {
                continue;
            }
            self.take("kill", number, |state| {
                state.left.kills -= 1;
                if lands && state.logs[state.brokers[number].log].attached {
                    land(state, number);
                }
                down(state, number);
            });
        }
    }

    /// The process starts: it opens its log, or a new one when that is closed.
    fn start(&mut self, number: usize) {
        self.take("start", number, |state| {
            state.log_epochs += 1;
            let epoch = state.log_epochs;
            if state.logs[state.brokers[number].log].closed {
                let log = Log {
                    owner: number,
                    survives: false,
                    epoch,
                    fenced: false,
                    closed: false,
                    committed: 0,
                    frames: Vec::new(),
                    attached: true,
                };
                state.brokers[number].log = state.logs.len();
                state.logs.push(log);
            }
            let number_of_log = state.brokers[number].log;
            let log = &mut state.logs[number_of_log];
            (log.epoch, log.fenced, log.attached) = (epoch, false, true);
            state.meta.ended[number] = false;
            // Its own, or one that waits without a log.
            if state.meta.log == number_of_log || state.logs[state.meta.log].closed {
                assign(state, number);
            }
            let image = (state.meta.leader, state.meta.epoch);
            let broker = &mut state.brokers[number];
            (broker.up, broker.log_epoch, broker.lease, broker.image) = (true, epoch, true, image);
        });
    }

    fn arrive(&mut self) {
        for at in 0..self.now.under_way.len() {
            self.take("arrive", at, |state| match state.under_way.remove(at) {
                Command::Commit { log, epoch, first, frames } => {
                    commit(state, log, epoch, first, &frames);
                }
                Command::Move { log, log_epoch, epoch, end, to } => {
                    let holder = &state.logs[log];
                    let allowed = holder.epoch == log_epoch
                        && !holder.closed
                        && state.meta.epoch == epoch
                        && state.meta.log == log
                        && state.meta.end == end
                        && is_open(state, to);
                    if allowed {
                        assign(state, to);
                    }
                }
            });
        }
    }

    /// The operator declares the partition's log lost, when its broker's lease has ended.
    fn lose(&mut self) {
        let now = self.now;
        let log = &now.logs[now.meta.log];
        if now.left.losses == 0 || log.closed || !now.meta.ended[log.owner] {
            return;
        }
        let span = if self.rules.span { SPAN } else { 0 };
        let owner = log.owner;
        self.take("lose", owner, |state| {
            state.left.losses -= 1;
            let at = state.meta.log;
            state.logs[at].closed = true;
            let start = state.meta.end;
            state.meta.lost.push((start, start + SPAN));
            state.meta.end = start + span;
            state.meta.epoch += 1;
            state.meta.leader = None;
            if is_open(state, 1 - owner) {
                state.meta.epoch -= 1;
                assign(state, 1 - owner);
            }
        });
    }
}

fn send(state: &mut State, command: Command) {
    if !state.under_way.contains(&command) {
        state.under_way.push(command);
        state.under_way.sort();
    }
}

/// The broker's log can own partitions.
fn is_open(state: &State, number: usize) -> bool {
    let log = &state.logs[state.brokers[number].log];
    !log.closed && !log.fenced
}

fn assign(state: &mut State, to: usize) {
    state.meta.epoch += 1;
    state.meta.leader = Some(to);
    state.meta.log = state.brokers[to].log;
}

fn fence(state: &mut State, log: usize) -> u8 {
    state.log_epochs += 1;
    state.logs[log].epoch = state.log_epochs;
    state.logs[log].fenced = true;
    if state.meta.log == log {
        state.meta.leader = None;
    }
    state.log_epochs
}

fn commit(state: &mut State, log: usize, epoch: u8, first: usize, frames: &[Frame]) {
    let holder = &state.logs[log];
    let follows = frames.first().is_none_or(|frame| frame.offset == state.meta.end);
    if holder.closed || holder.epoch != epoch || holder.committed != first {
        return;
    }
    if state.meta.log != log || !follows {
        return;
    }
    state.meta.objects.extend(frames);
    state.meta.end = frames.last().map_or(state.meta.end, |frame| frame.offset + 1);
    state.logs[log].committed += frames.len();
}

fn hand_out(state: &mut State, number: usize, take: &Take) {
    state.logs[take.log].closed = true;
    let end = take.read.as_ref().map_or(0, |(end, _)| *end);
    state.logs[take.log].committed = end;
    state.brokers[number].take = None;
    if state.meta.log == take.log {
        assign(state, number);
    }
}

fn open(state: &mut State, number: usize, epoch: u8) {
    let broker = &state.brokers[number];
    let log = &state.logs[broker.log];
    let above = log.frames[log.committed..].iter();
    let own = above.map(|frame| frame.offset + 1).max().unwrap_or(0);
    let broker = &mut state.brokers[number];
    broker.open = Some((epoch, own.max(state.meta.end)));
    broker.sealed = None;
    broker.move_sent = false;
    state.opened = state.opened.max(epoch);
}

/// The partition is gone here: who waits is told so. What was queued still lands.
fn close(state: &mut State, number: usize) {
    state.brokers[number].open = None;
    state.brokers[number].landed.clear();
}

fn land(state: &mut State, number: usize) {
    let broker = &mut state.brokers[number];
    let frames = std::mem::take(&mut broker.submitted);
    if broker.open.is_some() {
        broker.landed.extend(&frames);
    }
    state.logs[broker.log].frames.extend(&frames);
}

fn down(state: &mut State, number: usize) {
    let broker = &mut state.brokers[number];
    (broker.up, broker.lease, broker.open, broker.sealed) = (false, false, None, None);
    broker.move_sent = false;
    broker.submitted.clear();
    broker.landed.clear();
    broker.take = None;
}
