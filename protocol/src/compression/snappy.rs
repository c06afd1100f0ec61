//! Snappy in the framing of Xerial's library, which Kafka's Java client writes, and raw snappy, which some others do.
//!
//! ```text
//! | 0x82 S N A P P Y 0x00 | version i32 | oldest reader i32 | (size i32 | raw snappy block)* |
//! ```

use super::{Codec, Error};
use crate::wire::Reader;

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
const VERSION: i32 = 1;
/// What the Java library puts into one block.
const BLOCK_BYTES: usize = 32 << 10;

pub(super) fn decompress(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    if !bytes.starts_with(&MAGIC) {
        block(bytes, &mut out, bytes_max)?;
        return Ok(out);
    }
    let mut reader = Reader::new(&bytes[MAGIC.len()..]);
    reader.take(8).map_err(|error| corrupt(&error))?;
    while reader.remaining() > 0 {
        let size = reader.u32().map_err(|error| corrupt(&error))?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        block(reader.take(size).map_err(|error| corrupt(&error))?, &mut out, bytes_max)?;
    }
    Ok(out)
}

fn block(bytes: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), Error> {
    let length = snap::raw::decompress_len(bytes).map_err(|error| corrupt(&error))?;
    if length > bytes_max.saturating_sub(out.len()) {
        return Err(Error::TooLarge { codec: Codec::Snappy, bytes_max });
    }
    // Three bytes of a block make 64 bytes at most, so a longer claim is false and is not worth its memory.
    if length / 32 > bytes.len() {
        return Err(corrupt(&"a block claims more bytes than it can hold"));
    }
    let start = out.len();
    out.resize(start + length, 0);
    let written = snap::raw::Decoder::new()
        .decompress(bytes, &mut out[start..])
        .map_err(|error| corrupt(&error))?;
    out.truncate(start + written);
    Ok(())
}

fn corrupt(reason: &dyn ToString) -> Error {
    Error::Corrupt { codec: Codec::Snappy, reason: reason.to_string() }
}

pub(super) fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + bytes.len() / 2);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for chunk in bytes.chunks(BLOCK_BYTES) {
        let block = encoder.compress_vec(chunk).expect("a block of 32 KiB is not too large");
        let size = u32::try_from(block.len()).expect("a block of 32 KiB is small");
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&block);
    }
    out
}
