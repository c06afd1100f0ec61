//! The whole state as one message: what a voter that lags behind the log is sent, and its checksum.
//!
//! The dump is built in memory; that is right for the sizes a single broker reaches and is named in the README.

use common::Crc32c;

use crate::frame::{self, DecodeError};
use crate::keys::{self, tag};
use crate::view::{Load, View, ViewError};

/// All keys of the state but the applied index.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Dump {
    #[prost(message, repeated, tag = "1")]
    pub pairs: Vec<DumpPair>,
    #[prost(fixed32, tag = "2")]
    pub checksum: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DumpPair {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// A dump that cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DumpError {
    #[error("snapshot of the metadata state: {0}")]
    Decode(#[from] DecodeError),
    #[error("snapshot of the metadata state says checksum {said:08x}, its keys give {found:08x}")]
    Checksum { said: u32, found: u32 },
}

pub(crate) fn take(view: &dyn View) -> Result<Vec<u8>, ViewError> {
    let mut pairs = Vec::new();
    each(view, |key, value| pairs.push(DumpPair { key: key.to_vec(), value: value.to_vec() }))?;
    let checksum = sum(&pairs);
    Ok(frame::encode(&Dump { pairs, checksum }))
}

pub(crate) fn open(bytes: &[u8]) -> Result<Vec<DumpPair>, DumpError> {
    let dump: Dump = frame::decode(bytes)?;
    match sum(&dump.pairs) {
        found if found == dump.checksum => Ok(dump.pairs),
        found => Err(DumpError::Checksum { said: dump.checksum, found }),
    }
}

/// CRC-32C over all keys and values in order; equal on every voter that has applied the same index.
///
/// # Errors
/// When the state cannot be read.
pub fn checksum(view: &dyn View) -> Result<u32, ViewError> {
    let mut crc = Crc32c::default();
    each(view, |key, value| add(&mut crc, key, value))?;
    Ok(crc.finish())
}

fn each(view: &dyn View, mut body: impl FnMut(&[u8], &[u8])) -> Result<(), ViewError> {
    // Tags rise, so pages of one tag after the other are the order of keys.
    for first in tag::CLUSTER..=tag::LAST {
        view.each(vec![first], |key, value| {
            body(key, value);
            Ok(())
        })?;
    }
    debug_assert!(keys::applied() < vec![tag::CLUSTER]);
    Ok(())
}

fn sum(pairs: &[DumpPair]) -> u32 {
    let mut crc = Crc32c::default();
    pairs.iter().for_each(|pair| add(&mut crc, &pair.key, &pair.value));
    crc.finish()
}

pub(crate) fn add(crc: &mut Crc32c, key: &[u8], value: &[u8]) {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    crc.update(&length(key));
    crc.update(key);
    crc.update(&length(value));
    crc.update(value);
}
