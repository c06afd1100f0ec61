//! From records to Arrow columns under a resolved schema.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, ListArray,
    RecordBatch, StringBuilder, StructArray, TimestampMillisecondBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Field, Fields, SchemaRef};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::record::Record;
use crate::schema::{self, Raw, Schema, Type, Value};

/// A record that does not fit the schema that was resolved over it: the range has changed under the cut.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value.
    #[error("record {offset} does not fit the schema of its cut: {reason}")]
    Record {
        /// Where.
        offset: i64,
        /// Why.
        reason: String,
    },
    /// Arrow refused the columns.
    #[error("columns could not be built: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
}

/// Collects records into batches.
pub(crate) struct Rows {
    schema: SchemaRef,
    partition: i32,
    key: Bytes,
    value: ValueColumn,
    headers: Headers,
    partitions: Int32Builder,
    offsets: Int64Builder,
    timestamps: TimestampMillisecondBuilder,
    rows: usize,
    raw_bytes: u64,
}

enum Bytes {
    Text(StringBuilder),
    Binary(BinaryBuilder),
}

enum ValueColumn {
    Raw(Bytes),
    Typed(Column),
}

struct Headers {
    raw: Raw,
    ends: Vec<i32>,
    keys: Bytes,
    values: BinaryBuilder,
    count: i32,
}

/// A typed column under construction.
enum Column {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Text(StringBuilder),
    Json(StringBuilder),
    List(ListColumn),
    Struct(StructColumn),
}

struct ListColumn {
    element: Arc<Field>,
    child: Box<Column>,
    ends: Vec<i32>,
    valid: Vec<bool>,
    length: i32,
}

struct StructColumn {
    fields: Fields,
    by_name: BTreeMap<String, usize>,
    children: Vec<Column>,
    seen: Vec<u64>,
    valid: Vec<bool>,
    stamp: u64,
    cursor: usize,
}

