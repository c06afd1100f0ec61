//! The schema of a cut: resolved from what was seen, stored by hash beside the manifests, a function of nothing else.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::infer::{Facts, Shape};

/// Type of a typed path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// Boolean.
    Bool,
    /// 64-bit signed integer.
    Int,
    /// 64-bit floating point.
    Double,
    /// A string.
    Text,
    /// A string that holds JSON text, because what was seen has no common type.
    Json,
    /// A list.
    List(Box<Type>),
    /// An object; fields in the order of their names.
    Struct(Vec<Member>),
}

/// A field of an object. Every field may be null: a missing one is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its type.
    pub of: Type,
}

/// Type of a column of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Raw {
    /// All of it is UTF-8.
    Text,
    /// Some of it is not.
    Binary,
}

/// Type of the value column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// At least one value is no JSON object: all are kept as they are.
    Raw(Raw),
    /// Every value is a JSON object or null.
    Struct(Vec<Member>),
}

/// A resolved schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Version of this form: 1.
    pub version: u32,
    /// The key column.
    pub key: Raw,
    /// Names of headers.
    pub header_key: Raw,
    /// The value column.
    pub value: Value,
}

impl Schema {
    /// Resolves what was seen. A path that is null throughout takes its type from `before`, the schema of the cut
    /// before, so that a short cut does not change a reader's idea of a column. Without one it is left out, unless
    /// nothing would be left of its object: then it is a string. Returns the number of paths in conflict as well.
    #[must_use]
    pub fn resolve(facts: &Facts, before: Option<&Schema>) -> (Self, u64) {
        let raw = |text: bool| if text { Raw::Text } else { Raw::Binary };
        let hint = before.and_then(|schema| match &schema.value {
            Value::Struct(members) => Some(members.as_slice()),
            Value::Raw(_) => None,
        });
        let mut conflicts = 0;
        let value = match &facts.shape {
            Shape::Struct(_) if facts.objects => {
                let hint = hint.map(|members| Type::Struct(members.to_vec()));
                match of(&facts.shape, hint.as_ref(), &mut conflicts) {
                    Type::Struct(members) => Value::Struct(members),
                    _ => Value::Raw(Raw::Text),
                }
            }
            Shape::Null if facts.objects => {
                hint.map_or(Value::Raw(Raw::Text), |members| Value::Struct(members.to_vec()))
            }
            _ => Value::Raw(raw(facts.value_text)),
        };
        conflicts += u64::from(!facts.objects);
        let schema = Self {
            version: 1,
            key: raw(facts.key_text),
            header_key: raw(facts.header_text),
            value,
        };
        (schema, conflicts)
    }

    /// The stored form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("names and types always have a JSON form")
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// When it is no schema of a version that this program knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let schema: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match schema.version {
            1 => Ok(schema),
            other => Err(format!("schema version {other} needs a newer sluice")),
        }
    }

    /// The hash of the stored form.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.to_bytes())
    }

    /// The columns of a file.
    #[must_use]
    pub fn arrow(&self) -> SchemaRef {
        let value = match &self.value {
            Value::Raw(raw) => raw_type(*raw),
            Value::Struct(members) => DataType::Struct(fields(members)),
        };
        Arc::new(ArrowSchema::new(vec![
            Field::new("key", raw_type(self.key), true),
            Field::new("value", value, true),
            Field::new("headers", DataType::List(header_item(self.header_key)), false),
            Field::new("partition", DataType::Int32, false),
            Field::new("offset", DataType::Int64, false),
            Field::new("timestamp", timestamp_type(), false),
        ]))
    }
}

/// Milliseconds since 1970, UTC.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

/// One header: a name that is never null, a value that may be.
pub(crate) fn header_fields(key: Raw) -> Fields {
    Fields::from(vec![
        Field::new("key", raw_type(key), false),
        Field::new("value", DataType::Binary, true),
    ])
}

pub(crate) fn header_item(key: Raw) -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Struct(header_fields(key)), false))
}

pub(crate) fn raw_type(raw: Raw) -> DataType {
    match raw {
        Raw::Text => DataType::Utf8,
        Raw::Binary => DataType::Binary,
    }
}

/// The Arrow fields of an object.
pub(crate) fn fields(members: &[Member]) -> Fields {
    members.iter().map(|member| Field::new(&member.name, arrow_type(&member.of), true)).collect()
}

pub(crate) fn arrow_type(of: &Type) -> DataType {
    match of {
        Type::Bool => DataType::Boolean,
        Type::Int => DataType::Int64,
        Type::Double => DataType::Float64,
        Type::Text | Type::Json => DataType::Utf8,
        Type::List(element) => {
            DataType::List(Arc::new(Field::new("element", arrow_type(element), true)))
        }
        Type::Struct(members) => DataType::Struct(fields(members)),
    }
}

fn of(shape: &Shape, hint: Option<&Type>, conflicts: &mut u64) -> Type {
    match shape {
        Shape::Null => hint.cloned().unwrap_or(Type::Text),
        Shape::Bool => Type::Bool,
        Shape::Int { .. } => Type::Int,
        Shape::Double => Type::Double,
        Shape::Text => Type::Text,
        Shape::Conflict => {
            *conflicts += 1;
            Type::Json
        }
        Shape::List(element) => {
            let hint = match hint {
                Some(Type::List(element)) => Some(element.as_ref()),
                _ => None,
            };
            Type::List(Box::new(of(element, hint, conflicts)))
        }
        Shape::Struct(fields) => {
            let known = match hint {
                Some(Type::Struct(members)) => members.as_slice(),
                _ => &[],
            };
            let mut members = Vec::new();
            let mut nulls = Vec::new();
            for field in fields.sorted() {
                let hint = known.iter().find(|m| m.name == field.name).map(|m| &m.of);
                // A column without a type would give readers of many files a wrong one; missing means null anyway.
                let list = match (&field.shape, hint) {
                    (Shape::Null, None) => &mut nulls,
                    _ => &mut members,
                };
                let of = of(&field.shape, hint, conflicts);
                list.push(Member { name: field.name.clone(), of });
            }
            let members = if members.is_empty() { nulls } else { members };
            // A group without columns has no form in Parquet: its text says all there is.
            if members.is_empty() { Type::Json } else { Type::Struct(members) }
        }
    }
}
