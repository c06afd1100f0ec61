//! The words in which the schemas are written.

/// A type of Kafka's protocol.
#[derive(Debug)]
pub(super) enum Kind {
    /// A value of so many bytes.
    Fixed(usize),
    /// A string, or null.
    String,
    /// Bytes or records, or null.
    Bytes,
    /// Fields, and tagged fields in flexible versions.
    Struct(&'static [Field]),
    /// Elements with their count before them, or null.
    Array(&'static Kind),
}

pub(super) const BOOL: Kind = Kind::Fixed(1);
pub(super) const INT8: Kind = Kind::Fixed(1);
pub(super) const INT16: Kind = Kind::Fixed(2);
pub(super) const INT32: Kind = Kind::Fixed(4);
pub(super) const INT64: Kind = Kind::Fixed(8);
pub(super) const UUID: Kind = Kind::Fixed(16);
pub(super) const STRINGS: Kind = Kind::Array(&Kind::String);
pub(super) const INT32S: Kind = Kind::Array(&INT32);

/// A field of a struct and the versions that have it, both ends inclusive.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    since: i16,
    until: i16,
    nullable_since: i16,
    pub(super) tag: Option<u32>,
}

/// A field of all versions that must not be null.
pub(super) const fn field(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, since: 0, until: i16::MAX, nullable_since: i16::MAX, tag: None }
}

impl Field {
    pub(super) const fn since(mut self, version: i16) -> Field {
        self.since = version;
        self
    }

    pub(super) const fn until(mut self, version: i16) -> Field {
        self.until = version;
        self
    }

    pub(super) const fn nullable(self) -> Field {
        self.nullable_since(0)
    }

    pub(super) const fn nullable_since(mut self, version: i16) -> Field {
        self.nullable_since = version;
        self
    }

    pub(super) const fn tag(mut self, tag: u32) -> Field {
        self.tag = Some(tag);
        self
    }

    pub(super) const fn present(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }

    pub(super) const fn is_nullable(&self, version: i16) -> bool {
        self.nullable_since <= version
    }
}

impl Kind {
    /// The fewest bytes a value takes on the wire, at least 1.
    pub(super) fn wire_min(&self, version: i16, flexible: bool) -> usize {
        match self {
            Kind::Fixed(size) => *size,
            Kind::String => {
                if flexible {
                    1
                } else {
                    2
                }
            }
            Kind::Bytes | Kind::Array(_) => {
                if flexible {
                    1
                } else {
                    4
                }
            }
            Kind::Struct(fields) => {
                let present =
                    fields.iter().filter(|field| field.tag.is_none() && field.present(version));
                let fixed: usize = present
                    .map(|field| match field.kind {
                        Kind::Struct(_) if field.is_nullable(version) => 1,
                        _ => field.kind.wire_min(version, flexible),
                    })
                    .sum();
                (fixed + usize::from(flexible)).max(1)
            }
        }
    }

    /// What a decoded value takes where it stands, in bytes; never below the codec's own types.
    pub(super) fn memory(&self) -> usize {
        match self {
            Kind::Fixed(size) => *size,
            Kind::String | Kind::Bytes => 32,
            Kind::Array(_) => 24,
            Kind::Struct(fields) => {
                let fields: usize = fields.iter().map(|field| field.kind.memory()).sum();
                // The map of unknown tagged fields, and padding.
                (fields + 24).next_multiple_of(8) + 8
            }
        }
    }
}
