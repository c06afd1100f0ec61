//! Kafka's rules for topic names.

/// Longest topic name, in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// Why a topic name is refused. Maps to `INVALID_TOPIC_EXCEPTION`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No characters.
    #[error("topic name is invalid: it must not be empty")]
    Empty,
    /// A name of directories.
    #[error("topic name is invalid: it must not be \".\" or \"..\"")]
    Dots,
    /// Longer than [`TOPIC_NAME_BYTES_MAX`].
    #[error(
        "topic name is invalid: it has {length} characters, the most is {TOPIC_NAME_BYTES_MAX}"
    )]
    TooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Something else than letters, digits, `.`, `_`, `-`.
    #[error(
        "topic name {name:?} is invalid: use only ASCII letters, digits, \".\", \"_\" and \"-\""
    )]
    Character {
        /// The name.
        name: String,
    },
}

/// Checks `name` by Kafka's rules (`Topic.validate`).
///
/// # Errors
/// The first rule that the name breaks.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Dots);
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong { length: name.len() });
    }
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.bytes().all(legal) {
        Ok(())
    } else {
        Err(TopicNameError::Character { name: name.to_owned() })
    }
}

/// True when Kafka's metric names of both topics would be the same (`.` and `_` fall together), so that Kafka refuses
/// to create the one beside the other.
#[must_use]
pub fn collides(one: &str, other: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || matches!((a, b), (b'.', b'_') | (b'_', b'.'));
    one.len() == other.len() && one.bytes().zip(other.bytes()).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_kafka_takes() {
        for name in ["a", "__consumer_offsets", "A.b-c_9", "...", &"x".repeat(249)] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_kafka_refuses() {
        assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
        assert_eq!(check_topic_name("."), Err(TopicNameError::Dots));
        assert_eq!(check_topic_name(".."), Err(TopicNameError::Dots));
        let long = "x".repeat(250);
        assert_eq!(check_topic_name(&long), Err(TopicNameError::TooLong { length: 250 }));
        for name in ["a b", "a/b", "a\0", "caf\u{e9}", "a:b", "a\n"] {
            let error = check_topic_name(name).expect_err("refused");
            assert_eq!(error, TopicNameError::Character { name: name.to_owned() });
        }
    }

    #[test]
    fn dot_and_underscore_collide() {
        assert!(collides("a.b", "a_b"));
        assert!(collides("a.b", "a.b"));
        assert!(!collides("a.b", "a-b"));
        assert!(!collides("a.b", "a.bc"));
    }
}
