//! The `sluice` binary: the broker and the tools around it.
//!
//! Exit codes: 0 done, 1 failed or disproved, 2 usage, 3 could not check; 70 when a write of the log or of metadata
//! failed while serving.

mod args;
mod commands;
mod http;
mod kafka;
mod logging;
mod output;
mod place;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use output::Failure;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    let out = output::Output::new(args.output);
    match run(args.command, &out) {
        Ok(code) => code,
        Err(Failure { code, error }) => {
            eprintln!("sluice: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn run(command: Command, out: &output::Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(serve) => commands::serve::run(serve),
        Command::Config(config) => commands::config::run(config, out),
        Command::Bench(command) => commands::bench::run(&command, out),
        Command::Version => commands::version::run(out),
        Command::Completions { shell } => commands::completions::run(shell),
        Command::Meta(args::Meta::Dump(dump)) => commands::meta::dump(&dump, out),
        other => commands::block_on(commands::client(other, out)),
    }
}
