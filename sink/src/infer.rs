//! JSON typing by inference over a cut.
//!
//! What is seen on one path forms a lattice; two observations join to the least type that holds both *without loss*:
//!
//! ```text
//!                    conflict: a string column with the JSON text
//!      /        /        |         |          \          \
//!    bool    double    text     list<T>    struct     (integers past 64 bits)
//!              |                  (joins      (joins
//!             int                elements)    fields)
//!      \        \        |         |          /
//!                       null
//! ```
//! Integers join doubles only while all of them lie within 2^53. An object with a name twice, with more than
//! [`FIELDS_MAX`] names, or deeper than [`DEPTH_MAX`] is a conflict. Joining is associative and commutative, so the
//! facts of a cut are those of its files joined.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::record::Record;

/// Most names in one object before it becomes a string column.
pub const FIELDS_MAX: usize = 1000;
/// Deepest nesting that is typed.
pub const DEPTH_MAX: u32 = 16;
/// Most paths of a cut before its value becomes one string column.
pub const PATHS_MAX: u32 = 10_000;

const EXACT_MAX: u64 = 1 << 53;

/// What was seen on one path.
#[derive(Clone, Debug, Default)]
pub(crate) enum Shape {
    #[default]
    Null,
    Bool,
    /// `exact`: every integer so far is a double without loss.
    Int {
        exact: bool,
    },
    Double,
    Text,
    List(Box<Shape>),
    Struct(Fields),
    Conflict,
}

/// The names of an object, in the order of their first appearance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    by_name: BTreeMap<String, usize>,
    list: Vec<Field>,
    cursor: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub name: String,
    pub shape: Shape,
    seen: u64,
}

/// What a cut must know of its records to fix its schema.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Every key is UTF-8.
    pub(crate) key_text: bool,
    /// Every header's name is UTF-8.
    pub(crate) header_text: bool,
    /// Every value is UTF-8.
    pub(crate) value_text: bool,
    /// Every value is a JSON object, or null.
    pub(crate) objects: bool,
    /// The values joined.
    pub(crate) shape: Shape,
    stamp: u64,
    paths: u32,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            key_text: true,
            header_text: true,
            value_text: true,
            objects: true,
            shape: Shape::Null,
            stamp: 0,
            paths: 0,
        }
    }
}

impl Facts {
    /// Adds one record.
    pub fn observe(&mut self, record: &Record) {
        let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
        self.key_text = self.key_text && record.key.as_ref().is_none_or(|key| is_text(key));
        self.header_text = self.header_text && record.headers.iter().all(|(name, _)| is_text(name));
        if let Some(value) = &record.value {
            self.value(value);
        }
    }

    /// Joins what was seen of other records of the same cut.
    pub fn merge(&mut self, other: Facts) {
        self.key_text &= other.key_text;
        self.header_text &= other.header_text;
        self.value_text &= other.value_text;
        self.objects &= other.objects;
        if self.objects {
            let shape = std::mem::take(&mut self.shape);
            self.shape = join(shape, other.shape);
            self.paths = count(&self.shape);
            self.objects = self.paths <= PATHS_MAX;
        }
        if !self.objects {
            self.shape = Shape::Null;
        }
    }

    fn value(&mut self, value: &[u8]) {
        if !self.value_text {
            return;
        }
        let Ok(text) = std::str::from_utf8(value) else {
            (self.value_text, self.objects, self.shape) = (false, false, Shape::Null);
            return;
        };
        if self.objects && !self.object(text) {
            (self.objects, self.shape) = (false, Shape::Null);
        }
    }

    fn object(&mut self, text: &str) -> bool {
        if !text.trim_start_matches([' ', '\t', '\n', '\r']).starts_with('{') {
            return false;
        }
        let context = Context { stamp: Cell::new(self.stamp), paths: Cell::new(self.paths) };
        let mut json = serde_json::Deserializer::from_str(text);
        let seed = Infer { shape: &mut self.shape, context: &context, depth: 0 };
        let parsed = seed.deserialize(&mut json).is_ok() && json.end().is_ok();
        (self.stamp, self.paths) = (context.stamp.get(), context.paths.get());
        // A conflict at the root would be no struct: the text of the whole value is then the column.
        parsed && self.paths <= PATHS_MAX && matches!(self.shape, Shape::Struct(_))
    }
}

impl Fields {
    fn index(&mut self, name: &str) -> Option<usize> {
        let here = self.cursor;
        let found = match self.list.get(here) {
            Some(field) if field.name == name => Some(here),
            _ => self.by_name.get(name).copied(),
        };
        self.cursor = found.map_or(self.cursor, |index| index + 1);
        found
    }

