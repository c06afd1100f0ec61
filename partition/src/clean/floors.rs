//! How far the sinks of a topic have come, from the image.

use std::collections::BTreeMap;

use common::PartitionId;

use super::retention::Floor;

/// The floors of all sinks of the partition's topic. A sink that has not told one yet stands where it begins; one that
/// begins at the log start needs everything from `log_start` on.
pub(crate) fn of(image: &meta::Image, id: PartitionId, log_start: i64) -> Vec<Floor> {
    let Some(topic) = image.topics.get(&id.topic) else { return Vec::new() };
    let sinks = image.sinks.values().filter(|sink| sink.topic_id == topic.id);
    let floor = |sink: &std::sync::Arc<meta::SinkMeta>| {
        let begin = || sink.starts.get(&id.index).copied();
        let number = |key: &str| sink.config.get(key)?.trim().parse::<i64>().ok();
        let bound = |key: &str| number(key).filter(|most| *most >= 0);
        Floor {
            sink: sink.id,
            offset: image.floor(sink.id, id.index).or_else(begin).unwrap_or(log_start),
            protect: is_protected(&sink.config),
            bytes_max: bound("sink.protect.size.max.bytes").map(i64::unsigned_abs),
            age_max_ms: bound("sink.protect.age.max.ms"),
        }
    };
    sinks.map(floor).collect()
}

fn is_protected(config: &BTreeMap<String, String>) -> bool {
    config.get("sink.protect").is_none_or(|word| word.trim() != "false")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_floor_is_what_was_told_or_where_the_sink_begins() {
        let topic_id = Uuid::from_u128(5);
        let topic = meta::Topic { number: 3, id: topic_id, ..meta::Topic::default() };
        let sink = |id: u64, name: &str, config: &[(&str, &str)], starts: &[(u32, i64)]| {
            let meta = meta::SinkMeta {
                id,
                name: name.to_owned(),
                topic: 3,
                topic_id,
                topic_name: "t".to_owned(),
                config: config.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
                generation: 0,
                state: meta::SinkState::Running,
                starts: starts.iter().copied().collect(),
                root: String::new(),
                created_ms: 0,
            };
            (name.to_owned(), Arc::new(meta))
        };
        let bounds = [("sink.protect.size.max.bytes", "9"), ("sink.protect.age.max.ms", "-1")];
        let mut image = meta::Image::default();
        image.topics = Arc::new([(3, Arc::new(topic))].into());
        let sinks = [
            sink(1, "a", &bounds, &[]),
            sink(2, "b", &[("sink.protect", "false")], &[(0, 44)]),
            sink(4, "c", &[], &[]),
        ];
        image.sinks = Arc::new(sinks.into());
        image.floors = Arc::new([((1, 0), 70)].into());
        let found = of(&image, PartitionId { topic: 3, index: 0 }, 20);
        let seen: Vec<_> = found.iter().map(|f| (f.sink, f.offset, f.protect)).collect();
        assert_eq!(seen, [(1, 70, true), (2, 44, false), (4, 20, true)]);
        assert_eq!((found[0].bytes_max, found[0].age_max_ms), (Some(9), None));
        assert_eq!(of(&image, PartitionId { topic: 9, index: 0 }, 0), []);
    }
}
