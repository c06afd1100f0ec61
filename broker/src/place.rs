//! The data directory: who may use it, which format it has, which cluster it belongs to.
//!
//! ```text
//! VERSION      format of this directory, one number
//! cluster.id   the cluster whose log and metadata lie here; written when both exist
//! LOCK         held (flock) by the running broker
//! wal/  meta/  objects/   log, metadata, and the objects when the store is this directory
//! ```
//!
//! The seam file for these few files: everything else on disk is reached through `wal::Disk`, rocksdb or an object
//! store.
#![expect(clippy::disallowed_methods, reason = "the seam for the few files of the data directory")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// The only format so far.
const FORMAT: &str = "1";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// It cannot be made or written.
    #[error("data directory {}: {what}: {source}; give this user write permission there or choose another with --data-dir", path.display())]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("data directory {} is in use by a running broker; stop that one or choose another with --data-dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Not empty and not ours.
    #[error("data directory {} is not empty and was not made by Sluice; choose an empty one with --data-dir", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// Written by another version.
    #[error("data directory {} has format {found:?}, this version reads format {FORMAT}; run the version of Sluice that wrote it", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What VERSION says.
        found: String,
    },
    /// Something is there already.
    #[error("{} is there and not empty; put it aside, or name another directory", path.display())]
    Occupied {
        /// The directory.
        path: PathBuf,
    },
    /// The log's directory is gone.
    #[error("the write-ahead log directory {} is missing although metadata knows a log there; put it back (acknowledged records that were not uploaded are only there), or declare it lost: `sluice broker wal-lost --data-dir {}` says what that costs", path.display(), path.parent().unwrap_or(path).display())]
    WalMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error("data directory {} belongs to cluster {found}, but its metadata belongs to cluster {expected}; log, metadata and cluster.id must come from one directory: restore the missing part or choose another --data-dir", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// What `cluster.id` says.
        found: String,
        /// What metadata says.
        expected: String,
    },
    /// A metadata directory is gone while the log is there.
    #[error("the metadata directory {} is missing although this data directory belongs to cluster {cluster}; put it back, or keep this data directory aside and restore the cluster from its bucket with `sluice meta rebuild`", path.display())]
    MetaMissing {
        /// Where it should be.
        path: PathBuf,
        /// What `cluster.id` says.
        cluster: String,
    },
}

/// An open, locked data directory.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    cluster: Option<String>,
    _lock: File,
}

impl DataDir {
    /// Makes or opens the directory and takes its lock, which ends with the process.
    ///
    /// # Errors
    /// One sentence with the remedy.
    pub fn open(path: &Path) -> Result<Self, PlaceError> {
        let place = Self::lock(path)?;
        place.prepare()?;
        Ok(place)
    }

    /// As [`Self::open`], but a part may be missing; nothing else is made.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn lock(path: &Path) -> Result<Self, PlaceError> {
        let fail =
            |what| move |source| PlaceError::NotWritable { path: path.to_owned(), what, source };
        fs::create_dir_all(path).map_err(fail("cannot be created"))?;
        let path = fs::canonicalize(path).map_err(fail("cannot be resolved"))?;
        let version = read_word(&path.join("VERSION")).map_err(fail("VERSION cannot be read"))?;
        if version.is_none() && !is_unused(&path).map_err(fail("cannot be listed"))? {
            return Err(PlaceError::Foreign { path });
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join("LOCK"))
            .map_err(fail("LOCK cannot be opened"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(PlaceError::InUse { path });
        }
        match version {
            Some(found) if found != FORMAT => return Err(PlaceError::Format { path, found }),
            Some(_) => {}
            None => write_word(&path, "VERSION", FORMAT).map_err(fail("cannot be written"))?,
        }
        let cluster = read_word(&path.join("cluster.id")).map_err(fail("cluster.id"))?;
        Ok(Self { path, cluster, _lock: lock })
    }