    /// The index of `name`, added when new; `None` when there is no room for it.
    fn index_or_add(&mut self, name: &str) -> Option<(usize, bool)> {
        if let Some(index) = self.index(name) {
            return Some((index, false));
        }
        if self.list.len() >= FIELDS_MAX {
            return None;
        }
        let index = self.list.len();
        self.by_name.insert(name.to_owned(), index);
        self.list.push(Field { name: name.to_owned(), shape: Shape::Null, seen: 0 });
        self.cursor = index + 1;
        Some((index, true))
    }

    /// The fields in the order of their names.
    pub(crate) fn sorted(&self) -> impl Iterator<Item = &Field> {
        self.by_name.values().map(|index| &self.list[*index])
    }
}

fn count(shape: &Shape) -> u32 {
    match shape {
        Shape::List(element) => 1 + count(element),
        Shape::Struct(fields) => {
            1 + fields.list.iter().map(|field| count(&field.shape)).sum::<u32>()
        }
        _ => 1,
    }
}

/// The least shape that holds both without loss.
fn join(a: Shape, b: Shape) -> Shape {
    match (a, b) {
        (Shape::Null, other) | (other, Shape::Null) => other,
        (Shape::Bool, Shape::Bool) => Shape::Bool,
        (Shape::Text, Shape::Text) => Shape::Text,
        (Shape::Double, Shape::Double) => Shape::Double,
        (Shape::Int { exact: x }, Shape::Int { exact: y }) => Shape::Int { exact: x && y },
        (Shape::Int { exact: true }, Shape::Double)
        | (Shape::Double, Shape::Int { exact: true }) => Shape::Double,
        (Shape::List(x), Shape::List(y)) => Shape::List(Box::new(join(*x, *y))),
        (Shape::Struct(x), Shape::Struct(y)) => join_fields(x, y),
        _ => Shape::Conflict,
    }
}

fn join_fields(mut a: Fields, b: Fields) -> Shape {
    for field in b.list {
        let Some((index, _)) = a.index_or_add(&field.name) else { return Shape::Conflict };
        let target = &mut a.list[index];
        target.shape = join(std::mem::take(&mut target.shape), field.shape);
        // The stamps of the other side mean nothing here.
        target.seen = 0;
    }
    Shape::Struct(a)
}

struct Context {
    stamp: Cell<u64>,
    paths: Cell<u32>,
}

struct Infer<'a> {
    shape: &'a mut Shape,
    context: &'a Context,
    depth: u32,
}

impl Infer<'_> {
    fn scalar(self, seen: Shape) {
        let shape = std::mem::take(self.shape);
        *self.shape = join(shape, seen);
    }
}

impl<'de> DeserializeSeed<'de> for Infer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.shape {
            Shape::Conflict => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Infer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.scalar(Shape::Bool);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.scalar(Shape::Int { exact: number.unsigned_abs() <= EXACT_MAX });
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        let fits = i64::try_from(number).is_ok();
        self.scalar(if fits { Shape::Int { exact: number <= EXACT_MAX } } else { Shape::Conflict });
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.scalar(Shape::Double);
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        self.scalar(Shape::Text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if matches!(self.shape, Shape::Null) && self.depth < DEPTH_MAX {
            *self.shape = Shape::List(Box::new(Shape::Null));
            self.context.paths.set(self.context.paths.get() + 1);
        }
        let (context, depth) = (self.context, self.depth + 1);
        let Shape::List(element) = self.shape else {
            *self.shape = Shape::Conflict;
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while seq.next_element_seed(Infer { shape: element, context, depth })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if matches!(self.shape, Shape::Null) && self.depth < DEPTH_MAX {
            *self.shape = Shape::Struct(Fields::default());
        }
        let (context, depth) = (self.context, self.depth + 1);
        let stamp = context.stamp.get() + 1;
        context.stamp.set(stamp);
        let mut conflict = true;
        if let Shape::Struct(fields) = self.shape {
            conflict = false;
            fields.cursor = 0;
            while let Some(slot) = map.next_key_seed(Name { fields })? {
                let free = slot.filter(|(index, _)| fields.list[*index].seen != stamp);
                let Some((index, added)) = free else {
                    map.next_value::<IgnoredAny>()?;
                    conflict = true;
                    break;
                };
                context.paths.set(context.paths.get() + u32::from(added));
                let field = &mut fields.list[index];
                field.seen = stamp;
                map.next_value_seed(Infer { shape: &mut field.shape, context, depth })?;
            }
        }
        if conflict {
            *self.shape = Shape::Conflict;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        }
        Ok(())
    }
}

/// Finds or adds the name of a field without copying it.
struct Name<'a> {
    fields: &'a mut Fields,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<(usize, bool)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<(usize, bool)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.fields.index_or_add(name))
    }
}

#[cfg(test)]
mod tests;
