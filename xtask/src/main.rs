//! House checks that no lint makes: arrows between rooms, file sizes, plain ASCII, paths of one machine, licences, one
//! build of librocksdb, generated pages fresh, a runbook whose entries are tested.

use std::process::ExitCode;

mod arrows;
mod build;
mod files;
mod runbook;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("check") => check(),
        _ => {
            eprintln!("usage: cargo run --release -p xtask -- check");
            ExitCode::from(2)
        }
    }
}

/// Yields the faults it finds.
type Check = fn() -> anyhow::Result<Vec<String>>;

fn check() -> ExitCode {
    let checks: [(&str, Check); 5] = [
        ("arrows between rooms", arrows::check),
        ("files", files::check),
        ("runbook", runbook::check),
        ("one build of librocksdb", build::check_rocksdb),
        ("licences and sources", build::check_packages),
    ];
    let mut failed = false;
    for (name, body) in checks {
        match body() {
            Ok(faults) if faults.is_empty() => println!("ok    {name}"),
            Ok(faults) => {
                failed = true;
                println!("FAIL  {name}");
                for fault in faults {
                    println!("      {fault}");
                }
            }
            Err(error) => {
                failed = true;
                println!("FAIL  {name}: could not be checked: {error:#}");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
