//! What happens to the brokers.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{StreamKind, WalId, failpoint};
use meta::Reply;
use meta::command::{DeclareWalLost, FenceWal};
use sim::edges;
use sim::store::Faults;
use storage::TakenOver;

use super::{PARTITIONS, Slot, World, start};

type Taking = Slot<Result<TakenOver, storage::TakeOverError>>;

impl World {
    pub fn episode(&mut self) {
        self.faults();
        let victim = usize::try_from(self.rng.below(2)).expect("two");
        if !(0..2).all(|node| self.is_running(node)) {
            self.restart_the_dead();
            self.until(6_000, |world| {
                world.restart_the_dead();
                (0..2).all(|node| world.is_running(node))
            });
            return;
        }
        match self.rng.below(10) {
            0..=3 => self.move_some(),
            4 => self.restart(victim),
            5 => self.stop_and_go(victim),
            6..=8 => self.take_over(victim),
            _ => self.lose(victim),
        }
    }

    fn faults(&mut self) {
        let sometimes = |n: u64| if self.rng.one_in(3) { n } else { 0 };
        let faults = Faults {
            latency_ms: 0..1 + self.rng.below(12),
            error_one_in: sometimes(4),
            lost_response_one_in: sometimes(3),
            conflict_one_in: sometimes(5),
            ..Faults::default()
        };
        self.trace(format_args!("{faults:?}"));
        self.store.set(faults);
    }

    /// Kills `node` at a point of the product, sometimes.
    fn arm(&self, node: usize, point: &'static str, one_in: u64) -> bool {
        let armed = self.rng.one_in(one_in);
        *self.crash.armed.borrow_mut() = armed.then_some((point, node));
        armed
    }

    /// True when the point that was armed has killed its broker.
    fn has_crashed(&self, armed: bool) -> bool {
        self.crash.armed.borrow_mut().take().is_none() && armed
    }

    /// One at a time: the order in which two wait for one upload is not the seed's.
    fn move_some(&mut self) {
        let index = u32::try_from(self.rng.below(u64::from(PARTITIONS))).expect("few");
        let Some(from) = self.leader(index) else { return };
        let id = self.partition(index);
        let to = common::NodeId(2 - i32::try_from(from).expect("two"));
        let Some(partitions) = self.running(from, |running| running.partitions.clone()) else {
            return;
        };
        let armed = self.arm(from, "partition.sealed", 4);
        self.trace(format_args!("move {index} from {from}"));
        let process = self.nodes[from].process.as_ref().expect("running");
        let slot = start(&process.runtime, async move { partitions.move_to(id, to).await });
        let moved = self.wait(1_500, &slot);
        self.trace(format_args!("moved {moved:?}"));
        if matches!(moved, Some(Ok(_))) {
            edges::met("owners.moved");
        }
        if self.has_crashed(armed) {
            edges::met("owners.crash.sealed");
        }
    }

    fn restart(&mut self, node: usize) {
        self.kill(node);
        self.drive(self.rng.below(600));
        self.restart_the_dead();
    }

    fn stop_and_go(&mut self, node: usize) {
        self.pause(node, self.rng.one_in(2));
        self.drive(50 + self.rng.below(900));
        self.resume(node);
    }

    /// Stops a broker, one way or the other.
    fn stop(&mut self, node: usize, may_stand_still: bool) {
        match self.rng.below(3) {
            0 => self.kill(node),
            1 if may_stand_still => self.pause(node, false),
            _ => self.pause(node, true),
        }
    }

    /// Waits until the leader has ended the lease of `node`, whose log is `wal`.
    fn end_lease(&mut self, node: usize, wal: WalId) -> bool {
        let meta = self.meta.clone();
        let facts = start(&self.meta_runtime, async move { meta.wal(wal).await });
        let Some(Ok(Some(facts))) = self.wait(1_000, &facts) else { return false };
        let Some((epoch, _)) = facts.epochs.last().copied() else { return false };
        for _ in 0..2_000 {
            let now = Duration::from_millis(self.ticks);
            let id = common::NodeId(1 + i32::try_from(node).expect("two"));
            if self.leases.lock().end(id, epoch, now) {
                return true;
            }
            self.tick();
        }
        self.fail("a lease does not end");
        false
    }

