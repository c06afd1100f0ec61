//! What was counted, and how it is told.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Latencies from 1 us to 1 h, three digits kept.
const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Counts of one connection, later of all. Times are nanoseconds since the start.
#[derive(Clone, Debug)]
pub struct Tally {
    begin_ns: u64,
    end_ns: u64,
    latency: Histogram<u64>,
    records: u64,
    bytes: u64,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts what was meant to happen at or after `begin_ns`; the rest was to warm up.
    pub fn new(begin_ns: u64) -> Self {
        let latency = Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, DIGITS)
            .expect("the bounds are constants in range");
        let errors = BTreeMap::new();
        Self { begin_ns, end_ns: begin_ns, latency, records: 0, bytes: 0, errors }
    }

    /// A request meant for `meant_ns` was answered at `now_ns` and carried so many records and bytes of values.
    pub fn answer(&mut self, meant_ns: u64, now_ns: u64, records: u64, bytes: u64) {
        if meant_ns < self.begin_ns {
            return;
        }
        self.latency.saturating_record(now_ns.saturating_sub(meant_ns).max(LOWEST_NS));
        self.records += records;
        self.bytes += bytes;
        self.end_ns = self.end_ns.max(now_ns);
    }

    /// Something that is not an acknowledgement.
    pub fn error(&mut self, name: &str) {
        *self.errors.entry(name.to_owned()).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("all tallies have the same bounds");
        self.end_ns = self.end_ns.max(other.end_ns);
        self.records += other.records;
        self.bytes += other.bytes;
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
    }

    pub fn requests(&self) -> u64 {
        self.latency.len()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.latency.value_at_quantile(percent / 100.0) as f64 / 1e6
    }

    pub fn max_ms(&self) -> f64 {
        self.latency.max() as f64 / 1e6
    }

    /// The document that is printed. Rates are over the time from the end of the warm-up to the last answer.
    pub fn document(&self, what: &str) -> Value {
        let seconds = (self.end_ns - self.begin_ns) as f64 / 1e9;
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        json!({
            "what": what,
            "seconds": rounded(seconds),
            "requests": self.requests(),
            "records": self.records,
            "bytes": self.bytes,
            "requests_per_second": rounded(rate(self.requests())),
            "records_per_second": rounded(rate(self.records)),
            "megabytes_per_second": rounded(rate(self.bytes) / 1e6),
            "p50_ms": rounded(self.percentile_ms(50.0)),
            "p99_ms": rounded(self.percentile_ms(99.0)),
            "p99_9_ms": rounded(self.percentile_ms(99.9)),
            "max_ms": rounded(self.max_ms()),
            "errors": self.errors,
            "client_cpu_seconds": rounded(cpu_seconds()),
        })
    }
}

/// Three digits behind the point.
pub fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// CPU time of this process.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_rates_are_those_of_what_was_counted() {
        let mut tally = Tally::new(1_000_000_000);
        tally.answer(999_999_999, 5_000_000_000, 10, 1_000); // warm-up
        assert_eq!(tally.requests(), 0);
        for i in 1..=1000u64 {
            tally.answer(1_000_000_000, 1_000_000_000 + i * 1_000_000, 2, 2_000_000);
        }
        let document = tally.document("produce");
        let figure = |name: &str| document[name].as_f64().expect("a number");
        for (name, wanted) in
            [("p50_ms", 500.0), ("p99_ms", 990.0), ("p99_9_ms", 999.0), ("max_ms", 1000.0)]
        {
            assert!((figure(name) - wanted).abs() <= wanted * 0.002, "{name} {}", figure(name));
        }
        assert!((figure("seconds") - 1.0).abs() < 1e-9);
        assert!((figure("records_per_second") - 2_000.0).abs() < 1e-6);
        assert!((figure("megabytes_per_second") - 2_000.0).abs() < 1e-6);
    }

    #[test]
    fn tallies_add_up() {
        let (mut one, mut two) = (Tally::new(0), Tally::new(0));
        one.answer(0, 10_000, 1, 5);
        one.error("NOT_LEADER_OR_FOLLOWER");
        two.answer(0, 30_000, 1, 5);
        two.error("NOT_LEADER_OR_FOLLOWER");
        one.merge(&two);
        assert_eq!((one.requests(), one.records, one.bytes()), (2, 2, 10));
        assert_eq!(one.document("x")["errors"]["NOT_LEADER_OR_FOLLOWER"], 2);
        assert!(one.max_ms() >= 0.03);
    }

    #[test]
    fn what_is_out_of_bounds_is_kept_at_the_bound() {
        let mut tally = Tally::new(0);
        tally.answer(10, 5, 1, 1);
        tally.answer(0, u64::MAX, 1, 1);
        assert_eq!(tally.requests(), 2);
    }
}
