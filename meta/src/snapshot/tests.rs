use std::collections::BTreeMap;

use common::Rng;

use super::*;
use crate::record::{Cluster, Number, Partition};
use crate::testing::MemoryStore;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn small() -> Map {
    let cluster = Cluster { cluster_id: "c".into(), incarnation: 3, ..Cluster::default() };
    let partition = Partition { leader: Some(1), epoch: 9, wal: Some(7) };
    let id = common::PartitionId { topic: 1, index: 0 };
    Map::from([
        (keys::applied(), frame::encode(&Applied { index: 50, term: 2 })),
        (keys::cluster(), frame::encode(&cluster)),
        (keys::time(), frame::encode(&Number { value: 1000 })),
        (keys::partition(id), frame::encode(&partition)),
    ])
}

/// A state of random keys behind those that every state has.
fn random(rng: &Rng) -> Map {
    let mut map = small();
    for _ in 0..rng.below(3000) {
        let byte = |bound| u8::try_from(rng.below(bound)).expect("below 256");
        let mut key = vec![tag::OBJECT];
        key.extend((0..1 + rng.below(12)).map(|_| byte(256)));
        map.insert(key, (0..rng.below(60)).map(|_| byte(256)).collect());
    }
    map
}

fn cut(map: &Map, bytes_max: usize) -> (Head, Vec<Vec<u8>>) {
    let mut cutter = Cutter::new(Box::new(map.clone()), 50);
    let mut parts = Vec::new();
    while let Some(part) = cutter.part(bytes_max).expect("cuts") {
        parts.push(part);
    }
    (cutter.finish(2000), parts)
}

async fn fill(store: MemoryStore, head: &Head, parts: &[Vec<u8>]) -> Result<(), SnapshotError> {
    let mut filler = Filler::begin(Box::new(store)).await?;
    for (part, said) in parts.iter().zip(&head.parts) {
        filler.part(part, said).await?;
    }
    filler.check(head)?;
    filler.finish().await.map(|_| ())
}

#[tokio::test]
async fn a_snapshot_restores_the_same_state_also_over_another_one() {
    for seed in 0..30 {
        let rng = Rng::seeded(seed);
        let map = random(&rng);
        let (head, parts) = cut(&map, 1 + usize::try_from(rng.below(40_000)).expect("small"));
        assert_eq!((head.cluster_id.as_str(), head.incarnation, head.epoch_max), ("c", 3, 9));
        assert_eq!((head.time_ms, head.taken_ms, head.applied), (1000, 2000, 50));
        assert_eq!(Head::parse(&head.to_bytes()), Ok(head.clone()));
        let store = MemoryStore::default();
        if rng.one_in(2) {
            // What an interrupted fill left there.
            let (other, others) = cut(&random(&rng), 1000);
            fill(store.clone(), &other, &others).await.expect("fills");
        }
        fill(store.clone(), &head, &parts).await.expect("fills");
        store.power_cut();
        let mut expected = map.clone();
        expected.insert(keys::applied(), frame::encode(&Applied { index: 1, term: 1 }));
        assert_eq!(store.state(), expected, "seed {seed}");
        assert_eq!(dump::checksum(&store.state()), dump::checksum(&map));
        assert_eq!(dump::checksum(&map), Ok(head.checksum));
    }
}

#[tokio::test]
async fn every_wrong_bit_and_every_wrong_order_is_refused() {
    let map = random(&Rng::seeded(7));
    let (head, parts) = cut(&map, 20_000);
    assert!(parts.len() > 2);
    let rng = Rng::seeded(8);
    for _ in 0..300 {
        let mut parts = parts.clone();
        let one = usize::try_from(rng.below(parts.len() as u64)).expect("few");
        let at = usize::try_from(rng.below(parts[one].len() as u64)).expect("small");
        parts[one][at] ^= 1 << rng.below(8);
        assert!(fill(MemoryStore::default(), &head, &parts).await.is_err());
    }
    let bytes = head.to_bytes();
    for at in (0..bytes.len()).filter(|at| !(9..12).contains(at)) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert!(Head::parse(&bytes).is_err(), "byte {at}");
    }
    assert!(Head::parse(&bytes[..10]).is_err());
    let mut swapped = (head.clone(), parts.clone());
    swapped.0.parts.swap(0, 1);
    swapped.1.swap(0, 1);
    assert!(fill(MemoryStore::default(), &swapped.0, &swapped.1).await.is_err(), "swapped parts");
    let mut short = (head, parts);
    short.0.parts.pop();
    short.1.pop();
    assert!(fill(MemoryStore::default(), &short.0, &short.1).await.is_err(), "a part too few");
}

#[test]
fn head_and_part_keep_their_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut state = small();
    state.retain(|key, _| key[0] <= tag::TIME);
    let (head, parts) = cut(&state, 1000);
    assert_eq!(hex(&parts[0]), GOLDEN_PART);
    assert_eq!(hex(&head.to_bytes()), GOLDEN_HEAD);
}

const GOLDEN_PART: &str = "534c5549434d50540100000000000000020000001c000000315bba81010000000106000000010a0163100301\
    00000002040000000108e807";
const GOLDEN_HEAD: &str = "534c5549434d48440100000020000000beedae51010a01631003183220022d315bba8130e80738d00f4a0908\
    3815534927331802";
