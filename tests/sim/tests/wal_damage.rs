//! A small log, cut at every sector and flipped at every byte: acknowledged frames are recovered whole or the log is
//! refused with what is hit; nothing is ever half a frame or a wrong one.

use std::sync::Arc;
use std::time::Duration;

use common::metrics::Registry;
use common::{Lsn, PartitionId, Rng, StreamEpoch, StreamKind, WalEpoch, WalId};
use sim::disk::{Behaviour, SimDisk};
use wal::{
    Damage, Disk as _, Error, Frame, FrameHeader, Group, Identity, Listener, Options, ReadError,
    RecoverError, Wal,
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
        first_segment_bytes: 32 << 10,
        group_bytes_max: 16 << 10,
        ..Options::default()
    }
}

fn identity(epochs: &[(u64, u64)]) -> Identity {
    let epochs =
        epochs.iter().map(|(epoch, first)| (WalEpoch(*epoch), Lsn(*first))).collect::<Vec<_>>();
    Identity { wal: WalId(3), salt: 77, fresh: epochs.is_empty(), epochs, committed: Lsn(0) }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime").block_on(future)
}

/// A log with frames 0, 1, 2 in a group each, at 4096, 8192 and 12288, after the opening group at 0. `quiet`: the last
/// position is published at 16384.
async fn log(quiet: bool) -> SimDisk {
    let disk = SimDisk::new(Rng::seeded(5));
    let recovered = Wal::recover(disk.open(), &options(), &identity(&[])).await.expect("fresh");
    let wal = Wal::start(recovered, WalEpoch(1), Arc::new(Deaf), &Registry::default())
        .await
        .expect("starts");
    for id in 0..3_i64 {
        let header = FrameHeader {
            kind: 0,
            flags: 0,
            stream: PartitionId { topic: 5, index: 2 }.stream(StreamKind::Data),
            epoch: StreamEpoch(4),
            base_offset: id * 10,
            span: 10,
            count: 10,
            max_timestamp: 0,
            key_id: 0,
        };
        wal.append(&[Frame { header, parts: &[b"payload ", &id.to_le_bytes()] }]).expect("fits");
        wal.kick();
        let mut durable = wal.subscribe();
        let end = wal.occupancy().end;
        durable.wait_for(|lsn| *lsn >= end).await.expect("alive");
    }
    if quiet {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    disk.crash();
    disk
}

async fn recover(disk: &SimDisk) -> Result<(Vec<i64>, Lsn), RecoverError> {
    let recovered = Wal::recover(disk.open(), &options(), &identity(&[(1, 0)])).await?;
    let offsets = recovered.groups().iter().flat_map(|group| {
        let payload = |index| group.payload(index);
        group.frames().iter().enumerate().map(move |(index, frame)| {
            let id = frame.header.base_offset / 10;
            assert_eq!(payload(index), [b"payload ".as_slice(), &id.to_le_bytes()].concat());
            id
        })
    });
    Ok((offsets.collect(), recovered.end()))
}

#[test]
fn a_flip_of_any_byte_is_seen() {
    block_on(async {
        for quiet in [false, true] {
            let disk = log(quiet).await;
            let end = if quiet { 20480 } else { 16384 };
            assert_eq!(recover(&disk).await.expect("whole"), (vec![0, 1, 2], Lsn(end)));
            // Header, table and payload of each group; what follows is padding, which no checksum covers.
            for group in 0..4_u64 {
                let used = if group == 0 { 128 } else { 128 + 72 + 16 };
                for byte in 0..used {
                    let flip = |byte: &mut u8| *byte ^= 0x10;
                    disk.damage(0, group * 4096 + byte, flip);
                    let found = recover(&disk).await;
                    disk.damage(0, group * 4096 + byte, flip);
                    match found {
                        Err(RecoverError::Damaged { damage, .. }) => {
                            assert!(group < 3 || quiet, "group {group} byte {byte}");
                            check_damage(&damage, group, byte);
                        }
                        Err(RecoverError::Foreign { .. }) => assert_eq!(group, 0),
                        Ok(cut) => {
                            // Only the last group, whose acknowledgement nothing on the disk proves.
                            assert!(group == 3 && !quiet, "group {group} byte {byte}");
                            assert_eq!(cut, (vec![0, 1], Lsn(12288)));
                        }
                        Err(other) => panic!("group {group} byte {byte}: {other}"),
                    }
                }
            }
        }
    });
}

fn check_damage(damage: &[Damage], group: u64, byte: u64) {
    if byte >= 200 {
        let stream = PartitionId { topic: 5, index: 2 }.stream(StreamKind::Data);
        let start = (i64::try_from(group).expect("small") - 1) * 10;
        let group = Lsn(group * 4096);
        assert_eq!(damage, [Damage::Payload { group, stream, start, end: start + 10 }]);
    } else {
        let first = Lsn(group * 4096);
        assert_eq!(damage, [Damage::Range { first, end: Some(first.plus(4096)) }]);
    }
}

#[test]
fn a_tail_cut_at_any_byte_keeps_the_groups_before_it() {
    block_on(async {
        let disk = log(false).await;
        for cut in (12288..16384_u64).rev() {
            disk.damage(0, cut, |byte| *byte = 0);
            let expected = if cut < 12288 + 216 {
                // A zero byte may have been one already: then nothing has changed yet.
                [(vec![0, 1, 2], Lsn(16384)), (vec![0, 1], Lsn(12288))]
            } else {
                [(vec![0, 1, 2], Lsn(16384)), (vec![0, 1, 2], Lsn(16384))]
            };
            let found = recover(&disk).await.expect("a tail is cut");
            assert!(expected.contains(&found), "{cut}: {found:?}");
        }
        assert_eq!(recover(&disk).await.expect("cut"), (vec![0, 1], Lsn(12288)));
    });
}

#[test]
fn missing_foreign_unreadable_and_short_logs_are_refused() {
    block_on(async {
        let empty = SimDisk::new(Rng::seeded(1));
        assert!(matches!(recover(&empty).await, Err(RecoverError::Missing { .. })));

        let disk = log(true).await;
        disk.behave(Behaviour { read_error_one_in: 1, ..Behaviour::default() });
        assert!(matches!(recover(&disk).await, Err(RecoverError::Read { .. })));
        disk.behave(Behaviour::default());
        recover(&disk).await.expect("reads work again");

        for (wal, salt) in [(4, 77), (3, 78)] {
            let other = Identity { wal: WalId(wal), salt, ..identity(&[(1, 0)]) };
            let refused = Wal::recover(disk.open(), &options(), &other).await;
            assert!(matches!(refused, Err(RecoverError::Foreign { .. })));
        }
        let fresh = Wal::recover(disk.open(), &options(), &identity(&[])).await;
        assert!(matches!(fresh, Err(RecoverError::Foreign { .. })));

        let later = identity(&[(1, 0), (2, 40960)]);
        let short = Wal::recover(disk.open(), &options(), &later).await;
        assert!(matches!(short, Err(RecoverError::Short { first: Lsn(40960), .. })));

        let segments = disk.list().expect("lists");
        disk.lose(segments[1].number);
        let gap = recover(&disk).await;
        assert!(matches!(gap, Err(RecoverError::Gap { at: Lsn(32768), .. })), "{gap:?}");
        disk.lose(0);
        let gap = recover(&disk).await;
        assert!(matches!(gap, Err(RecoverError::Gap { at: Lsn(0), .. })), "{gap:?}");
    });
}

#[test]
fn reads_say_moved_or_corrupt_and_never_give_wrong_bytes() {
    block_on(async {
        let disk = SimDisk::new(Rng::seeded(5));
        let recovered = Wal::recover(disk.open(), &options(), &identity(&[])).await.expect("fresh");
        let wal = Wal::start(recovered, WalEpoch(1), Arc::new(Deaf), &Registry::default())
            .await
            .expect("starts");
        let mut groups = Vec::new();
        for id in 0..24_i64 {
            let header = FrameHeader {
                kind: 0,
                flags: 0,
                stream: PartitionId { topic: 5, index: 2 }.stream(StreamKind::Data),
                epoch: StreamEpoch(4),
                base_offset: id,
                span: 1,
                count: 1,
                max_timestamp: 0,
                key_id: 0,
            };
            let at = wal.append(&[Frame { header, parts: &[&[7; 5000]] }]).expect("fits");
            wal.kick();
            wal.subscribe().wait_for(|durable| *durable > at.group).await.expect("alive");
            groups.push(at.group);
        }
        let last = *groups.last().expect("some");
        assert_eq!(wal.read(last, 0).await.expect("there"), vec![7; 5000]);
        assert!(matches!(wal.read(last, 1).await, Err(ReadError::Corrupt { .. })));
        let end = wal.occupancy().end;
        assert!(matches!(wal.read_group(end).await, Err(ReadError::Corrupt { .. })));
        let (segment, at) = (32768, groups[10].0 - 32768);
        disk.damage(segment, at + 300, |byte| *byte ^= 1);
        assert!(matches!(wal.read_group(groups[10]).await, Err(ReadError::Corrupt { .. })));
        disk.damage(segment, at + 300, |byte| *byte ^= 1);
        wal.read_group(groups[10]).await.expect("whole again");
        // A read under way while its segment is trimmed and reused.
        let reading = tokio::spawn({
            let (wal, first) = (wal.clone(), groups[10]);
            async move { wal.read_group(first).await.map(|group| group.payload(0)) }
        });
        wal.trim(wal.durable());
        match reading.await.expect("no panic") {
            Ok(payload) => assert_eq!(payload, vec![7; 5000]),
            Err(error) => assert!(matches!(error, ReadError::Moved { .. }), "{error}"),
        }
        assert!(matches!(wal.read_group(groups[0]).await, Err(ReadError::Moved { .. })));
        wal.close().await;
    });
}
