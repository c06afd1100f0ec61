//! One connection that fetches: requests by hand, answers walked in place, records never decoded.

use anyhow::bail;
use bytes::Bytes;
use protocol::ApiKey;
use protocol::batch::{Header, crc_is_right};
use protocol::wire::{self, Writer};

use super::socket::Socket;

/// The last version whose fields have fixed places; served by Apache Kafka from 2.3 on.
pub const FETCH_VERSION: i16 = 11;
const CLIENT_ID: &str = "sluice-bench";
const WAIT_MS: i32 = 500;

/// Where a partition is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub partition: i32,
    /// Next offset to read.
    pub next: i64,
    /// Where reading ends; `i64::MAX` follows the tail.
    pub end: i64,
}

/// Most bytes of an answer, and of one partition in it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: i32,
    pub partition_bytes: i32,
}

/// What an answer brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Got {
    pub batches: u64,
    pub records: u64,
    pub bytes: u64,
    /// Batches whose CRC is wrong.
    pub damaged: u64,
}

/// Positions on one connection, one request at a time.
pub struct Reader {
    pub socket: Socket,
    topic: String,
    limits: Limits,
    positions: Vec<Position>,
    /// The partition that is asked for first: an answer is filled in the order of the request.
    first: usize,
    id: i32,
    check_crc: bool,
}

impl Reader {
    pub async fn connect(
        address: &str,
        topic: &str,
        positions: Vec<Position>,
        limits: Limits,
        check_crc: bool,
    ) -> anyhow::Result<Self> {
        let socket = Socket::connect(address).await?;
        let topic = topic.to_owned();
        Ok(Self { socket, topic, limits, positions, first: 0, id: 0, check_crc })
    }

    /// True when every partition has been read to its end.
    pub fn at_end(&self) -> bool {
        self.positions.iter().all(|one| one.next >= one.end)
    }

    /// Begins again at `starts`.
    pub fn rewind(&mut self, starts: &[Position]) {
        self.positions = starts.to_vec();
    }

    /// Asks for what comes next and hands each batch to `batch`.
    ///
    /// Not cancel safe: an answer would be left on the way.
    pub async fn fetch(&mut self, mut batch: impl FnMut(&[u8])) -> anyhow::Result<Got> {
        self.id = self.id.wrapping_add(1);
        let frame = self.request();
        self.socket.begin(
            |heads| {
                heads.clear();
                heads.extend_from_slice(&frame);
                heads.len()
            },
            Bytes::new(),
        );
        let mut got = None;
        loop {
            self.socket.flush()?;
            self.socket.ready().await?;
            let Self { socket, positions, id, check_crc, .. } = self;
            socket.read(|frame| {
                got = Some(walk(frame, *id, positions, *check_crc, &mut batch)?);
                Ok(())
            })?;
            if let Some(got) = got {
                self.first = (self.first + 1) % self.positions.len().max(1);
                return Ok(got);
            }
        }
    }

    fn request(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.i32(0);
        out.i16(ApiKey::Fetch.code());
        out.i16(FETCH_VERSION);
        out.i32(self.id);
        out.string(false, Some(CLIENT_ID));
        out.i32(-1);
        out.i32(WAIT_MS);
        out.i32(1);
        out.i32(self.limits.bytes);
        out.i8(0);
        out.i32(0);
        out.i32(-1);
        out.i32(1);
        out.string(false, Some(&self.topic));
        let (before, after) = self.positions.split_at(self.first);
        let open = after.iter().chain(before).filter(|one| one.next < one.end);
        let open: Vec<&Position> = open.collect();
        out.i32(i32::try_from(open.len()).expect("partitions have i32 numbers"));
        for one in open {
            out.i32(one.partition);
            out.i32(-1);
            out.i64(one.next);
            out.i64(-1);
            out.i32(self.limits.partition_bytes);
        }
        out.i32(0);
        out.string(false, Some(""));
        let mut frame = out.finish().to_vec();
        let size = i32::try_from(frame.len() - 4).expect("a small request");
        frame[..4].copy_from_slice(&size.to_be_bytes());
        frame
    }
}

