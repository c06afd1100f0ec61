//! The tail of a small log of several groups, some with several frames: cut at every byte, flipped at every byte, and with
//! every hole that writes in flight can leave. Recovery gives whole frames, all that was acknowledged, in order, or it
//! refuses the log.

use std::sync::Arc;

use common::metrics::Registry;
use common::{Lsn, PartitionId, Rng, StreamEpoch, StreamKind, WalEpoch, WalId};
use sim::disk::{Behaviour, SimDisk};
use wal::{
    Disk as _, Error, Frame, FrameHeader, Group, Identity, Listener, Options, RecoverError, Wal,
};

struct Deaf;

impl Listener for Deaf {
    fn sealed(&self, _: Arc<Group>) {}
    fn durable(&self, _: &Arc<Group>, _: Lsn) {}
    fn failed(&self, _: &Error) {}
    fn space(&self) {}
}

fn options() -> Options {
    Options {
        capacity_max: 256 << 10,
        segment_bytes: 64 << 10,
        first_segment_bytes: 64 << 10,
        group_bytes_max: 16 << 10,
        ..Options::default()
    }
}

fn identity(fresh: bool) -> Identity {
    let epochs = if fresh { Vec::new() } else { vec![(WalEpoch(1), Lsn(0))] };
    Identity { wal: WalId(3), salt: 77, fresh, epochs, committed: Lsn(0) }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime").block_on(future)
}

