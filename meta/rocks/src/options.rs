//! Settings for a small store: a few thousand commands a second at most, a few megabytes of memory.

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options,
};

/// Blocks of both families in memory.
const BLOCK_CACHE_BYTES_MAX: usize = 4 << 20;
/// Writes of both families in memory before they go to a sorted file.
const WRITE_BUFFER_BYTES_MAX: usize = 4 << 20;
/// RocksDB's own log before the families that hold it open are written out.
const WAL_BYTES_MAX: u64 = 16 << 20;
/// Files held open.
const FILES_OPEN_MAX: i32 = 64;
/// RocksDB's text log.
const TEXT_LOG_BYTES_MAX: usize = 1 << 20;

pub(crate) const LOG: &str = "log";
pub(crate) const STATE: &str = "state";

pub(crate) fn database() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_db_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_open_files(FILES_OPEN_MAX);
    options.set_max_background_jobs(2);
    options.set_track_and_verify_wals_in_manifest(true);
    // The default takes damage in the middle of the log for its end and drops what follows; an unfinished record at the end
    // is all that a crash leaves.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // No statistics that nobody reads, at start or later.
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(TEXT_LOG_BYTES_MAX);
    options.set_keep_log_file_num(2);
    options
}

pub(crate) fn families() -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES_MAX);
    ["default", LOG, STATE].map(|name| ColumnFamilyDescriptor::new(name, family(&cache))).into()
}

fn family(cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.set_write_buffer_size(WRITE_BUFFER_BYTES_MAX);
    options.set_max_write_buffer_number(2);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}
