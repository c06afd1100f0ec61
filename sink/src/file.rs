//! One Parquet file: rows in, a spooled file and its row hashes out. The bytes are a function of cut and records.

use std::io::Write;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::blocks::{RowFacts, RowFold};
use crate::columns::{self, Rows};
use crate::config::Codec;
use crate::record::Record;
use crate::rowhash;
use crate::schema::Schema;
use crate::store::{Spool, Spooled};

/// Footer key of the cut's id.
pub const KEY_CUT: &str = "sluice.cut";
/// Footer key of the hash over rows.
pub const KEY_ROWS: &str = "sluice.rows.sha256";
/// Footer key of the schema's hash.
pub const KEY_SCHEMA: &str = "sluice.schema";

/// Rows of one batch on the way to the encoder.
const BATCH_ROWS_MAX: usize = 2048;
/// Bytes of one batch.
const BATCH_BYTES_MAX: u64 = 512 << 10;
/// Bytes of keys, values and headers of one row group.
const GROUP_BYTES_MAX: u64 = 16 << 20;

/// What could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Columns(#[from] columns::Error),
    #[error(transparent)]
    Rows(#[from] rowhash::Error),
    #[error("Parquet could not be encoded: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// A file under construction. Holds one row group and the part of the file that is not spooled yet.
pub(crate) struct FileWriter {
    rows: Rows,
    writer: ArrowWriter<Shared>,
    out: Shared,
    spool: Spool,
    fold: RowFold,
    encoded: Vec<u8>,
    group_bytes: u64,
}

/// A file that is complete and not visible yet.
pub(crate) struct Written {
    pub spooled: Spooled,
    pub facts: RowFacts,
}

/// What a file is made of, apart from its records.
pub(crate) struct Spec<'a> {
    pub schema: &'a Schema,
    pub codec: Codec,
    pub partition: i32,
    pub records: u64,
    pub cut_id: &'a str,
}

/// The encoder's output, drained after each step. One task owns both ends.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl FileWriter {
    pub(crate) fn new(
        spec: &Spec<'_>,
        store: Arc<dyn ObjectStore>,
        temporary: Path,
        single_put_max: usize,
    ) -> Result<Self, Error> {
        let pair = |key: &str, value: String| KeyValue::new(key.to_owned(), value);
        let properties = WriterProperties::builder()
            .set_compression(compression(spec.codec))
            .set_created_by(crate::ledger::WRITER.to_owned())
            .set_max_row_group_row_count(Some(1 << 20))
            .set_data_page_size_limit(256 << 10)
            .set_dictionary_page_size_limit(256 << 10)
            .set_key_value_metadata(Some(vec![
                pair(KEY_CUT, spec.cut_id.to_owned()),
                pair(KEY_SCHEMA, spec.schema.hash().to_string()),
            ]))
            .build();
        let out = Shared::default();
        let writer = ArrowWriter::try_new(out.clone(), spec.schema.arrow(), Some(properties))?;
        Ok(Self {
            rows: Rows::new(spec.schema, spec.partition),
            writer,
            out,
            spool: Spool::new(store, temporary, single_put_max),
            fold: RowFold::new(spec.records),
            encoded: Vec::new(),
            group_bytes: 0,
        })
    }

    pub(crate) async fn push(&mut self, record: &Record) -> Result<(), Error> {
        self.rows.push(record)?;
        if self.rows.len() >= BATCH_ROWS_MAX || self.rows.raw_bytes() >= BATCH_BYTES_MAX {
            self.encode()?;
            self.drain().await?;
            // Encoding a batch takes milliseconds: others on this thread get their turn.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<Written, Error> {
        if self.rows.len() > 0 {
            self.encode()?;
        }
        let facts = self.fold.finish();
        let rows = KeyValue::new(KEY_ROWS.to_owned(), facts.sha256.to_string());
        self.writer.append_key_value_metadata(rows);
        self.writer.close()?;
        let rest = std::mem::take(&mut *self.out.0.lock());
        self.spool.push(&rest).await?;
        Ok(Written { spooled: self.spool.finish().await?, facts })
    }

    fn encode(&mut self) -> Result<(), Error> {
        let bytes = self.rows.raw_bytes();
        if self.group_bytes > 0 && self.group_bytes + bytes > GROUP_BYTES_MAX {
            self.writer.flush()?;
            self.group_bytes = 0;
        }
        self.group_bytes += bytes;
        let batch = self.rows.finish()?;
        let view = rowhash::Batch::new(&batch)?;
        for row in 0..view.rows() {
            self.encoded.clear();
            view.encode(row, &mut self.encoded);
            self.fold.push(&self.encoded);
        }
        self.writer.write(&batch)?;
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), Error> {
        let ready = std::mem::take(&mut *self.out.0.lock());
        if !ready.is_empty() {
            self.spool.push(&ready).await?;
        }
        Ok(())
    }
}

fn compression(codec: Codec) -> Compression {
    match codec {
        Codec::None => Compression::UNCOMPRESSED,
        Codec::Snappy => Compression::SNAPPY,
        Codec::Gzip => Compression::GZIP(GzipLevel::default()),
        Codec::Zstd => Compression::ZSTD(ZstdLevel::default()),
    }
}
