//! One connection without a task of its own: requests leave as slices, answers are handed out in place.

use std::io::{self, IoSlice};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use common::net::TcpStream;
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const INPUT_BYTES: usize = 64 << 10;
const ANSWER_BYTES_MAX: usize = 256 << 20;
const SLICES_MAX: usize = 64;

/// A connection that writes one request at a time and reads answers as they come.
pub struct Socket {
    stream: TcpStream,
    address: String,
    input: Vec<u8>,
    begin: usize,
    filled: usize,
    out: Outgoing,
}

/// A request: `first` bytes of `heads`, then `body`, then 8 bytes of `heads` and `body` again for each further partition.
#[derive(Default)]
struct Outgoing {
    heads: Vec<u8>,
    first: usize,
    body: Bytes,
    written: usize,
    total: usize,
}

impl Socket {
    #[expect(
        clippy::disallowed_methods,
        reason = "through the alias of the network that the ban asks for"
    )]
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("no broker at {address}, which leads a partition"))?;
        stream.set_nodelay(true)?;
        let address = address.to_owned();
        let input = vec![0; INPUT_BYTES];
        Ok(Self { stream, address, input, begin: 0, filled: 0, out: Outgoing::default() })
    }

    /// Begins a request. The one before must have been written. `fill` writes the heads and returns how many bytes of
    /// them stand before the first body.
    pub fn begin(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> usize, body: Bytes) {
        self.out.first = fill(&mut self.out.heads);
        let more = (self.out.heads.len() - self.out.first) / 8;
        let bodies = if body.is_empty() { 0 } else { more + 1 };
        self.out.total = self.out.heads.len() + bodies * body.len();
        self.out.body = body;
        self.out.written = 0;
    }

    /// Writes what the kernel takes. True when nothing is left.
    pub fn flush(&mut self) -> anyhow::Result<bool> {
        while self.out.written < self.out.total {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.out.slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(written) => self.out.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).with_context(|| self.closed()),
            }
        }
        Ok(true)
    }

    /// Waits until something can be read, or written when there is something to write.
    pub async fn ready(&self) -> io::Result<()> {
        let interest = if self.out.written < self.out.total {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.stream.ready(interest).await.map(|_| ())
    }

    /// Reads what is there and hands each whole answer, without its size, to `answer`.
    pub fn read(
        &mut self,
        mut answer: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        loop {
            let room = self.input.len() - self.filled;
            match self.stream.try_read(&mut self.input[self.filled..]) {
                Ok(0) => bail!(self.closed()),
                Ok(count) => {
                    self.filled += count;
                    self.take(&mut answer)?;
                    if count < room {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).with_context(|| self.closed()),
            }
        }
    }

    /// Hands out whole answers, then makes room for the next read.
    fn take(&mut self, answer: &mut impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut wanted = 4;
        while let Some(prefix) = self.input[self.begin..self.filled].first_chunk::<4>() {
            let size = protocol::frame::size(*prefix, ANSWER_BYTES_MAX)?;
            wanted = 4 + size;
            if self.filled - self.begin < wanted {
                break;
            }
            answer(&self.input[self.begin + 4..self.begin + wanted])?;
            self.begin += wanted;
            wanted = 4;
        }
        if self.begin == self.filled {
            (self.begin, self.filled) = (0, 0);
        } else if self.begin + wanted > self.input.len() || self.filled == self.input.len() {
            self.input.copy_within(self.begin..self.filled, 0);
            (self.begin, self.filled) = (0, self.filled - self.begin);
        }
        if wanted > self.input.len() {
            self.input.resize(wanted, 0);
        }
        Ok(())
    }

    fn closed(&self) -> String {
        format!("the broker at {} closed the connection", self.address)
    }
}

impl Outgoing {
    /// What is still to be written, as many slices as fit.
    fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let (mut skip, mut at, mut count) = (self.written, 0, 0);
        let mut next = self.first;
        while count + 2 <= out.len() && at < self.heads.len() {
            let head = &self.heads[at..at + next];
            for part in [head, &self.body] {
                let passed = skip.min(part.len());
                skip -= passed;
                if passed < part.len() {
                    out[count] = IoSlice::new(&part[passed..]);
                    count += 1;
                }
            }
            at += next;
            next = 8;
        }
        count
    }
}

/// A timer finer than the runtime's, which counts milliseconds.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(
        deprecated,
        reason = "an `OwnedFd` keeps its descriptor open, which is all that is asked"
    )]
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    /// Waits for `ns` nanoseconds. Cancel safe.
    pub async fn sleep(&self, ns: u64) -> io::Result<()> {
        let ns = ns.max(1);
        let span = |ns: u64| Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ns % 1_000_000_000).expect("below 10^9"),
        };
        let once = Itimerspec { it_interval: span(0), it_value: span(ns) };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut guard = self.0.readable().await?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut [0; 8])?));
            if let Ok(result) = read {
                return result.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_a_request_from_any_point() {
        let out = |written| Outgoing {
            heads: b"HEAD....11111111222222223333".to_vec()[..24].to_vec(),
            first: 8,
            body: Bytes::from_static(b"body"),
            written,
            total: 36,
        };
        let whole = b"HEAD....body11111111body22222222body";
        for written in 0..whole.len() {
            let out = out(written);
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = out.slices(&mut slices);
            let joined: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(joined, &whole[written..]);
        }
        // Fewer slices than parts: a prefix.
        let (out, mut few) = (out(0), [IoSlice::new(&[]); 2]);
        assert_eq!(out.slices(&mut few), 2);
    }

    #[test]
    fn more_partitions_than_slices_are_written_in_turns() {
        let mut out = Outgoing {
            heads: vec![7; 8 * 100],
            first: 8,
            body: Bytes::from_static(b"b"),
            written: 0,
            total: 900,
        };
        while out.written < out.total {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = out.slices(&mut slices);
            let taken: usize = slices[..count].iter().map(|slice| slice.len()).sum();
            assert!(taken > 0, "stuck at {}", out.written);
            out.written += taken;
        }
        assert_eq!(out.written, 900);
    }
}
