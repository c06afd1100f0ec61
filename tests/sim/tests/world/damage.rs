//! Bytes of the log that have changed while the broker was away: the log is refused, hit by name, and left as it is.

use sim::disk::SimDisk;
use sim::edges;
use wal::{Damage, Disk as _, Group, Identity, RecoverError, Wal};

use super::World;

/// Puts the true bytes back, also when the start is cut off.
struct Restore {
    disk: SimDisk,
    segment: u64,
    at: u64,
    bytes: bytes::Bytes,
}

impl Drop for Restore {
    fn drop(&mut self) {
        let _damaged = self.disk.replace(self.segment, self.at, &self.bytes);
    }
}

impl World {
    /// Damages a group that is known to have been acknowledged, and looks that recovery refuses the log.
    ///
    /// # Errors
    /// What recovery made of it instead.
    pub async fn damaged_log_is_refused(
        &self,
        options: &wal::Options,
        facts: &meta::WalFacts,
    ) -> Result<(), String> {
        let identity = Identity {
            wal: facts.id,
            salt: facts.salt,
            epochs: facts.epochs.clone(),
            committed: facts.committed,
            fresh: facts.fresh,
        };
        // Whatever fails here fails in the true start as well.
        let Ok(whole) = Wal::recover(self.disk.open(), options, &identity).await else {
            return Ok(());
        };
        let groups = whole.groups();
        let acked = groups.iter().map(|group| group.acked()).max().unwrap_or_default();
        let known = groups.partition_point(|group| group.first() < acked) as u64;
        let Ok(victim) = usize::try_from(self.rng.below(known)) else { return Ok(()) };
        let Some(victim) = groups.get(victim).filter(|_| known > 0) else { return Ok(()) };
        let Some((segment, at)) = self.place(victim) else { return Ok(()) };
        let (edge, bytes) = self.wrong_bytes(victim, segment, at);
        let restore = Restore {
            segment,
            at,
            bytes: self.disk.replace(segment, at, &bytes),
            disk: self.disk.clone(),
        };
        let found = Wal::recover(self.disk.open(), options, &identity).await;
        drop(restore);
        match found {
            Err(RecoverError::Damaged { damage, .. }) => {
                let first = victim.first();
                let named = damage.iter().any(|one| match one {
                    Damage::Range { first: at, .. } => *at == first,
                    Damage::Payload { group, .. } => *group == first,
                });
                edges::met(edge);
                named.then_some(()).ok_or(format!("{edge} at {first}: {damage:?} was named"))
            }
            Err(RecoverError::Foreign { .. }) if edge == "log.flipped" => Ok(()),
            Err(RecoverError::Read { .. }) => Ok(()),
            Err(error) => Err(format!("{edge} at {} gave {error}", victim.first())),
            Ok(log) => Err(format!(
                "{edge} at {}: the log was taken up to {} of {}",
                victim.first(),
                log.end(),
                whole.end()
            )),
        }
    }

    /// Segment and position in it.
    fn place(&self, group: &Group) -> Option<(u64, u64)> {
        let files = self.disk.list().ok()?;
        let first = group.first().0;
        let file = files.iter().find(|file| (file.number..file.number + file.len).contains(&first));
        file.map(|file| (file.number, first - file.number))
    }

    /// What lies at `group` instead: a flipped byte, nothing, or an older write that went astray.
    fn wrong_bytes(&self, group: &Group, segment: u64, at: u64) -> (&'static str, Vec<u8>) {
        let len = usize::try_from(group.end().0 - group.first().0).expect("a group is small");
        let zeros = vec![0; len];
        match self.rng.below(4) {
            0 => ("log.lied", zeros),
            1 if at >= len as u64 => {
                let stray = self.disk.replace(segment, at - len as u64, &zeros);
                let _zeros = self.disk.replace(segment, at - len as u64, &stray);
                ("log.misdirected", stray.to_vec())
            }
            _ => {
                let mut bytes = self.disk.replace(segment, at, &zeros).to_vec();
                let _zeros = self.disk.replace(segment, at, &bytes);
                // What follows header and payload is padding, which no checksum covers.
                let used = group.frames().iter().filter(|_| self.rng.one_in(2));
                let used = used.map(|frame| frame.range.clone()).find(|range| !range.is_empty());
                let used = used.unwrap_or(0..128);
                let spread = u64::from(used.end - used.start);
                let at = u64::from(used.start) + self.rng.below(spread);
                bytes[usize::try_from(at).expect("small")] ^= 1 << self.rng.below(8);
                ("log.flipped", bytes)
            }
        }
    }
}
