//! Which partition of `__consumer_offsets` owns a group.

/// Name of the internal topic.
pub const TOPIC: &str = "__consumer_offsets";

/// Partitions of the internal topic (`offsets.topic.num.partitions`).
pub const PARTITIONS_DEFAULT: u32 = 50;

/// The partition of `group` among `partitions`: the absolute value of Java's `String.hashCode` (of the smallest integer:
/// 0) modulo the count.
///
/// # Panics
/// When `partitions` is 0.
#[must_use]
pub fn partition_for(group: &str, partitions: u32) -> u32 {
    let hash = group
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    let positive = hash.checked_abs().unwrap_or(0).unsigned_abs();
    positive % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash values are those of `java.lang.String.hashCode`.
    #[test]
    fn groups_land_where_java_puts_them() {
        // "hello".hashCode() = 99162322, "" = 0, "a" = 97, "polygenelubricants" = Integer.MIN_VALUE.
        assert_eq!(partition_for("hello", 50), 99_162_322 % 50);
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("a", 50), 47);
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        // A negative hash, and a surrogate pair, which counts as two units.
        assert_eq!(partition_for("perf-consumer-group-42", 50), 1_997_114_721 % 50);
        assert_eq!(partition_for("\u{1F600}", 50), 1_772_899 % 50);
        assert_eq!(partition_for("anything", 1), 0);
    }
}
