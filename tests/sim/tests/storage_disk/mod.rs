//! A disk in memory: writes take time and end out of order, a crash loses or keeps what was under way.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Rng;
use parking_lot::Mutex;
use wal::{Disk, Done, SegmentFile, Space};

type Change = Box<dyn FnOnce(&mut BTreeMap<u64, Vec<u8>>) -> io::Result<()> + Send>;

struct State {
    files: BTreeMap<u64, Vec<u8>>,
    pending: BTreeMap<u64, Change>,
    next: u64,
    life: u64,
}

/// The medium; it survives crashes.
#[derive(Clone)]
pub struct TestDisk {
    state: Arc<Mutex<State>>,
    rng: Rng,
}

/// The medium as one life of the process sees it.
struct Life {
    disk: TestDisk,
    life: u64,
}

impl TestDisk {
    pub fn new(rng: Rng) -> Self {
        let (files, pending) = (BTreeMap::new(), BTreeMap::new());
        Self { state: Arc::new(Mutex::new(State { files, pending, next: 0, life: 0 })), rng }
    }

    pub fn open(&self) -> Arc<dyn Disk> {
        let life = self.state.lock().life;
        Arc::new(Life { disk: self.clone(), life })
    }

    /// Ends the life of the process: of what was under way each is done or not, and nobody hears of it.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        state.life += 1;
        for change in std::mem::take(&mut state.pending).into_values() {
            if self.rng.one_in(2) {
                let _ = change(&mut state.files);
            }
        }
    }
}

impl Life {
    fn submit(&self, change: Change, done: Done<()>) {
        let (state, life) = (self.disk.state.clone(), self.life);
        let wait = Duration::from_micros(50 + self.disk.rng.below(3000));
        let number = {
            let mut state = state.lock();
            if state.life != life {
                return;
            }
            state.next += 1;
            let number = state.next;
            state.pending.insert(number, change);
            number
        };
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let result = {
                let mut state = state.lock();
                let Some(change) = state.pending.remove(&number).filter(|_| state.life == life)
                else {
                    return;
                };
                change(&mut state.files)
            };
            done(result);
        });
    }
}

fn place(file: &[u8], at: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    let at = usize::try_from(at).expect("small");
    let range = at..at + len;
    if file.len() < range.end { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(range) }
}

impl Disk for Life {
    fn list(&self) -> io::Result<Vec<SegmentFile>> {
        let state = self.disk.state.lock();
        let file = |(number, file): (&u64, &Vec<u8>)| SegmentFile {
            number: *number,
            len: file.len() as u64,
        };
        Ok(state.files.iter().map(file).collect())
    }

    fn create(&self, number: u64, len: u64, done: Done<()>) {
        let len = usize::try_from(len).expect("small");
        let change = move |files: &mut BTreeMap<u64, Vec<u8>>| match files.entry(number) {
            std::collections::btree_map::Entry::Occupied(_) => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(vec![0; len]);
                Ok(())
            }
        };
        self.submit(Box::new(change), done);
    }

    fn reuse(&self, from: u64, to: u64, done: Done<()>) {
        let change = move |files: &mut BTreeMap<u64, Vec<u8>>| {
            let file = files.remove(&from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to, file);
            Ok(())
        };
        self.submit(Box::new(change), done);
    }

    fn remove(&self, number: u64, done: Done<()>) {
        let change = move |files: &mut BTreeMap<u64, Vec<u8>>| {
            files.remove(&number);
            Ok(())
        };
        self.submit(Box::new(change), done);
    }

    fn write(&self, segment: u64, at: u64, bytes: Bytes, done: Done<()>) {
        let change = move |files: &mut BTreeMap<u64, Vec<u8>>| {
            let file = files.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
            let range = place(file, at, bytes.len())?;
            file[range].copy_from_slice(&bytes);
            Ok(())
        };
        self.submit(Box::new(change), done);
    }

    fn read(&self, segment: u64, at: u64, len: usize, done: Done<Bytes>) {
        let (state, life) = (self.disk.state.clone(), self.life);
        let wait = Duration::from_micros(20 + self.disk.rng.below(500));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let result = {
                let state = state.lock();
                if state.life != life {
                    return;
                }
                let file = state.files.get(&segment).ok_or(io::ErrorKind::NotFound.into());
                file.and_then(|file| {
                    place(file, at, len).map(|range| Bytes::copy_from_slice(&file[range]))
                })
            };
            done(result);
        });
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: 1 << 30, available: 1 << 30 })
    }
}
