//! The bytes of the log, held in `vectors/log.txt`: what a second implementation must produce and accept.
//!
//! `vectors/gen_log.py` wrote them without a line of vine. Here the same is built from the same values and compared, and the
//! file's bytes are decoded back.
#![expect(clippy::unwrap_used, reason = "the whole file is a test")]

use std::collections::BTreeMap;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use bytes::Bytes;
use vine_core::log::archive::{ArchiveError, ArchiveReader, ArchiveWriter, Item, Summary};
use vine_core::log::commit::VerifyError;
use vine_core::log::disk::FileId;
use vine_core::log::segment::{
    FRAMES_AT, FrameAt, FrameHeader, FrameKind, HEADER_COPIES, HEADER_COPY, HeaderBlock, Previous, SegmentHeader,
    decode_frame, encode_frame,
};
use vine_core::log::{Accept, Chains, Commit, Draft, Genesis, Hlc, KV_HORIZON, Op, Ops, Record, Tip, View};
use vine_core::{Identity, NetworkId};

/// The vectors by name, in the order of the names.
fn vectors() -> BTreeMap<&'static str, Bytes> {
    let parse = |line: &'static str| {
        let (name, digits) = line.split_once(" = ").unwrap_or_else(|| panic!("not `name = hex`: {line}"));
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        (name, digits.as_bytes().chunks(2).map(byte).collect())
    };
    let text = include_str!("vectors/log.txt");
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse).collect()
}

/// The vectors whose names begin so, without that.
fn group(prefix: &str) -> BTreeMap<&'static str, Bytes> {
    let all = vectors().into_iter();
    all.filter_map(|(name, bytes)| name.strip_prefix(prefix).map(|rest| (rest, bytes))).collect()
}

