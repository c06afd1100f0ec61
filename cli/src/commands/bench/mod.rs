//! `sluice bench`: a load that costs the client next to nothing, against any Kafka broker.
//!
//! Each thread runs one event loop that carries several connections; nothing is spawned, so an answer wakes the loop
//! and no one else.

mod fetch;
mod latency;
mod load;
mod machine;
mod pace;
mod produce;
mod reader;
mod socket;
mod tally;
mod topic;
mod writer;

use std::future::Future;
use std::process::ExitCode;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::args::bench::Bench;
use crate::output::{Failure, Output};

pub fn run(command: &Bench, out: &Output) -> Result<ExitCode, Failure> {
    let document = match command {
        Bench::Produce(produce) => produce::run(produce)?,
        Bench::Fetch(fetch) => fetch::run(fetch)?,
        Bench::Latency(latency) => latency::run(latency)?,
        Bench::Machine(machine) => return machine::run(machine, out),
    };
    out.document(&document);
    let failed = document["errors"].as_object().is_some_and(|errors| !errors.is_empty());
    Ok(ExitCode::from(u8::from(failed)))
}

/// An event loop for one thread.
fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(Failure::failed)
}

/// Runs `part` on each group of `items`, one group to a thread with an event loop of its own, and gives back the results.
fn spread<T, R, F>(
    items: Vec<T>,
    threads: usize,
    part: impl Fn(Vec<T>) -> F + Clone + Send + 'static,
) -> Result<Vec<R>, Failure>
where
    T: Send + 'static,
    R: Send + 'static,
    F: Future<Output = anyhow::Result<R>>,
{
    let mut groups: Vec<Vec<T>> = (0..threads.max(1)).map(|_| Vec::new()).collect();
    let count = groups.len();
    for (index, item) in items.into_iter().enumerate() {
        groups[index % count].push(item);
    }
    let mut running = Vec::new();
    for (index, group) in groups.into_iter().enumerate().filter(|(_, group)| !group.is_empty()) {
        let part = part.clone();
        let thread = common::threads::spawn(&format!("bench-{index}"), move || {
            runtime()?.block_on(part(group)).map_err(Failure::failed)
        });
        running.push(thread.map_err(Failure::failed)?);
    }
    let join = |thread: std::thread::JoinHandle<Result<R, Failure>>| {
        thread.join().unwrap_or_else(|_| Err(Failure::failed(anyhow::anyhow!("a thread panicked"))))
    };
    running.into_iter().map(join).collect()
}

/// Seconds as nanoseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the length of a run, checked to be positive; `as` saturates"
)]
fn nanoseconds(seconds: f64) -> Result<u64, Failure> {
    if !seconds.is_finite() || seconds < 0.0 {
        return Err(Failure::usage(format!("{seconds} is no number of seconds")));
    }
    Ok((seconds * 1e9) as u64)
}

fn positive(rate: f64) -> Result<f64, Failure> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(rate);
    }
    Err(Failure::usage(format!("--rate {rate}: requests a second, above 0")))
}

fn size(count: u32) -> usize {
    usize::try_from(count).expect("32 bits fit").max(1)
}

/// Names the figures of `more` with a prefix and adds them to `document`.
fn add(document: &mut Value, prefix: &str, more: &Value) {
    if let (Some(into), Some(from)) = (document.as_object_mut(), more.as_object()) {
        for (name, value) in from {
            into.insert(format!("{prefix}_{name}"), value.clone());
        }
    }
}
