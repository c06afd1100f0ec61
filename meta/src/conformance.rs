//! What every [`MetaStore`] has to hold. Run on the real store and on the simulated one.

use crate::store::{Batch, MetaStore, Space};

/// Opens the store under test again, after a clean end (`false`) or a power cut (`true`) of the one before, which has been
/// dropped.
pub type Reopen<'a> = &'a mut dyn FnMut(bool) -> Box<dyn MetaStore>;

/// Runs the suite on an empty store.
///
/// # Panics
/// When the store breaks a rule; the message says which.
pub async fn run(reopen: Reopen<'_>) {
    reads_what_was_written(reopen).await;
    scans_both_ways(reopen).await;
    changes_of_a_batch_happen_in_order(reopen).await;
    a_frozen_state_stands_still(reopen).await;
    a_synced_write_survives(reopen).await;
    losses_are_a_suffix(reopen).await;
}

async fn clear(store: &mut Box<dyn MetaStore>) {
    let mut batch = Batch::default();
    for space in [Space::Log, Space::State] {
        batch.delete_range(space, vec![0], vec![0xff]);
    }
    store.write(batch, true).await.expect("clear");
}

async fn put(store: &mut Box<dyn MetaStore>, space: Space, key: &[u8], value: &[u8], sync: bool) {
    let mut batch = Batch::default();
    batch.put(space, key.to_vec(), value.to_vec());
    store.write(batch, sync).await.expect("write");
}

async fn reads_what_was_written(reopen: Reopen<'_>) {
    let mut store = reopen(false);
    clear(&mut store).await;
    assert_eq!(store.get(Space::State, b"a").expect("read"), None, "an absent key");
    put(&mut store, Space::State, b"a", b"state", false).await;
    put(&mut store, Space::Log, b"a", b"log", false).await;
    assert_eq!(store.get(Space::State, b"a").expect("read").as_deref(), Some(&b"state"[..]));
    assert_eq!(store.get(Space::Log, b"a").expect("read").as_deref(), Some(&b"log"[..]));
    put(&mut store, Space::Log, b"a", b"", true).await;
    drop(store);
    let store = reopen(false);
    assert_eq!(store.get(Space::Log, b"a").expect("read").as_deref(), Some(&b""[..]), "empty");
    assert_eq!(store.get(Space::State, b"a").expect("read").as_deref(), Some(&b"state"[..]));
}

async fn scans_both_ways(reopen: Reopen<'_>) {
    let mut store = reopen(false);
    clear(&mut store).await;
    let mut batch = Batch::default();
    for key in 1..=9_u8 {
        batch.put(Space::State, vec![key], vec![key]);
        batch.put(Space::Log, vec![key], vec![0]);
    }
    store.write(batch, false).await.expect("write");
    let scan = |start: u8, end: u8, limit| -> Vec<u8> {
        let pairs = store.scan(Space::State, &[start], &[end], limit).expect("scan");
        pairs
            .into_iter()
            .map(|(key, value)| (key == value).then_some(key[0]).expect("own"))
            .collect()
    };
    let back = |start: u8, end: u8, limit| -> Vec<u8> {
        let pairs = store.scan_back(Space::State, &[start], &[end], limit).expect("scan");
        pairs.into_iter().map(|(key, _)| key[0]).collect()
    };
    assert_eq!(scan(2, 5, 10), [2, 3, 4], "the end is exclusive");
    assert_eq!(scan(2, 9, 2), [2, 3], "the limit");
    assert_eq!(scan(5, 2, 10), [0_u8; 0], "a reversed range is empty");
    assert_eq!(scan(2, 5, 0), [0_u8; 0], "no limit, no pairs");
    assert_eq!(back(2, 5, 10), [4, 3, 2], "descending, the end is exclusive");
    assert_eq!(back(0, 0xff, 2), [9, 8], "from the last");
    assert_eq!(back(5, 5, 10), [0_u8; 0], "an empty range");
}

