//! What compaction asks of metadata: an id before, the swap after.

use common::{ObjectId, failpoint};
use meta::command::{NewObject, ObjectFacts, RegisterObject, SwapOutput, SwapRanges, SwapStream};
use meta::{ProposeError, Reject, Reply};
use tokio::time::{Instant, sleep};

use super::job::{Cut, Job};
use super::output::Written;
use super::{CompactError, Compactor};

impl Compactor {
    /// A new object id, and until when it is of use.
    pub(super) async fn register(&self) -> Result<(ObjectId, Instant), CompactError> {
        let ttl = self.options.object_ttl;
        let until = Instant::now() + ttl * 3 / 4;
        let command = RegisterObject {
            wal: self.id.0,
            epoch: self.epoch.0,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            now_ms: self.core.clock.now_ms(),
        };
        match self.meta.propose(command).await {
            Ok(Reply::ObjectRegistered { object, .. }) => Ok((object, until)),
            Ok(Reply::Rejected(reject)) => Err(lost(&reject)),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(CompactError::Unavailable(error.to_string())),
        }
    }

    /// Commits what `written` holds of the parts of `job`; `cuts` say which object covers what, by part.
    pub(super) async fn swap(
        &self,
        job: &Job,
        written: &[Written],
        cuts: &[Vec<Cut>],
    ) -> Result<(), CompactError> {
        let command = self.command(job, written, cuts)?;
        let until = written.iter().map(|one| one.until).min().unwrap_or_else(Instant::now);
        let mut tries = 0;
        loop {
            let error = match self.meta.propose(command.clone()).await {
                Ok(Reply::RangesSwapped { .. }) => {
                    failpoint::hit("storage.compact.commit");
                    return Ok(());
                }
                Ok(Reply::Rejected(reject)) => return Err(lost(&reject)),
                Ok(other) => return Err(unexpected(&other)),
                Err(ProposeError::Closed) => return Err(CompactError::Closed),
                Err(error @ ProposeError::TooLarge { .. }) => {
                    return Err(CompactError::Unproved(error.to_string()));
                }
                // It may have taken effect: the same again is answered as done.
                Err(error) => error,
            };
            self.core.metrics.error("compact_commit");
            tries += 1;
            if Instant::now() >= until || self.core.is_closed() {
                return Err(CompactError::Unavailable(error.to_string()));
            }
            sleep(crate::upload::backoff(&self.options, &self.rng, tries)).await;
        }
    }

    fn command(
        &self,
        job: &Job,
        written: &[Written],
        cuts: &[Vec<Cut>],
    ) -> Result<SwapRanges, CompactError> {
        let (first, end) = job.lsns();
        let new = |one: &Written| NewObject {
            object: one.object.0,
            facts: Some(ObjectFacts {
                bytes: one.summary.bytes,
                format: u32::from(crate::object::VERSION),
                index_at: one.summary.index_at,
                store: 0,
                footer_crc: one.summary.footer_crc,
            }),
            first: first.0,
            end: end.0,
        };
        let mut inputs: Vec<u64> = Vec::new();
        let mut streams = Vec::with_capacity(job.parts.len());
        for (part, cuts) in job.parts.iter().zip(cuts) {
            let mut stream = SwapStream::of(part.stream, part.epoch.0, part.start());
            for range in &part.inputs {
                // Inputs repeat in the same order from part to part: look from the end.
                let known = inputs.iter().rposition(|id| *id == range.object.0);
                let position = known.unwrap_or_else(|| {
                    inputs.push(range.object.0);
                    inputs.len() - 1
                });
                stream.inputs.push(u32::try_from(position).expect("few inputs"));
            }
            stream.outputs = outputs(part, written, cuts)?;
            streams.push(stream);
        }
        Ok(SwapRanges {
            wal: self.id.0,
            epoch: self.epoch.0,
            objects: written.iter().map(new).collect(),
            inputs,
            streams,
            now_ms: self.core.clock.now_ms(),
        })
    }
}

/// What the objects say of themselves must be what was meant: the cuts tile the part.
fn outputs(
    part: &super::Part,
    written: &[Written],
    cuts: &[Cut],
) -> Result<Vec<SwapOutput>, CompactError> {
    let unproved = |what: &str| CompactError::Unproved(format!("stream {}: {what}", part.stream));
    let mut outputs = Vec::with_capacity(cuts.len());
    let mut at = part.start();
    for cut in cuts {
        let place = written.iter().position(|one| one.object == cut.object);
        let place = place.ok_or_else(|| unproved("an object is missing"))?;
        let mut streams = written[place].summary.streams.iter();
        let found = streams.find(|one| one.stream == part.stream);
        let found = found.ok_or_else(|| unproved("an object lacks the stream"))?;
        if found.start != at || found.start != cut.start || found.end != cut.end {
            return Err(unproved("the outputs do not tile the part"));
        }
        at = found.end;
        outputs.push(SwapOutput {
            object: u32::try_from(place).map_err(|_| unproved("too many objects"))?,
            end: found.end,
            bytes: found.bytes,
            records: found.records,
            max_timestamp: found.max_timestamp,
            epoch: found.epoch.0,
        });
    }
    if at != part.end() {
        return Err(unproved("the outputs do not reach the end of the part"));
    }
    // Dropped entries count: an epoch that was used is never used again.
    if let Some(last) = outputs.last_mut() {
        last.epoch = part.inputs.iter().map(|range| range.epoch).fold(last.epoch, i32::max);
    }
    Ok(outputs)
}

fn lost(reject: &Reject) -> CompactError {
    let reason = match reject {
        Reject::CoverChanged { .. } => "cover_changed",
        Reject::BelowLogStart { .. } => "below_log_start",
        Reject::StaleStreamEpoch { .. } | Reject::StaleWalEpoch { .. } | Reject::WalClosed(_) => {
            "stale_epoch"
        }
        Reject::UnknownPartition(_) => "deleted",
        Reject::ObjectExpired(_) | Reject::UnknownObject(_) => "expired",
        _ => return CompactError::Unproved(format!("metadata refused: {reject}")),
    };
    CompactError::Lost { reason, detail: reject.to_string() }
}

fn unexpected(reply: &Reply) -> CompactError {
    CompactError::Unproved(format!("metadata answered with {reply:?}"))
}
