//! `sluice completions`.

use std::process::ExitCode;

use clap::CommandFactory;

use crate::args::Args;
use crate::output::Failure;

pub fn run(shell: clap_complete::Shell) -> Result<ExitCode, Failure> {
    clap_complete::generate(shell, &mut Args::command(), "sluice", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
