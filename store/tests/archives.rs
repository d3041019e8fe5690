//! Archives: out of a store that is damaged, into a store in batches, and what is refused on the way.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{all, identity, open, options, text, texts};
use vine_core::Identity;
use vine_core::log::chain::Refusal;
use vine_store::{Handle, ImportError, LeftOut, Options, Unpacker};

/// Writes this many commits of one op.
fn write(dir: &Path, commits: usize) {
    let store = open(dir).unwrap();
    for n in 0..commits {
        store.append(vec![text(&format!("op {n:04}"))]).wait().unwrap();
    }
    store.close().wait().unwrap();
}

fn export(dir: &Path) -> (Vec<u8>, Option<LeftOut>) {
    let mut archive = Vec::new();
    let (_, left_out) = open(dir).unwrap().export(&mut archive, |_, _| ()).unwrap();
    (archive, left_out)
}

/// The store of another node, which takes what `identity` wrote.
fn other(dir: &Path) -> Handle {
    let options = Options { members: vec![identity().peer_id()], ..options() };
    Handle::open(dir, Arc::new(Identity::from_seed([8; 32])), options).unwrap()
}

#[test]
fn what_is_damaged_is_left_out_and_what_can_be_taken_is_not() {
    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("from");
    write(&from, 10);
    let (file, mut bytes) = fs::read_dir(&from)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|name| name == "seg"))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .find(|(_, bytes)| bytes.windows(7).any(|window| window == b"op 0004"))
        .unwrap();
    let at = bytes.windows(7).position(|window| window == b"op 0004").unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
    let (archive, left_out) = export(&from);
    let left_out = left_out.unwrap();
    assert_eq!(left_out.ops, 6, "the one that cannot be read, and those that continue it");
    assert!(left_out.why.contains("ordinals 4 to 4 are damaged"), "{}", left_out.why);
    let to = other(&root.path().join("to"));
    assert_eq!(to.import_archive(&mut archive.as_slice(), |_, _| ()).unwrap().new, 5);
    assert_eq!(texts(&all(&to)), ["op 0000", "op 0001", "op 0002", "op 0003"]);
}

#[test]
fn a_long_archive_goes_in_batch_by_batch() {
    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("from");
    write(&from, 300);
    let (archive, _) = export(&from);
    for piece in [1, 1000, archive.len()] {
        let mut unpacker = Unpacker::new();
        let mut batches = Vec::new();
        for mut input in archive.chunks(piece) {
            while let Some(batch) = unpacker.read(&mut input).unwrap() {
                batches.push(batch);
            }
        }
        let (last, summary) = unpacker.finish().unwrap();
        batches.extend(last);
        assert_eq!((batches.len(), summary.commits), (2, 300));
        // Each is an archive that a store takes, and knows where it was in the whole.
        let to = other(&root.path().join(format!("to-{piece}")));
        for (batch, records) in batches.iter().zip([256, 45]) {
            let imported = to.import_archive(&mut batch.to_archive().as_slice(), |_, _| ()).unwrap();
            assert_eq!(imported.new, records);
        }
        assert!(batches[0].place(255) < batches[1].place(0));
        assert_eq!(all(&to).len(), 300);
    }
}

#[test]
fn a_refused_record_is_named_and_what_came_before_its_batch_stays() {
    let root = tempfile::tempdir().unwrap();
    let from = root.path().join("from");
    write(&from, 300);
    let (archive, _) = export(&from);
    // A signature of the second batch: the archive is whole, as its hash was made of what it holds now.
    let mut unpacker = Unpacker::new();
    let mut input = archive.as_slice();
    let first = unpacker.read(&mut input).unwrap().unwrap();
    let (second, _) = {
        assert!(unpacker.read(&mut input).unwrap().is_none());
        unpacker.finish().unwrap()
    };
    let second = second.unwrap();
    let place = second.place(7).unwrap() as usize;
    let mut forged = archive.clone();
    forged[place + 3 + 130] ^= 1;
    // Only the end tells that it was changed, and this record comes before it.
    let to = other(&root.path().join("to"));
    let refused = to.import_archive(&mut forged.as_slice(), |_, _| ()).unwrap_err();
    assert!(matches!(refused, ImportError::Archive(_)), "{refused}");
    assert_eq!(all(&to).len(), 255, "the first batch, with the beginning of the log");
    // A gap is found by the store.
    let third = other(&root.path().join("third"));
    let gap = third.import_archive(&mut second.to_archive().as_slice(), |_, _| ()).unwrap_err();
    let ImportError::Refused { record: 0, at, refusal: Refusal::UnknownLog { .. } } = gap else { panic!("{gap}") };
    assert_eq!(at, 13, "behind the name of the network");
    third.import_archive(&mut first.to_archive().as_slice(), |_, _| ()).unwrap();
    third.import_archive(&mut second.to_archive().as_slice(), |_, _| ()).unwrap();
    assert_eq!(all(&third).len(), 300);
    let elsewhere = Options { network_id: vine_core::NetworkId::new("elsewhere").unwrap(), ..options() };
    let foreign = Handle::open(&root.path().join("foreign"), identity(), elsewhere).unwrap();
    let refused = foreign.import_archive(&mut archive.as_slice(), |_, _| ()).unwrap_err();
    assert!(matches!(refused, ImportError::Network { .. }), "{refused}");
}
