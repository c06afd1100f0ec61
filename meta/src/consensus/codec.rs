//! Raft's own messages as bytes. They are generated for prost 0.11, another generation than ours; no other module
//! touches it.

use prost_raft::Message as _;
use raft::eraftpb;

use crate::frame::{self, DecodeError, VERSION};

fn encode<M: prost_raft::Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(VERSION);
    message.encode(&mut out).expect("a vector grows");
    out
}

fn decode<M: prost_raft::Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(frame::body(bytes)?).map_err(|error| DecodeError::Damaged(error.to_string()))
}

pub(crate) fn encode_entry(entry: &eraftpb::Entry) -> Vec<u8> {
    encode(entry)
}

pub(crate) fn decode_entry(bytes: &[u8]) -> Result<eraftpb::Entry, DecodeError> {
    decode(bytes)
}

pub(crate) fn encode_hard_state(state: &eraftpb::HardState) -> Vec<u8> {
    encode(state)
}

pub(crate) fn decode_hard_state(bytes: &[u8]) -> Result<eraftpb::HardState, DecodeError> {
    decode(bytes)
}

pub(crate) fn encode_conf_state(state: &eraftpb::ConfState) -> Vec<u8> {
    encode(state)
}

pub(crate) fn decode_conf_state(bytes: &[u8]) -> Result<eraftpb::ConfState, DecodeError> {
    decode(bytes)
}

pub(crate) fn encode_message(message: &eraftpb::Message) -> Vec<u8> {
    encode(message)
}

pub(crate) fn decode_message(bytes: &[u8]) -> Result<eraftpb::Message, DecodeError> {
    decode(bytes)
}

/// Size of an entry in memory and on the wire, about.
pub(crate) fn entry_bytes(entry: &eraftpb::Entry) -> usize {
    entry.encoded_len()
}
