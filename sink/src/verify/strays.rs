//! Objects beside the data that no manifest names: files of a cut that is not complete, or foreign ones.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::{Fault, Run};
use crate::layout;
use crate::parquet_file::{Error, ParquetFile};

pub(super) async fn check(run: &mut Run) {
    let topics: BTreeSet<String> = run.partitions.iter().map(|p| p.topic.clone()).collect();
    for topic in topics {
        let folder = Path::from(layout::join(&run.root, &topic));
        let store = run.store.clone();
        let mut objects = store.list(Some(&folder));
        loop {
            match objects.try_next().await {
                Ok(None) => break,
                Ok(Some(object)) => stray(run, &topic, &object).await,
                Err(error) => {
                    run.unchecked.push(format!("{folder} cannot be listed: {error}"));
                    break;
                }
            }
        }
    }
}

async fn stray(run: &mut Run, topic: &str, object: &ObjectMeta) {
    let key = object.location.as_ref();
    let name = key.strip_prefix(&run.root).unwrap_or(key).trim_start_matches('/');
    if run.known.contains(name) {
        return;
    }
    let partition = partition_of(topic, name);
    let cut = match ParquetFile::open(&run.store, &object.location, object.size).await {
        Ok(file) => file.cut(),
        Err(Error::Store(error)) => {
            return run.unchecked.push(format!("{key} cannot be read: {error}"));
        }
        Err(_) => None,
    };
    if let Some(partition) = partition
        && let Some(cut) = &cut
        && unfinished(run, topic, partition, cut)
    {
        return;
    }
    let detail = match cut {
        Some(cut) => format!("is in no manifest; it carries cut {cut}"),
        None => "is in no manifest and was not written by this sink".to_owned(),
    };
    let offsets = first_offset(name).map(|first| (first, first.saturating_add(1)));
    run.find(Fault::FileForeign, topic, partition, offsets, key, &detail);
}

/// Whether `cut` begins where the manifests of the partition end: its files may come before its manifest.
fn unfinished(run: &mut Run, topic: &str, partition: u32, cut: &str) -> bool {
    let Some(sink_id) = run.sink_id else { return false };
    let ids: BTreeSet<String> = run.partitions.iter().map(|p| p.topic_id.clone()).collect();
    let mut seen = false;
    for report in &mut run.partitions {
        if (report.topic.as_str(), report.partition) == (topic, partition) {
            seen = true;
            let (generation, id, end) = (report.generation, &report.topic_id, report.end);
            let open = format!("{sink_id:016x}.g{generation}.{id}.{partition}.{end}-");
            if cut.starts_with(&open) {
                report.unfinished += 1;
                return true;
            }
        }
    }
    // A partition without a manifest: its first cut may begin anywhere.
    let of = |id: &String| cut.starts_with(&format!("{sink_id:016x}.g0.{id}.{partition}."));
    !seen && ids.iter().any(of)
}

fn partition_of(topic: &str, name: &str) -> Option<u32> {
    let rest = name.strip_prefix(topic)?.strip_prefix("/partition=")?;
    rest.split_once('/')?.0.parse().ok()
}

/// `<topic>+<partition>+<offset>.<ext>`.
fn first_offset(name: &str) -> Option<i64> {
    name.rsplit('/').next()?.rsplit('+').next()?.split('.').next()?.parse().ok()
}
