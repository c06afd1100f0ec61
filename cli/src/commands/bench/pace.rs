//! When a connection sends, and what an answer's latency is. Pure: time comes in as nanoseconds since the start.
//!
//! Closed loop: a request leaves when the window has room, its latency counts from then. Open loop: request `i` is meant
//! to leave at a fixed time. When the window is full or the sender late it leaves later, but its latency still counts
//! from the meant time. So a broker that stalls for a second is charged with every request of that second, not with the
//! few that happened to be under way (coordinated omission).

use std::collections::VecDeque;

/// What decides when a request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As soon as the window has room.
    Closed,
    /// At `first + i * interval`, in nanoseconds.
    Open { first_ns: f64, interval_ns: f64 },
}

impl Pace {
    /// The pace of connection `index` of `connections` that share `rate` requests a second evenly, one after the other.
    pub fn share(rate: f64, index: usize, connections: usize) -> Self {
        let between = 1e9 / rate;
        Self::Open { first_ns: between * index as f64, interval_ns: between * connections as f64 }
    }
}

/// When to stop sending.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// Nothing is sent at or after this time.
    Time(u64),
    /// So many requests.
    Requests(u64),
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send a request; it was meant to leave at this time.
    Send { meant_ns: u64 },
    /// Send nothing before this time.
    At(u64),
    /// Wait for an answer.
    Full,
    /// All is sent and answered.
    Done,
}

/// The requests under way on one connection, which answers them in order.
#[derive(Debug)]
pub struct Window {
    pace: Pace,
    until: Until,
    in_flight_max: usize,
    meant: VecDeque<u64>,
    sent: u64,
}

impl Window {
    pub fn new(pace: Pace, until: Until, in_flight_max: usize) -> Self {
        Self { pace, until, in_flight_max, meant: VecDeque::with_capacity(in_flight_max), sent: 0 }
    }

    /// What to do at `now_ns`. After [`Next::Send`] the request counts as sent.
    pub fn next(&mut self, now_ns: u64) -> Next {
        let meant_ns = match self.pace {
            Pace::Closed => now_ns,
            Pace::Open { first_ns, interval_ns } => {
                whole(first_ns + self.sent as f64 * interval_ns)
            }
        };
        let over = match self.until {
            Until::Time(end_ns) => meant_ns >= end_ns,
            Until::Requests(count) => self.sent >= count,
        };
        if over {
            return if self.meant.is_empty() { Next::Done } else { Next::Full };
        }
        if self.meant.len() >= self.in_flight_max {
            return Next::Full;
        }
        if meant_ns > now_ns {
            return Next::At(meant_ns);
        }
        self.meant.push_back(meant_ns);
        self.sent += 1;
        Next::Send { meant_ns }
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Number of the request that the next answer belongs to, from 0 on.
    pub fn oldest(&self) -> u64 {
        self.sent - self.meant.len() as u64
    }

    /// The oldest request is answered: when it was meant to leave. `None` when nothing is under way.
    pub fn answered(&mut self) -> Option<u64> {
        self.meant.pop_front()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of a run in nanoseconds: positive, far below 2^53"
)]
fn whole(ns: f64) -> u64 {
    ns.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::tally::Tally;

    const MS: u64 = 1_000_000;

    /// A broker that answers after `service_ns`, one request at a time, and does nothing in `stall`.
    fn run(pace: Pace, in_flight: usize, stall: std::ops::Range<u64>) -> Tally {
        let mut window = Window::new(pace, Until::Time(3_000 * MS), in_flight);
        let mut tally = Tally::new(0);
        let mut answers: VecDeque<u64> = VecDeque::new();
        let (mut now, mut free) = (0, 0);
        loop {
            while answers.front().is_some_and(|at| *at <= now) {
                answers.pop_front();
                let meant = window.answered().expect("under way");
                tally.answer(meant, now, 1, 1);
            }
            let wake = match window.next(now) {
                Next::Done => return tally,
                Next::Send { .. } => {
                    let begin = now.max(free);
                    let begin = if stall.contains(&begin) { stall.end } else { begin };
                    free = begin + MS / 10;
                    answers.push_back(free);
                    continue;
                }
                Next::At(at) => at,
                Next::Full => u64::MAX,
            };
            now = wake.min(answers.front().copied().unwrap_or(u64::MAX));
        }
    }

    #[test]
    fn a_stall_is_charged_to_every_request_it_held_back() {
        let open = Pace::Open { first_ns: 0.0, interval_ns: 1e6 };
        let tally = run(open, 5, 1_000 * MS..2_000 * MS);
        assert_eq!(tally.requests(), 3_000, "what was meant to be sent was sent");
        // A third of all requests were meant to leave in the stall and waited for its end: latencies from 1 s down.
        assert!(tally.percentile_ms(70.0) > 50.0, "{}", tally.percentile_ms(70.0));
        assert!(tally.percentile_ms(90.0) > 600.0, "{}", tally.percentile_ms(90.0));
        assert!(tally.percentile_ms(50.0) < 1.0);

        // The closed loop hides the same stall: five requests met it.
        let closed = run(Pace::Closed, 5, 1_000 * MS..2_000 * MS);
        assert!(closed.percentile_ms(99.9) < 1.0, "{}", closed.percentile_ms(99.9));
        assert!(closed.max_ms() > 900.0);
    }

    #[test]
    fn without_a_stall_latency_is_the_service_time() {
        let tally = run(Pace::Open { first_ns: 0.0, interval_ns: 1e6 }, 5, 0..0);
        assert!((tally.percentile_ms(99.9) - 0.1).abs() < 0.01, "{}", tally.percentile_ms(99.9));
    }

    #[test]
    fn connections_share_a_rate_evenly() {
        let mut times = Vec::new();
        for index in 0..4 {
            let mut window =
                Window::new(Pace::share(1_000.0, index, 4), Until::Requests(25), 1_000);
            while let Next::Send { meant_ns } = window.next(u64::MAX >> 1) {
                times.push(meant_ns);
            }
        }
        times.sort_unstable();
        assert_eq!(times, (0..100).map(|i| i * MS).collect::<Vec<_>>());
    }

    #[test]
    fn the_window_holds_and_drains() {
        let mut window = Window::new(Pace::Closed, Until::Requests(3), 2);
        assert_eq!(window.next(5), Next::Send { meant_ns: 5 });
        assert_eq!(window.next(6), Next::Send { meant_ns: 6 });
        assert_eq!(window.next(7), Next::Full);
        assert_eq!(window.oldest(), 0);
        assert_eq!(window.answered(), Some(5));
        assert_eq!(window.oldest(), 1);
        assert_eq!(window.next(8), Next::Send { meant_ns: 8 });
        assert_eq!((window.answered(), window.next(9)), (Some(6), Next::Full));
        assert_eq!((window.answered(), window.next(9)), (Some(8), Next::Done));
        assert_eq!(window.answered(), None);
    }

    #[test]
    fn nothing_is_meant_after_the_end() {
        let pace = Pace::Open { first_ns: 0.0, interval_ns: 10.0 };
        let mut window = Window::new(pace, Until::Time(25), 100);
        assert_eq!(window.next(0), Next::Send { meant_ns: 0 });
        assert_eq!(window.next(0), Next::At(10));
        assert_eq!(window.next(1_000), Next::Send { meant_ns: 10 });
        assert_eq!(window.next(1_000), Next::Send { meant_ns: 20 });
        assert_eq!(window.next(1_000), Next::Full);
    }
}