fn author() -> Identity {
    Identity::from_seed([7; 32])
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn put(stamp: u64, key: &'static str, value: &'static str) -> Op {
    Op::Put { stamp: Hlc(stamp), key: text(key), value: text(value) }
}

fn void_put() -> Op {
    let data = [&5u64.to_le_bytes()[..], &[0], b"value"].concat();
    Op::Other { kind: 1, data: data.into() }
}

fn ops() -> [(&'static str, Op); 10] {
    [
        ("delete", Op::Delete { stamp: Hlc(6), key: text("gone") }),
        ("empty", Op::Plain(Bytes::new())),
        ("long", Op::Plain(vec![0; 300].into())),
        ("plain", Op::Plain(text("hello"))),
        ("put", put(0x0102_0304_0506_0708, "key", "value")),
        ("put_beyond", put(KV_HORIZON.0, "key", "void")),
        ("put_empty_value", put(5, "k", "")),
        ("unknown", Op::Other { kind: 77, data: text("later") }),
        ("void_delete", Op::Other { kind: 2, data: text("short") }),
        ("void_put", void_put()),
    ]
}

fn genesis(nonce: u8, predecessor: Option<Tip>) -> Genesis {
    let network_id = NetworkId::new("example").unwrap();
    Genesis { network_id, peer_id: author().peer_id(), nonce: [nonce; 16], predecessor }
}

fn commit(at: Tip, hlc: u64, ops: &[Op]) -> Commit {
    Draft::new(at.log, at.next, at.head, Hlc(hlc), Ops::new(ops).unwrap().unwrap()).sign(&author())
}

fn start(genesis: &Genesis) -> Tip {
    Tip { log: genesis.log_id(), next: 0, head: genesis.log_id().into() }
}

/// Both logs, in the order of the archive.
fn records() -> [Record; 5] {
    let first_log = genesis(1, None);
    let first = [Op::Plain(text("hello")), put(0x0102_0304_0506_0708, "key", "value")];
    let first = commit(start(&first_log), 1 << 16, &first);
    let [(_, delete), ..] = ops();
    let second = [delete, put(5, "key", "older"), void_put(), put(KV_HORIZON.0, "key", "void")];
    let second = commit(first.tip(), (1 << 16) + 1, &second);
    let next_log = genesis(2, Some(second.tip()));
    let third = commit(start(&next_log), 2 << 16, &[put(7, "other", "")]);
    [
        Record::Genesis(first_log),
        Record::Commit(first),
        Record::Commit(second),
        Record::Genesis(next_log),
        Record::Commit(third),
    ]
}

fn archive(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = ArchiveWriter::new(&NetworkId::new("example").unwrap(), &mut out);
    records.iter().for_each(|record| writer.record(record, &mut out));
    writer.end(&mut out);
    out
}

fn read(mut file: &[u8]) -> Result<(Vec<Record>, Summary), ArchiveError> {
    let mut reader = ArchiveReader::new();
    let mut records = Vec::new();
    while let Some(item) = reader.read(&mut file)? {
        if let Item::Record(record) = item {
            records.push(record);
        }
    }
    reader.finish().map(|summary| (records, summary))
}

#[test]
fn every_op_has_its_golden_bytes() {
    let golden = group("op.");
    assert_eq!(golden.len(), ops().len());
    for ((name, bytes), (of, op)) in golden.into_iter().zip(ops()) {
        assert_eq!(name, of);
        assert_eq!(Ops::new(std::slice::from_ref(&op)).unwrap().unwrap().encoded(), bytes, "{name}");
        let mut rest = bytes;
        assert_eq!(Op::decode(&mut rest), Ok(op), "{name}");
        assert!(rest.is_empty());
    }
}

#[test]
fn every_genesis_and_commit_has_its_golden_bytes() {
    let golden = vectors();
    let mut seen = 0;
    let mut expect = |name: String, bytes: &[u8]| {
        assert_eq!(golden[&name[..]], bytes, "{name}");
        seen += 1;
    };
    let mut commits = ["first", "second", "successor"].into_iter();
    for (record, name) in records().into_iter().zip(["first", "", "", "successor", ""]) {
        match record {
            Record::Genesis(genesis) => {
                expect(format!("genesis.{name}"), &genesis.encode());
                expect(format!("log_id.{name}"), &genesis.log_id().0);
                assert_eq!(Genesis::decode(&genesis.encode()), Ok(genesis));
            }
            Record::Commit(commit) => {
                let name = commits.next().unwrap();
                expect(format!("commit.{name}"), commit.bytes());
                if name != "successor" {
                    expect(format!("commit_hash.{name}"), &commit.hash().0);
                }
                assert_eq!(Commit::decode(commit.bytes().clone()), Ok(commit.clone()));
                assert_eq!(commit.verify(&author().peer_id()), Ok(()));
            }
        }
    }
    let there = ["genesis.", "log_id.", "commit.", "commit_hash."].map(|prefix| group(prefix).len());
    assert_eq!(seen, there.iter().sum::<usize>());
}

#[test]
fn the_state_has_its_golden_hash() {
    let mut chains = Chains::new(NetworkId::new("example").unwrap(), [author().peer_id()].into());
    let mut view = View::new(1 << 20);
    for record in records() {
        match record {
            Record::Genesis(genesis) => assert_eq!(chains.accept_genesis(&genesis), Ok(Accept::New)),
            Record::Commit(commit) => {
                assert_eq!(chains.accept(&commit), Ok(Accept::New));
                view.apply(&commit).unwrap();
            }
        }
    }
    let golden = group("state.");
    assert_eq!(view.digest()[..], golden["view"]);
    assert_eq!(chains.state_hash(&view.digest())[..], golden["all"]);
    assert_eq!(golden.len(), 2);
}

#[test]
fn every_archive_has_its_golden_bytes() {
    let golden = group("archive.");
    for (name, records) in [("all", &records()[..]), ("empty", &[])] {
        assert_eq!(archive(records), golden[name], "{name}");
        assert_eq!(read(&golden[name]).map(|(read, _)| read), Ok(records.to_vec()), "{name}");
    }
    assert_eq!(golden.len(), 2);
}

const SEGMENT: [u8; 16] = [3; 16];

#[test]
fn every_part_of_a_segment_has_its_golden_bytes() {
    let golden = group("segment.");
    let previous = Previous { file: FileId(6), nonce: [4; 16], end: 70_016 };
    let header = SegmentHeader {
        file: FileId(7),
        size: 1 << 20,
        base: 70_016,
        first_ordinal: 5,
        nonce: SEGMENT,
        owner: *author().peer_id().as_bytes(),
        network: Blake2b::<U32>::digest(b"example").into(),
        previous: Some(previous),
    };
    let first = SegmentHeader { base: 0, first_ordinal: 0, previous: None, ..header };
    for (name, header) in [("header", header), ("header_first", first)] {
        assert_eq!(header.encode_copy(), golden[name], "{name}");
        let decoded = SegmentHeader::decode(&header.encode(), header.file);
        assert_eq!(decoded, HeaderBlock::Valid { header, damaged: None }, "{name}");
        for (at, damaged) in [(HEADER_COPIES[0], HEADER_COPIES[1]), (HEADER_COPIES[1], HEADER_COPIES[0])] {
            let mut block = vec![0; FRAMES_AT as usize];
            block[at as usize..(at + HEADER_COPY) as usize].copy_from_slice(&golden[name]);
            let decoded = SegmentHeader::decode(&block, header.file);
            assert_eq!(decoded, HeaderBlock::Valid { header, damaged: Some(damaged) }, "{name}");
        }
    }
    let records = records();
    let (Record::Genesis(genesis), Record::Commit(commit)) = (&records[0], &records[1]) else { panic!() };
    let frame = |kind, count, first_ordinal, synced_upto| FrameHeader { kind, count, first_ordinal, synced_upto };
    let frames = [
        ("genesis", 4608, frame(FrameKind::Genesis, 0, 5, 74_624), &genesis.encode()[..]),
        ("commit", 4800, frame(FrameKind::Commit, 2, 5, 74_624), &commit.bytes()[..]),
        ("closed", 5120, frame(FrameKind::Closed, 0, 7, 75_136), &[]),
    ];
    for (name, offset, header, body) in frames {
        let mut bytes = Vec::new();
        encode_frame(&mut bytes, &SEGMENT, offset, &header, &[body]);
        assert_eq!(bytes, golden[name], "{name}");
        let len = bytes.len() as u64;
        assert_eq!(decode_frame(&bytes, &SEGMENT, offset), FrameAt::Frame { header, body, len }, "{name}");
    }
    assert_eq!(golden.len(), 5);
}

#[test]
fn what_must_be_refused_is_refused() {
    for (name, bytes) in group("reject.") {
        let (what, why) = name.split_once('.').unwrap();
        let refused = match what {
            "op" => Op::decode(&mut bytes.clone()).is_err(),
            "genesis" => Genesis::decode(&bytes).is_err(),
            "commit" => match Commit::decode(bytes).map(|commit| commit.verify(&author().peer_id())) {
                Err(_) => !["ops", "signature", "stranger"].contains(&why),
                Ok(Err(VerifyError::OpsHash)) => why == "ops",
                Ok(Err(VerifyError::Signature)) => why == "signature" || why == "stranger",
                Ok(Ok(())) => false,
            },
            "archive" => read(&bytes).is_err(),
            "header" => match SegmentHeader::decode(&bytes, FileId(7)) {
                HeaderBlock::Version(version) => why == "version" && version == 1,
                decoded => why != "version" && decoded == HeaderBlock::Bad,
            },
            "frame" => decode_frame(&bytes, &SEGMENT, 5120) == FrameAt::None,
            _ => panic!("{name}"),
        };
        assert!(refused, "{name}");
    }
}
