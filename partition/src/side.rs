//! What a partition writes beside its batches: index records and snapshots.

use bytes::Bytes;
use common::{Lsn, StreamKind, failpoint};

use crate::error::AppendError;
use crate::index::{self, IndexKind};
use crate::partition::{IndexPosition, OpenCut, Partition, State, append_error};
use crate::snapshot;
use crate::state::{CHUNK_BYTES_MAX, Mark, Snapshot, StateKind};

/// Bytes charged to the memory budget for one producer: its batches and its places in two maps.
const PRODUCER_MEMORY_BYTES: u64 = 384;
/// Snapshots of one kind remembered until newer ones lie in objects.
const MARKS_MAX: usize = 8;

impl Partition {
    /// Appends a fact to the index stream. Durable when the log is durable above the position; in objects when
    /// `Storage::upload_through` of it has returned.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was queued then.
    pub fn append_index(
        &self,
        kind: IndexKind,
        version: u16,
        payload: &[u8],
    ) -> Result<IndexPosition, AppendError> {
        if payload.len() > index::PAYLOAD_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes: payload.len() });
        }
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        self.queue_index(&mut state, kind, version, payload)
    }

    fn queue_index(
        &self,
        state: &mut State,
        kind: IndexKind,
        version: u16,
        payload: &[u8],
    ) -> Result<IndexPosition, AppendError> {
        let head = index::head(kind, version);
        let parts: [&[u8]; 2] = [&head, payload];
        let offset = state.index_end;
        let entry = self.entry(StreamKind::Index, offset, &parts);
        let queued = self.shared.storage.append(&[entry]);
        let lsn = queued.map_err(|error| append_error(&error, payload.len()))?;
        state.index_end += 1;
        state.index_since_snapshot += 1;
        Ok(IndexPosition { offset, lsn })
    }

    /// Appends the cut of a sink, unless records were deleted since it was planned: then nothing is queued and `None`
    /// returned. From here until [`Self::note_cut`] the bytes of the cut are kept for the sink.
    ///
    /// # Errors
    /// As [`Self::append_index`].
    pub fn append_cut(
        &self,
        cut: OpenCut,
        version: u16,
        payload: &[u8],
    ) -> Result<Option<IndexPosition>, AppendError> {
        if payload.len() > index::PAYLOAD_BYTES_MAX {
            return Err(AppendError::TooLarge { bytes: payload.len() });
        }
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        if state.log_start > cut.planned_under.max(cut.start) {
            return Ok(None);
        }
        let position = self.queue_index(&mut state, IndexKind::CUT, version, payload)?;
        state.cuts.insert(cut.sink, Some(cut.start));
        Ok(Some(position))
    }

    /// A sink tells where its open cut begins, or that it has none.
    pub fn note_cut(&self, sink: u64, open: Option<i64>) {
        self.state.lock().cuts.insert(sink, open);
    }

    /// Queues a snapshot of someone else's state into the state stream, for example the groups of a coordinator
    /// partition as they are after replaying the records below `valid_for`.
    ///
    /// # Errors
    /// See [`AppendError`]; an incomplete snapshot is passed over by readers.
    ///
    /// # Panics
    /// When `valid_for` lies above the data end.
    pub fn append_state(
        &self,
        kind: StateKind,
        version: u16,
        valid_for: i64,
        payload: Bytes,
    ) -> Result<Lsn, AppendError> {
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        assert!(valid_for <= state.data_end, "a snapshot of records that do not exist");
        self.queue_state(&mut state, &Snapshot { kind, version, valid_for, payload })
    }

    fn queue_state(&self, state: &mut State, snapshot: &Snapshot) -> Result<Lsn, AppendError> {
        let mut position = Lsn(0);
        let first = state.state_end;
        for frame in snapshot.frames(state.state_end) {
            let parts: [&[u8]; 1] = [&frame];
            let entry = self.entry(StreamKind::State, state.state_end, &parts);
            let queued = self.shared.storage.append(&[entry]);
            position = queued.map_err(|error| append_error(&error, frame.len()))?;
            state.state_end += 1;
        }
        let mark = Mark { first, end: state.state_end, valid_for: snapshot.valid_for };
        let marks = state.marks.entry(snapshot.kind).or_default();
        if marks.len() == MARKS_MAX {
            // Between the oldest, which may be in objects, and the newest, which will be.
            marks.remove(1);
        }
        marks.push(mark);
        Ok(position)
    }

    /// Remembers a snapshot that was read at `first`, so that older ones can be released.
    pub(crate) fn mark(&self, found: &Snapshot, first: i64) {
        let chunks = found.payload.len().div_ceil(CHUNK_BYTES_MAX).max(1);
        let end = first.saturating_add_unsigned(chunks as u64);
        let mut state = self.state.lock();
        let marks = state.marks.entry(found.kind).or_default();
        if marks.is_empty() {
            marks.push(Mark { first, end, valid_for: found.valid_for });
        }
    }

    /// Queues producers and epochs as they are now, pending batches included: the snapshot lies behind them on the
    /// log, so it is durable only if they are.
    pub(crate) fn queue_snapshots(&self, state: &mut State) -> Result<(), AppendError> {
        let expiry = self.shared.options.producer_expiry_ms;
        let before = self.shared.clock.now_ms().saturating_sub(expiry);
        state.producers.expire(before, state.high_watermark);
        self.account_producers(state, 0);
        let producers = Snapshot {
            kind: StateKind::PRODUCERS,
            version: snapshot::VERSION,
            valid_for: state.data_end,
            payload: snapshot::encode_producers(&state.producers),
        };
        let epochs = Snapshot {
            kind: StateKind::EPOCHS,
            version: snapshot::VERSION,
            valid_for: state.index_end,
            payload: snapshot::encode_epochs(&state.epochs),
        };
        self.queue_state(state, &epochs)?;
        self.queue_state(state, &producers)?;
        failpoint::hit("partition.snapshot.queued");
        state.batches_since_snapshot = 0;
        state.index_since_snapshot = 0;
        self.shared.metrics.snapshots.inc();
        Ok(())
    }

    /// Queues a snapshot if anything changed since the last one. For a clean close: the next opening replays nothing.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn snapshot(&self) -> Result<(), AppendError> {
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        if state.batches_since_snapshot + state.index_since_snapshot > 0 {
            self.queue_snapshots(&mut state)?;
        }
        Ok(())
    }

    pub(crate) fn account_producers(&self, state: &mut State, forgotten: usize) {
        let metrics = &self.shared.metrics;
        metrics.producers_evicted.inc_by(forgotten as u64);
        let count = i64::try_from(state.producers.len()).expect("capped far below 2^63");
        if count == state.producers_counted {
            return;
        }
        let all = metrics.producers.inc_by(count - state.producers_counted)
            + (count - state.producers_counted);
        state.producers_counted = count;
        if u64::try_from(all).unwrap_or(0) > self.shared.options.producers_total_max as u64
            && state.producers.forget_oldest()
        {
            metrics.producers_evicted.inc();
            metrics.producers.dec();
            state.producers_counted -= 1;
        }
        let bytes = state.producers.len() as u64 * PRODUCER_MEMORY_BYTES;
        let held = state.memory.as_ref().map_or(0, common::Reservation::bytes);
        if bytes > held || bytes < held / 2 {
            let rounded = bytes.next_multiple_of(16 * PRODUCER_MEMORY_BYTES);
            state.memory = Some(self.shared.budget.force(rounded));
        }
    }
}
