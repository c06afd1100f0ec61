//! Answers on their way out: parts gathered, written vectored, never joined.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes};
use protocol::frame::response_head;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;

use crate::api::Header;

/// A client that takes no byte of its answer for so long is disconnected: the answer holds memory.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Slices handed to one write.
const SLICES_MAX: usize = 64;

/// Puts length and response header before `body`.
pub(crate) fn framed(header: &Header, body: Vec<Bytes>, out: &mut VecDeque<Bytes>) -> u64 {
    let body_bytes: usize = body.iter().map(Bytes::len).sum();
    let head = response_head(header.key, header.version, header.correlation_id, body_bytes);
    let bytes = u64::try_from(head.len() + body_bytes).expect("an address fits 64 bits");
    out.push_back(head);
    out.extend(body.into_iter().filter(|part| !part.is_empty()));
    bytes
}

/// Writes all of `out`.
pub(crate) async fn write(socket: &mut WriteHalf<'_>, out: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !out.is_empty() {
        let written = {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, part) in slices.iter_mut().zip(out.iter()) {
                *slice = IoSlice::new(part);
                count += 1;
            }
            let write = socket.write_vectored(&slices[..count]);
            match tokio::time::timeout(STALL_MAX, write).await {
                Ok(written) => written?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        skip(out, written);
    }
    Ok(())
}

fn skip(out: &mut VecDeque<Bytes>, mut written: usize) {
    while written > 0 {
        let Some(part) = out.front_mut() else { return };
        if part.len() > written {
            part.advance(written);
            return;
        }
        written -= part.len();
        out.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_write_goes_on_where_it_stopped() {
        let mut out: VecDeque<Bytes> =
            ["abc", "de", "f"].into_iter().map(|s| Bytes::from_static(s.as_bytes())).collect();
        skip(&mut out, 4);
        assert_eq!(out, ["e", "f"]);
        skip(&mut out, 2);
        assert!(out.is_empty());
    }
}
