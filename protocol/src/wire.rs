//! Kafka's primitive types: a checked reader over bytes, and a writer. Big-endian; nothing here allocates from a length
//! it has not compared with the bytes that are left.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

pub(crate) mod slices;

/// Input that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input ends before the value does.
    #[error("{wanted} bytes wanted at {at}, {left} left")]
    Short {
        /// Where the value begins.
        at: usize,
        /// Its size.
        wanted: usize,
        /// Bytes left there.
        left: usize,
    },
    /// A variable-length number of too many bytes or bits.
    #[error("number at {at} is too long")]
    Number {
        /// Where it begins.
        at: usize,
    },
    /// A length that the type does not have.
    #[error("length {length} at {at} is not legal")]
    Length {
        /// Where it stands.
        at: usize,
        /// The length, -1 for null.
        length: i64,
    },
    /// A string that is not UTF-8.
    #[error("string at {at} is not UTF-8")]
    Utf8 {
        /// Where its characters begin.
        at: usize,
    },
}

/// Reads values one after the other. After an error the position is not defined.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`Error::Short`].
            #[inline]
            pub fn $name(&mut self) -> Result<$type, Error> {
                Ok(<$type>::from_be_bytes(self.array()?))
            }
        )*
    };
}

impl<'a> Reader<'a> {
    /// A reader at the beginning of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Error::Short`].
    #[inline]
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let left = self.remaining();
        if count > left {
            return Err(Error::Short { at: self.at, wanted: count, left });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Error::Short`].
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("N bytes were taken"))
    }

    fixed! {
        /// One byte.
        u8: u8;
        /// A signed byte.
        i8: i8;
        /// Two bytes, signed.
        i16: i16;
        /// Four bytes, signed.
        i32: i32;
        /// Four bytes.
        u32: u32;
        /// Eight bytes, signed.
        i64: i64;
    }

    /// A byte that is not 0.
    ///
    /// # Errors
    /// [`Error::Short`].
    pub fn bool(&mut self) -> Result<bool, Error> {
        Ok(self.u8()? != 0)
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// [`Error::Short`].
    pub fn uuid(&mut self) -> Result<Uuid, Error> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// An unsigned number of at most 32 bits, 7 in each byte, low bits first.
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Number`].
    #[inline]
    pub fn uvarint(&mut self) -> Result<u32, Error> {
        let at = self.at;
        u32::try_from(self.variable(5)?).map_err(|_| Error::Number { at })
    }

    /// A zigzag number of at most 32 bits.
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Number`].
    #[inline]
    pub fn varint(&mut self) -> Result<i32, Error> {
        let raw = self.uvarint()?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// A zigzag number of at most 64 bits.
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Number`].
    #[inline]
    pub fn varlong(&mut self) -> Result<i64, Error> {
        let raw = self.variable(10)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    #[inline]
    fn variable(&mut self, bytes_max: u32) -> Result<u64, Error> {
        let at = self.at;
        let mut value = 0u64;
        for index in 0..bytes_max {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if index == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Number { at })
    }

    /// Number of elements of an array, `None` for null. At most the bytes left divided by `element_bytes_min`.
    ///
    /// # Errors
    /// [`Error::Length`] also for a count that the bytes left cannot hold.
    pub fn count(
        &mut self,
        flexible: bool,
        element_bytes_min: usize,
    ) -> Result<Option<usize>, Error> {
        let at = self.at;
        let length = if flexible { i64::from(self.uvarint()?) - 1 } else { i64::from(self.i32()?) };
        self.length(at, length, element_bytes_min, i64::from(i32::MAX))
    }

    /// Bytes with their length before them, `None` for null.
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Number`], [`Error::Length`].
    pub fn bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, Error> {
        self.count(flexible, 1)?.map(|length| self.take(length)).transpose()
    }

    /// The characters of a string as bytes, `None` for null. At most 32,767.
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Number`], [`Error::Length`].
    pub fn string_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, Error> {
        let at = self.at;
        let length = if flexible { i64::from(self.uvarint()?) - 1 } else { i64::from(self.i16()?) };
        let length = self.length(at, length, 1, i64::from(i16::MAX))?;
        length.map(|length| self.take(length)).transpose()
    }

    /// A string, `None` for null.
    ///
    /// # Errors
    /// Those of [`Self::string_bytes`], and [`Error::Utf8`].
    pub fn string(&mut self, flexible: bool) -> Result<Option<&'a str>, Error> {
        let Some(bytes) = self.string_bytes(flexible)? else { return Ok(None) };
        let at = self.at - bytes.len();
        std::str::from_utf8(bytes).map(Some).map_err(|_| Error::Utf8 { at })
    }

    /// Reads past the tagged fields of a struct.
    ///
    /// # Errors
    /// [`Error::Short`], [`Error::Number`].
    pub fn skip_tags(&mut self) -> Result<(), Error> {
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let size = self.uvarint()?;
            self.take(usize::try_from(size).unwrap_or(usize::MAX))?;
        }
        Ok(())
    }

    fn length(
        &self,
        at: usize,
        length: i64,
        element_bytes_min: usize,
        max: i64,
    ) -> Result<Option<usize>, Error> {
        if length == -1 {
            return Ok(None);
        }
        match usize::try_from(length) {
            Ok(count) if length <= max && count <= self.remaining() / element_bytes_min.max(1) => {
                Ok(Some(count))
            }
            _ => Err(Error::Length { at, length }),
        }
    }
}

/// Writes values one after the other into a growing buffer.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: BytesMut,
}

macro_rules! put {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $put:ident;)*) => {
        $(
            $(#[$doc])*
            #[inline]
            pub fn $name(&mut self, value: $type) {
                self.bytes.$put(value);
            }
        )*
    };
}

