//! Where the power goes: the seams and the product's own points name each moment they pass, and the world is cut at the
//! chosen one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// A group or segment has reached the disk; nobody has been told.
pub const DISK_DONE: &str = "disk.done";
/// Bytes have been read from the disk.
pub const DISK_READ: &str = "disk.read";
/// Metadata has been written and may be lost.
pub const META_WRITTEN: &str = "meta.written";
/// Metadata is durable; nobody has been told.
pub const META_SYNCED: &str = "meta.synced";
/// An object is in the store; nobody has been told.
pub const OBJECT_PUT: &str = "object.put";
type Cut = Arc<dyn Fn(&str) + Send + Sync>;

/// Shared by the seams of one world. Without a chosen moment it only counts.
#[derive(Clone, Default)]
pub struct Trigger(Arc<Mutex<Armed>>);

#[derive(Default)]
struct Armed {
    point: Option<(&'static str, u64)>,
    cut: Option<Cut>,
    fired: BTreeMap<&'static str, u64>,
}

impl fmt::Debug for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trigger({:?})", self.0.lock().point)
    }
}

impl Trigger {
    /// Chooses the `nth` passing of `point`, from 1.
    pub fn arm(&self, point: &'static str, nth: u64) {
        self.0.lock().point = Some((point, nth));
    }

    /// Chooses nothing.
    pub fn disarm(&self) {
        self.0.lock().point = None;
    }

    /// What cutting means; called once for each arming, outside of all locks.
    pub fn on_cut(&self, cut: Option<Cut>) {
        self.0.lock().cut = cut;
    }

    /// How often each moment has been the end.
    #[must_use]
    pub fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().fired.clone()
    }

    /// Passes `point`.
    pub fn hit(&self, point: &'static str) {
        let cut = {
            let mut armed = self.0.lock();
            match &mut armed.point {
                Some((chosen, left)) if *chosen == point && *left > 1 => {
                    *left -= 1;
                    return;
                }
                Some((chosen, _)) if *chosen == point => {}
                _ => return,
            }
            armed.point = None;
            *armed.fired.entry(point).or_default() += 1;
            armed.cut.clone()
        };
        if let Some(cut) = cut {
            cut(point);
        }
    }
}
