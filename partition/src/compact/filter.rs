//! Pass 2: what becomes of each batch.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::batch::{Header, Record, Records, Rewriter};

use super::map::OffsetMap;
use super::proof;
use super::transactions::{AbortedTransaction, Transactions};
use super::{Error, unreadable};
use crate::records::BatchReader;

/// Where a producer wrote last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastOfProducer {
    /// Last offset of its last batch of data, if that is known.
    pub last_offset: Option<i64>,
    /// Its epoch.
    pub epoch: i16,
}

/// What becomes of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays as it is.
    Keep,
    /// It goes; its offsets become a hole.
    Drop,
    /// It is replaced by one with fewer records, under the same offsets.
    Replace {
        /// The new batch.
        bytes: Bytes,
        /// Records in it.
        count: u64,
        /// Highest timestamp in it, -1 without records.
        max_timestamp: i64,
    },
}

/// What a pass goes by.
#[derive(Clone, Debug)]
pub struct Pass<'a> {
    /// Last offsets of the keys of the dirty part.
    pub map: &'a OffsetMap,
    /// The map knows every key below; nothing at or above is touched.
    pub end: i64,
    /// Producers that may still write.
    pub producers: &'a BTreeMap<i64, LastOfProducer>,
    /// Retention time.
    pub now_ms: i64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    transactions: Transactions,
    /// When the first tombstone or marker that is kept may go.
    horizon: Option<i64>,
    read: u64,
    kept: u64,
}

/// What is done to the records of one batch.
struct Rule {
    /// None of them stays.
    discard: bool,
    control: bool,
    /// Tombstones stay.
    tombstones: bool,
    /// A marker of a transaction without data: its horizon begins.
    lone_marker: bool,
}

impl<'a> Pass<'a> {
    /// A pass that has seen nothing yet; the first batch it is asked about must be the first of the log. `aborted` are
    /// the transactions with records in the log below `end`.
    #[must_use]
    pub fn new(
        map: &'a OffsetMap,
        end: i64,
        aborted: &[AbortedTransaction],
        producers: &'a BTreeMap<i64, LastOfProducer>,
        now_ms: i64,
        delete_retention_ms: i64,
    ) -> Self {
        let transactions = Transactions::new(aborted);
        Self {
            map,
            end,
            producers,
            now_ms,
            delete_retention_ms,
            transactions,
            horizon: None,
            read: 0,
            kept: 0,
        }
    }

    /// When the first tombstone or marker that was kept may go, in retention time.
    #[must_use]
    pub fn horizon(&self) -> Option<i64> {
        self.horizon
    }

