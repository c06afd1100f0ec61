//! `sluice bench latency`: from the time a batch was meant to leave to its receipt by a reader of the tail.

use std::cell::Cell;

use anyhow::bail;
use common::Clock;
use futures::future::{try_join, try_join_all};
use serde_json::Value;

use super::load::Template;
use super::pace::{Pace, Until, Window};
use super::reader::{Limits, Position, Reader};
use super::tally::Tally;
use super::topic::{LATEST, deal, offsets, prepare};
use super::writer::{Writer, now};
use super::{add, nanoseconds, positive, runtime, size};
use crate::args::bench::Latency;
use crate::output::Failure;

const LIMITS: Limits = Limits { bytes: 16 << 20, partition_bytes: 1 << 20 };
/// Longest that records may stay away after the last acknowledgement.
const STRAGGLERS_NS_MAX: u64 = 30_000_000_000;

pub fn run(command: &Latency) -> Result<Value, Failure> {
    let rate = positive(command.rate)?;
    let warmup_ns = nanoseconds(command.warmup)?;
    let end_ns = warmup_ns.saturating_add(nanoseconds(command.seconds)?);
    runtime()?.block_on(async {
        let now_ms = Clock::system().now_ms();
        let template = Template::new(&command.load, &command.topic.topic, now_ms)?;
        template.check_stampable(&command.load)?;
        let (sent, received) = measure(command, &template, rate, warmup_ns, end_ns).await?;
        let mut document = received.document("latency");
        add(&mut document, "produce", &sent.document("produce"));
        if let Some(errors) = document.as_object_mut().and_then(|all| all.remove("produce_errors"))
            && let (Some(own), Some(more)) =
                (document["errors"].as_object_mut(), errors.as_object())
        {
            own.extend(more.clone());
        }
        Ok(document)
    })
}

async fn measure(
    command: &Latency,
    template: &Template,
    rate: f64,
    warmup_ns: u64,
    end_ns: u64,
) -> anyhow::Result<(Tally, Tally)> {
    let topic = &command.topic.topic;
    let leaders = prepare(&command.topic).await?;
    let mut readers = Vec::new();
    for (address, partitions) in &leaders {
        let ends = offsets(address, topic, partitions, LATEST).await?;
        let positions =
            ends.iter().map(|(&partition, &next)| Position { partition, next, end: i64::MAX });
        readers.push(Reader::connect(address, topic, positions.collect(), LIMITS, false).await?);
    }
    let shares = deal(&leaders, size(command.connections), true);
    let connecting = shares.iter().enumerate().map(|(index, share)| {
        let pace = Pace::share(rate, index, shares.len());
        let window = Window::new(pace, Until::Time(end_ns), size(command.in_flight));
        Writer::connect(share, 1, template, window, Tally::new(warmup_ns))
    });
    let writers = try_join_all(connecting).await?.into_iter().map(Writer::stamped);
    let clock = Clock::system();
    // Batches that were acknowledged, once all have been: those of the warm-up are not counted on either side.
    let expected = Cell::new(None);
    let received = Cell::new(0);
    let producing = async {
        let mut sent = Tally::new(warmup_ns);
        for tally in try_join_all(writers.map(|writer| writer.run(&clock))).await? {
            sent.merge(&tally);
        }
        expected.set(Some((sent.requests(), now(&clock))));
        Ok::<_, anyhow::Error>(sent)
    };
    let (expected, received) = (&expected, &received);
    let reading = readers
        .into_iter()
        .map(|reader| receive(reader, template, warmup_ns, expected, received, &clock));
    let (sent, tallies) = try_join(producing, try_join_all(reading)).await?;
    let mut total = Tally::new(warmup_ns);
    tallies.iter().for_each(|tally| total.merge(tally));
    Ok((sent, total))
}

/// Reads the tail until every acknowledged batch has come.
async fn receive(
    mut reader: Reader,
    template: &Template,
    warmup_ns: u64,
    expected: &Cell<Option<(u64, u64)>>,
    received: &Cell<u64>,
    clock: &Clock,
) -> anyhow::Result<Tally> {
    let mut tally = Tally::new(warmup_ns);
    loop {
        if let Some((count, since)) = expected.get() {
            if received.get() >= count {
                return Ok(tally);
            }
            if now(clock) > since + STRAGGLERS_NS_MAX {
                bail!("{} of {count} acknowledged batches came to the reader", received.get());
            }
        }
        let before = tally.requests();
        reader
            .fetch(|batch| {
                if let Some(meant) = template.stamp(batch) {
                    tally.answer(meant, now(clock), template.records, template.value_bytes);
                }
            })
            .await?;
        received.set(received.get() + tally.requests() - before);
    }
}
