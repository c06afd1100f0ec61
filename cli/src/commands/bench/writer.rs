//! One connection that produces.

use common::Clock;
use protocol::ErrorCode;
use protocol::wire::Reader;

use super::load::Template;
use super::pace::{Next, Window};
use super::socket::{Socket, Timer};
use super::tally::Tally;
use super::topic::Share;

/// Sends requests as its window says and counts their answers.
pub struct Writer<'a> {
    socket: Socket,
    timer: Timer,
    template: &'a Template,
    window: Window,
    tally: Tally,
    /// Partitions of each request in turn.
    turns: Vec<Vec<i32>>,
    /// Each batch carries the time it was meant to leave.
    stamped: bool,
    /// Batches of the last request.
    batches: u64,
}

impl<'a> Writer<'a> {
    pub async fn connect(
        share: &Share,
        per_request: usize,
        template: &'a Template,
        window: Window,
        tally: Tally,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            socket: Socket::connect(&share.address).await?,
            timer: Timer::new()?,
            template,
            window,
            tally,
            turns: share.partitions.chunks(per_request.max(1)).map(<[i32]>::to_vec).collect(),
            stamped: false,
            batches: 0,
        })
    }

    /// Stamps each batch with the time it was meant to leave.
    pub fn stamped(mut self) -> Self {
        self.stamped = true;
        self
    }

    /// Runs until all is sent and answered. Times count from the beginning of `clock`.
    pub async fn run(mut self, clock: &Clock) -> anyhow::Result<Tally> {
        let mut turn = 0;
        loop {
            let mut wake = None;
            while self.socket.flush()? {
                self.unanswered(clock);
                match self.window.next(now(clock)) {
                    Next::Send { meant_ns } => {
                        self.send(meant_ns, turn);
                        turn = (turn + 1) % self.turns.len();
                    }
                    Next::At(at) => {
                        wake = Some(at);
                        break;
                    }
                    Next::Full => break,
                    Next::Done => return Ok(self.tally),
                }
                if self.template.acks == 0 {
                    tokio::task::yield_now().await;
                }
            }
            let pause = wake.map_or(0, |at| at.saturating_sub(now(clock)));
            tokio::select! {
                biased;
                ready = self.socket.ready() => {
                    ready?;
                    self.answers(clock)?;
                }
                done = self.timer.sleep(pause), if wake.is_some() => done?,
            }
        }
    }

    fn send(&mut self, meant_ns: u64, turn: usize) {
        let id = self.window.sent().wrapping_sub(1);
        let body = if self.stamped {
            self.template.stamped(meant_ns)
        } else {
            self.template.batch.clone()
        };
        let (template, partitions) = (self.template, &self.turns[turn]);
        self.batches = partitions.len() as u64;
        self.socket.begin(|heads| template.heads(heads, correlation(id), partitions), body);
    }

    /// With acks=0 a request is done once it is written.
    fn unanswered(&mut self, clock: &Clock) {
        if self.template.acks != 0 {
            return;
        }
        while let Some(meant) = self.window.answered() {
            let (records, bytes) = (self.template.records, self.template.value_bytes);
            let batches = self.batches;
            self.tally.answer(meant, now(clock), batches * records, batches * bytes);
        }
    }

    fn answers(&mut self, clock: &Clock) -> anyhow::Result<()> {
        let Self { socket, window, tally, template, .. } = self;
        socket.read(|frame| {
            let id = window.oldest();
            let accepted = accepted(frame, correlation(id), |code| tally.error(&name(code)))?;
            let meant = window.answered().ok_or_else(|| anyhow::anyhow!("an answer to nothing"))?;
            if accepted > 0 {
                let (records, bytes) = (template.records, template.value_bytes);
                tally.answer(meant, now(clock), accepted * records, accepted * bytes);
            }
            Ok(())
        })
    }
}

/// Nanoseconds since the clock began.
pub fn now(clock: &Clock) -> u64 {
    u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Kafka's name of an error code.
pub fn name(code: i16) -> String {
    ErrorCode::from_code(code).map_or_else(|| format!("CODE_{code}"), |code| code.name().to_owned())
}

fn correlation(id: u64) -> i32 {
    i32::try_from(id & 0x7fff_ffff).expect("31 bits")
}

/// Partitions of a Produce answer (version 7) that took their batch; the others' codes go to `refused`.
fn accepted(frame: &[u8], id: i32, mut refused: impl FnMut(i16)) -> anyhow::Result<u64> {
    let mut reader = Reader::new(frame);
    let found = reader.i32()?;
    anyhow::ensure!(found == id, "answer to request {found}, to {id} expected");
    let mut accepted = 0;
    for _ in 0..reader.i32()? {
        reader.string_bytes(false)?;
        for _ in 0..reader.i32()? {
            reader.i32()?;
            let code = reader.i16()?;
            reader.take(24)?;
            if code == 0 {
                accepted += 1;
            } else {
                refused(code);
            }
        }
    }
    Ok(accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_partitions_are_named() {
        let mut answer = protocol::wire::Writer::default();
        answer.i32(5);
        answer.i32(1);
        answer.string(false, Some("load"));
        answer.i32(3);
        for (index, code) in [(0, 0), (1, 6), (2, 0)] {
            answer.i32(index);
            answer.i16(code);
            answer.i64(0);
            answer.i64(-1);
            answer.i64(0);
        }
        answer.i32(0);
        let frame = answer.finish();
        let mut codes = Vec::new();
        assert_eq!(accepted(&frame, 5, |code| codes.push(name(code))).expect("read"), 2);
        assert_eq!(codes, ["NOT_LEADER_OR_FOLLOWER"]);
        assert!(accepted(&frame, 6, |_| ()).is_err(), "an answer to another request");
        assert!(accepted(&frame[..20], 5, |_| ()).is_err());
    }
}
