//! The codecs of record batches. Decompression goes through a capped reader: a few bytes never become more than the
//! caller allows.

use std::fmt;
use std::io::{self, Read, Write};

use bytes::Bytes;

mod snappy;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Codec {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952, one member or more.
    Gzip = 1,
    /// Snappy in the framing of Xerial's library; raw snappy is read too.
    Snappy = 2,
    /// LZ4 frames with independent blocks.
    Lz4 = 3,
    /// Zstandard frames.
    Zstd = 4,
}

impl Codec {
    /// All codecs, by number.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The number in a batch's attributes.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }

    /// The codec numbered `number`, or `None`.
    #[must_use]
    pub fn from_number(number: i16) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.number() == number)
    }

    /// Kafka's name, as in `compression.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// The codec called `name`, or `None`. `uncompressed` is `none`; `producer` is not a codec.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "uncompressed" {
            return Some(Codec::None);
        }
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes that cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number that Kafka does not use.
    #[error("compression codec {0} is not known")]
    UnknownCodec(i16),
    /// More bytes come out than are allowed.
    #[error("{codec} data is larger than {bytes_max} bytes when decompressed")]
    TooLarge {
        /// The codec.
        codec: Codec,
        /// Bytes that are allowed.
        bytes_max: usize,
    },
    /// Not what the codec writes.
    #[error("{codec} data is damaged: {reason}")]
    Corrupt {
        /// The codec.
        codec: Codec,
        /// What the codec says.
        reason: String,
    },
}

/// Decompresses `bytes`. The memory taken stays below twice `bytes_max` plus what a codec needs for itself: up to 8 MiB
/// for LZ4, the window of the frame for Zstandard (128 MiB at most, touched only as far as data goes).
///
/// # Errors
/// See [`Error`]; [`Error::TooLarge`] as soon as more than `bytes_max` bytes come out.
pub fn decompress(codec: Codec, bytes: &[u8], bytes_max: usize) -> Result<Bytes, Error> {
    let corrupt = |error: io::Error| Error::Corrupt { codec, reason: error.to_string() };
    let out = match codec {
        Codec::None => {
            if bytes.len() > bytes_max {
                return Err(Error::TooLarge { codec, bytes_max });
            }
            bytes.to_vec()
        }
        Codec::Gzip => read_capped(codec, flate2::read::MultiGzDecoder::new(bytes), bytes_max)?,
        Codec::Snappy => snappy::decompress(bytes, bytes_max)?,
        Codec::Lz4 => read_capped(codec, lz4_flex::frame::FrameDecoder::new(bytes), bytes_max)?,
        Codec::Zstd => {
            let reader = zstd::stream::read::Decoder::with_buffer(bytes).map_err(corrupt)?;
            read_capped(codec, reader, bytes_max)?
        }
    };
    Ok(Bytes::from(out))
}

fn read_capped(codec: Codec, reader: impl Read, bytes_max: usize) -> Result<Vec<u8>, Error> {
    let cap = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
    let mut out = Vec::new();
    reader
        .take(cap)
        .read_to_end(&mut out)
        .map_err(|error| Error::Corrupt { codec, reason: error.to_string() })?;
    if out.len() > bytes_max { Err(Error::TooLarge { codec, bytes_max }) } else { Ok(out) }
}

/// Compresses `bytes` at the codec's usual level. [`Codec::None`] gives them back as they are.
///
/// # Panics
/// When a codec fails on a buffer in memory, which would be its bug.
#[must_use]
pub fn compress(codec: Codec, bytes: Bytes) -> Bytes {
    let why = "writing to memory does not fail";
    let out = match codec {
        Codec::None => return bytes,
        Codec::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&bytes).expect(why);
            encoder.finish().expect(why)
        }
        Codec::Snappy => snappy::compress(&bytes),
        Codec::Lz4 => {
            // Kafka's reader takes independent blocks only.
            let info = lz4_flex::frame::FrameInfo::new()
                .block_size(lz4_flex::frame::BlockSize::Max64KB)
                .block_mode(lz4_flex::frame::BlockMode::Independent);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(&bytes).expect(why);
            encoder.finish().expect(why)
        }
        Codec::Zstd => zstd::stream::encode_all(&bytes[..], 0).expect(why),
    };
    Bytes::from(out)
}

#[cfg(test)]
mod tests;
