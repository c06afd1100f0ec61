//! Named points where a test ends, delays or watches the process, and named bugs that a test plants to see itself fail.
//!
//! A point costs one relaxed load while none is set and none is watched. Points come from `SLUICE_FAILPOINTS`, for example
//! `storage.object.put=3:kill;wal.group.durable=1:sleep(250)`: the third time the first is met the process kills itself
//! with SIGKILL, the first time the second is met it sleeps a quarter second. Planted bugs and
//! watchers are per thread and only a test can set them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// A point is set somewhere, or a thread watches.
static ACTIVE: AtomicBool = AtomicBool::new(false);
static POINTS: Mutex<BTreeMap<String, Point>> = Mutex::new(BTreeMap::new());
static BUGS: AtomicBool = AtomicBool::new(false);

thread_local! {
    static PLANTED: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    static WATCHER: RefCell<Option<Watcher>> = const { RefCell::new(None) };
}

/// Called with the name of each point that its thread meets, in whatever state the caller is: it takes no lock of the
/// product's.
pub type Watcher = Rc<dyn Fn(&'static str)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Sleep(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    remaining: u64,
    action: Action,
}

/// The environment variable read by [`arm_from_environment`].
pub const VARIABLE: &str = "SLUICE_FAILPOINTS";

/// Sets the points named in [`VARIABLE`].
///
/// # Errors
/// One sentence that names the part that cannot be read.
pub fn arm_from_environment() -> Result<(), String> {
    match std::env::var(VARIABLE) {
        Ok(text) => arm(&text),
        Err(_) => Ok(()),
    }
}

/// Sets the points in `text`.
///
/// # Errors
/// One sentence that names the part that cannot be read.
pub fn arm(text: &str) -> Result<(), String> {
    let mut points = BTreeMap::new();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (name, point) = parse(part).ok_or_else(|| {
            format!("{VARIABLE}: {part:?} is not name=N:kill or name=N:sleep(MS)")
        })?;
        points.insert(name, point);
    }
    let mut set = POINTS.lock();
    if !points.is_empty() {
        ACTIVE.store(true, Ordering::Release);
    }
    *set = points;
    Ok(())
}

fn parse(part: &str) -> Option<(String, Point)> {
    let (name, rest) = part.split_once('=')?;
    let (nth, action) = rest.split_once(':')?;
    let action = match action {
        "kill" => Action::Kill,
        other => {
            let ms = other.strip_prefix("sleep(")?.strip_suffix(')')?;
            Action::Sleep(Duration::from_millis(ms.parse().ok()?))
        }
    };
    let remaining = nth.parse().ok().filter(|n| *n > 0)?;
    Some((name.to_owned(), Point { remaining, action }))
}

/// Marks the point `name`. May block the thread for the time of a `sleep`, only while armed.
pub fn hit(name: &'static str) {
    if ACTIVE.load(Ordering::Relaxed) {
        hit_slow(name);
    }
}

#[cold]
fn hit_slow(name: &'static str) {
    let watcher = WATCHER.with_borrow(Clone::clone);
    if let Some(watcher) = watcher {
        watcher(name);
    }
    let action = {
        let mut points = POINTS.lock();
        let Some(point) = points.get_mut(name) else { return };
        point.remaining = point.remaining.saturating_sub(1);
        if point.remaining > 0 {
            return;
        }
        let action = point.action;
        points.remove(name);
        action
    };
    match action {
        Action::Kill => {
            eprintln!("fail point {name}: killing this process");
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
        #[expect(clippy::disallowed_methods, reason = "only while a test has armed the point")]
        Action::Sleep(time) => {
            eprintln!("fail point {name}: sleeping for {time:?}");
            std::thread::sleep(time);
        }
    }
}

/// Tells `watcher` of each point that this thread meets from now on; `None` ends it. For tests.
pub fn watch(watcher: Option<Watcher>) {
    if watcher.is_some() {
        ACTIVE.store(true, Ordering::Relaxed);
    }
    WATCHER.with_borrow_mut(|current| *current = watcher);
}

/// True when a test has planted `bug` on this thread.
#[must_use]
pub fn planted(bug: &str) -> bool {
    BUGS.load(Ordering::Relaxed) && PLANTED.with_borrow(|set| set.contains(bug))
}

/// Plants `bug` on this thread until the guard is dropped. For tests of tests.
#[must_use]
pub fn plant(bug: &'static str) -> Planted {
    BUGS.store(true, Ordering::Relaxed);
    PLANTED.with_borrow_mut(|set| set.insert(bug));
    Planted(bug)
}

/// Keeps a bug planted.
#[derive(Debug)]
pub struct Planted(&'static str);

impl Drop for Planted {
    fn drop(&mut self) {
        PLANTED.with_borrow_mut(|set| set.remove(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_and_bad_ones_named() {
        let kill = Point { remaining: 3, action: Action::Kill };
        assert_eq!(parse("a.b=3:kill"), Some(("a.b".to_owned(), kill)));
        let sleep = Point { remaining: 1, action: Action::Sleep(Duration::from_millis(20)) };
        assert_eq!(parse("x=1:sleep(20)"), Some(("x".to_owned(), sleep)));
        for bad in ["x", "x=kill", "x=0:kill", "x=1:die", "x=1:sleep(y)"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_watcher_hears_of_its_own_thread_alone() {
        let heard = Rc::new(RefCell::new(Vec::new()));
        let ear = heard.clone();
        watch(Some(Rc::new(move |name| ear.borrow_mut().push(name))));
        hit("one");
        let other = crate::threads::spawn("elsewhere", || hit("elsewhere")).expect("spawns");
        other.join().expect("no panic");
        hit("two");
        watch(None);
        hit("three");
        assert_eq!(*heard.borrow(), ["one", "two"]);
    }

    #[test]
    fn a_planted_bug_ends_with_its_guard() {
        assert!(!planted("early"));
        let guard = plant("early");
        assert!(planted("early"));
        drop(guard);
        assert!(!planted("early"));
    }
}
