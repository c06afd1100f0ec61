//! Finding stores and directories without a broker.

use std::path::Path as FilePath;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use broker::OpenStore;
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

use crate::args::StoreFlags;

/// A store and the prefix of one cluster in it.
pub struct Cluster {
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
}

/// Opens the store that the flags name, and finds the cluster in it.
pub async fn cluster(flags: &StoreFlags) -> anyhow::Result<Cluster> {
    let OpenStore { store, prefix, .. } = open(flags)?;
    let id = match &flags.cluster {
        Some(id) => id.clone(),
        None => match cluster_id(&flags.data_dir) {
            Some(id) if flags.object_store.is_none() => id,
            local => only_cluster(&*store, &prefix, local.as_deref()).await?,
        },
    };
    Ok(Cluster { store, prefix: prefix.join(id) })
}

/// Opens the store that the flags name.
pub fn open(flags: &StoreFlags) -> anyhow::Result<OpenStore> {
    if let Some(url) = &flags.object_store {
        return Ok(broker::open_url(&broker::config::Store::default(), url)?);
    }
    let objects = flags.data_dir.join("objects");
    if !objects.is_dir() {
        bail!(
            "{} is no directory; name the store with --object-store or the data directory with --data-dir",
            objects.display()
        );
    }
    Ok(broker::open_local(&objects)?)
}

/// The cluster of a data directory.
pub fn cluster_id(data_dir: &FilePath) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join("cluster.id")).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The one cluster below `prefix`; `preferred` when there are several and it is among them.
async fn only_cluster(
    store: &dyn ObjectStore,
    prefix: &Path,
    preferred: Option<&str>,
) -> anyhow::Result<String> {
    let listed =
        store.list_with_delimiter(Some(prefix)).await.context("the store cannot be listed")?;
    let mut found = Vec::new();
    for place in listed.common_prefixes {
        let claims = place.clone().join("cluster");
        let claimed = store.list(Some(&claims)).try_next().await?.is_some();
        if let (true, Some(id)) = (claimed, place.filename()) {
            found.push(id.to_owned());
        }
    }
    match (found.as_slice(), preferred) {
        ([one], _) => Ok(one.clone()),
        ([], _) => Err(anyhow!("no cluster of Sluice below {prefix:?} in this store")),
        (many, Some(id)) if many.iter().any(|one| one == id) => Ok(id.to_owned()),
        (many, _) => Err(anyhow!(
            "several clusters in this store, choose one with --cluster: {}",
            many.join(", ")
        )),
    }
}
