//! The internal topic: created at the first question for a coordinator.

use std::collections::BTreeMap;
use std::time::Duration;

use coordinator::TOPIC;
use meta::command::CreateTopic;
use meta::{Reject, Reply};
use tracing::{info, warn};

use super::Groups;

/// How long a question for a coordinator waits for the topic.
const CREATION_PATIENCE: Duration = Duration::from_secs(5);

impl Groups {
    /// Makes sure that the internal topic exists; false when that could not be reached in time.
    pub async fn ensure_topic(&self) -> bool {
        if self.0.deps.meta.image().topic(TOPIC).is_some() {
            return true;
        }
        tokio::time::timeout(CREATION_PATIENCE, self.create_topic()).await.unwrap_or(false)
    }

    async fn create_topic(&self) -> bool {
        let _one = self.0.creating.lock().await;
        let mut images = self.0.deps.meta.watch();
        if images.borrow_and_update().topic(TOPIC).is_some() {
            return true;
        }
        match self.0.deps.meta.propose(self.creation()).await {
            Ok(Reply::TopicCreated { partitions, .. }) => {
                info!(topic = TOPIC, partitions, "internal topic created");
            }
            // Another broker was faster.
            Ok(Reply::Rejected(Reject::TopicExists(_))) => {}
            Ok(reply) => {
                warn!(topic = TOPIC, ?reply, "internal topic not created");
                return false;
            }
            Err(error) => {
                warn!(topic = TOPIC, %error, "internal topic not created");
                return false;
            }
        }
        images.wait_for(|image| image.topic(TOPIC).is_some()).await.is_ok()
    }

    /// Settings as Apache Kafka gives them to this topic.
    fn creation(&self) -> CreateTopic {
        let configs = [
            ("cleanup.policy", "compact"),
            ("compression.type", "producer"),
            ("segment.bytes", "104857600"),
        ];
        let configs: BTreeMap<String, String> =
            configs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        CreateTopic {
            name: TOPIC.to_owned(),
            id: self.0.deps.rng.uuid().as_bytes().to_vec(),
            partitions: self.0.deps.offsets_partitions,
            replication_factor: 1,
            configs,
            internal: true,
            assignments: Vec::new(),
            validate_only: false,
            now_ms: self.0.deps.clock.now_ms(),
        }
    }
}
