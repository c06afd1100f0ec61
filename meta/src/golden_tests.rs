//! Bytes that must not change without a new frame version: derived by hand from `docs/formats/meta.md`.

use common::{PartitionId, StreamKind};

use crate::command::{
    Command, CommitUpload, NewObject, ObjectFacts, SinkFloor, StreamRange, SwapOutput, SwapRanges,
    SwapStream,
};
use crate::frame;
use crate::keys;
use crate::record::{Lost, Stream};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_commit_keeps_its_bytes() {
    let range = StreamRange {
        topic: 7,
        index: 1,
        kind: 0,
        start: 10,
        end: 20,
        epoch: 4,
        bytes: 99,
        records: 10,
        max_timestamp: 1000,
    };
    let command = Command::from(CommitUpload {
        object: 5,
        wal: 2,
        epoch: 3,
        first: 4096,
        end: 8192,
        facts: Some(ObjectFacts { bytes: 100, format: 1, ..ObjectFacts::default() }),
        ranges: vec![range],
        floors: vec![SinkFloor { sink: 1, partition: 1, floor: 9 }],
        now_ms: 1000,
        left_out: Vec::new(),
    });
    let golden = "0152300805100218032080202880403204086410013a1108071001200a28143004386340\
                  0a48e807420608011001180948e807";
    let bytes = command.clone().into_frame();
    assert_eq!(hex(&bytes), golden);
    assert_eq!(Command::from_frame(&bytes), Ok(Some(command)));
}

#[test]
fn keys_and_values_keep_their_bytes() {
    let stream = PartitionId { topic: (3 << 48) | 7, index: 258 }.stream(StreamKind::Index);
    assert_eq!(hex(&keys::stream(stream)), "4000030000000000070000010202");
    assert_eq!(hex(&keys::range(stream, 259)), "41000300000000000700000102020000000000000103");
    assert_eq!(hex(&keys::topic_name("a.b")), "20615f62");
    let value = Stream {
        start: 1,
        committed_end: 300,
        epoch: 2,
        version: 4,
        lost: vec![Lost { start: 5, end: 6 }],
        ..Stream::default()
    };
    let bytes = frame::encode(&value);
    assert_eq!(hex(&bytes), "01080110ac02180220043a0408051006");
    assert_eq!(frame::decode::<Stream>(&bytes), Ok(value));
}

#[test]
fn another_version_and_an_unknown_command_are_told_apart() {
    assert_eq!(Command::from_frame(&[]), Err(frame::DecodeError::Empty));
    assert_eq!(Command::from_frame(&[2, 0]), Err(frame::DecodeError::Version { found: 2 }));
    // Field 2000 of the envelope: a command of a later build.
    assert_eq!(Command::from_frame(&[1, 0x82, 0x7d, 0]), Ok(None));
    assert!(matches!(Command::from_frame(&[1, 0x52, 9]), Err(frame::DecodeError::Damaged(_))));
}

#[test]
fn a_swap_keeps_its_bytes() {
    let stream = PartitionId { topic: 7, index: 1 }.stream(StreamKind::Data);
    let mut part = SwapStream::of(stream, 4, 10);
    part.inputs = vec![0, 1];
    let output = SwapOutput { end: 30, bytes: 99, records: 9, ..SwapOutput::default() };
    part.outputs = vec![SwapOutput { max_timestamp: -1, epoch: 4, ..output }];
    let facts = Some(ObjectFacts { bytes: 100, format: 1, ..ObjectFacts::default() });
    let command = Command::from(SwapRanges {
        wal: 2,
        epoch: 3,
        objects: vec![NewObject { object: 9, facts, first: 4096, end: 8192 }],
        inputs: vec![5, 300],
        streams: vec![part],
        now_ms: 1000,
    });
    let golden = "01aa013f080210031a0e0809120408641001188020208040220305ac022a21080710012004280a3202\
                  00013a13101e1863200928ffffffffffffffffff01300430e807";
    let bytes = command.clone().into_frame();
    assert_eq!(hex(&bytes), golden);
    assert_eq!(Command::from_frame(&bytes), Ok(Some(command)));
}