    /// Records read and kept.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.read, self.kept)
    }

    /// Sees a batch that is not rewritten: what it holds of transactions counts.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn observe(&mut self, offset: i64, bytes: &Bytes) -> Result<(), Error> {
        let reader = BatchReader::open(bytes).map_err(|error| unreadable(offset, &error))?;
        self.rule(&reader).map(|_| ())
    }

    /// What becomes of the batch at `offset`. Batches come in the order of the log, each once.
    ///
    /// # Errors
    /// When it cannot be read, or what would be written is not right.
    pub fn batch(&mut self, offset: i64, bytes: &Bytes) -> Result<Fate, Error> {
        let reader = BatchReader::open(bytes).map_err(|error| unreadable(offset, &error))?;
        let header = *reader.header();
        let count = u64::try_from(header.record_count).unwrap_or(0);
        self.read += count;
        if header.last_offset() >= self.end {
            self.kept += count;
            return Ok(Fate::Keep);
        }
        let rule = self.rule(&reader)?;
        let fate = self.apply(&reader, bytes, &rule)?;
        if let Fate::Replace { bytes: after, .. } = &fate {
            proof::subset(&header, &reader, after)?;
        }
        proof::nothing_lost(self, &reader, &rule_of_proof(&rule), &fate)?;
        self.kept += match &fate {
            Fate::Keep => count,
            Fate::Drop => 0,
            Fate::Replace { count, .. } => *count,
        };
        Ok(fate)
    }

    fn rule(&mut self, reader: &BatchReader) -> Result<Rule, Error> {
        let header = reader.header();
        let control = header.attributes.control();
        let discardable = if control {
            self.transactions.marker(reader)?
        } else {
            self.transactions.is_aborted(header)
        };
        let flagged = header.attributes.delete_horizon();
        // The last batch is not emptied by time: a consumer has to come to the end of the log, and only records move it
        // on. Kafka never cleans its active segment for that.
        let over = flagged && header.base_timestamp <= self.now_ms && !self.is_last(header);
        Ok(Rule {
            discard: discardable && (!control || over),
            control,
            tombstones: !over,
            lone_marker: control && discardable,
        })
    }

    fn apply(&mut self, reader: &BatchReader, bytes: &Bytes, rule: &Rule) -> Result<Fate, Error> {
        let header = *reader.header();
        let offset = header.base_offset;
        let bad =
            |error: &dyn std::fmt::Display| Error::Batch { offset, reason: error.to_string() };
        let (mut kept, mut tombstones, mut all) = (Vec::new(), false, true);
        let mut walk = Records::new(reader.payload(), header.record_count);
        loop {
            let at = walk.position();
            let Some(record) = walk.next() else { break };
            let record = record.map_err(|error| bad(&error))?;
            if self.stays(&record, &header, rule) {
                tombstones |= record.value.is_none();
                kept.push((at..walk.position(), record));
            } else {
                all = false;
            }
        }
        if kept.is_empty() {
            return self.emptied(&header, bytes);
        }
        let flagged = header.attributes.delete_horizon();
        let begins = (tombstones || rule.lone_marker) && !flagged;
        let horizon = begins.then(|| self.now_ms.saturating_add(self.delete_retention_ms));
        if tombstones || rule.lone_marker {
            let at = horizon.unwrap_or(header.base_timestamp);
            self.note_horizon(&header, at);
        }
        if all && !begins {
            return Ok(Fate::Keep);
        }
        let mut rewriter = Rewriter::new(&header, horizon);
        for (raw, record) in &kept {
            rewriter.keep(&reader.payload()[raw.clone()], record).map_err(|error| bad(&error))?;
        }
        let bytes = rewriter.finish().map_err(|error| bad(&error))?;
        let after = Header::parse(&bytes).map_err(|error| bad(&error))?;
        let (count, max_timestamp) = (kept.len() as u64, after.max_timestamp);
        Ok(Fate::Replace { bytes, count, max_timestamp })
    }

    /// The last batch that the pass may touch.
    fn is_last(&self, header: &Header) -> bool {
        header.last_offset().saturating_add(1) == self.end
    }

    fn note_horizon(&mut self, header: &Header, at: i64) {
        // One that has passed and is kept all the same waits for new records, not for time.
        if at > self.now_ms || !self.is_last(header) {
            self.horizon = Some(self.horizon.map_or(at, |known| known.min(at)));
        }
    }

    /// A batch without records goes, unless it tells where its producer is, or is the last.
    fn emptied(&self, header: &Header, bytes: &Bytes) -> Result<Fate, Error> {
        if !self.is_last(header) && !self.is_last_of_producer(header) {
            return Ok(Fate::Drop);
        }
        if header.record_count == 0 {
            return Ok(Fate::Keep);
        }
        let offset = header.base_offset;
        let bad =
            |error: &dyn std::fmt::Display| Error::Batch { offset, reason: error.to_string() };
        let empty = Rewriter::empty(header).map_err(|error| bad(&error))?;
        debug_assert!(empty.len() <= bytes.len(), "an empty batch is a header");
        Ok(Fate::Replace { bytes: empty, count: 0, max_timestamp: -1 })
    }

    fn is_last_of_producer(&self, header: &Header) -> bool {
        let last = self.producers.get(&header.producer_id).filter(|_| header.has_producer());
        last.is_some_and(|last| match last.last_offset {
            Some(offset) => header.last_offset() == offset,
            None => header.attributes.control() && header.producer_epoch == last.epoch,
        })
    }

    fn stays(&self, record: &Record<'_>, header: &Header, rule: &Rule) -> bool {
        if rule.discard || rule.control {
            return !rule.discard;
        }
        // A record without a key can only come from before the topic was compacted: Kafka drops it as well.
        let Some(key) = record.key else { return false };
        let newest = self.map.get(key).is_none_or(|last| record.offset(header) >= last);
        newest && (record.value.is_some() || rule.tombstones)
    }
}

/// What the proof is told of a rule: whether the whole batch may go, and whether tombstones may.
fn rule_of_proof(rule: &Rule) -> proof::Allowed {
    proof::Allowed { everything: rule.discard, control: rule.control, tombstones: !rule.tombstones }
}
