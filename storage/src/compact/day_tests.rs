//! A day of small writes in simulated time: what stays of it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::{ObjectId, StreamId};

use super::Task;
use super::testing::{World, options};

/// One record a second over 50 partitions, a round every ten seconds: 8,640 rounds of 10 streams each.
#[tokio::test(start_paused = true)]
async fn a_day_of_small_writes_stays_small() {
    let mut options = options();
    options.compaction_part_bytes = 16 << 20;
    let mut world = World::new(1, 50, options).await;
    let streams: Vec<StreamId> = (0..50).map(|topic| world.stream(topic)).collect();
    let mut task = Task::new(world.compactor.clone());
    let (mut uploaded, mut objects_max) = (0_u64, 0);
    for round in 0..8640_usize {
        tokio::time::advance(Duration::from_secs(10)).await;
        let payload = |at: usize| Bytes::from(format!("record {at:>93}"));
        let record = |at: usize| (streams[at % 50], vec![(0, 1, payload(at))]);
        let entries: Vec<_> = (round * 10..round * 10 + 10).map(record).collect();
        let id = world.round(&entries).await;
        uploaded +=
            world.meta.object(id).await.expect("answers").expect("there").facts.expect("put").bytes;
        world.compactor.core.metrics.objects_put_bytes.inc_by(3000);
        if round % 6 == 0 {
            task.work().await.expect("works");
            world.sweep().await;
        }
        if round % 360 == 0 {
            objects_max = objects_max.max(live(&world).await);
        }
    }
    tokio::time::advance(Duration::from_secs(120)).await;
    task.work().await.expect("works");
    tokio::time::advance(Duration::from_secs(120)).await;
    world.sweep().await;
    world.check().await;
    let mut per_stream = 0;
    for stream in &streams {
        per_stream = per_stream.max(world.cover(*stream).await.len());
    }
    let keys = world.memory.state().len();
    let rewritten = world.compactor.metrics.written_bytes.get();
    let jobs = world.compactor.metrics.jobs.get();
    println!(
        "objects at most {objects_max}, now {}, of a stream at most {per_stream}; {keys} keys; \
         {jobs} jobs wrote {rewritten} bytes for {uploaded} uploaded",
        live(&world).await
    );
    assert!(objects_max <= 80, "{objects_max} objects");
    assert!(per_stream <= 50, "a stream lies in {per_stream} objects");
    assert!(keys < 3500, "{keys} keys in metadata");
    assert!(rewritten <= uploaded * 3, "{rewritten} bytes rewritten for {uploaded} uploaded");
    let stored = list(&world).await;
    assert!(stored <= objects_max + 80, "{stored} objects in the store");
}

async fn live(world: &World) -> usize {
    let objects = world.meta.objects(None, 100_000).await.expect("answers");
    let live: BTreeMap<ObjectId, u32> = objects.iter().map(|one| (one.id, one.live)).collect();
    live.values().filter(|live| **live > 0).count()
}

async fn list(world: &World) -> usize {
    use futures::TryStreamExt;
    let all: Vec<_> = world.store.list(None).try_collect().await.expect("lists");
    all.len()
}
