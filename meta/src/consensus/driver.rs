//! The driver: feeds raft-rs with time, messages and proposals, and does what it asks for.
//!
//! One task. Each turn takes what has arrived, then settles: entries and hard state go to the store in one batch (synced
//! when raft demands it), committed commands are applied in one batch together with the applied index, the image is
//! published, and only then are replies given. The applying batch is not synced: the log it can be repeated from is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{Entry, EntryType, HardState, Message, MessageType, Snapshot};
use raft::{RawNode, SnapshotStatus, StateRole, Storage as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::log::{Loaded, Log};
use super::{Deps, Options, StartError, codec, dump, log};
use crate::apply::apply;
use crate::command::Command;
use crate::frame;
use crate::handle::{Handle, Proposal, ProposeError, Read, Standing};
use crate::image::Image;
use crate::keys;
use crate::record::Applied;
use crate::reply::Reply;
use crate::store::{Batch, MetaStore, Space, StoreError};
use crate::view::{Overlay, StoreView, ViewError};

/// The driver cannot go on. The process ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state or the log cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A snapshot from the leader is damaged.
    #[error("{0}")]
    Snapshot(String),
    /// Raft refused what it must take.
    #[error("raft: {0}")]
    Raft(String),
}

type Answer = oneshot::Sender<Result<Reply, ProposeError>>;

struct Pending {
    command: Vec<u8>,
    term: u64,
    since: Duration,
    answer: Answer,
}

/// Runs one voter. See the module.
pub struct Driver {
    raw: RawNode<Log>,
    store: Box<dyn MetaStore>,
    options: Options,
    deps: Deps,
    applied: Applied,
    image: Image,
    images: watch::Sender<Arc<Image>>,
    standing: watch::Sender<Standing>,
    proposals: mpsc::Receiver<Proposal>,
    reads: mpsc::Receiver<Read>,
    /// Proposals that nobody leads; `Pending::term` is 0.
    waiting: VecDeque<Pending>,
    /// Proposals in the log, by index.
    pending: BTreeMap<u64, Pending>,
    election: (u64, StateRole, u64),
    election_timeout: usize,
}

/// Opens the voter in `store`, which may be empty.
///
/// # Errors
/// [`StartError`] when the store belongs to somebody else or cannot be read.
pub async fn start(
    mut store: Box<dyn MetaStore>,
    options: Options,
    deps: Deps,
) -> Result<(Handle, Driver), StartError> {
    let mut applied = log::applied(&*store)?;
    let log = match Log::load(&*store, applied)? {
        Loaded::Found { log, voter } => {
            if voter != options.voter || log.voters() != options.voters {
                return Err(StartError::OtherVoter {
                    found: voter,
                    found_voters: log.voters().to_vec(),
                    voter: options.voter,
                    voters: options.voters,
                });
            }
            *log
        }
        Loaded::Fresh => {
            let log = Log::first(&options.voters);
            let written = store.write(log.first_batch(options.voter), true).await;
            written.map_err(ViewError::Store)?;
            applied = log::applied(&*store)?;
            log
        }
    };
    let truncated = log.first_index().map_or(0, |first| first - 1);
    if applied.index < truncated || applied.index > log.last() {
        let last = log.last();
        return Err(StartError::Torn { applied: applied.index, truncated, last });
    }
    let image = Image::build(&StoreView(&*store), applied.index)?;
    let raw = RawNode::new(&config(&options, applied.index), log, &logger())
        .map_err(|error| StartError::Raft(error.to_string()))?;
    let (proposals_in, proposals) = mpsc::channel(options.proposals_max);
    let (reads_in, reads) = mpsc::channel(options.reads_max);
    let (images, images_out) = watch::channel(Arc::new(image.clone()));
    let first = Standing { voter: options.voter, ..Standing::default() };
    let (standing, standing_out) = watch::channel(first);
    let handle = Handle {
        proposals: proposals_in,
        reads: reads_in,
        images: images_out,
        standing: standing_out,
        command_bytes_max: options.command_bytes_max,
        source: None,
    };
    let driver = Driver {
        raw,
        store,
        applied,
        image,
        images,
        standing,
        proposals,
        reads,
        waiting: VecDeque::new(),
        pending: BTreeMap::new(),
        election: (0, StateRole::Follower, 0),
        election_timeout: options.election_ticks,
        options,
        deps,
    };
    Ok((handle, driver))
}

fn config(options: &Options, applied: u64) -> raft::Config {
    raft::Config {
        id: options.voter,
        election_tick: options.election_ticks,
        heartbeat_tick: options.heartbeat_ticks,
        applied,
        max_size_per_msg: 1 << 20,
        max_inflight_msgs: 64,
        check_quorum: true,
        pre_vote: true,
        max_committed_size_per_ready: 4 << 20,
        ..raft::Config::default()
    }
}

