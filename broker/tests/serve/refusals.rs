//! What a start refuses, in one sentence with the remedy.

use broker::config::Settings;

use crate::{Broker, settings};

async fn refusal(settings: Settings) -> String {
    match broker::start(settings).await {
        Ok(_) => panic!("started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_brokers_directory_and_port_are_refused() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let text = refusal(settings(dir.path())).await;
    assert!(text.contains("in use by a running broker"), "{text}");
    let other = crate::temporary();
    let mut taken = settings(other.path());
    taken.server.listen = broker.running.kafka.to_string();
    let text = refusal(taken).await;
    assert!(text.contains("is in use by another process"), "{text}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_gone_or_foreign_is_refused() {
    let (one, two) = (crate::temporary(), crate::temporary());
    Broker::start(one.path()).await.stop().await;
    Broker::start(two.path()).await.stop().await;
    let (mine, theirs) = (one.path().join("data/wal"), two.path().join("data/wal"));
    let aside = one.path().join("aside");
    #[expect(clippy::disallowed_methods, reason = "the test moves directories")]
    let mv = |a: &std::path::Path, b: &std::path::Path| std::fs::rename(a, b).expect("moved");
    mv(&mine, &aside);
    let text = refusal(settings(one.path())).await;
    assert!(text.contains("is missing"), "{text}");
    mv(&theirs, &mine);
    let text = refusal(settings(one.path())).await;
    assert!(!text.is_empty(), "another log");
    mv(&mine, &theirs);
    mv(&aside, &mine);
    Broker::start(one.path()).await.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_the_cluster_is_refused() {
    let dir = crate::temporary();
    Broker::start(dir.path()).await.stop().await;
    let objects = dir.path().join("data/objects");
    std::fs::remove_dir_all(&objects).expect("removed");
    let text = refusal(settings(dir.path())).await;
    assert!(text.contains("holds nothing of cluster"), "{text}");
}
