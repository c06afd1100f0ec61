//! `sluice sink`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use object_store::path::Path;
use serde_json::{Map, Value, json};
use sink::verify::{OnProgress, Outcome, Report};

use crate::args::{Sink, Verify};
use crate::http::{Http, escaped};
use crate::output::{Failure, Output, pair};
use crate::place;

pub async fn run(command: Sink, out: &Output) -> Result<ExitCode, Failure> {
    match command {
        Sink::Create { name, topic, format, value, start, set, at } => {
            let mut config = Map::new();
            config.insert("format".to_owned(), format.into());
            config.insert("value".to_owned(), value.into());
            for text in &set {
                let (key, value) = pair(text)?;
                config.insert(key, value.into());
            }
            let body = json!({ "name": name, "topic": topic, "start": start, "config": config });
            let made = Http::new(&at.http)?.post("/v1/sinks", &body).await?;
            if out.is_json() {
                out.json(&made);
            }
            out.line(format!("created sink {name}: topic {topic} to {}", text_of(&made, "root")));
            out.line(format!(
                "watch it: sluice sink describe {name}; prove it: sluice sink verify {name}"
            ));
        }
        Sink::List { at } => {
            let sinks = Http::new(&at.http)?.get("/v1/sinks").await?;
            let rows = sinks["sinks"].as_array().into_iter().flatten().map(|sink| {
                ["name", "topic", "state", "root"].iter().map(|key| sink[*key].clone()).collect()
            });
            out.rows(&["name", "topic", "state", "root"], rows.collect());
        }
        Sink::Describe { name, at } => describe(&name, &at.http, out).await?,
        Sink::Verify(verify) => return prove(&verify, out).await,
        Sink::Delete { name, at } => {
            let path = format!("/v1/sinks/{}", escaped(&name));
            let gone = Http::new(&at.http)?.delete(&path).await?;
            if out.is_json() {
                out.json(&gone);
            }
            out.line(format!("deleted sink {name}; its files stay at {}", text_of(&gone, "root")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text_of(document: &Value, key: &str) -> String {
    crate::output::text(&document[key])
}

async fn describe(name: &str, http: &str, out: &Output) -> anyhow::Result<()> {
    let sink = Http::new(http)?.get(&format!("/v1/sinks/{}", escaped(name))).await?;
    if out.is_json() {
        out.json(&sink);
        return Ok(());
    }
    out.line(format!("{name}  topic {}  {}", text_of(&sink, "topic"), text_of(&sink, "state")));
    out.line(format!("  files at {}", text_of(&sink, "root")));
    for (key, value) in sink["config"].as_object().into_iter().flatten() {
        out.line(format!("  {key} = {}", crate::output::text(value)));
    }
    let columns = ["partition", "state", "boundary", "end", "lag", "problem"];
    let rows = sink["partitions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| columns.iter().map(|key| one[*key].clone()).collect());
    out.rows(&columns, rows.collect());
    Ok(())
}

/// Reads the bucket and nothing else.
async fn prove(verify: &Verify, out: &Output) -> Result<ExitCode, Failure> {
    sink::check_name(&verify.name).map_err(Failure::usage)?;
    let (store, prefix) = match &verify.prefix {
        Some(prefix) => {
            let open = place::open(&verify.store).map_err(Failure::unchecked)?;
            let own = Path::parse(prefix.trim_matches('/')).map_err(Failure::usage)?;
            (open.store, own)
        }
        None => {
            let cluster = place::cluster(&verify.store).await.map_err(Failure::unchecked)?;
            let prefix = cluster.prefix.join("sinks").join(verify.name.clone());
            (cluster.store, prefix)
        }
    };
    let bar = progress(out);
    let hears = bar.clone();
    let on_progress: OnProgress = Arc::new(move |progress| {
        hears.set_length(progress.manifests);
        hears.set_position(progress.manifests_done);
        hears.set_message(format!("{} MiB read", progress.bytes >> 20));
    });
    let report =
        sink::verify::verify(store, &prefix, &verify.topics_dir, &verify.name, Some(on_progress))
            .await;
    bar.finish_and_clear();
    show(&report, out).map_err(Failure::unchecked)?;
    Ok(ExitCode::from(report.outcome.exit_code()))
}

/// A bar on a terminal, for people.
fn progress(out: &Output) -> ProgressBar {
    if out.is_json() || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} cuts  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

fn show(report: &Report, out: &Output) -> anyhow::Result<()> {
    if out.is_json() {
        out.json(&serde_json::to_value(report).context("the report cannot be printed")?);
        return Ok(());
    }
    let columns =
        ["topic", "partition", "start", "boundary", "cuts", "files", "rows", "holes", "bytes"];
    let rows = report.partitions.iter().map(|one| {
        vec![
            one.topic.clone().into(),
            one.partition.into(),
            one.start.into(),
            one.boundary.into(),
            one.cuts.into(),
            one.files.into(),
            one.rows.into(),
            one.holes.into(),
            one.bytes.into(),
        ]
    });
    out.rows(&columns, rows.collect());
    for finding in &report.findings {
        let offsets =
            finding.offsets.map_or(String::new(), |(a, b)| format!(" offsets [{a}, {b})"));
        out.line(format!("wrong: {}{offsets}: {}", finding.object, finding.detail));
    }
    for line in &report.unchecked {
        out.line(format!("not checked: {line}"));
    }
    out.line(match report.outcome {
        Outcome::Proved => {
            "proved: every offset up to each boundary stands in a file or a named hole, once"
        }
        Outcome::Disproved => "disproved: see the lines above",
        Outcome::Unchecked => "could not be checked: see the lines above",
    });
    Ok(())
}