    /// True when nothing is at `path`, or an empty directory.
    #[must_use]
    pub fn is_free(path: &Path) -> bool {
        match fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    /// Gives the directory its final name, at which nothing may be but an empty directory.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn rename(self, to: &Path) -> Result<(), PlaceError> {
        let fail = |source| PlaceError::NotWritable {
            path: to.to_owned(),
            what: "cannot take its name",
            source,
        };
        fs::rename(&self.path, to).map_err(fail)?;
        let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new("."))).map_err(fail)
    }

    /// Metadata must be there.
    ///
    /// # Errors
    /// [`PlaceError::MetaMissing`].
    pub fn check_meta(&self) -> Result<(), PlaceError> {
        if self.meta().is_dir() {
            return Ok(());
        }
        let cluster = self.cluster.clone().unwrap_or_default();
        Err(PlaceError::MetaMissing { path: self.meta(), cluster })
    }

    /// Puts the log's directory aside under a name of its own, and an empty one in its place. Names where the old one
    /// lies now; `None` when there was none.
    ///
    /// # Errors
    /// It cannot be renamed.
    pub fn put_wal_aside(&self, id: u64) -> Result<Option<PathBuf>, PlaceError> {
        let (wal, aside) = (self.wal(), self.path.join(format!("wal.lost-{id}")));
        let fail = |source| PlaceError::NotWritable {
            path: wal.clone(),
            what: "cannot be put aside",
            source,
        };
        let there = wal.is_dir();
        if there {
            fs::rename(&wal, &aside).map_err(fail)?;
        }
        fs::create_dir_all(&wal).and_then(|()| sync_dir(&self.path)).map_err(fail)?;
        Ok(there.then_some(aside))
    }

    /// Deletes what interrupted puts have left in `objects/`: staged files, whose names hold a `#`, that are older than
    /// this process. Best effort.
    #[expect(clippy::disallowed_types, reason = "compared with the times of files")]
    pub fn remove_staged(objects: &Path, before: std::time::SystemTime) -> usize {
        let (mut removed, mut left) = (0, vec![objects.to_owned()]);
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let (path, meta) = (entry.path(), entry.metadata());
                let Ok(meta) = meta else { continue };
                let staged = entry.file_name().to_string_lossy().contains('#');
                let old = meta.modified().is_ok_and(|modified| modified < before);
                if meta.is_dir() {
                    left.push(path);
                } else if staged && old && fs::remove_file(path).is_ok() {
                    removed += 1;
                }
            }
        }
        removed
    }

    fn prepare(&self) -> Result<(), PlaceError> {
        if let Some(cluster) = &self.cluster {
            if !self.wal().is_dir() {
                return Err(PlaceError::WalMissing { path: self.wal() });
            }
            if !self.meta().is_dir() {
                let cluster = cluster.clone();
                return Err(PlaceError::MetaMissing { path: self.meta(), cluster });
            }
        }
        for dir in [self.wal(), self.meta()] {
            let fail = |source| PlaceError::NotWritable {
                path: dir.clone(),
                what: "cannot be created",
                source,
            };
            fs::create_dir_all(&dir).map_err(fail)?;
        }
        let fail = |source| PlaceError::NotWritable {
            path: self.path.clone(),
            what: "cannot be synced",
            source,
        };
        sync_dir(&self.path).map_err(fail)
    }

    /// The cluster that `cluster.id` names; `None` before the first start is complete.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Records that log and metadata of `cluster` lie here, or checks it.
    ///
    /// # Errors
    /// [`PlaceError::OtherCluster`], or the file cannot be written.
    pub fn belongs_to(&mut self, cluster: &str) -> Result<(), PlaceError> {
        match &self.cluster {
            Some(found) if found != cluster => Err(PlaceError::OtherCluster {
                path: self.path.clone(),
                found: found.clone(),
                expected: cluster.to_owned(),
            }),
            Some(_) => Ok(()),
            None => {
                let fail = |source| PlaceError::NotWritable {
                    path: self.path.clone(),
                    what: "cluster.id cannot be written",
                    source,
                };
                write_word(&self.path, "cluster.id", cluster).map_err(fail)?;
                self.cluster = Some(cluster.to_owned());
                Ok(())
            }
        }
    }

    /// Makes `objects/` and names it.
    ///
    /// # Errors
    /// It cannot be created.
    pub fn objects(&self) -> Result<PathBuf, PlaceError> {
        let path = self.path.join("objects");
        let fail = |source| PlaceError::NotWritable {
            path: path.clone(),
            what: "cannot be created",
            source,
        };
        fs::create_dir_all(&path).and_then(|()| sync_dir(&self.path)).map_err(fail)?;
        Ok(path)
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log's directory.
    #[must_use]
    pub fn wal(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// The metadata store's directory.
    #[must_use]
    pub fn meta(&self) -> PathBuf {
        self.path.join("meta")
    }
}

/// True when nothing but what an interrupted first start leaves lies in `path`.
fn is_unused(path: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !["LOCK", "VERSION.new", "lost+found"].iter().any(|own| name == *own) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn read_word(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a small file so that after a crash it is whole or absent.
fn write_word(dir: &Path, name: &str, word: &str) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(format!("{word}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, dir.join(name))?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_refused_until_the_first_ends() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("data");
        let first = DataDir::open(&path).expect("new");
        assert!(matches!(DataDir::open(&path), Err(PlaceError::InUse { .. })));
        drop(first);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn foreign_directories_and_formats_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::write(dir.path().join("letter.txt"), "mine").expect("written");
        assert!(matches!(DataDir::open(dir.path()), Err(PlaceError::Foreign { .. })));
        let other = tempfile::tempdir().expect("a temporary directory");
        drop(DataDir::open(other.path()).expect("new"));
        fs::write(other.path().join("VERSION"), "7\n").expect("written");
        let error = DataDir::open(other.path()).expect_err("newer");
        assert!(error.to_string().contains("format \"7\""), "{error}");
    }

    #[test]
    fn a_directory_keeps_its_cluster_and_its_log() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut place = DataDir::open(dir.path()).expect("new");
        place.belongs_to("one").expect("first");
        place.belongs_to("one").expect("again");
        assert!(matches!(place.belongs_to("two"), Err(PlaceError::OtherCluster { .. })));
        let wal = place.wal();
        drop(place);
        fs::remove_dir(wal).expect("removed");
        assert!(matches!(DataDir::open(dir.path()), Err(PlaceError::WalMissing { .. })));
    }
}
