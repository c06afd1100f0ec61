use super::*;

fn parse(pairs: &[(&str, &str)]) -> Result<SinkConfig, Faults> {
    let raw = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    SinkConfig::parse(&raw)
}

#[test]
fn without_rotation_keys_a_file_closes_at_128_mib_or_a_minute() {
    let config = parse(&[("format", "parquet"), ("value", "json")]).expect("valid");
    assert_eq!(config.rules.bytes, Some(128 << 20));
    assert_eq!(config.rules.age_ms, Some(60_000));
    assert_eq!(config.topics_dir, "topics");
    assert_eq!((config.codec, config.pad_width), (Codec::Snappy, 10));
    let config = parse(&[("flush.size", "1000")]).expect("valid");
    assert_eq!((config.rules.records, config.rules.bytes), (Some(1000), None));
    assert_eq!(config.rules.age_ms, None);
}

#[test]
fn an_unknown_key_names_the_nearest_and_all_faults_come_together() {
    let faults = parse(&[
        ("flush.sise", "3"),
        ("rotate.interval.ms", "soon"),
        ("timezone", "Mars/Olympus"),
        ("topics.dir", "../up"),
        ("parquet.codec", "lzo"),
    ])
    .expect_err("faulty");
    assert_eq!(faults.0.len(), 5, "{faults}");
    let text = faults.to_string();
    for part in ["\"flush.size\"", "rotate.interval.ms", "Europe/Berlin", "topics.dir", "snappy"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn minus_one_means_not_set_as_in_connect() {
    let config = parse(&[("rotate.interval.ms", "-1"), ("flush.size", "5")]).expect("valid");
    assert_eq!(config.rules.span_ms, None);
}

#[test]
fn the_hash_follows_the_values_and_nothing_else() {
    let one = parse(&[("flush.size", "1"), ("topics.dir", "t")]).expect("valid");
    let same = parse(&[("topics.dir", "t"), ("flush.size", "1")]).expect("valid");
    let other = parse(&[("topics.dir", "t"), ("flush.size", "2")]).expect("valid");
    assert_eq!(one.hash(), same.hash());
    assert_ne!(one.hash(), other.hash());
}

#[test]
fn sink_names_are_safe_folders() {
    assert!(check_name("flights-2013.a_b").is_ok());
    for bad in ["", "_sluice", "..", "a/b", "a b", "a+b"] {
        assert!(check_name(bad).is_err(), "{bad}");
    }
}
