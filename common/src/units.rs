//! Values that carry their unit: `64MiB`, `250ms`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of bytes. Reads `0`, `512B`, `64KiB`, `64MiB`, `2GiB`, `1TiB`; prints the largest unit that divides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A length of time. Reads `250ms`, `10s`, `5m`, `2h`, `7d`; prints the largest unit that divides it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(pub Duration);

/// A value without a unit, with an unknown one, or too large.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not {wanted}")]
pub struct ParseError {
    value: String,
    wanted: &'static str,
}

const BYTE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const TIME_UNITS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for ByteSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wanted = "a size such as 64MiB (units: B, KiB, MiB, GiB, TiB)";
        parse(text, &BYTE_UNITS, wanted).map(ByteSize)
    }
}

impl FromStr for Interval {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wanted = "a time such as 250ms (units: ms, s, m, h, d)";
        parse(text, &TIME_UNITS_MS, wanted).map(|ms| Interval(Duration::from_millis(ms)))
    }
}

fn parse(text: &str, units: &[(&str, u64)], wanted: &'static str) -> Result<u64, ParseError> {
    let error = || ParseError { value: text.to_owned(), wanted };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| error())?;
    if number == 0 && unit.is_empty() {
        return Ok(0);
    }
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(error)?;
    number.checked_mul(*factor).ok_or_else(error)
}

fn print(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    if value == 0 {
        return f.write_str("0");
    }
    match units.iter().find(|(_, factor)| value.is_multiple_of(*factor)) {
        Some((name, factor)) => write!(f, "{}{name}", value / factor),
        None => write!(f, "{value}"),
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.0, &BYTE_UNITS)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS_MS)
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(ByteSize);
as_text!(Interval);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_carry_their_unit_both_ways() {
        for text in ["64MiB", "1GiB", "1023B", "0"] {
            assert_eq!(text.parse::<ByteSize>().expect("valid").to_string(), text);
        }
        for text in ["250ms", "10s", "90m", "7d", "0"] {
            assert_eq!(text.parse::<Interval>().expect("valid").to_string(), text);
        }
        assert_eq!("1024KiB".parse::<ByteSize>().expect("valid"), ByteSize(1 << 20));
    }

    #[test]
    fn a_missing_or_wrong_unit_is_refused_with_the_right_ones() {
        for bad in ["", "64", "MiB", "-1MiB", "64MB", "99999999999TiB"] {
            let error = bad.parse::<ByteSize>().expect_err("invalid");
            assert!(error.to_string().contains("64MiB"), "{error}");
        }
        assert!("10".parse::<Interval>().is_err());
    }
}
