//! The task that plans and runs jobs: one at a time, for partitions that this broker owns, while uploads keep up and the
//! store answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{ObjectId, PartitionId, Shutdown, StreamEpoch};
use meta::{Image, LiveRange, ObjectStage};
use tokio::time::{Duration, Instant, sleep};

use super::job::Job;
use super::plan::{self, Allowance, Choice, Goal, Info, Limits};
use super::{CompactError, Compactor};
use crate::object::Kind;

/// Objects asked of metadata at once.
const PAGE: usize = 512;
/// Pages of one look.
const PAGES_MAX: usize = 32;
/// Objects that the planner holds; those above are met again when all are counted anew.
const KNOWN_MAX: usize = 16_384;
/// Live ranges asked for of one object.
const RANGES_MAX: usize = 65_536;
/// All objects are counted anew so often.
const COUNT_EVERY: Duration = Duration::from_secs(3600);
/// Objects of a job that failed are left alone for so long.
const AVOID: Duration = Duration::from_secs(300);

pub(crate) struct Task {
    compactor: Arc<Compactor>,
    limits: Limits,
    known: BTreeMap<ObjectId, Info>,
    breaks: BTreeSet<ObjectId>,
    avoid: BTreeMap<ObjectId, Instant>,
    allowance: Allowance,
    /// Objects up to this id have been seen.
    seen: Option<ObjectId>,
    /// Live objects up to an id, counted, and when the count began.
    live: usize,
    counted_to: Option<ObjectId>,
    counted: Instant,
    earned: (Instant, u64),
}

impl Task {
    pub fn new(compactor: Arc<Compactor>) -> Self {
        let limits = Limits::of(&compactor.options);
        let now = Instant::now();
        let uploaded = compactor.core.metrics.objects_put_bytes.get();
        Self {
            compactor,
            limits,
            known: BTreeMap::new(),
            breaks: BTreeSet::new(),
            avoid: BTreeMap::new(),
            allowance: Allowance::default(),
            seen: None,
            live: 0,
            counted_to: None,
            counted: now,
            earned: (now, uploaded),
        }
    }