async fn changes_of_a_batch_happen_in_order(reopen: Reopen<'_>) {
    let mut store = reopen(false);
    clear(&mut store).await;
    for key in 1..=5_u8 {
        put(&mut store, Space::Log, &[key], b"old", false).await;
    }
    let mut batch = Batch::default();
    batch.delete_range(Space::Log, vec![2], vec![5]);
    batch.put(Space::Log, vec![3], b"new".to_vec());
    batch.put(Space::Log, vec![4], b"gone".to_vec());
    batch.delete(Space::Log, vec![4]);
    batch.delete(Space::Log, vec![99]);
    store.write(batch, true).await.expect("write");
    let keys = |store: &dyn MetaStore| -> Vec<u8> {
        let pairs = store.scan(Space::Log, &[0], &[0xff], 100).expect("scan");
        pairs.into_iter().map(|(key, _)| key[0]).collect()
    };
    assert_eq!(keys(&*store), [1, 3, 5]);
    assert_eq!(store.get(Space::Log, &[3]).expect("read").as_deref(), Some(&b"new"[..]));
    drop(store);
    assert_eq!(keys(&*reopen(true)), [1, 3, 5], "after a power cut");
}

async fn a_frozen_state_stands_still(reopen: Reopen<'_>) {
    let mut store = reopen(false);
    clear(&mut store).await;
    for key in 1..=9_u8 {
        put(&mut store, Space::State, &[key], &[key], false).await;
    }
    let mut frozen = store.freeze().expect("freezes");
    put(&mut store, Space::State, &[5], b"later", false).await;
    put(&mut store, Space::State, &[10], b"later", true).await;
    put(&mut store, Space::Log, &[3], b"log", false).await;
    let mut batch = Batch::default();
    batch.delete(Space::State, vec![1]);
    store.write(batch, false).await.expect("write");
    let mut at = vec![0];
    for page in [1..=4_u8, 5..=8, 9..=9] {
        let expected: Vec<_> = page.map(|key| (vec![key], vec![key])).collect();
        let found = frozen.scan(&at, &[0xff], 4).expect("scans");
        assert_eq!(found, expected, "a frozen state has moved");
        at = crate::keys::next(&found.last().expect("not empty").0);
    }
    assert_eq!(frozen.scan(&at, &[0xff], 4).expect("scans"), []);
    assert_eq!(frozen.scan(&[9], &[2], 4).expect("scans"), []);
    drop(store);
    assert_eq!(frozen.scan(&[5], &[6], 4).expect("scans"), [(vec![5], vec![5])]);
}

async fn a_synced_write_survives(reopen: Reopen<'_>) {
    let mut store = reopen(false);
    clear(&mut store).await;
    put(&mut store, Space::State, b"before", b"1", false).await;
    put(&mut store, Space::Log, b"synced", b"2", true).await;
    drop(store);
    let store = reopen(true);
    assert!(store.get(Space::Log, b"synced").expect("read").is_some(), "a synced write is lost");
    assert!(
        store.get(Space::State, b"before").expect("read").is_some(),
        "a sync covers what came before"
    );
}

async fn losses_are_a_suffix(reopen: Reopen<'_>) {
    for round in 0..20_u8 {
        let mut store = reopen(false);
        clear(&mut store).await;
        for number in 1..=30_u8 {
            let mut batch = Batch::default();
            batch.put(Space::Log, vec![number], vec![number]);
            batch.put(Space::State, vec![number], vec![number]);
            store.write(batch, number == round).await.expect("write");
        }
        drop(store);
        let store = reopen(true);
        let held = |space| store.scan(space, &[0], &[0xff], 100).expect("scan").len();
        let (log, state) = (held(Space::Log), held(Space::State));
        assert_eq!(log, state, "half a batch survived");
        assert!(log >= usize::from(round), "a synced write is lost");
        for number in 1..=log {
            let number = u8::try_from(number).expect("at most 30");
            let value = store.get(Space::Log, &[number]).expect("read");
            assert!(value.is_some(), "write {number} is lost, a later one is not");
        }
    }
}
