//! `sluice serve`: runs a broker until it is told to stop.

use std::net::IpAddr;
use std::process::ExitCode;

use broker::{Running, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config;
use crate::args::Serve;
use crate::logging;
use crate::output::Failure;

/// Threads of the blocking pool: the local object directory uses them.
const BLOCKING_THREADS_MAX: usize = 8;
const WORKER_STACK_BYTES: usize = 1 << 20;

pub fn run(serve: Serve) -> Result<ExitCode, Failure> {
    let loaded = config::settings(&serve.settings)?;
    common::failpoint::arm_from_environment().map_err(Failure::usage)?;
    logging::start(&loaded.settings.logging)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("serve")
        .thread_stack_size(WORKER_STACK_BYTES)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(Failure::failed)?;
    let exit = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let running = tokio::select! {
            biased;
            () = signals.any() => return Ok(ExitCode::from(1)),
            started = broker::start(loaded.settings) => started.map_err(refused)?,
        };
        greet(&running);
        signals.any().await;
        println!("stopping: answering requests in flight, uploading the rest; a second Ctrl-C ends at once");
        running.stop();
        tokio::select! {
            biased;
            exit = running.finish() => {
                let code = u8::try_from(exit.0).unwrap_or(1);
                Ok::<_, Failure>(ExitCode::from(code))
            }
            () = signals.any() => {
                eprintln!("sluice: ended at once; what was acknowledged is recovered at the next start");
                // Not by way of destructors, which would wait for work on the disk.
                std::process::exit(1);
            }
        }
    })?;
    // Connections that outlived the drain must not hold the process.
    runtime.shutdown_background();
    Ok(exit)
}

fn refused(error: StartError) -> Failure {
    Failure::failed(anyhow::Error::new(error))
}

/// Where it listens, where it keeps what, what to try next.
fn greet(running: &Running) {
    let (host, port) = &running.advertised;
    let own = running.kafka.to_string();
    let told = format!("{host}:{port}");
    let advertised =
        if told == own { String::new() } else { format!(" (clients are told {told})") };
    println!("sluice {} is ready", env!("CARGO_PKG_VERSION"));
    println!("  kafka    {own}{advertised}");
    println!("  http     http://{}  metrics, health, /v1", running.http);
    println!("  data     {}", running.data_dir.display());
    println!("  objects  {}", running.store);
    println!("  cluster  {}", running.cluster_id);
    println!("try: sluice topic create first && kcat -b {own} -t first -P");
    for address in [running.kafka.ip(), running.http.ip()] {
        if !address.is_loopback() {
            println!("{}", open_warning(address));
            break;
        }
    }
}

fn open_warning(address: IpAddr) -> String {
    format!(
        "warning: the listener on {address} is open to the network without encryption or sign-in"
    )
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(Failure::failed)?,
            terminate: signal(SignalKind::terminate()).map_err(Failure::failed)?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
