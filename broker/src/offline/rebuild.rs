//! `meta rebuild`: a cluster's next life from its bucket alone.
//!
//! ```text
//! claim the next incarnation -> restore the newest good snapshot -> adopt newer rounds -> name what is lost -> done
//! ```
//! Everything happens in a directory beside the one that is asked for, which gets its name at the very end. So an
//! interrupted rebuild leaves nothing that a broker would start on, and is begun again: the incarnation it claimed is
//! spent.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use common::{Clock, IdSpace, Rng};
use meta::Reply;
use storage::{Adopted, Claim, claim_incarnation, highest_incarnation};

use super::{Voter, rocks};
use crate::place::{DataDir, PlaceError};
use crate::start::{OpenStore, StartError};

/// What to rebuild.
pub struct Rebuild {
    /// The object store.
    pub store: OpenStore,
    /// The cluster's id.
    pub cluster: String,
    /// The new data directory; nothing may be there.
    pub data_dir: PathBuf,
}

/// What was rebuilt.
#[derive(Clone, Debug)]
pub struct Rebuilt {
    /// The incarnation now.
    pub incarnation: u16,
    /// The snapshot that was restored.
    pub snapshot: String,
    /// When it was taken, milliseconds since 1970.
    pub taken_ms: i64,
    /// Newer snapshots that were damaged.
    pub skipped: Vec<String>,
    /// What was adopted, left alone and named as lost.
    pub adopted: Adopted,
    /// Topics there are now.
    pub topics: usize,
}

/// Rebuilds. The former life of the cluster is fenced from the claim on.
///
/// # Errors
/// One sentence with the remedy.
pub async fn rebuild(wanted: &Rebuild) -> Result<Rebuilt, StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Rebuild(error.to_string());
    let (clock, rng) = (Clock::system(), Rng::from_entropy());
    let bucket = &wanted.store.store;
    let prefix = wanted.store.prefix.clone().join(wanted.cluster.clone());
    if !DataDir::is_free(&wanted.data_dir) {
        let path = wanted.data_dir.clone();
        return Err(PlaceError::Occupied { path }.into());
    }
    let highest = highest_incarnation(&**bucket, &prefix, 1).await?;
    let highest = highest.ok_or_else(|| StartError::OtherStore {
        store: wanted.store.name.clone(),
        cluster: wanted.cluster.clone(),
    })?;
    let incarnation = highest.checked_add(1).filter(|it| *it <= IdSpace::INCARNATION_MAX);
    let incarnation = incarnation.ok_or_else(|| failed(&"the incarnations have run out"))?;
    let building = beside(&wanted.data_dir, incarnation);
    let mut place = DataDir::open(&building)?;
    let local = rocks(&place.meta())?;
    // A snapshot first, so that a bucket without one spends no incarnation and fences nobody.
    let restored = storage::restore(bucket, &prefix, &wanted.cluster, local).await;
    let restored = restored.map_err(|error| failed(&error))?;
    let claim =
        format!("{{\"cluster\":\"{}\",\"claim\":\"{:016x}\"}}\n", wanted.cluster, rng.next_u64());
    match claim_incarnation(&**bucket, &prefix, incarnation, Bytes::from(claim)).await? {
        Claim::Ours => {}
        Claim::Taken(_) => {
            let cluster = wanted.cluster.clone();
            return Err(StartError::Fenced { cluster, incarnation });
        }
    }
    // The former life may have put another one until the claim: it is the newest from now on.
    let again = storage::restore(bucket, &prefix, &wanted.cluster, restored.store).await;
    let restored = again.map_err(|error| failed(&error))?;
    let voter = Voter::start(restored.store, &clock, &rng).await?;
    let begin =
        meta::command::BeginRebuild { incarnation: incarnation.into(), now_ms: clock.now_ms() };
    match voter.meta.propose(begin).await {
        Ok(Reply::RebuildBegun { .. }) => {}
        Ok(Reply::Rejected(reject)) => return Err(StartError::Refused(reject)),
        other => return Err(failed(&format!("unexpected answer {other:?}"))),
    }
    let adopted = storage::adopt(bucket, &prefix, &voter.meta, &clock).await;
    let adopted = adopted.map_err(|error| failed(&error))?;
    let topics = voter.meta.image().topics.len();
    voter.stop().await?;
    place.belongs_to(&wanted.cluster)?;
    place.rename(&wanted.data_dir)?;
    Ok(Rebuilt {
        incarnation,
        snapshot: restored.name,
        taken_ms: restored.head.taken_ms,
        skipped: restored.skipped,
        adopted,
        topics,
    })
}

/// The directory that is built in: the wanted one's name with the incarnation behind it.
fn beside(wanted: &Path, incarnation: u16) -> PathBuf {
    let mut name = wanted.file_name().unwrap_or_default().to_owned();
    name.push(format!(".rebuild-{incarnation}"));
    wanted.with_file_name(name)
}
