//! `sluice bench fetch`.

use anyhow::bail;
use common::Clock;
use futures::future::try_join_all;
use serde_json::{Value, json};

use super::reader::{Limits, Position, Reader};
use super::tally::Tally;
use super::topic::{EARLIEST, LATEST, deal, leaders, offsets};
use super::writer::now;
use super::{nanoseconds, runtime, size, spread};
use crate::args::bench::Fetch;
use crate::kafka::Client;
use crate::output::Failure;

/// Answers without a batch, half a second each, after which a reader gives up.
const EMPTY_MAX: u32 = 120;

/// One connection before it is made.
struct Lane {
    address: String,
    positions: Vec<Position>,
}

/// When to stop, and what to do at the end of a partition.
#[derive(Clone, Copy)]
struct Rules {
    end_ns: u64,
    bytes_max: u64,
    repeat: bool,
    check_crc: bool,
    limits: Limits,
}

pub fn run(command: &Fetch) -> Result<Value, Failure> {
    if command.repeat && command.seconds.is_none() && command.bytes.is_none() {
        return Err(Failure::usage("--repeat ends by --seconds or --bytes; give one"));
    }
    let lanes = runtime()?.block_on(lanes(command))?;
    let connections = lanes.len();
    let limit = |bytes: u64| i32::try_from(bytes).unwrap_or(i32::MAX);
    let rules = Rules {
        end_ns: command.seconds.map_or(Ok(u64::MAX), nanoseconds)?,
        bytes_max: command.bytes.map_or(u64::MAX, |bytes| bytes.div_ceil(connections as u64)),
        repeat: command.repeat,
        check_crc: command.check_crc,
        limits: Limits {
            bytes: limit(command.max_bytes),
            partition_bytes: limit(command.partition_max_bytes),
        },
    };
    let topic = command.topic.clone();
    let parts = spread(lanes, size(command.threads), move |lanes| {
        let topic = topic.clone();
        async move {
            let clock = Clock::system();
            let reading = lanes.iter().map(|lane| read(lane, &topic, rules, &clock));
            let mut total = Tally::new(0);
            let mut batches = 0;
            for (tally, count) in try_join_all(reading).await? {
                total.merge(&tally);
                batches += count;
            }
            Ok((total, batches))
        }
    })?;
    let mut total = Tally::new(0);
    parts.iter().for_each(|(tally, _)| total.merge(tally));
    let mut document = total.document("fetch");
    document["batches"] = json!(parts.iter().map(|(_, batches)| batches).sum::<u64>());
    document["connections"] = json!(connections);
    Ok(document)
}

async fn lanes(command: &Fetch) -> Result<Vec<Lane>, Failure> {
    let mut client = Client::connect(&command.at.bootstrap_server).await?;
    let leaders = leaders(&mut client, &command.topic, command.partitions, false).await?;
    let mut lanes = Vec::new();
    for share in deal(&leaders, size(command.connections), false) {
        let partitions = &share.partitions;
        let ends = offsets(&share.address, &command.topic, partitions, LATEST).await?;
        let starts = match command.from.as_str() {
            "earliest" => offsets(&share.address, &command.topic, partitions, EARLIEST).await?,
            "latest" => ends.clone(),
            other => {
                let usage =
                    || Failure::usage(format!("--from {other}: earliest, latest or an offset"));
                let offset: i64 = other.parse().map_err(|_| usage())?;
                partitions.iter().map(|partition| (*partition, offset)).collect()
            }
        };
        // From the latest offset there is no end but --seconds and --bytes.
        let follow = command.from == "latest";
        let positions = partitions.iter().map(|partition| Position {
            partition: *partition,
            next: starts.get(partition).copied().unwrap_or(0),
            end: if follow { i64::MAX } else { ends.get(partition).copied().unwrap_or(0) },
        });
        lanes.push(Lane { address: share.address.clone(), positions: positions.collect() });
    }
    if command.from == "latest" && command.seconds.is_none() && command.bytes.is_none() {
        return Err(Failure::usage("--from latest ends by --seconds or --bytes; give one"));
    }
    Ok(lanes)
}

async fn read(
    lane: &Lane,
    topic: &str,
    rules: Rules,
    clock: &Clock,
) -> anyhow::Result<(Tally, u64)> {
    let positions = lane.positions.clone();
    let mut reader =
        Reader::connect(&lane.address, topic, positions, rules.limits, rules.check_crc).await?;
    let mut tally = Tally::new(0);
    let (mut empty, mut batches) = (0, 0);
    while tally.bytes() < rules.bytes_max && now(clock) < rules.end_ns {
        if reader.at_end() {
            if !rules.repeat || lane.positions.iter().all(|one| one.next >= one.end) {
                break;
            }
            reader.rewind(&lane.positions);
        }
        let begin = now(clock);
        let got = reader.fetch(|_| ()).await?;
        if got.batches == 0 {
            empty += 1;
            if empty > EMPTY_MAX && rules.end_ns == u64::MAX {
                bail!("nothing came for a minute, although the end is not reached");
            }
            continue;
        }
        empty = 0;
        batches += got.batches;
        tally.answer(begin, now(clock), got.records, got.bytes);
        for _ in 0..got.damaged {
            tally.error("CORRUPT_MESSAGE");
        }
    }
    Ok((tally, batches))
}
