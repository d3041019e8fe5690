//! Archives: however the bytes arrive, the same items and the same error; what is read to its end is written to the same
//! bytes; memory follows what arrives; a changed bit is an error; chains and view take what they are given.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vine_core::log::archive::{ArchiveError, ArchiveErrorKind, ArchiveReader, ArchiveWriter, Item, Summary};
use vine_core::log::{Accept, Chains, Commit, Draft, Genesis, Hlc, Op, Ops, Record, View};
use vine_core::{Identity, NetworkId};
use vine_fuzz::{Salted, alloc};

/// The items of a file in pieces of this size, and how reading ended.
fn read(file: &[u8], piece: usize) -> (Vec<Item>, Result<Summary, ArchiveError>) {
    let mut reader = ArchiveReader::new();
    let mut items = Vec::new();
    let before = alloc::held();
    for mut input in file.chunks(piece) {
        loop {
            let was_at = reader.item_at();
            match reader.read(&mut input) {
                Ok(Some(item)) => {
                    assert!(reader.item_at() >= was_at && reader.item_at() < file.len() as u64);
                    items.push(item);
                }
                Ok(None) => {
                    assert!(input.is_empty(), "all input is taken");
                    break;
                }
                Err(error) => {
                    assert!(error.at <= file.len() as u64);
                    assert_eq!(reader.read(&mut input), Err(error.clone()), "an error is final");
                    assert_eq!(reader.clone().finish(), Err(error));
                    return (items, reader.finish());
                }
            }
        }
    }
    let held = alloc::held().saturating_sub(before);
    assert!(held <= 8 * file.len() + 1024 + items.capacity() * size_of::<Item>(), "{held} bytes of {}", file.len());
    (items, reader.finish())
}

fn write(network_id: &NetworkId, records: &[Record]) -> (Vec<u8>, Summary) {
    let mut file = Vec::new();
    let mut writer = ArchiveWriter::new(network_id, &mut file);
    records.iter().for_each(|record| writer.record(record, &mut file));
    let summary = writer.end(&mut file);
    (file, summary)
}

/// A log of what can be read as ops, one commit each.
fn log_of(author: &Identity, network_id: &NetworkId, bytes: &[u8]) -> Vec<Record> {
    let peer_id = author.peer_id();
    let genesis = Genesis { network_id: network_id.clone(), peer_id, nonce: [1; 16], predecessor: None };
    let (mut next, mut head) = (0, genesis.log_id().into());
    let log = genesis.log_id();
    let mut records = vec![Record::Genesis(genesis)];
    let mut rest = Bytes::copy_from_slice(bytes);
    while records.len() < 5
        && let Ok(op) = Op::decode(&mut rest)
    {
        let ops = Ops::new(&[op]).expect("it is within the limits").expect("one op");
        let commit = Draft::new(log, next, head, Hlc(next), ops).sign(author);
        (next, head) = (commit.next_seq(), commit.hash());
        records.push(Record::Commit(commit));
    }
    records
}

/// Takes all that it is given: a commit is taken only if it is its author's.
fn take(author: &Identity, network_id: &NetworkId, records: &[Record]) -> usize {
    let mut chains = Chains::new(network_id.clone(), [author.peer_id()].into());
    let mut view = View::new(2_000);
    let mut taken: Vec<&Commit> = Vec::new();
    for record in records {
        match record {
            Record::Genesis(genesis) => _ = chains.accept_genesis(genesis),
            Record::Commit(commit) => {
                let accept = chains.accept(commit);
                assert_eq!(chains.check(commit).is_ok(), accept.is_ok());
                if accept == Ok(Accept::New) {
                    assert_eq!(commit.verify(&author.peer_id()), Ok(()));
                    taken.push(commit);
                    let applied = view.apply(commit);
                    assert_eq!(applied.is_err(), view.is_full());
                    assert!(view.bytes() <= view.limit());
                }
            }
        }
    }
    taken.len()
}

fuzz_target!(|input: Salted<&[u8]>| {
    let (bytes, author) = (input.value, Identity::from_seed(input.salt));
    let piece = 1 + usize::from(bytes.last().copied().unwrap_or(0)) % 64;
    let (items, end) = read(bytes, usize::MAX);
    assert_eq!(read(bytes, piece), (items.clone(), end.clone()), "the same, however it arrives");

    let network_id = match items.first() {
        Some(Item::Network(network_id)) => network_id.clone(),
        _ => NetworkId::new("example").expect("a valid name"),
    };
    let mut records: Vec<Record> = items
        .into_iter()
        .filter_map(|item| if let Item::Record(record) = item { Some(record) } else { None })
        .collect();
    if let Ok(summary) = end {
        assert_eq!(write(&network_id, &records), (bytes.to_vec(), summary), "what was read is written the same");
    }
    let own = log_of(&author, &network_id, bytes);
    assert_eq!(take(&author, &network_id, &own), own.len() - 1);
    records.extend(own);
    take(&author, &network_id, &records);

    let (mut file, summary) = write(&network_id, &records);
    let (items, end) = read(&file, piece * 16);
    assert_eq!((items.len(), end), (records.len() + 2, Ok(summary)));
    let bit = input.salt[..8].iter().fold(0, |bit, byte| bit * 256 + usize::from(*byte)) % (file.len() * 8);
    let cut = read(&file[..bit / 8], usize::MAX).1;
    assert_eq!(cut, Err(ArchiveError { at: (bit / 8) as u64, kind: ArchiveErrorKind::Cut }));
    file[bit / 8] ^= 1 << (bit % 8);
    assert!(read(&file, usize::MAX).1.is_err(), "bit {bit}");
});
