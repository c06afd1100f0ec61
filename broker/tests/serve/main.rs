//! A whole broker in this process, spoken to over its sockets.

mod client;
mod configs;
mod frames;
mod groups;
mod metrics;
mod records;
mod refusals;
mod versions;

use std::path::{Path, PathBuf};

use broker::config::Settings;
use broker::{Exit, Running};

/// A broker on ports of its own.
struct Broker {
    running: Running,
}

fn settings(dir: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.server.listen = "127.0.0.1:0".to_owned();
    settings.server.http_listen = "127.0.0.1:0".to_owned();
    settings.store.data_dir = dir.join("data");
    settings.wal.size_max = Some(common::ByteSize(64 << 20));
    settings.groups.initial_rebalance_delay_ms = 0;
    settings
}

impl Broker {
    async fn start(dir: &Path) -> Self {
        Self::with(settings(dir)).await
    }

    async fn with(settings: Settings) -> Self {
        Self { running: broker::start(settings).await.expect("starts") }
    }

    async fn connect(&self) -> client::Client {
        client::Client::connect(self.running.kafka).await
    }

    async fn stop(self) {
        assert_eq!(self.running.finish().await, Exit::DONE);
    }
}

/// A file of this test.
fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// A directory that goes with the test, and stays when the test fails: the broker in it is still running then.
struct Temporary(Option<tempfile::TempDir>);

fn temporary() -> Temporary {
    Temporary(Some(tempfile::tempdir().expect("a directory")))
}

impl Temporary {
    fn path(&self) -> &Path {
        self.0.as_ref().expect("until it is dropped").path()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            eprintln!("kept: {}", dir.keep().display());
        }
    }
}
