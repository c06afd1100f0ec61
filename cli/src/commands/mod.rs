//! One file per noun.

pub mod bench;
mod broker;
pub mod completions;
pub mod config;
mod group;
pub mod meta;
mod object;
mod object_dump;
mod object_fsck;
pub mod serve;
mod sink;
mod topic;
pub mod version;
mod wal;
mod wal_dump;

use std::future::Future;
use std::process::ExitCode;

use crate::args::{Command, Meta, Object};
use crate::output::{Failure, Output};

/// Runs a client command on a small runtime.
pub fn block_on(
    future: impl Future<Output = Result<ExitCode, Failure>>,
) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
        .map_err(Failure::failed)?;
    runtime.block_on(future)
}

/// Commands that talk to a broker or a store.
pub async fn client(command: Command, out: &Output) -> Result<ExitCode, Failure> {
    match command {
        Command::Topic(command) => topic::run(command, out).await?,
        Command::Group(command) => group::run(command, out).await?,
        Command::Sink(command) => return sink::run(command, out).await,
        Command::Wal(command) => wal::run(command, out).await?,
        Command::Object(Object::Fsck { grace, quick, data_dir, object_store, at }) => {
            let flags = object_fsck::Flags { grace, quick, data_dir, object_store };
            return object_fsck::run(&flags, &at, out).await;
        }
        Command::Object(command) => object::run(command, out).await?,
        Command::Broker(command) => return broker::run(command, out).await,
        Command::Meta(Meta::Rebuild { object_store, cluster, data_dir }) => {
            return meta::rebuild(&object_store, cluster, data_dir, out).await;
        }
        Command::Meta(Meta::Status { at }) => meta::status(&at, out).await?,
        Command::Meta(Meta::Dump(dump)) => return meta::dump(&dump, out),
        Command::Serve(serve) => return serve::run(serve),
        Command::Config(config) => return config::run(config, out),
        Command::Bench(command) => return bench::run(&command, out),
        Command::Version => return version::run(out),
        Command::Completions { shell } => return completions::run(shell),
    }
    Ok(ExitCode::SUCCESS)
}