    /// Runs until `shutdown`.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut failures = 0;
        loop {
            let pause = self.compactor.options.compaction_interval.saturating_mul(1 << failures);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(pause) => {}
            }
            let worked = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                worked = self.work() => worked,
            };
            failures = match worked {
                Err(CompactError::Closed) => return,
                Err(CompactError::Unavailable(_)) => (failures + 1).min(5),
                Ok(()) | Err(_) => 0,
            };
        }
    }

    /// Runs jobs until there is none worth it, or none allowed.
    pub async fn work(&mut self) -> Result<(), CompactError> {
        while !self.held_back() && self.step().await? {}
        Ok(())
    }

    /// Uploads come first: compaction waits while they lag.
    fn held_back(&self) -> bool {
        let compactor = &self.compactor;
        let pending = compactor.core.tail.pending();
        let age = pending.oldest.map(|at| compactor.core.clock.elapsed().saturating_sub(at));
        compactor.core.is_closed()
            || age.is_some_and(|age| age > compactor.options.upload_age_max.saturating_mul(3))
            || pending.bytes > compactor.options.upload_bytes_max.saturating_mul(3)
    }

    /// One job. False when there is nothing to do.
    pub async fn step(&mut self) -> Result<bool, CompactError> {
        self.earn();
        let caught_up = self.look().await?;
        if !caught_up || !self.allowance.allows() {
            return Ok(false);
        }
        // Before the plan: a rewrite that is under way may change what there is to plan.
        let compactor = self.compactor.clone();
        let _slot = compactor.jobs.acquire().await.expect("this semaphore is never closed");
        let now = Instant::now();
        self.avoid.retain(|_, until| *until > now);
        let infos: Vec<Info> = self
            .known
            .values()
            .filter(|info| !self.avoid.contains_key(&info.id))
            .copied()
            .collect();
        let now_ms = self.compactor.core.clock.now_ms();
        let Some(choice) = plan::choose(&infos, &self.breaks, now_ms, &self.limits) else {
            return Ok(false);
        };
        let job = self.job(&choice).await?;
        let Some(job) = job else { return Ok(true) };
        self.spend(&job);
        let result = compactor.run(&job, None).await;
        for id in &choice.objects {
            self.refresh(*id).await?;
        }
        match result {
            Ok(_) => Ok(true),
            Err(error @ (CompactError::Unavailable(_) | CompactError::Closed)) => Err(error),
            Err(_) => {
                self.avoid_for_now(&choice.objects);
                Ok(true)
            }
        }
    }

    fn avoid_for_now(&mut self, objects: &[ObjectId]) {
        let until = Instant::now() + AVOID;
        self.avoid.extend(objects.iter().map(|id| (*id, until)));
    }

    fn earn(&mut self) {
        let now = Instant::now();
        let uploaded = self.compactor.core.metrics.objects_put_bytes.get();
        let millis = now.saturating_duration_since(self.earned.0).as_millis();
        // Whole milliseconds only, so that nothing is lost by asking often.
        if millis > 0 {
            let bytes = uploaded.saturating_sub(self.earned.1);
            self.allowance.earn(u64::try_from(millis).unwrap_or(u64::MAX), bytes);
            self.earned = (now, uploaded);
        }
    }

    /// What the job will ask of the store, about.
    fn spend(&mut self, job: &Job) {
        let inputs: BTreeSet<ObjectId> =
            job.parts.iter().flat_map(|part| &part.inputs).map(|range| range.object).collect();
        let bytes: u64 = job.parts.iter().flat_map(|part| &part.inputs).map(|one| one.bytes).sum();
        let parts = bytes / self.compactor.options.compaction_part_bytes.max(1);
        let gets = 2 * inputs.len() as u64;
        self.allowance.spend(gets, if parts == 0 { 1 } else { parts + 3 });
    }

    /// Takes in what is new in metadata. True when everything has been seen.
    async fn look(&mut self) -> Result<bool, CompactError> {
        if self.counted.elapsed() >= COUNT_EVERY && self.seen.is_some() {
            (self.seen, self.counted_to, self.live, self.counted) = (None, None, 0, Instant::now());
            self.known.clear();
            self.breaks.clear();
        }
        // What is registered but not committed yet comes up again; so does everything behind it.
        let (mut cursor, mut open) = (self.seen, false);
        for _ in 0..PAGES_MAX {
            let page = self.compactor.meta.objects(cursor, PAGE).await;
            let page = page.map_err(|error| CompactError::Unavailable(error.to_string()))?;
            let many = page.len();
            for object in page {
                cursor = Some(object.id);
                open |= object.stage == ObjectStage::Registered;
                if !open {
                    self.seen = cursor;
                }
                if self.counted_to < cursor {
                    self.counted_to = cursor;
                    self.live += usize::from(object.live > 0);
                }
                if !self.known.contains_key(&object.id) {
                    self.take(&object).await?;
                }
            }
            if many < PAGE {
                self.compactor.metrics.seen(self.live, self.known.len());
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn take(&mut self, object: &meta::Object) -> Result<(), CompactError> {
        if object.stage != ObjectStage::Committed || object.live == 0 {
            return Ok(());
        }
        let mut info = Info {
            id: object.id,
            wal: object.wal,
            lsns: object.lsns,
            live_bytes: object.live_bytes,
            payload_bytes: object.payload_bytes,
            live: object.live,
            at_ms: object.at_ms,
            first: None,
        };
        if info.done(&self.limits) || self.known.len() >= KNOWN_MAX {
            return Ok(());
        }
        let place = (info.wal, info.lsns);
        // Only compaction makes several objects of one place.
        let sibling = self.known.values().find(|other| {
            object.swapped && (other.wal, other.lsns) == place && other.id != info.id
        });
        if let Some(sibling) = sibling.map(|other| other.id) {
            info.first = self.first_stream(info.id).await?;
            let first = self.first_stream(sibling).await?;
            self.known.entry(sibling).and_modify(|other| other.first = other.first.or(first));
        }
        self.known.insert(info.id, info);
        Ok(())
    }

    async fn first_stream(&self, id: ObjectId) -> Result<Option<common::StreamId>, CompactError> {
        Ok(self.ranges(id, 1).await?.first().map(|one| one.stream))
    }

    async fn ranges(&self, id: ObjectId, limit: usize) -> Result<Vec<LiveRange>, CompactError> {
        let live = self.compactor.meta.live_ranges(id, limit).await;
        live.map_err(|error| CompactError::Unavailable(error.to_string()))
    }

    /// Looks at one object again.
    async fn refresh(&mut self, id: ObjectId) -> Result<(), CompactError> {
        let object = self.compactor.meta.object(id).await;
        let object = object.map_err(|error| CompactError::Unavailable(error.to_string()))?;
        let live = object.filter(|one| one.stage == ObjectStage::Committed && one.live > 0);
        match live.zip(self.known.get_mut(&id)) {
            Some((object, info)) => {
                (info.live, info.live_bytes) = (object.live, object.live_bytes);
            }
            None => {
                if self.known.remove(&id).is_some() {
                    self.live = self.live.saturating_sub(1);
                }
            }
        }
        Ok(())
    }

    /// The job that a choice comes down to; `None` when it does not pay, which is remembered.
    async fn job(&mut self, choice: &Choice) -> Result<Option<Job>, CompactError> {
        let mut live = Vec::new();
        for id in &choice.objects {
            live.extend(self.ranges(*id, RANGES_MAX).await?);
        }
        let image = self.compactor.meta.image();
        let owned = |partition: PartitionId| owned(&image, partition, self.compactor.id);
        let parts = plan::parts(live, owned, &self.limits);
        let longest = parts.parts.iter().max_by_key(|part| part.inputs.len());
        if let Some(stream) = longest.map(|part| part.stream) {
            let index = self.compactor.meta.stream_index(stream, 0, 4096).await;
            let index = index.map_err(|error| CompactError::Unavailable(error.to_string()))?;
            self.compactor.metrics.objects_per_stream(index.objects.len());
        }
        if !parts.pays(choice.goal) {
            match parts.gap.filter(|gap| !self.breaks.contains(gap)) {
                Some(gap) => drop(self.breaks.insert(gap)),
                None => self.avoid_for_now(&choice.objects),
            }
            for id in &choice.objects {
                self.refresh(*id).await?;
            }
            return Ok(None);
        }
        let kind = if parts.parts.len() == 1 { Kind::Stream } else { Kind::StreamSet };
        let roll = choice.goal == Goal::Split;
        let object_bytes_max = if roll { self.limits.object_bytes_max } else { u64::MAX };
        Ok(Some(Job { kind, parts: parts.parts, object_bytes_max }))
    }
}

/// The epoch under which `wal`'s broker owns `partition`.
fn owned(image: &Image, partition: PartitionId, wal: common::WalId) -> Option<StreamEpoch> {
    let topic = image.topics.get(&partition.topic)?;
    let found = topic.partitions.get(usize::try_from(partition.index).ok()?)?;
    (found.wal == Some(wal)).then_some(found.epoch)
}
