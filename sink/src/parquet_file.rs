//! Reads a sink's file back from a store, one row group in memory at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use bytes::{Buf, Bytes};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{ChunkReader, Length};

use crate::blocks::{RowFacts, RowFold};
use crate::file::{KEY_CUT, KEY_ROWS};
use crate::rowhash::{self, Batch};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;
/// Largest footer that is read.
const FOOTER_BYTES_MAX: u64 = 64 << 20;

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Store(#[from] object_store::Error),
    #[error("is no readable Parquet file: {0}")]
    Parquet(#[from] ParquetError),
    #[error("has other columns: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("has other columns: {0}")]
    Rows(#[from] rowhash::Error),
}

/// An open file.
pub(crate) struct ParquetFile {
    store: Arc<dyn ObjectStore>,
    key: Path,
    length: u64,
    metadata: ArrowReaderMetadata,
}

/// What all rows of a file come to.
pub(crate) struct AllRows {
    pub cut: Option<String>,
    pub facts: RowFacts,
}

impl ParquetFile {
    pub(crate) async fn open(
        store: &Arc<dyn ObjectStore>,
        key: &Path,
        length: u64,
    ) -> Result<Self, Error> {
        let short = || ParquetError::General("it is shorter than a footer".to_owned());
        let tail_start = length.checked_sub(8).ok_or_else(short)?;
        let tail = store.get_range(key, tail_start..length).await?;
        if tail.len() != 8 || &tail[4..] != b"PAR1" {
            return Err(ParquetError::General("its end is no Parquet footer".to_owned()).into());
        }
        let size = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
        if size > FOOTER_BYTES_MAX || size > tail_start {
            return Err(ParquetError::General(format!("it claims a footer of {size} bytes")).into());
        }
        let footer = store.get_range(key, tail_start - size..tail_start).await?;
        let metadata = ParquetMetaDataReader::decode_metadata(&footer)?;
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())?;
        Ok(Self { store: Arc::clone(store), key: key.clone(), length, metadata })
    }

    /// A value of the footer's own metadata.
    pub(crate) fn value(&self, key: &str) -> Option<String> {
        let pairs = self.metadata.metadata().file_metadata().key_value_metadata()?;
        pairs.iter().find(|pair| pair.key == key)?.value.clone()
    }

    /// The cut that the file says it is of.
    pub(crate) fn cut(&self) -> Option<String> {
        self.value(KEY_CUT)
    }

    /// The hash over rows that the file says it has.
    pub(crate) fn rows_sha256(&self) -> Option<String> {
        self.value(KEY_ROWS)
    }

    pub(crate) fn groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }

    /// The batches of one row group.
    pub(crate) async fn group(&self, index: usize) -> Result<Vec<RecordBatch>, Error> {
        let group = self.metadata.metadata().row_group(index);
        let mut range: Option<Range<u64>> = None;
        for column in group.columns() {
            let (start, length) = column.byte_range();
            let end = start.checked_add(length).filter(|end| *end <= self.length);
            let end = end.ok_or_else(|| {
                ParquetError::General("a column lies outside of the file".to_owned())
            })?;
            let known = range.unwrap_or(start..end);
            range = Some(known.start.min(start)..known.end.max(end));
        }
        let Some(range) = range else { return Ok(Vec::new()) };
        let bytes = self.store.get_range(&self.key, range.clone()).await?;
        let part = Part { length: self.length, start: range.start, bytes };
        let reader =
            ParquetRecordBatchReaderBuilder::new_with_metadata(part, self.metadata.clone())
                .with_row_groups(vec![index])
                .with_batch_size(BATCH_ROWS)
                .build()?;
        reader.map(|batch| batch.map_err(Error::from)).collect()
    }
}

/// Brings columns that another tool wrote to the types of `schema`, where nothing is lost by it.
pub(crate) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, Error> {
    if batch.schema().fields() == schema.fields() {
        return Ok(batch.clone());
    }
    let mut columns = Vec::new();
    for field in schema.fields() {
        let column = batch.column_by_name(field.name()).ok_or_else(|| {
            ParquetError::General(format!("column {:?} is missing", field.name()))
        })?;
        columns.push(cast(column, field.data_type())?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Reads every row of a file; `rows` is how many there should be.
pub(crate) async fn read_all(
    store: &Arc<dyn ObjectStore>,
    key: &Path,
    length: u64,
    rows: u64,
) -> Result<AllRows, Error> {
    let file = ParquetFile::open(store, key, length).await?;
    let (mut fold, mut encoded) = (RowFold::new(rows), Vec::new());
    for index in 0..file.groups() {
        for batch in file.group(index).await? {
            let view = Batch::new(&batch)?;
            for row in 0..view.rows() {
                encoded.clear();
                view.encode(row, &mut encoded);
                fold.push(&encoded);
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(AllRows { cut: file.cut(), facts: fold.finish() })
}

/// A window of a file.
#[derive(Clone)]
struct Part {
    length: u64,
    start: u64,
    bytes: Bytes,
}

impl Part {
    fn slice(&self, start: u64, length: Option<usize>) -> Result<Bytes, ParquetError> {
        let outside = || ParquetError::General("read outside of the row group".to_owned());
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|at| *at <= self.bytes.len()).ok_or_else(outside)?;
        let end = match length {
            None => self.bytes.len(),
            Some(length) => at.checked_add(length).ok_or_else(outside)?,
        };
        (end <= self.bytes.len()).then(|| self.bytes.slice(at..end)).ok_or_else(outside)
    }
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Part {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(self.slice(start, None)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        self.slice(start, Some(length))
    }
}
