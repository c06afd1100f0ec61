//! The one look into a subscription: which topics a `consumer` member reads.

use std::collections::BTreeSet;

/// The protocol type of Kafka consumers.
pub(crate) const CONSUMER: &str = "consumer";

/// Adds the topics of `metadata` (ConsumerProtocolSubscription, all versions begin alike: version i16, array of topic
/// strings) to `topics`; false when the bytes are something else.
pub(crate) fn collect_topics(metadata: &[u8], topics: &mut BTreeSet<String>) -> bool {
    parse(metadata, topics).is_some()
}

fn parse(metadata: &[u8], topics: &mut BTreeSet<String>) -> Option<()> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    let count = i32::from_be_bytes(*count);
    if count < 0 {
        return None;
    }
    for _ in 0..count {
        let (len, tail) = rest.split_first_chunk::<2>()?;
        let len = usize::try_from(i16::from_be_bytes(*len)).ok()?;
        let (name, tail) = tail.split_at_checked(len)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        rest = tail;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_found_in_a_subscription_and_nothing_else() {
        let mut topics = BTreeSet::new();
        let subscription = b"\x00\x01\x00\x00\x00\x02\x00\x01a\x00\x02bc\xff\xff\xff\xff";
        assert!(collect_topics(subscription, &mut topics));
        assert_eq!(topics, BTreeSet::from(["a".to_owned(), "bc".to_owned()]));
        for damaged in [&b""[..], b"\xff\xff\x00\x00\x00\x00", b"\x00\x01\x7f\xff\xff\xff\x00"] {
            assert!(!collect_topics(damaged, &mut topics));
        }
    }
}
