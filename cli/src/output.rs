//! Tables for people, JSON for scripts, failures with their exit code.

use anyhow::anyhow;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Map, Value};

use crate::args::Format;

/// An error and the exit code it ends with.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub error: anyhow::Error,
}

impl Failure {
    /// Failed or disproved.
    pub fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 1, error: error.into() }
    }

    /// Asked for something that cannot be asked for.
    pub fn usage(text: impl std::fmt::Display) -> Self {
        Self { code: 2, error: anyhow!("{text}") }
    }

    /// Neither proved nor disproved.
    pub fn unchecked(error: impl Into<anyhow::Error>) -> Self {
        Self { code: 3, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(error)
    }
}

/// Prints results in the form that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    /// True when only JSON may go to standard output.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Rows under `columns`, which are also the keys of the JSON objects.
    pub fn rows(&self, columns: &[&str], rows: Vec<Vec<Value>>) {
        if self.is_json() {
            let object = |row: Vec<Value>| {
                let pairs = columns.iter().map(|name| (*name).to_owned()).zip(row);
                Value::Object(pairs.collect::<Map<_, _>>())
            };
            self.json(&Value::Array(rows.into_iter().map(object).collect()));
            return;
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|name| name.to_uppercase().replace('_', " ")));
        for row in rows {
            table.add_row(row.iter().map(text));
        }
        for line in table.lines() {
            say(format_args!("{}", line.strip_prefix(' ').unwrap_or(&line).trim_end()));
        }
    }

    /// One document; a list of names and values for people.
    pub fn document(&self, document: &Value) {
        if self.is_json() {
            self.json(document);
            return;
        }
        match document {
            Value::Object(map) => {
                let width = map.keys().map(String::len).max().unwrap_or(0);
                for (name, value) in map {
                    say(format_args!("{name:width$}  {}", text(value)));
                }
            }
            other => say(format_args!("{}", text(other))),
        }
    }

    /// One line for people; nothing in JSON.
    pub fn line(&self, text: impl std::fmt::Display) {
        if !self.is_json() {
            say(format_args!("{text}"));
        }
    }

    /// A JSON document, whatever the format.
    pub fn json(&self, value: &Value) {
        say(format_args!("{}", serde_json::to_string_pretty(value).unwrap_or_default()));
    }
}

/// One line to standard output. A reader that has gone (`| head`) ends the command quietly.
fn say(line: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if out.write_fmt(line).and_then(|()| out.write_all(b"\n")).is_err() {
        std::process::exit(0);
    }
}

/// A value as a person reads it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), Failure> {
    let split = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = split.ok_or_else(|| Failure::usage(format!("{text:?} is not KEY=VALUE")))?;
    Ok((key.to_owned(), value.to_owned()))
}