/// Raft-rs logs through slog; what matters of it is told by this module.
fn logger() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

enum Event {
    Stop,
    Tick,
    Message(Vec<u8>),
    Proposal(Proposal),
    Read(Read),
}

impl Driver {
    /// Runs until shutdown. Proposals that are still open then end with [`ProposeError::Closed`].
    ///
    /// # Errors
    /// [`Fatal`] after a failure of the store, when `on_fatal` has been called.
    pub async fn run(mut self) -> Result<(), Fatal> {
        let result = self.serve().await;
        if let Err(fatal) = &result {
            self.deps.metrics.store_errors.inc();
            (self.deps.on_fatal)(&format!("metadata cannot go on: {fatal}"));
        }
        result
    }

    /// Runs on a thread of its own, with a runtime of its own, where the store may block.
    ///
    /// # Errors
    /// When the operating system refuses a thread or a runtime.
    pub fn run_on_thread(
        self,
        name: &str,
    ) -> std::io::Result<std::thread::JoinHandle<Result<(), Fatal>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        common::threads::spawn(name, move || runtime.block_on(self.run()))
    }

    async fn serve(&mut self) -> Result<(), Fatal> {
        self.pin_election_timeout();
        if self.options.voters.len() == 1 {
            self.raw.campaign().map_err(|error| Fatal::Raft(error.to_string()))?;
        }
        self.settle().await?;
        let mut ticks = tokio::time::interval(self.options.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let room = self.pending.len() + self.waiting.len() < self.options.proposals_max;
            let event = tokio::select! {
                biased;
                () = self.deps.shutdown.cancelled() => Event::Stop,
                _ = ticks.tick() => Event::Tick,
                message = self.deps.transport.receive() => Event::Message(message),
                Some(proposal) = self.proposals.recv(), if room => Event::Proposal(proposal),
                Some(read) = self.reads.recv() => Event::Read(read),
            };
            match event {
                Event::Stop => return Ok(()),
                Event::Tick => self.tick(),
                Event::Message(bytes) => self.step(&bytes),
                Event::Proposal(proposal) => self.take_proposals(proposal),
                Event::Read(read) => read(&*self.store),
            }
            self.settle().await?;
        }
    }

    fn tick(&mut self) {
        self.raw.tick();
        let (now, most) = (self.deps.clock.elapsed(), self.options.propose_timeout);
        let late = |pending: &Pending| now.saturating_sub(pending.since) > most;
        let late_ones: Vec<u64> =
            self.pending.iter().filter(|(_, one)| late(one)).map(|(index, _)| *index).collect();
        let in_log = late_ones.into_iter().filter_map(|index| self.pending.remove(&index));
        let mut over: Vec<Pending> = in_log.collect();
        while self.waiting.front().is_some_and(late) {
            over.extend(self.waiting.pop_front());
        }
        for pending in over {
            self.deps.metrics.proposals_refused.inc();
            self.answer(pending, Err(ProposeError::TimedOut));
        }
    }

    fn step(&mut self, bytes: &[u8]) {
        match codec::decode_message(bytes) {
            Ok(message) => {
                if let Err(error) = self.raw.step(message) {
                    debug!(%error, "raft message not taken");
                }
            }
            Err(error) => warn!(%error, "raft message cannot be read"),
        }
    }

    /// Takes the proposal and every other one that waits, so that they share one write of the log.
    fn take_proposals(&mut self, first: Proposal) {
        let since = self.deps.clock.elapsed();
        let mut next = Some(first);
        while let Some(Proposal { command, reply }) = next {
            self.waiting.push_back(Pending { command, term: 0, since, answer: reply });
            let room = self.pending.len() + self.waiting.len() < self.options.proposals_max;
            next = if room { self.proposals.try_recv().ok() } else { None };
        }
    }

    /// Hands waiting proposals to raft when this voter leads, or back when another one does.
    fn propose_waiting(&mut self) {
        let leader = self.raw.raft.leader_id;
        if leader == self.options.voter && self.raw.raft.state == StateRole::Leader {
            while let Some(mut pending) = self.waiting.pop_front() {
                if self.raw.propose(Vec::new(), pending.command.clone()).is_err() {
                    self.waiting.push_front(pending);
                    return;
                }
                pending.term = self.raw.raft.term;
                let index = self.raw.raft.raft_log.last_index();
                // What stood there under an earlier term is certainly not in a leader's log.
                self.waiting.extend(self.pending.insert(index, pending));
            }
        } else if leader != raft::INVALID_ID && leader != self.options.voter {
            while let Some(pending) = self.waiting.pop_front() {
                self.deps.metrics.proposals_refused.inc();
                self.answer(pending, Err(ProposeError::NotLeader { leader }));
            }
        }
    }

    async fn settle(&mut self) -> Result<(), Fatal> {
        loop {
            self.pin_election_timeout();
            self.propose_waiting();
            if !self.raw.has_ready() {
                break;
            }
            let mut ready = self.raw.ready();
            self.send(ready.take_messages());
            let mut batch = Batch::default();
            let snapshot = ready.snapshot().clone();
            if !snapshot.is_empty() {
                self.install(&snapshot, &mut batch)?;
            }
            self.apply(ready.take_committed_entries()).await?;
            let (entries, hard_state) = (ready.take_entries(), ready.hs().cloned());
            self.persist(batch, entries, hard_state, ready.must_sync()).await?;
            if !snapshot.is_empty() {
                self.adopt(&snapshot)?;
            }
            self.send(ready.take_persisted_messages());
            let mut light = self.raw.advance(ready);
            self.send(light.take_messages());
            self.apply(light.take_committed_entries()).await?;
            self.raw.advance_apply();
        }
        self.tell_standing();
        self.build_snapshot()?;
        self.compact().await
    }

    async fn persist(
        &mut self,
        mut batch: Batch,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
        sync: bool,
    ) -> Result<(), Fatal> {
        let log = self.raw.mut_store();
        log.append(entries, &mut batch);
        if let Some(state) = hard_state {
            log.set_hard_state(state, &mut batch);
        }
        if batch.is_empty() {
            return Ok(());
        }
        let began = self.deps.clock.elapsed();
        self.store.write(batch, sync).await?;
        if sync {
            let took = self.deps.clock.elapsed().saturating_sub(began);
            self.deps.metrics.sync_seconds.observe(took.as_secs_f64());
        }
        Ok(())
    }

    async fn apply(&mut self, entries: Vec<Entry>) -> Result<(), Fatal> {
        let Some(last) = entries.last().map(|last| Applied { index: last.index, term: last.term })
        else {
            return Ok(());
        };
        let mut replies = Vec::with_capacity(entries.len());
        let writes = {
            let view = StoreView(&*self.store);
            let mut overlay = Overlay::over(&view);
            for entry in entries {
                replies.push((entry.index, entry.term, apply_entry(&mut overlay, &entry)?));
            }
            overlay.into_writes()
        };
        let mut batch = Batch::default();
        let mut changed = false;
        for write in writes {
            if Image::holds(&write.key) {
                changed |= self.image.change(&write.key, write.value.as_deref())?;
            }
            match write.value {
                Some(value) => batch.put(Space::State, write.key, value),
                None => batch.delete(Space::State, write.key),
            }
        }
        batch.put(Space::State, keys::applied(), frame::encode(&last));
        self.store.write(batch, false).await?;
        self.applied = last;
        self.image.applied = last.index;
        if changed {
            self.images.send_replace(Arc::new(self.image.clone()));
        }
        for (index, term, reply) in replies {
            self.settle_pending(index, term, reply);
        }
        Ok(())
    }

    /// Gives the reply of the entry at `index` to its proposer, or proposes again what another term has replaced.
    fn settle_pending(&mut self, index: u64, term: u64, reply: Option<Reply>) {
        if let Some(reply) = &reply {
            self.deps.metrics.commands.inc();
            if matches!(reply, Reply::Rejected(_)) {
                self.deps.metrics.rejects.inc();
            }
        }
        let Some(mut pending) = self.pending.remove(&index) else { return };
        match reply {
            Some(reply) if pending.term == term => self.answer(pending, Ok(reply)),
            _ => {
                pending.term = 0;
                self.waiting.push_back(pending);
            }
        }
    }

    fn answer(&self, pending: Pending, answer: Result<Reply, ProposeError>) {
        let took = self.deps.clock.elapsed().saturating_sub(pending.since);
        self.deps.metrics.propose_seconds.observe(took.as_secs_f64());
        // The proposer may have gone.
        let _ = pending.answer.send(answer);
    }

    fn send(&mut self, messages: Vec<Message>) {
        for message in messages {
            let (to, kind) = (message.to, message.get_msg_type());
            self.deps.transport.send(to, codec::encode_message(&message));
            if kind == MessageType::MsgSnapshot {
                // A lost one is found out by the next append that is refused.
                self.raw.report_snapshot(to, SnapshotStatus::Finish);
            }
        }
    }

    /// Adds to `batch` what puts a leader's snapshot in the place of the state.
    fn install(&mut self, snapshot: &Snapshot, batch: &mut Batch) -> Result<(), Fatal> {
        let meta = snapshot.get_metadata();
        let at = Applied { index: meta.index, term: meta.term };
        let pairs =
            dump::open(&snapshot.data).map_err(|error| Fatal::Snapshot(error.to_string()))?;
        info!(index = at.index, keys = pairs.len(), "metadata taken over from the leader");
        batch.delete_range(Space::State, vec![0], vec![u8::MAX]);
        for pair in pairs {
            batch.put(Space::State, pair.key, pair.value);
        }
        batch.put(Space::State, keys::applied(), frame::encode(&at));
        self.raw.mut_store().install(at, meta.get_conf_state().clone(), batch);
        self.applied = at;
        Ok(())
    }

    /// Shows the state of a snapshot that is now in the store.
    fn adopt(&mut self, snapshot: &Snapshot) -> Result<(), Fatal> {
        let index = snapshot.get_metadata().index;
        self.image = Image::build(&StoreView(&*self.store), index)?;
        self.images.send_replace(Arc::new(self.image.clone()));
        let above = self.pending.split_off(&(index + 1));
        for pending in std::mem::replace(&mut self.pending, above).into_values() {
            self.answer(pending, Err(ProposeError::Unknown));
        }
        Ok(())
    }

    /// Builds the snapshot that raft has asked for; raft asks again.
    fn build_snapshot(&mut self) -> Result<(), Fatal> {
        let log = self.raw.store();
        let Some(request) = log.take_wanted() else { return Ok(()) };
        if self.applied.index < request {
            return Ok(());
        }
        let mut snapshot = Snapshot { data: dump::take(&StoreView(&*self.store))?, metadata: None };
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (self.applied.index, self.applied.term);
        meta.set_conf_state(log.conf_state().clone());
        log.offer(snapshot);
        Ok(())
    }

    async fn compact(&mut self) -> Result<(), Fatal> {
        let (entries, bytes) = (self.raw.store().len(), self.raw.store().bytes());
        self.deps.metrics.log_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        let keep = match () {
            () if bytes > self.options.log_bytes_max => 0,
            () if entries > self.options.log_entries_max => self.options.log_entries_keep,
            () => return Ok(()),
        };
        let mut batch = Batch::default();
        self.raw.mut_store().compact(self.applied.index.saturating_sub(keep), &mut batch);
        if !batch.is_empty() {
            // Synced, so that the log never loses what the state does not hold yet.
            self.store.write(batch, true).await?;
        }
        Ok(())
    }

    /// Raft-rs draws its election timeout from the thread's generator; ours takes its place, drawn anew whenever term,
    /// role or leader change.
    fn pin_election_timeout(&mut self) {
        let raft = &mut self.raw.raft;
        let now = (raft.term, raft.state, raft.leader_id);
        if now != self.election {
            self.election = now;
            let least = self.options.election_ticks;
            let span = u64::try_from(least).expect("a small number");
            let more = usize::try_from(self.deps.rng.below(span)).expect("below a small number");
            self.election_timeout = least + more;
        }
        raft.set_randomized_election_timeout(self.election_timeout);
    }

    fn tell_standing(&mut self) {
        let raft = &self.raw.raft;
        let leader = (raft.leader_id != raft::INVALID_ID).then_some(raft.leader_id);
        let now = Standing { voter: self.options.voter, leader, term: raft.term };
        let metrics = &self.deps.metrics;
        let changed = self.standing.send_if_modified(|standing| {
            let changed = *standing != now;
            if standing.leader != now.leader && now.leader.is_some() {
                metrics.elections.inc();
            }
            *standing = now;
            changed
        });
        if changed {
            metrics.leader.set(i64::from(now.leads()));
            debug!(leader = ?now.leader, term = now.term, "metadata leader");
        }
    }
}

fn apply_entry(overlay: &mut Overlay<'_>, entry: &Entry) -> Result<Option<Reply>, Fatal> {
    if entry.get_entry_type() != EntryType::EntryNormal {
        return Err(Fatal::Raft(
            "the log holds a change of membership, which this build has not".into(),
        ));
    }
    if entry.data.is_empty() {
        return Ok(None);
    }
    let damaged = |source| ViewError::Decode { key: entry.index.to_be_bytes().to_vec(), source };
    let command = Command::from_frame(&entry.data).map_err(damaged)?;
    let (writes, reply) = apply(overlay, command.as_ref())?;
    overlay.absorb(writes);
    Ok(Some(reply))
}