/// Walks an answer, moves the positions behind its batches and hands these out.
fn walk(
    frame: &[u8],
    id: i32,
    positions: &mut [Position],
    check_crc: bool,
    batch: &mut impl FnMut(&[u8]),
) -> anyhow::Result<Got> {
    let mut reader = wire::Reader::new(frame);
    let found = reader.i32()?;
    anyhow::ensure!(found == id, "answer to request {found}, to {id} expected");
    reader.i32()?;
    let code = reader.i16()?;
    anyhow::ensure!(code == 0, "the broker answers {}", super::writer::name(code));
    reader.i32()?;
    let mut got = Got::default();
    for _ in 0..reader.i32()? {
        reader.string_bytes(false)?;
        for _ in 0..reader.i32()? {
            let partition = reader.i32()?;
            let code = reader.i16()?;
            reader.take(24)?;
            for _ in 0..reader.i32()? {
                reader.take(16)?;
            }
            reader.i32()?;
            let records = reader.bytes(false)?.unwrap_or_default();
            if code != 0 {
                bail!("partition {partition}: {}", super::writer::name(code));
            }
            let at = positions.iter_mut().find(|one| one.partition == partition);
            let at =
                at.ok_or_else(|| anyhow::anyhow!("partition {partition} was not asked for"))?;
            batches(records, at, check_crc, &mut got, batch)?;
        }
    }
    Ok(got)
}

/// The last batch may be cut off: brokers fill an answer by bytes.
fn batches(
    mut records: &[u8],
    at: &mut Position,
    check_crc: bool,
    got: &mut Got,
    batch: &mut impl FnMut(&[u8]),
) -> anyhow::Result<()> {
    while records.len() >= protocol::batch::HEADER_BYTES {
        let header = Header::parse(records)?;
        if header.size() > records.len() {
            break;
        }
        let (whole, rest) = records.split_at(header.size());
        got.batches += 1;
        got.records += u64::try_from(header.record_count).unwrap_or(0);
        got.bytes += whole.len() as u64;
        if check_crc && !crc_is_right(whole) {
            got.damaged += 1;
        }
        at.next = header.last_offset() + 1;
        batch(whole);
        records = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use protocol::batch::Builder;
    use protocol::fetch;
    use protocol::{ErrorCode, StrBytes, frame};

    use super::*;

    fn batch(offset: i64) -> Bytes {
        let mut builder = Builder::new().base_offset(offset);
        for _ in 0..3 {
            builder.push(1, None, Some(b"value"), &[]);
        }
        builder.build().expect("builds")
    }

    fn answer(records: Vec<Bytes>, error: ErrorCode) -> Bytes {
        let mut data = fetch::PartitionData::refused(4, error);
        data.records = records;
        let topic = fetch::TopicData {
            name: StrBytes::from_static_str("load"),
            partitions: vec![data],
            ..fetch::TopicData::default()
        };
        let response = fetch::Response {
            throttle_time_ms: 0,
            error: ErrorCode::None,
            topics: vec![topic],
            node_endpoints: Vec::new(),
        };
        let body = response.encode(FETCH_VERSION);
        let parts = frame::response(ApiKey::Fetch, FETCH_VERSION, 9, body);
        Bytes::from(parts.concat()).slice(4..)
    }

    #[test]
    fn positions_move_behind_whole_batches() {
        let (one, two, third) = (batch(0), batch(3), batch(6));
        let cut = third.slice(..third.len() - 1);
        let frame = answer(vec![one.clone(), two.clone(), cut], ErrorCode::None);
        let mut positions = [Position { partition: 4, next: 0, end: 100 }];
        let mut seen = Vec::new();
        let got = walk(&frame, 9, &mut positions, true, &mut |batch: &[u8]| seen.push(batch.len()))
            .expect("read");
        let bytes = (one.len() + two.len()) as u64;
        assert_eq!(got, Got { batches: 2, records: 6, bytes, damaged: 0 });
        assert_eq!((positions[0].next, seen), (6, vec![one.len(), two.len()]));
    }

    #[test]
    fn damage_and_errors_are_told() {
        let mut bad = batch(0).to_vec();
        *bad.last_mut().expect("bytes") ^= 1;
        let frame = answer(vec![bad.into()], ErrorCode::None);
        let mut positions = [Position { partition: 4, next: 0, end: 100 }];
        let got = walk(&frame, 9, &mut positions, true, &mut |_: &[u8]| ()).expect("read");
        assert_eq!(got.damaged, 1);
        let frame = answer(Vec::new(), ErrorCode::OffsetOutOfRange);
        let error = walk(&frame, 9, &mut positions, true, &mut |_: &[u8]| ()).expect_err("told");
        assert!(error.to_string().contains("OFFSET_OUT_OF_RANGE"), "{error}");
        assert!(walk(&frame, 8, &mut positions, true, &mut |_: &[u8]| ()).is_err());
    }
}
