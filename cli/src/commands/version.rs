//! `sluice version`.

use std::process::ExitCode;

use serde_json::json;

use crate::output::{Failure, Output};

pub fn run(out: &Output) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    if out.is_json() {
        out.json(&json!({ "version": version, "data_format": 1 }));
    } else {
        out.line(format!("sluice {version}"));
    }
    Ok(ExitCode::SUCCESS)
}
