//! `sluice bench produce`.

use std::sync::Arc;

use common::Clock;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::load::Template;
use super::pace::{Pace, Until, Window};
use super::tally::Tally;
use super::topic::{Share, deal, prepare};
use super::writer::Writer;
use super::{nanoseconds, positive, runtime, size, spread};
use crate::args::bench::Produce;
use crate::output::Failure;

/// One connection before it is made.
struct Lane {
    share: Share,
    pace: Pace,
    until: Until,
}

pub fn run(command: &Produce) -> Result<Value, Failure> {
    let warmup_ns = nanoseconds(command.warmup)?;
    let end_ns = warmup_ns.saturating_add(nanoseconds(command.seconds)?);
    let (template, leaders) = runtime()?.block_on(async {
        let now_ms = Clock::system().now_ms();
        let template = Template::new(&command.load, &command.topic.topic, now_ms)?;
        Ok::<_, Failure>((template, prepare(&command.topic).await?))
    })?;
    let per_request = size(command.partitions_per_request);
    if template.batch.len().saturating_mul(per_request) > 1 << 30 {
        return Err(Failure::usage("a request of more than 1 GiB"));
    }
    let shares = deal(&leaders, size(command.connections), true);
    let connections = shares.len();
    let carried = |share: &Share| per_request.min(share.partitions.len()) as u64;
    let lanes = shares.into_iter().enumerate().map(|(index, share)| {
        let pace = match command.rate {
            None => Pace::Closed,
            Some(rate) => Pace::share(positive(rate)?, index, connections),
        };
        let until = match command.bytes {
            None => Until::Time(end_ns),
            Some(bytes) => {
                let own = bytes.div_ceil(connections as u64);
                Until::Requests(own.div_ceil((template.value_bytes * carried(&share)).max(1)))
            }
        };
        Ok(Lane { share, pace, until })
    });
    let lanes = lanes.collect::<Result<Vec<_>, Failure>>()?;
    let in_flight = size(command.in_flight);
    let batch_bytes = template.batch.len();
    let template = Arc::new(template);
    let tallies = spread(lanes, size(command.threads), move |lanes| {
        drive(lanes, template.clone(), per_request, in_flight, warmup_ns)
    })?;
    let mut total = Tally::new(warmup_ns);
    tallies.iter().for_each(|tally| total.merge(tally));
    let mut document = total.document("produce");
    document["batch_bytes"] = json!(batch_bytes);
    document["connections"] = json!(connections);
    Ok(document)
}

/// The connections of one thread. All are made before the first request leaves.
async fn drive(
    lanes: Vec<Lane>,
    template: Arc<Template>,
    per_request: usize,
    in_flight: usize,
    warmup_ns: u64,
) -> anyhow::Result<Tally> {
    let mut total = Tally::new(warmup_ns);
    let (mut shares, mut windows) = (Vec::new(), Vec::new());
    for lane in lanes {
        windows.push(Window::new(lane.pace, lane.until, in_flight));
        shares.push(lane.share);
    }
    let connecting = shares.iter().zip(windows).map(|(share, window)| {
        Writer::connect(share, per_request, &template, window, Tally::new(warmup_ns))
    });
    let writers = try_join_all(connecting).await?;
    let clock = Clock::system();
    for tally in try_join_all(writers.into_iter().map(|writer| writer.run(&clock))).await? {
        total.merge(&tally);
    }
    Ok(total)
}
