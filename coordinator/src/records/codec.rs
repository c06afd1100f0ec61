//! Kafka's primitive types, for two records too small to need a generator.

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes that are not a record of a known version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("a group record ends inside {field}")]
    Short {
        /// Name of the field.
        field: &'static str,
    },
    /// A length is negative, or text is not UTF-8.
    #[error("a group record holds an impossible {field}")]
    Invalid {
        /// Name of the field.
        field: &'static str,
    },
    /// A version this code does not read.
    #[error("a group record has version {version}, newer than this build reads")]
    Version {
        /// The version found.
        version: i16,
    },
}

/// Reads fields from the front of `bytes`. `flexible` selects compact lengths and tagged fields.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, flexible: false }
    }

    pub(super) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.bytes.split_at_checked(len).ok_or(DecodeError::Short { field })?;
        self.bytes = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) =
            self.bytes.split_first_chunk::<N>().ok_or(DecodeError::Short { field })?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(super) fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array(field)?))
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array(field)?))
    }

    pub(super) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array(field)?))
    }

    fn varint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array::<1>(field)?;
            let part = u32::from(byte & 0x7f);
            if shift == 28 && part > 0x0f {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid { field })
    }

    /// A length, or `None` for null.
    fn length(&mut self, wide: bool, field: &'static str) -> Result<Option<usize>, DecodeError> {
        let invalid = DecodeError::Invalid { field };
        if self.flexible {
            let raw = self.varint(field)?;
            return match raw.checked_sub(1) {
                None => Ok(None),
                Some(len) => usize::try_from(len).map(Some).map_err(|_| invalid),
            };
        }
        let len = if wide { self.i32(field)? } else { i32::from(self.i16(field)?) };
        match len {
            -1 => Ok(None),
            _ => usize::try_from(len).map(Some).map_err(|_| invalid),
        }
    }

    pub(super) fn nullable_string(
        &mut self,
        field: &'static str,
    ) -> Result<Option<String>, DecodeError> {
        let Some(len) = self.length(false, field)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(len, field)?)
            .map_err(|_| DecodeError::Invalid { field })?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn string(&mut self, field: &'static str) -> Result<String, DecodeError> {
        self.nullable_string(field)?.ok_or(DecodeError::Invalid { field })
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let len = self.length(true, field)?.ok_or(DecodeError::Invalid { field })?;
        Ok(Bytes::copy_from_slice(self.take(len, field)?))
    }

    /// The element count of an array, never more than the bytes that are left.
    pub(super) fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let count = self.length(true, field)?.ok_or(DecodeError::Invalid { field })?;
        if count > self.bytes.len() { Err(DecodeError::Short { field }) } else { Ok(count) }
    }

    /// Skips the tagged fields at the end of a flexible struct.
    pub(super) fn tags(&mut self) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        let field = "tagged fields";
        for _ in 0..self.varint(field)? {
            self.varint(field)?;
            let size = self.varint(field)?;
            self.take(usize::try_from(size).map_err(|_| DecodeError::Invalid { field })?, field)?;
        }
        Ok(())
    }
}

/// Appends a string with an i16 length.
///
/// # Panics
/// When it is longer than a length can say. Strings come from the wire, where the same limit holds.
pub(super) fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).expect("a string from the wire has an i16 length"));
    out.put_slice(text.as_bytes());
}

/// Appends a string or null.
pub(super) fn put_nullable_string(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

/// Appends bytes with an i32 length.
///
/// # Panics
/// When they are longer than a length can say; frames are far shorter.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).expect("bytes from a frame have an i32 length"));
    out.put_slice(bytes);
}
