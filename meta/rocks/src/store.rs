//! [`MetaStore`] over RocksDB.

use std::path::Path;
use std::sync::Arc;

use futures::future::{BoxFuture, ready};
use meta::{Batch, Change, Frozen, MetaStore, Pair, Space, StoreError};
use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use crate::options::{LOG, STATE, database, families};
use crate::snapshot::Snapshot;

/// A metadata store in a directory.
pub struct RocksStore {
    db: Arc<DB>,
    read_only: bool,
}

impl RocksStore {
    /// Opens the store in `directory`, which is made when it is not there; its parent must be. One process at a time.
    ///
    /// # Errors
    /// When the directory cannot be used, is open in another process, or holds damage.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let db = DB::open_cf_descriptors(&database(), directory, families());
        Ok(Self {
            db: Arc::new(db.map_err(|error| open_error(directory, &error))?),
            read_only: false,
        })
    }

    /// Opens the store for reading, also beside a broker that has it open. Sees what the files held at this moment.
    ///
    /// # Errors
    /// When there is no store in `directory` or it cannot be read.
    pub fn open_read_only(directory: &Path) -> Result<Self, StoreError> {
        let mut options = database();
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let db = DB::open_cf_descriptors_read_only(&options, directory, families(), false);
        Ok(Self {
            db: Arc::new(db.map_err(|error| open_error(directory, &error))?),
            read_only: true,
        })
    }

    fn family(&self, space: Space) -> &ColumnFamily {
        let name = match space {
            Space::Log => LOG,
            Space::State => STATE,
        };
        self.db.cf_handle(name).expect("both families are opened with the store")
    }

    fn pairs(
        &self,
        space: Space,
        (start, end): (&[u8], &[u8]),
        limit: usize,
        mode: IteratorMode<'_>,
    ) -> Result<Vec<Pair>, StoreError> {
        if start >= end || limit == 0 {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(start);
        options.set_iterate_upper_bound(end);
        let found = self.db.iterator_cf_opt(self.family(space), options, mode).take(limit);
        found
            .map(|pair| pair.map(|(key, value)| (key.into_vec(), value.into_vec())))
            .collect::<Result<_, _>>()
            .map_err(|error| StoreError::new("read", error))
    }

    fn write_now(&self, batch: Batch, sync: bool) -> Result<(), StoreError> {
        if self.read_only {
            return Err(StoreError::new("write", "the store is open for reading only"));
        }
        let mut writes = WriteBatch::default();
        for change in batch.into_changes() {
            match change {
                Change::Put(space, key, value) => writes.put_cf(self.family(space), key, value),
                Change::Delete(space, key) => writes.delete_cf(self.family(space), key),
                Change::DeleteRange(space, start, end) => {
                    writes.delete_range_cf(self.family(space), start, end);
                }
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(writes, &options).map_err(|error| StoreError::new("write", error))
    }
}

fn open_error(directory: &Path, error: &rocksdb::Error) -> StoreError {
    StoreError::new("open", format!("{}: {error}", directory.display()))
}

impl MetaStore for RocksStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.db.get_cf(self.family(space), key);
        found.map_err(|error| StoreError::new("read", error))
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.pairs(space, (start, end), limit, IteratorMode::Start)
    }

    fn scan_back(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.pairs(space, (start, end), limit, IteratorMode::End)
    }

    fn freeze(&self) -> Result<Box<dyn Frozen>, StoreError> {
        Ok(Box::new(Snapshot::take(&self.db)?))
    }

    fn write(&mut self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(ready(self.write_now(batch, sync)))
    }
}
