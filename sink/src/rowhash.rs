//! The hash over rows, computed from columns alone: once from the columns that are about to be written, again from the
//! columns that a file gives back.
//!
//! A row is encoded as offset, key, value, headers, timestamp, partition. Each value is a tag and its bytes,
//! little-endian:
//! ```text
//! 0 null | 1 bool u8 | 2 i64 | 3 f64 bits | 4 bytes: length u64, bytes | 5 struct: its fields | 6 list: count u64, elements
//! ```
//! The hash of a file is SHA-256 over its rows in order. Blocks of rows have a CRC-32C each, so that a changed row can be
//! named by its offset.

use arrow::array::{
    Array, BinaryArray, BooleanArray, Float64Array, Int32Array, Int64Array, ListArray, RecordBatch,
    StringArray, StructArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};

/// A batch that is not of the form of a sink's file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A column is not there.
    #[error("column {0:?} is missing")]
    Missing(&'static str),
    /// A column has a type that no sink writes.
    #[error("a column of type {0} is none that a sink writes")]
    Type(DataType),
}

enum View<'a> {
    Bool(&'a BooleanArray),
    Int(&'a Int64Array),
    Int32(&'a Int32Array),
    Double(&'a Float64Array),
    Time(&'a TimestampMillisecondArray),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    List(&'a ListArray, Box<View<'a>>),
    Struct(&'a StructArray, Vec<View<'a>>),
}

/// The rows of one batch, ready to be encoded.
pub(crate) struct Batch<'a> {
    offset: &'a Int64Array,
    partition: &'a Int32Array,
    parts: Vec<View<'a>>,
    rows: usize,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(batch: &'a RecordBatch) -> Result<Self, Error> {
        let column = |name| batch.column_by_name(name).ok_or(Error::Missing(name));
        let mut parts = Vec::new();
        for name in ["offset", "key", "value", "headers", "timestamp", "partition"] {
            parts.push(View::new(column(name)?.as_ref())?);
        }
        let offset = column("offset")?;
        let offset = offset.as_any().downcast_ref();
        let partition = column("partition")?.as_any().downcast_ref();
        Ok(Self {
            offset: offset.ok_or(Error::Missing("offset"))?,
            partition: partition.ok_or(Error::Missing("partition"))?,
            parts,
            rows: batch.num_rows(),
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn offset(&self, row: usize) -> i64 {
        self.offset.value(row)
    }

    pub(crate) fn partition(&self, row: usize) -> i32 {
        self.partition.value(row)
    }

    pub(crate) fn encode(&self, row: usize, out: &mut Vec<u8>) {
        self.parts.iter().for_each(|part| part.encode(row, out));
    }
}

impl<'a> View<'a> {
    fn new(array: &'a dyn Array) -> Result<Self, Error> {
        let any = array.as_any();
        let wrong = || Error::Type(array.data_type().clone());
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(any.downcast_ref().ok_or_else(wrong)?),
            DataType::Int64 => Self::Int(any.downcast_ref().ok_or_else(wrong)?),
            DataType::Int32 => Self::Int32(any.downcast_ref().ok_or_else(wrong)?),
            DataType::Float64 => Self::Double(any.downcast_ref().ok_or_else(wrong)?),
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                Self::Time(any.downcast_ref().ok_or_else(wrong)?)
            }
            DataType::Utf8 => Self::Text(any.downcast_ref().ok_or_else(wrong)?),
            DataType::Binary => Self::Binary(any.downcast_ref().ok_or_else(wrong)?),
            DataType::List(_) => {
                let list: &ListArray = any.downcast_ref().ok_or_else(wrong)?;
                Self::List(list, Box::new(Self::new(list.values().as_ref())?))
            }
            DataType::Struct(_) => {
                let of: &StructArray = any.downcast_ref().ok_or_else(wrong)?;
                let children: Result<Vec<_>, _> =
                    of.columns().iter().map(|child| Self::new(child.as_ref())).collect();
                Self::Struct(of, children?)
            }
            _ => return Err(wrong()),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::Int(array) => array.is_null(row),
            Self::Int32(array) => array.is_null(row),
            Self::Double(array) => array.is_null(row),
            Self::Time(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Struct(array, _) => array.is_null(row),
        }
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(0);
            return;
        }
        match self {
            Self::Bool(array) => out.extend([1, u8::from(array.value(row))]),
            Self::Int(array) => int(array.value(row), out),
            Self::Int32(array) => int(i64::from(array.value(row)), out),
            Self::Time(array) => int(array.value(row), out),
            Self::Double(array) => {
                out.push(3);
                out.extend(array.value(row).to_bits().to_le_bytes());
            }
            Self::Text(array) => bytes(array.value(row).as_bytes(), out),
            Self::Binary(array) => bytes(array.value(row), out),
            Self::Struct(_, children) => {
                out.push(5);
                children.iter().for_each(|child| child.encode(row, out));
            }
            Self::List(array, child) => {
                let offsets = array.value_offsets();
                let range = index(offsets[row])..index(offsets[row + 1]);
                out.push(6);
                out.extend(length(range.len()));
                range.for_each(|element| child.encode(element, out));
            }
        }
    }
}

fn int(value: i64, out: &mut Vec<u8>) {
    out.push(2);
    out.extend(value.to_le_bytes());
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    out.push(4);
    out.extend(length(value.len()));
    out.extend(value);
}

fn length(of: usize) -> [u8; 8] {
    u64::try_from(of).unwrap_or(u64::MAX).to_le_bytes()
}

fn index(offset: i32) -> usize {
    usize::try_from(offset).expect("offsets of a list are not negative")
}