impl Rows {
    pub(crate) fn new(schema: &Schema, partition: i32) -> Self {
        let value = match &schema.value {
            Value::Raw(raw) => ValueColumn::Raw(Bytes::new(*raw)),
            Value::Struct(members) => {
                ValueColumn::Typed(Column::new(&Type::Struct(members.clone())))
            }
        };
        Self {
            schema: schema.arrow(),
            partition,
            key: Bytes::new(schema.key),
            value,
            headers: Headers::new(schema.header_key),
            partitions: Int32Builder::new(),
            offsets: Int64Builder::new(),
            timestamps: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            rows: 0,
            raw_bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    /// Bytes of keys, values and headers held.
    pub(crate) fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    pub(crate) fn push(&mut self, record: &Record) -> Result<(), Error> {
        let misfit = |reason: String| Error::Record { offset: record.offset, reason };
        self.key.push(record.key.as_deref()).map_err(misfit)?;
        match (&mut self.value, record.value.as_deref()) {
            (ValueColumn::Raw(column), value) => column.push(value).map_err(misfit)?,
            (ValueColumn::Typed(column), None) => column.push_null(),
            (ValueColumn::Typed(column), Some(value)) => {
                column.push_json(value).map_err(misfit)?;
            }
        }
        self.headers.push(&record.headers).map_err(misfit)?;
        self.partitions.append_value(self.partition);
        self.offsets.append_value(record.offset);
        self.timestamps.append_value(record.timestamp);
        self.rows += 1;
        self.raw_bytes += record.raw_bytes();
        Ok(())
    }

    /// The rows so far; the next ones begin a new batch.
    pub(crate) fn finish(&mut self) -> Result<RecordBatch, Error> {
        let value = match &mut self.value {
            ValueColumn::Raw(column) => column.finish(),
            ValueColumn::Typed(column) => column.finish()?,
        };
        let columns: Vec<ArrayRef> = vec![
            self.key.finish(),
            value,
            self.headers.finish()?,
            Arc::new(self.partitions.finish()),
            Arc::new(self.offsets.finish()),
            Arc::new(self.timestamps.finish()),
        ];
        (self.rows, self.raw_bytes) = (0, 0);
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

impl Bytes {
    fn new(raw: Raw) -> Self {
        match raw {
            Raw::Text => Self::Text(StringBuilder::new()),
            Raw::Binary => Self::Binary(BinaryBuilder::new()),
        }
    }

    fn push(&mut self, bytes: Option<&[u8]>) -> Result<(), String> {
        match self {
            Self::Text(builder) => {
                let text = bytes.map(std::str::from_utf8).transpose();
                builder.append_option(text.map_err(|error| error.to_string())?);
            }
            Self::Binary(builder) => builder.append_option(bytes),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => Arc::new(builder.finish()),
            Self::Binary(builder) => Arc::new(builder.finish()),
        }
    }
}

impl Headers {
    fn new(raw: Raw) -> Self {
        let (keys, values) = (Bytes::new(raw), BinaryBuilder::new());
        Self { raw, ends: vec![0], keys, values, count: 0 }
    }

    fn push(&mut self, headers: &[(bytes::Bytes, Option<bytes::Bytes>)]) -> Result<(), String> {
        for (key, value) in headers {
            self.keys.push(Some(key))?;
            self.values.append_option(value.as_deref());
            self.count += 1;
        }
        self.ends.push(self.count);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, Error> {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        self.count = 0;
        let children: Vec<ArrayRef> = vec![self.keys.finish(), Arc::new(self.values.finish())];
        let items = StructArray::try_new(schema::header_fields(self.raw), children, None)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let item = schema::header_item(self.raw);
        Ok(Arc::new(ListArray::try_new(item, offsets, Arc::new(items), None)?))
    }
}

impl Column {
    fn new(of: &Type) -> Self {
        match of {
            Type::Bool => Self::Bool(BooleanBuilder::new()),
            Type::Int => Self::Int(Int64Builder::new()),
            Type::Double => Self::Double(Float64Builder::new()),
            Type::Text => Self::Text(StringBuilder::new()),
            Type::Json => Self::Json(StringBuilder::new()),
            Type::List(element) => Self::List(ListColumn {
                element: Arc::new(Field::new("element", schema::arrow_type(element), true)),
                child: Box::new(Self::new(element)),
                ends: vec![0],
                valid: Vec::new(),
                length: 0,
            }),
            Type::Struct(members) => Self::Struct(StructColumn {
                fields: schema::fields(members),
                by_name: members.iter().enumerate().map(|(i, m)| (m.name.clone(), i)).collect(),
                children: members.iter().map(|member| Self::new(&member.of)).collect(),
                seen: vec![0; members.len()],
                valid: Vec::new(),
                stamp: 0,
                cursor: 0,
            }),
        }
    }

    fn push_json(&mut self, value: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(value).map_err(|error| error.to_string())?;
        let mut json = serde_json::Deserializer::from_str(text);
        Fill(self).deserialize(&mut json).map_err(|error| error.to_string())?;
        json.end().map_err(|error| error.to_string())
    }

    fn push_null(&mut self) {
        match self {
            Self::Bool(builder) => builder.append_null(),
            Self::Int(builder) => builder.append_null(),
            Self::Double(builder) => builder.append_null(),
            Self::Text(builder) | Self::Json(builder) => builder.append_null(),
            Self::List(list) => list.end(false),
            Self::Struct(of) => {
                of.children.iter_mut().for_each(Column::push_null);
                of.valid.push(false);
            }
        }
    }

    fn finish(&mut self) -> Result<ArrayRef, Error> {
        Ok(match self {
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Int(builder) => Arc::new(builder.finish()),
            Self::Double(builder) => Arc::new(builder.finish()),
            Self::Text(builder) | Self::Json(builder) => Arc::new(builder.finish()),
            Self::List(list) => list.finish()?,
            Self::Struct(of) => of.finish()?,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Double(_) => "a number",
            Self::Text(_) => "a string",
            Self::Json(_) => "any value",
            Self::List(_) => "a list",
            Self::Struct(_) => "an object",
        }
    }
}

impl ListColumn {
    fn end(&mut self, valid: bool) {
        self.ends.push(self.length);
        self.valid.push(valid);
    }

    fn finish(&mut self) -> Result<ArrayRef, Error> {
        let ends = std::mem::replace(&mut self.ends, vec![0]);
        self.length = 0;
        let valid = NullBuffer::from(std::mem::take(&mut self.valid));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(ends));
        let child = self.child.finish()?;
        let element = Arc::clone(&self.element);
        Ok(Arc::new(ListArray::try_new(element, offsets, child, Some(valid))?))
    }
}

impl StructColumn {
    fn index(&mut self, name: &str) -> Option<usize> {
        let found = match self.fields.get(self.cursor) {
            Some(field) if field.name() == name => Some(self.cursor),
            _ => self.by_name.get(name).copied(),
        };
        self.cursor = found.map_or(self.cursor, |index| index + 1);
        found
    }

    fn finish(&mut self) -> Result<ArrayRef, Error> {
        let children: Result<Vec<ArrayRef>, Error> =
            self.children.iter_mut().map(Column::finish).collect();
        let valid = NullBuffer::from(std::mem::take(&mut self.valid));
        Ok(Arc::new(StructArray::try_new(self.fields.clone(), children?, Some(valid))?))
    }
}

/// Appends one JSON value to a column.
struct Fill<'a>(&'a mut Column);

impl<'de> DeserializeSeed<'de> for Fill<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if let Column::Json(builder) = self.0 {
            let raw: &RawValue = serde::Deserialize::deserialize(deserializer)?;
            match raw.get() {
                "null" => builder.append_null(),
                text => builder.append_value(text),
            }
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Fill<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.push_null();
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let Column::Bool(builder) = self.0 else { return Err(misfit("a boolean", self.0)) };
        builder.append_value(value);
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        match self.0 {
            Column::Int(builder) => builder.append_value(value),
            // Inference lets integers into doubles only within 2^53, where nothing is lost.
            Column::Double(builder) => builder.append_value(value as f64),
            other => return Err(misfit("an integer", other)),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let value = i64::try_from(value).map_err(|_| misfit("a larger integer", self.0))?;
        self.visit_i64(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let Column::Double(builder) = self.0 else { return Err(misfit("a number", self.0)) };
        builder.append_value(value);
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<(), E> {
        let Column::Text(builder) = self.0 else { return Err(misfit("a string", self.0)) };
        builder.append_value(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Column::List(list) = self.0 else { return Err(misfit("a list", self.0)) };
        while seq.next_element_seed(Fill(list.child.as_mut()))?.is_some() {
            list.length += 1;
        }
        list.end(true);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Column::Struct(of) = self.0 else { return Err(misfit("an object", self.0)) };
        of.stamp += 1;
        of.cursor = 0;
        while let Some(index) = map.next_key_seed(Name(of))? {
            let Some(index) = index else {
                // Inference leaves out only what is null throughout.
                map.next_value::<()>()?;
                continue;
            };
            if of.seen[index] == of.stamp {
                return Err(A::Error::custom("a name twice"));
            }
            of.seen[index] = of.stamp;
            map.next_value_seed(Fill(&mut of.children[index]))?;
        }
        let missing = of.children.iter_mut().zip(&of.seen).filter(|(_, seen)| **seen != of.stamp);
        missing.for_each(|(child, _)| child.push_null());
        of.valid.push(true);
        Ok(())
    }
}

fn misfit<E: serde::de::Error>(seen: &str, column: &Column) -> E {
    E::custom(format_args!("{seen} where the schema has {}", column.name()))
}

struct Name<'a>(&'a mut StructColumn);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.index(name))
    }
}
