//! What a walk over a log knows of its transactions. As Kafka's `CleanedTransactionMetadata`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::batch::{ControlType, EndTransactionMarker, Header, Records};

use super::Error;
use crate::records::BatchReader;

/// A transaction that was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbortedTransaction {
    /// Its first offset.
    pub first_offset: i64,
    /// Its producer.
    pub producer_id: i64,
}

#[derive(Clone, Debug)]
pub(crate) struct Transactions {
    /// Not reached yet, ascending by first offset.
    aborted: VecDeque<AbortedTransaction>,
    /// Undone transactions that are open at this point, and whether a batch of them was seen.
    ongoing_aborted: BTreeMap<i64, bool>,
    /// Producers with batches of a transaction that holds.
    ongoing_committed: BTreeSet<i64>,
}

impl Transactions {
    pub fn new(aborted: &[AbortedTransaction]) -> Self {
        let mut aborted: Vec<AbortedTransaction> = aborted.to_vec();
        aborted.sort_unstable();
        Self {
            aborted: aborted.into(),
            ongoing_aborted: BTreeMap::new(),
            ongoing_committed: BTreeSet::new(),
        }
    }

    fn reach(&mut self, offset: i64) {
        while self.aborted.front().is_some_and(|next| next.first_offset <= offset) {
            let next = self.aborted.pop_front().expect("just seen");
            self.ongoing_aborted.entry(next.producer_id).or_insert(false);
        }
    }

    /// Sees a batch of data. True when its transaction is undone.
    pub fn is_aborted(&mut self, header: &Header) -> bool {
        self.reach(header.last_offset());
        if !header.attributes.transactional() {
            return false;
        }
        if let Some(seen) = self.ongoing_aborted.get_mut(&header.producer_id) {
            *seen = true;
            return true;
        }
        self.ongoing_committed.insert(header.producer_id);
        false
    }

    /// Sees a batch of markers. True when nothing of the transaction that it ends is left, so that it may go once its
    /// horizon has passed.
    pub fn marker(&mut self, reader: &BatchReader) -> Result<bool, Error> {
        let header = reader.header();
        self.reach(header.last_offset());
        let payload = reader.payload();
        let Some(first) = Records::new(payload, header.record_count).next() else {
            // An empty batch of markers was cleaned before.
            return Ok(true);
        };
        let offset = header.base_offset;
        let bad =
            |error: &dyn std::fmt::Display| Error::Batch { offset, reason: error.to_string() };
        let record = first.map_err(|error| bad(&error))?;
        Ok(match EndTransactionMarker::from_record(&record).map(|marker| marker.kind) {
            // The undone data stands before the marker until a pass has removed it.
            Some(ControlType::Abort) => {
                self.ongoing_aborted.remove(&header.producer_id) != Some(true)
            }
            Some(ControlType::Commit) => !self.ongoing_committed.remove(&header.producer_id),
            None => false,
        })
    }
}
