//! Commits and geneses: what decodes encodes to the same bytes, takes no memory by a claim, and is its author's only as it
//! was signed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vine_core::Identity;
use vine_core::log::commit::{CommitError, HEAD_LEN, HEADER_LEN, RunError, VerifyError};
use vine_core::log::op::{MAX_COMMIT, MAX_COMMIT_OPS};
use vine_core::log::{Commit, CommitHash, Draft, Genesis, Header, Hlc, LogId, Op, OpsBuilder, verify_run};
use vine_fuzz::{Salted, alloc};

fn ops_of(bytes: &[u8]) -> Vec<Op> {
    let mut rest = Bytes::copy_from_slice(bytes);
    std::iter::from_fn(|| Op::decode(&mut rest).ok()).take(MAX_COMMIT_OPS).collect()
}

/// Bytes as they came.
fn check_raw(bytes: &[u8]) {
    let owned = Bytes::copy_from_slice(bytes);
    let (decoded, grown) = alloc::peak_of(|| Commit::decode(owned));
    assert!(grown <= 64, "{grown} bytes for a commit that was there already");
    match decoded {
        Ok(commit) => {
            let header = commit.header();
            assert_eq!(header.encode(), bytes[..HEADER_LEN]);
            assert_eq!(Header::decode(bytes), Ok(*header));
            assert_eq!((commit.bytes(), header.commit_len()), (&Bytes::copy_from_slice(bytes), bytes.len()));
            let ops: Vec<Op> = commit.ops().collect();
            assert_eq!(ops.len(), header.count as usize);
            assert_eq!(ops.iter().map(Op::encoded_len).sum::<usize>(), header.ops_len as usize);
            assert!((1..=MAX_COMMIT_OPS).contains(&ops.len()) && header.ops_len as usize <= MAX_COMMIT);
            assert_eq!(commit.next_seq() - header.first_seq, u64::from(header.count));
        }
        Err(CommitError::Truncated { expected, found }) => assert!(found == bytes.len() && found < expected),
        Err(_) => assert!(bytes.len() >= HEADER_LEN),
    }
    if let Ok(genesis) = Genesis::decode(bytes) {
        assert_eq!(genesis.encode(), bytes);
        assert!(bytes.len() <= Genesis::MAX_LEN);
    }
}

/// A commit of what can be read as ops, signed, and changed in one bit.
fn check_signed(author: &Identity, bytes: &[u8]) {
    let (at, ops) = bytes.split_at_checked(HEAD_LEN).unwrap_or((&[], bytes));
    let mut builder = OpsBuilder::new();
    ops_of(ops).iter().for_each(|op| builder.push(op).expect("within the limits, and few"));
    let Some(ops) = builder.finish() else { return };
    let word = |at: &[u8]| at.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    let log = LogId(at.first_chunk().copied().unwrap_or_default());
    let first_seq = word(at.get(32..).unwrap_or_default()) >> 1;
    let draft = Draft::new(log, first_seq, CommitHash([3; 32]), Hlc(word(at)), ops);
    let commit = draft.clone().sign(author);
    assert_eq!(draft.sign(author), commit, "a pure function");
    let author = author.peer_id();
    assert_eq!(Commit::decode(commit.bytes().clone()), Ok(commit.clone()));
    assert_eq!(commit.verify(&author), Ok(()));
    assert_eq!(verify_run(&author, std::slice::from_ref(&commit)), Ok(()));

    let bit = word(bytes) as usize % (commit.bytes().len() * 8);
    let mut changed = commit.bytes().to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    if let Ok(changed) = Commit::decode(changed.into()) {
        let in_ops = bit >= HEAD_LEN * 8 || (80 * 8..112 * 8).contains(&bit);
        let expected = if in_ops { VerifyError::OpsHash } else { VerifyError::Signature };
        assert_eq!(changed.verify(&author), Err(expected));
        let run = verify_run(&author, &[changed]);
        assert_eq!(run, Err(if in_ops { RunError::OpsHash { index: 0 } } else { RunError::Signature { index: 0 } }));
    }
}

fuzz_target!(|input: Salted<&[u8]>| {
    check_raw(input.value);
    check_signed(&Identity::from_seed(input.salt), input.value);
});
