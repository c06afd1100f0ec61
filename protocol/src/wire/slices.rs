//! A reader of request bodies whose strings and bytes stay slices of the frame, with the rules of the guard: every
//! error names its field, and what is built stays within the allowance of the body's size.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Error, Reader};
use crate::ApiKey;
use crate::api;
use crate::guard::{Allowance, GuardError};

pub(crate) struct Slices<'a> {
    body: &'a Bytes,
    reader: Reader<'a>,
    flexible: bool,
    allowance: Allowance,
}

macro_rules! fixed {
    ($($name:ident: $type:ty;)*) => {
        $(
            pub(crate) fn $name(&mut self, field: &'static str) -> Result<$type, GuardError> {
                self.reader.$name().map_err(|error| GuardError::Field { field, error })
            }
        )*
    };
}

impl<'a> Slices<'a> {
    pub(crate) fn new(key: ApiKey, version: i16, body: &'a Bytes) -> Result<Self, GuardError> {
        if !key.serves(version) {
            return Err(GuardError::Version { key, version });
        }
        let flexible = api::flexible(key, version);
        let allowance = Allowance::for_body(body.len());
        Ok(Self { body, reader: Reader::new(body), flexible, allowance })
    }

    fixed! {
        i8: i8;
        i16: i16;
        i32: i32;
        i64: i64;
        uuid: Uuid;
    }

    pub(crate) fn nullable_string(
        &mut self,
        field: &'static str,
    ) -> Result<Option<StrBytes>, GuardError> {
        let named = |error| GuardError::Field { field, error };
        let text = self.reader.string_bytes(self.flexible).map_err(named)?;
        let Some(length) = text.map(<[u8]>::len) else { return Ok(None) };
        let slice = self.last(length);
        let at = self.reader.position() - length;
        StrBytes::from_utf8(slice).map(Some).map_err(|_| named(Error::Utf8 { at }))
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<StrBytes, GuardError> {
        self.nullable_string(field)?.ok_or(GuardError::Null { field })
    }

    pub(crate) fn nullable_bytes(
        &mut self,
        field: &'static str,
    ) -> Result<Option<Bytes>, GuardError> {
        let bytes = self.reader.bytes(self.flexible);
        let bytes = bytes.map_err(|error| GuardError::Field { field, error })?;
        Ok(bytes.map(<[u8]>::len).map(|length| self.last(length)))
    }

    /// An array that is not null, of elements that take `element_bytes_min` bytes at least.
    pub(crate) fn array<T>(
        &mut self,
        field: &'static str,
        element_bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, GuardError>,
    ) -> Result<Vec<T>, GuardError> {
        let count = self.reader.count(self.flexible, element_bytes_min);
        let count = count.map_err(|error| GuardError::Field { field, error })?;
        let count = count.ok_or(GuardError::Null { field })?;
        self.allowance.take(field, count, size_of::<T>())?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }

    /// The tagged fields that end a struct of a flexible version. `known` reads the value of a tag it knows and says
    /// true, or reads nothing and says false.
    pub(crate) fn tags(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, GuardError>,
    ) -> Result<(), GuardError> {
        if !self.flexible {
            return Ok(());
        }
        let named = |error| GuardError::Field { field: "tagged fields", error };
        for _ in 0..self.reader.uvarint().map_err(named)? {
            let tag = self.reader.uvarint().map_err(named)?;
            let size = self.reader.uvarint().map_err(named)?;
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let start = self.reader.position();
            if !known(self, tag)? {
                self.reader.take(size).map_err(named)?;
            }
            if self.reader.position() - start != size {
                return Err(GuardError::Tag { tag });
            }
        }
        Ok(())
    }

    /// The end of the body.
    pub(crate) fn end(&self) -> Result<(), GuardError> {
        match self.reader.remaining() {
            0 => Ok(()),
            left => Err(GuardError::Trailing { left }),
        }
    }

    /// The `length` bytes read last.
    fn last(&self, length: usize) -> Bytes {
        let end = self.reader.position();
        self.body.slice(end - length..end)
    }
}