fn payload(id: i64) -> Vec<u8> {
    let length = [40, 300, 5000][usize::try_from(id % 3).expect("small")];
    id.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// A log with the given frames in a group each; each group is durable before the next when `apart`.
async fn log(groups: &[&[i64]], apart: bool) -> SimDisk {
    let disk = SimDisk::new(Rng::seeded(5));
    disk.behave(Behaviour { stall_one_in: 0, ..Behaviour::default() });
    let recovered = Wal::recover(disk.open(), &options(), &identity(true)).await.expect("fresh");
    let wal = Wal::start(recovered, WalEpoch(1), Arc::new(Deaf), &Registry::default())
        .await
        .expect("starts");
    let mut last = Lsn(0);
    for group in groups {
        for id in *group {
            let header = FrameHeader {
                kind: 0,
                flags: 0,
                stream: PartitionId { topic: 5, index: 2 }.stream(StreamKind::Data),
                epoch: StreamEpoch(4),
                base_offset: *id,
                span: 1,
                count: 1,
                max_timestamp: 0,
                key_id: 0,
            };
            let at = wal.append(&[Frame { header, parts: &[&payload(*id)] }]).expect("fits");
            last = at.group;
        }
        wal.kick();
        if apart {
            wal.subscribe().wait_for(|durable| *durable > last).await.expect("alive");
        }
    }
    wal.subscribe().wait_for(|durable| *durable > last).await.expect("alive");
    disk.crash();
    disk
}

/// The ids in the log, each payload checked whole, and the groups' places.
async fn recover(disk: &SimDisk) -> Result<(Vec<i64>, Vec<(u64, u64, usize)>), RecoverError> {
    let recovered = Wal::recover(disk.open(), &options(), &identity(false)).await?;
    let (mut ids, mut places) = (Vec::new(), Vec::new());
    for group in recovered.groups() {
        places.push((group.first().0, group.end().0, group.frames().len()));
        for (index, frame) in group.frames().iter().enumerate() {
            let id = frame.header.base_offset;
            assert_eq!(group.payload(index), payload(id), "frame {id} is not what was appended");
            ids.push(id);
        }
    }
    Ok((ids, places))
}

const TAIL: &[&[i64]] = &[&[1], &[2, 3], &[4, 5, 6], &[7], &[8, 9]];

/// What stands before group `index` of the recovered `places`.
fn ids_before(places: &[(u64, u64, usize)], index: usize) -> usize {
    places[..index].iter().map(|(_, _, frames)| frames).sum()
}

#[test]
fn a_tail_cut_at_every_byte_gives_whole_groups_before_the_cut() {
    block_on(async {
        let disk = log(TAIL, false).await;
        let (whole, places) = recover(&disk).await.expect("whole");
        assert_eq!(whole, (1..=9).collect::<Vec<_>>());
        let end = places.last().expect("groups").1;
        let start = places[1].0;
        let mut cut = 0;
        // From the end on, each byte more is zero, as if the file had never been written behind it.
        for at in (start..end).rev() {
            disk.damage(0, at, |byte| *byte = 0);
            let hit = places.iter().position(|(first, end, _)| (*first..*end).contains(&at));
            let before = ids_before(&places, hit.expect("inside"));
            let found = recover(&disk).await.expect("a tail is cut, never refused").0;
            // The group of the cut may still be whole: what was zeroed was padding, or zero before.
            let with = before + places[hit.expect("inside")].2;
            assert!(found == whole[..before] || found == whole[..with], "{at}: {found:?}");
            cut += usize::from(found.len() == before);
        }
        assert!(cut > 3_000, "hardly any cut took anything: {cut}");
    });
}

#[test]
fn a_flip_of_every_byte_refuses_the_log_or_cuts_what_nobody_was_told_of() {
    block_on(async {
        let disk = log(TAIL, true).await;
        let (whole, places) = recover(&disk).await.expect("whole");
        let end = places.last().expect("groups").1;
        let last = places.last().expect("groups").0;
        let (mut refused, mut cut, mut padding) = (0, 0, 0);
        for at in 0..end {
            let flip = |byte: &mut u8| *byte ^= 1 << (at % 8);
            disk.damage(0, at, flip);
            let found = recover(&disk).await;
            disk.damage(0, at, flip);
            match found {
                Err(RecoverError::Damaged { .. } | RecoverError::Foreign { .. }) => refused += 1,
                Err(other) => panic!("{at}: {other}"),
                Ok((found, _)) if found == whole => padding += 1,
                // Nothing on the disk says that the last group was acknowledged.
                Ok((found, _)) => {
                    assert!(at >= last, "{at}: cut to {found:?}");
                    assert_eq!(found, whole[..ids_before(&places, places.len() - 1)], "{at}");
                    cut += 1;
                }
            }
        }
        println!("refused {refused}, cut {cut}, padding {padding}");
        assert!(refused > 5_000 && cut > 500, "refused {refused}, cut {cut}, padding {padding}");
    });
}

#[test]
fn every_hole_of_the_window_is_cut_and_what_is_below_it_kept() {
    block_on(async {
        // Appended back to back: the last four groups were in flight together.
        let disk = log(TAIL, false).await;
        let (whole, places) = recover(&disk).await.expect("whole");
        let window = places.len() - 4..places.len();
        let mut images = Vec::new();
        for (first, end, _) in &places[window.clone()] {
            let len = usize::try_from(end - first).expect("small");
            let image = disk.replace(0, *first, &vec![0; len]);
            let _zeros = disk.replace(0, *first, &image);
            images.push(image);
        }
        for survivors in 0..16_u32 {
            for (bit, index) in window.clone().enumerate() {
                let lost = survivors & (1 << bit) == 0;
                let image = if lost { vec![0; images[bit].len()] } else { images[bit].to_vec() };
                let _former = disk.replace(0, places[index].0, &image);
            }
            let first_lost = (0..4).find(|bit| survivors & (1 << bit) == 0).unwrap_or(4);
            let kept = ids_before(&places, window.start + first_lost);
            match recover(&disk).await {
                Ok((found, _)) => assert_eq!(found, whole[..kept], "survivors {survivors:04b}"),
                // A survivor knew of a lost one as durable: then it was acknowledged, and this is no hole of a crash.
                Err(RecoverError::Damaged { .. }) => {
                    let later = window.clone().enumerate().skip(first_lost + 1);
                    let knows = later.filter(|(bit, _)| survivors & (1 << bit) != 0).count();
                    assert!(knows > 0, "survivors {survivors:04b} refused");
                }
                Err(other) => panic!("survivors {survivors:04b}: {other}"),
            }
        }
        let files = disk.list().expect("lists");
        assert!(files.iter().any(|file| file.number == 0));
    });
}
