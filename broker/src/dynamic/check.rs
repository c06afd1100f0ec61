//! Whether a value may be set.

use super::table::{Key, Kind};

/// Checks `value` for `key`.
///
/// # Errors
/// One sentence in Kafka's words for INVALID_CONFIG.
pub(crate) fn check(key: &Key, value: &str) -> Result<(), String> {
    let name = key.name;
    let bad = |why: String| Err(format!("Invalid value {value} for configuration {name}: {why}"));
    let trimmed = value.trim();
    match key.kind {
        Kind::Boolean if trimmed.eq_ignore_ascii_case("true") => Ok(()),
        Kind::Boolean if trimmed.eq_ignore_ascii_case("false") => Ok(()),
        Kind::Boolean => bad("Expected value to be either true or false".to_owned()),
        Kind::Text(words) if words.is_empty() || words.contains(&value) => Ok(()),
        Kind::Text(words) => bad(format!("String must be one of: {}", words.join(", "))),
        Kind::Int(min) => match trimmed.parse::<i32>() {
            Ok(number) if i64::from(number) >= min => bytes_max(key, i64::from(number)),
            Ok(_) => bad(format!("Value must be at least {min}")),
            Err(_) => bad("Not a number of type INT".to_owned()),
        },
        Kind::Long(min) => match trimmed.parse::<i64>() {
            Ok(number) if number >= min => Ok(()),
            Ok(_) => bad(format!("Value must be at least {min}")),
            Err(_) => bad("Not a number of type LONG".to_owned()),
        },
        Kind::Double(min, max) => match trimmed.parse::<f64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            Ok(_) => bad(format!("Value must lie in [{min}, {max}]")),
            Err(_) => bad("Not a number of type DOUBLE".to_owned()),
        },
        Kind::List([]) => Ok(()),
        Kind::List(words) => {
            let legal = |item: &str| words.contains(&item.trim());
            if !trimmed.is_empty() && trimmed.split(',').all(legal) {
                Ok(())
            } else {
                bad(format!("String must be one of: {}", words.join(", ")))
            }
        }
    }
}

/// Largest batch that fits one write of the log.
const BATCH_BYTES_MAX: i64 = 32 << 20;

fn bytes_max(key: &Key, number: i64) -> Result<(), String> {
    let sized = matches!(key.name, "max.message.bytes" | "message.max.bytes");
    if sized && number > BATCH_BYTES_MAX {
        return Err(format!(
            "Invalid value {number} for configuration {}: Value must be no more than {BATCH_BYTES_MAX}, since a batch \
             must fit one write of the log",
            key.name
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::topic_key;
    use super::*;

    #[test]
    fn values_of_each_type_are_checked() {
        let of = |name: &str, value: &str| check(topic_key(name).expect("known"), value);
        of("cleanup.policy", "compact,delete").expect("both");
        of("retention.ms", "-1").expect("for ever");
        of("max.message.bytes", "33554432").expect("the most");
        for (name, value) in [
            ("cleanup.policy", "shred"),
            ("cleanup.policy", ""),
            ("retention.ms", "-2"),
            ("retention.ms", "week"),
            ("max.message.bytes", "33554433"),
            ("min.insync.replicas", "0"),
            ("preallocate", "yes"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("compression.type", "brotli"),
        ] {
            let error = of(name, value).expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }
}
