//! Names that dashboards and alerts rely on.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Broker, beside};

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "the test is the client")]
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("text");
    answer
}

/// Run with `SLUICE_BLESS=1` to write the names of this build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_those_of_the_golden_file() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    assert!(get(broker.running.http, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(broker.running.http, "/readyz").await.starts_with("HTTP/1.1 200"));
    let text = get(broker.running.http, "/metrics").await;
    let names: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(names.iter().all(|name| name.starts_with("sluice_")), "{names:?}");
    let found = names.iter().map(|name| format!("{name}\n")).collect::<String>();
    let golden = beside("metrics_names.txt");
    #[expect(clippy::disallowed_methods, reason = "the golden file of this test")]
    if std::env::var_os("SLUICE_BLESS").is_some() {
        std::fs::write(&golden, &found).expect("written");
    }
    let wanted = std::fs::read_to_string(&golden).expect("the golden file");
    assert_eq!(found, wanted, "run with SLUICE_BLESS=1 if the change is meant");
    broker.stop().await;
}
