//! `sluice config`: the settings as a broker here would see them.

use std::process::ExitCode;

use broker::config::{Loaded, Sources, load};
use serde_json::Value;

use crate::args::{Config, SettingFlags};
use crate::output::{Failure, Output, pair};

pub fn run(command: Config, out: &Output) -> Result<ExitCode, Failure> {
    let Config::Show(flags) = command;
    let rows = settings(&flags)?
        .shown()
        .into_iter()
        .map(|line| vec![Value::from(line.key), Value::from(line.value), Value::from(line.origin)]);
    out.rows(&["key", "value", "origin"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// Settings from file, environment and flags.
pub fn settings(flags: &SettingFlags) -> Result<Loaded, Failure> {
    let mut sources = Sources {
        file: flags.config.clone(),
        environment: std::env::vars().collect(),
        flags: Vec::new(),
    };
    let data_dir = flags.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
    let named = [
        ("data.dir", data_dir, "--data-dir"),
        ("listen", flags.listen.clone(), "--listen"),
        ("advertise", flags.advertise.clone(), "--advertise"),
        ("http.listen", flags.http_listen.clone(), "--http-listen"),
        ("object.store", flags.object_store.clone(), "--object-store"),
        ("memory.max", flags.memory_max.clone(), "--memory-max"),
    ];
    for (key, value, flag) in named {
        if let Some(value) = value {
            sources.flags.push((key.to_owned(), value, flag.to_owned()));
        }
    }
    for text in &flags.set {
        let (key, value) = pair(text)?;
        sources.flags.push((key, value, "--set".to_owned()));
    }
    load(&sources).map_err(Failure::usage)
}