impl Writer {
    /// An empty writer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(capacity) }
    }

    put! {
        /// One byte.
        u8: u8, put_u8;
        /// A signed byte.
        i8: i8, put_i8;
        /// Two bytes, signed.
        i16: i16, put_i16;
        /// Four bytes, signed.
        i32: i32, put_i32;
        /// Four bytes.
        u32: u32, put_u32;
        /// Eight bytes, signed.
        i64: i64, put_i64;
        /// The bytes as they are.
        raw: &[u8], put_slice;
    }

    /// One byte, 1 or 0.
    pub fn bool(&mut self, value: bool) {
        self.bytes.put_u8(u8::from(value));
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.bytes.put_slice(value.as_bytes());
    }

    /// See [`Reader::uvarint`].
    pub fn uvarint(&mut self, value: u32) {
        self.variable(u64::from(value));
    }

    /// See [`Reader::varint`].
    pub fn varint(&mut self, value: i32) {
        self.uvarint(((value << 1) ^ (value >> 31)).cast_unsigned());
    }

    /// See [`Reader::varlong`].
    pub fn varlong(&mut self, value: i64) {
        self.variable(((value << 1) ^ (value >> 63)).cast_unsigned());
    }

    fn variable(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.put_u8(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(low_byte(value));
    }

    /// The length of an array, `None` for null.
    ///
    /// # Panics
    /// When there are 2^31 elements or more.
    pub fn count(&mut self, flexible: bool, count: Option<usize>) {
        let length = count.map_or(-1, |count| i32::try_from(count).expect("fewer than 2^31"));
        if flexible {
            self.uvarint((length + 1).cast_unsigned());
        } else {
            self.i32(length);
        }
    }

    /// Bytes with their length before them, `None` for null.
    ///
    /// # Panics
    /// When there are 2^31 bytes or more.
    pub fn bytes(&mut self, flexible: bool, value: Option<&[u8]>) {
        self.count(flexible, value.map(<[u8]>::len));
        self.raw(value.unwrap_or_default());
    }

    /// A string, `None` for null.
    ///
    /// # Panics
    /// When it is longer than 32,767 bytes.
    pub fn string(&mut self, flexible: bool, value: Option<&str>) {
        let length = value.map_or(-1, |value| i16::try_from(value.len()).expect("a short string"));
        if flexible {
            self.uvarint((i32::from(length) + 1).cast_unsigned());
        } else {
            self.i16(length);
        }
        self.raw(value.unwrap_or_default().as_bytes());
    }

    /// The end of a struct without tagged fields; nothing unless `flexible`.
    pub fn no_tags(&mut self, flexible: bool) {
        if flexible {
            self.u8(0);
        }
    }

    /// Bytes written since the last [`Self::split`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when nothing was written since the last [`Self::split`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes out what was written so far.
    pub fn split(&mut self) -> Bytes {
        self.bytes.split().freeze()
    }

    /// All that was written.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

fn low_byte(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("seven bits")
}

/// Bytes that [`Writer::varint`] takes for `value`.
#[must_use]
pub fn varint_len(value: i32) -> usize {
    varlong_len(i64::from(value))
}

/// Bytes that [`Writer::varlong`] takes for `value`.
#[must_use]
pub fn varlong_len(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let bits = 64 - (zigzag | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).expect("at most ten")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_survive(small: i32, large: i64, unsigned: u32, text in ".{0,50}", flexible: bool) {
            let mut writer = Writer::default();
            writer.varint(small);
            prop_assert_eq!(writer.len(), varint_len(small));
            writer.varlong(large);
            prop_assert_eq!(writer.len(), varint_len(small) + varlong_len(large));
            writer.uvarint(unsigned);
            writer.string(flexible, Some(&text));
            writer.string(flexible, None);
            writer.bytes(flexible, Some(text.as_bytes()));
            writer.bytes(flexible, None);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(small));
            prop_assert_eq!(reader.varlong(), Ok(large));
            prop_assert_eq!(reader.uvarint(), Ok(unsigned));
            prop_assert_eq!(reader.string(flexible), Ok(Some(text.as_str())));
            prop_assert_eq!(reader.string(flexible), Ok(None));
            prop_assert_eq!(reader.bytes(flexible), Ok(Some(text.as_bytes())));
            prop_assert_eq!(reader.bytes(flexible), Ok(None));
            prop_assert_eq!(reader.remaining(), 0);
        }
    }

    #[test]
    fn numbers_that_are_too_long_are_refused() {
        let long = [0xff; 10];
        assert_eq!(Reader::new(&long).uvarint(), Err(Error::Number { at: 0 }));
        assert_eq!(Reader::new(&long).varlong(), Err(Error::Number { at: 0 }));
        let wide = [0xff, 0xff, 0xff, 0xff, 0x1f];
        assert_eq!(Reader::new(&wide).uvarint(), Err(Error::Number { at: 0 }));
        let most = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(Reader::new(&most).uvarint(), Ok(u32::MAX));
        assert!(matches!(Reader::new(&[0x80]).uvarint(), Err(Error::Short { .. })));
    }

    #[test]
    fn counts_larger_than_the_bytes_left_are_refused() {
        let bytes = [0, 0, 0, 3, 1, 2, 3];
        assert_eq!(Reader::new(&bytes).count(false, 1), Ok(Some(3)));
        let refused = Err(Error::Length { at: 0, length: 3 });
        assert_eq!(Reader::new(&bytes).count(false, 2), refused);
        let negative = [0xff, 0xff, 0xff, 0xfe];
        assert_eq!(
            Reader::new(&negative).count(false, 1),
            Err(Error::Length { at: 0, length: -2 })
        );
    }
}
