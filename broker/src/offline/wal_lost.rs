//! `broker wal-lost`: an operator says that a log and what only it held is gone.

use std::path::{Path, PathBuf};

use common::{Clock, PartitionId, Rng, WalId};
use meta::{LostRange, Reply, WalFacts};

use super::{Voter, rocks};
use crate::place::DataDir;
use crate::start::StartError;

/// A log that could be declared lost, and what that would cost.
#[derive(Clone, Debug)]
pub struct LostWal {
    /// The log.
    pub wal: WalFacts,
    /// Its partitions: topic, index, and the offset up to which objects hold it. What lies above is lost.
    pub partitions: Vec<(String, u32, i64)>,
}

/// What was declared.
#[derive(Clone, Debug)]
pub struct WalLoss {
    /// Offsets named as lost, by stream.
    pub lost: Vec<LostRange>,
    /// Where the old directory of the log lies now.
    pub aside: Option<PathBuf>,
}

/// The open logs of the data directory's cluster, and what declaring each lost would cost. Changes nothing.
///
/// # Errors
/// One sentence with the remedy.
pub async fn lost_wals(data_dir: &Path) -> Result<Vec<LostWal>, StartError> {
    let place = DataDir::lock(data_dir)?;
    let (voter, found) = open(&place).await?;
    voter.stop().await?;
    Ok(found)
}

/// Closes log `id` for ever, names what is lost in metadata, and puts the log's directory aside, so that the next start
/// begins a new log.
///
/// # Errors
/// One sentence with the remedy.
pub async fn declare_wal_lost(data_dir: &Path, id: WalId) -> Result<WalLoss, StartError> {
    let place = DataDir::lock(data_dir)?;
    let (voter, open_ones) = open(&place).await?;
    let reply = voter.meta.propose(meta::command::DeclareWalLost { wal: id.0 }).await;
    voter.stop().await?;
    match reply {
        Ok(Reply::WalLost { lost }) => Ok(WalLoss { lost, aside: place.put_wal_aside(id.0)? }),
        // Declared before, and interrupted before the directory was put aside.
        Ok(Reply::Rejected(meta::Reject::WalClosed(_))) if open_ones.is_empty() => {
            Ok(WalLoss { lost: Vec::new(), aside: place.put_wal_aside(id.0)? })
        }
        Ok(Reply::Rejected(reject)) => Err(StartError::Refused(reject)),
        Ok(other) => Err(StartError::Metadata(format!("unexpected answer {other:?}"))),
        Err(error) => Err(StartError::Metadata(error.to_string())),
    }
}

async fn open(place: &DataDir) -> Result<(Voter, Vec<LostWal>), StartError> {
    place.check_meta()?;
    let failed = |error: &dyn std::fmt::Display| StartError::Metadata(error.to_string());
    let voter = Voter::start(rocks(&place.meta())?, &Clock::system(), &Rng::from_entropy()).await?;
    let (meta, mut found) = (&voter.meta, Vec::new());
    let image = meta.image();
    for wal in meta.wals().await.map_err(|error| failed(&error))? {
        if wal.closed {
            continue;
        }
        let partitions = partitions_of(meta, &image, wal.id).await;
        found.push(LostWal { partitions: partitions.map_err(|error| failed(&error))?, wal });
    }
    Ok((voter, found))
}

async fn partitions_of(
    meta: &meta::Handle,
    image: &meta::Image,
    wal: WalId,
) -> Result<Vec<(String, u32, i64)>, meta::ReadError> {
    let mut partitions = Vec::new();
    for topic in image.topics.values() {
        for (index, partition) in (0..).zip(&topic.partitions) {
            if partition.wal != Some(wal) {
                continue;
            }
            let id = PartitionId { topic: topic.number, index };
            let stream = id.stream(common::StreamKind::Data);
            let end = meta.stream_index(stream, 0, 0).await?.committed_end;
            partitions.push((topic.name.clone(), index, end));
        }
    }
    Ok(partitions)
}