    fn begin_taking(&mut self, victim: usize, wal: WalId) -> Option<Taking> {
        let taker = 1 - victim;
        let storage = self.running(taker, |running| running.storage.clone())?;
        let (disk, attached) =
            (self.nodes[victim].disk.clone(), self.nodes[victim].attached.clone());
        let attach = move || {
            // A test plants this to see the writes of a zombie land.
            if !failpoint::planted("skip-fence") {
                disk.crash();
                attached.store(true, Ordering::Release);
            }
            let attached: Arc<dyn wal::Disk> = disk.open();
            ready(Ok(attached))
        };
        let process = self.nodes[taker].process.as_ref()?;
        self.trace(format_args!("{taker} takes {wal} over"));
        Some(start(&process.runtime, async move { storage.take_over(wal, attach).await }))
    }

    fn take_over(&mut self, victim: usize) {
        if !self.nodes[victim].survives {
            return self.lose(victim);
        }
        let Some(wal) = self.running(victim, |running| running.wal) else { return };
        self.stop(victim, true);
        if !self.end_lease(victim, wal) {
            return;
        }
        let Some(taking) = self.begin_taking(victim, wal) else { return };
        let point = self.rng.one_in(2);
        let point = if point { "storage.takeover.fenced" } else { "storage.takeover.uploaded" };
        let armed = self.arm(1 - victim, point, 3);
        if self.rng.one_in(5) {
            self.come_back(victim, wal, &taking);
        } else {
            let taken = self.wait(3_000, &taking);
            self.trace(format_args!("taken {taken:?}"));
            if let Some(Ok(taken)) = taken {
                edges::met("owners.taken.over");
                edges::add("owners.taken.over.bytes", u64::from(taken.groups > 1));
            }
        }
        if self.has_crashed(armed) {
            edges::met(match point {
                "storage.takeover.fenced" => "owners.crash.fenced",
                _ => "owners.crash.uploaded",
            });
        }
        self.drive(self.rng.below(200));
        self.resume(victim);
        self.drive(300);
        self.restart_the_dead();
    }

    /// The log's own broker starts while its log is being taken over.
    fn come_back(&mut self, victim: usize, wal: WalId, taking: &Taking) {
        self.kill(victim);
        self.drive(self.rng.below(12));
        let before = taking.lock().is_none();
        self.start(victim);
        let taken = self.wait(2_000, taking);
        self.trace(format_args!("{victim} came back, taken {taken:?}"));
        let again = self.running(victim, |running| running.wal) == Some(wal);
        if before && again {
            edges::met("owners.came.back");
        }
    }

    fn lose(&mut self, victim: usize) {
        let Some(wal) = self.running(victim, |running| running.wal) else { return };
        self.stop(victim, false);
        if !self.end_lease(victim, wal) {
            return;
        }
        if !self.nodes[victim].survives || self.rng.one_in(2) {
            let fenced = self.propose(FenceWal { wal: wal.0, by: None });
            let Some(Reply::WalFenced { .. }) = fenced else {
                return self.fail(format_args!("not fenced: {fenced:?}"));
            };
            let led = (0..PARTITIONS).any(|index| self.leader(index) == Some(victim));
            if led {
                return self.fail("a fenced broker leads");
            }
            edges::met("owners.fenced");
            self.drive(self.rng.below(200));
        }
        if self.rng.one_in(2) {
            self.declare(wal);
        }
        self.resume(victim);
        self.drive(300);
        self.restart_the_dead();
    }

    fn declare(&mut self, wal: WalId) {
        let before: Vec<u32> = (0..PARTITIONS)
            .filter(|index| self.meta_of(*index).and_then(|meta| meta.wal) == Some(wal))
            .collect();
        // Producers learn of it before anybody can meet it.
        for index in &before {
            *self.clients.losses.lock().entry(*index).or_default() += 1;
        }
        match self.propose(DeclareWalLost { wal: wal.0 }) {
            Some(Reply::WalLost { lost }) => {
                self.trace(format_args!("lost {lost:?}"));
                let data = lost.iter().filter(|one| one.stream.kind == StreamKind::Data);
                for one in data.filter(|one| one.end > one.start) {
                    self.checker.lock().loses(one.stream.partition.index, one.start);
                }
                edges::met("owners.lost");
            }
            other => self.fail(format_args!("not declared lost: {other:?}")),
        }
    }
}
