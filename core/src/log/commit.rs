//! Commits: signed batches of ops, chained by their hashes into logs, and the genesis that names a log.
//!
//! A log is what one opening of one store wrote. Its [`Genesis`] says whose it is and which log it follows, and the hash of
//! the genesis is the log's name, [`LogId`]. A [`Commit`] lies on the disk, in an archive and on the wire as the same bytes:
//!
//! ```text
//!   0        32          40      44        48          80         112     120          184
//!   | log id | first_seq | count | ops_len | prev_hash | ops_hash | hlc   | signature  | ops ...
//!   |<---------------------- header, 120 bytes ------------------>| u64   |<-- 64 --->|
//! ```
//!
//! Integers are little-endian, hashes are BLAKE2b-256. The author signs `"vine log commit 1" | H(header)`, and a commit's
//! hash is `H(header | signature)`, which is the `prev_hash` of the next one; the first one's is the id of its log. So a
//! commit names all that comes before it. It does not vouch for it: what comes from somebody else is verified signature by
//! signature ([`verify_run`]).
//!
//! Hashing, signing and verifying are pure functions of values that can be sent to another thread.
//!
//! ```
//! use bytes::Bytes;
//! use vine_core::log::{Draft, Genesis, Hlc, Op, Ops};
//! use vine_core::{Identity, NetworkId};
//!
//! let author = Identity::from_seed([7; 32]);
//! let network_id = NetworkId::new("example").unwrap();
//! // The nonce is fresh randomness.
//! let genesis = Genesis { network_id, peer_id: author.peer_id(), nonce: [1; 16], predecessor: None };
//! let ops = Ops::new(&[Op::Plain(Bytes::from_static(b"first")), Op::Plain(Bytes::from_static(b"second"))]).unwrap().unwrap();
//!
//! let log = genesis.log_id();
//! let commit = Draft::new(log, 0, log.into(), Hlc(5), ops).sign(&author);
//! assert_eq!(commit.verify(&author.peer_id()), Ok(()));
//! assert_eq!((commit.header().first_seq, commit.next_seq()), (0, 2));
//! ```

use alloc::vec::Vec;
use core::fmt;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use bytes::Bytes;

use super::clock::Hlc;
use super::op::{self, MAX_COMMIT, MAX_COMMIT_OPS, Op, OpError, Ops};
use crate::config::NetworkId;
use crate::identity::{Identity, KeyError, PeerId};
use crate::wire::{ReadError, Reader};

/// Bytes of a header.
pub const HEADER_LEN: usize = 120;
/// Bytes of a signature.
pub const SIGNATURE_LEN: usize = 64;
/// Bytes of a commit before its ops.
pub const HEAD_LEN: usize = HEADER_LEN + SIGNATURE_LEN;

/// What is hashed before a genesis.
const GENESIS_DOMAIN: &[u8] = b"vine log genesis 1";
/// What is signed before the hash of a header.
const COMMIT_DOMAIN: &[u8; 17] = b"vine log commit 1";

/// BLAKE2b-256 of `parts`, one behind the other.
pub(super) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2b::<U32>::new();
    parts.iter().for_each(|part| state.update(part));
    state.finalize().into()
}

/// Writes all bytes in hexadecimal.
fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The name of a log: the hash of its [`Genesis`]. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub [u8; 32]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for LogId {
    /// Long enough to tell the logs of one store apart.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0.first_chunk::<6>().unwrap_or(&[0; 6]))
    }
}

/// The hash of a commit's header and signature. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitHash(pub [u8; 32]);

impl fmt::Display for CommitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for CommitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0.first_chunk::<6>().unwrap_or(&[0; 6]))
    }
}

/// What a log's first commit continues: the log's id stands where the hash of a commit does later.
impl From<LogId> for CommitHash {
    fn from(log: LogId) -> CommitHash {
        CommitHash(log.0)
    }
}

/// How far a log reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tip {
    /// The log.
    pub log: LogId,
    /// How many ops it has, so the number of its next one.
    pub next: u64,
    /// The hash of its last commit, or its own id while it has none.
    pub head: CommitHash,
}

impl Tip {
    const LEN: usize = 32 + 8 + 32;
}

/// The beginning of a log. Its hash is the log's name.
///
/// Encoded: `name length u8 | network name | peer id 32 | nonce 16 | 0`, or `... | 1 | log id 32 | next u64 | head 32` where
/// there is a predecessor. Nothing in it is signed: the log's first commit signs its hash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Genesis {
    /// The network that the log belongs to.
    pub network_id: NetworkId,
    /// The author of the log.
    pub peer_id: PeerId,
    /// Fresh randomness, so that no two openings of a store write the same log.
    pub nonce: [u8; 16],
    /// How far the author's own log before this one reached when this one was begun. It has at least one op.
    pub predecessor: Option<Tip>,
}

/// Why bytes are not a [`Genesis`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GenesisError {
    /// The bytes end within it.
    #[error("the genesis ends too early")]
    Truncated,
    /// There are bytes behind it.
    #[error("{0} bytes behind the genesis")]
    Trailing(usize),
    /// The network's name is empty, too long or not UTF-8.
    #[error("the genesis names no valid network")]
    Network,
    /// The author's key is none.
    #[error("the author of the genesis: {0}")]
    Author(#[from] KeyError),
    /// Neither 0 nor 1 stands where the predecessor is said to be there or not.
    #[error("the genesis has the unknown flag {0}")]
    Flag(u8),
    /// The predecessor has no op.
    #[error("the genesis follows an empty log")]
    EmptyPredecessor,
}

impl From<ReadError> for GenesisError {
    fn from(_: ReadError) -> Self {
        GenesisError::Truncated
    }
}

impl Genesis {
    /// Bytes of the longest encoding.
    pub const MAX_LEN: usize = 1 + NetworkId::MAX_LEN + 32 + 16 + 1 + Tip::LEN;

    /// The name of the log: `H("vine log genesis 1" | encoding)`.
    pub fn log_id(&self) -> LogId {
        LogId(hash(&[GENESIS_DOMAIN, &self.encode()]))
    }

    /// The encoding: at most [`Genesis::MAX_LEN`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let name = self.network_id.as_str().as_bytes();
        let mut out = Vec::with_capacity(Self::MAX_LEN);
        out.push(name.len() as u8);
        out.extend_from_slice(name);
        out.extend_from_slice(self.peer_id.as_bytes());
        out.extend_from_slice(&self.nonce);
        out.push(u8::from(self.predecessor.is_some()));
        if let Some(tip) = &self.predecessor {
            out.extend_from_slice(&tip.log.0);
            out.extend_from_slice(&tip.next.to_le_bytes());
            out.extend_from_slice(&tip.head.0);
        }
        out
    }

    /// Reads [`Genesis::encode`] back; each genesis has one encoding.
    ///
    /// # Errors
    /// [`GenesisError`].
    pub fn decode(bytes: &[u8]) -> Result<Genesis, GenesisError> {
        let mut reader = Reader::new(bytes);
        let name_len = usize::from(reader.u8()?);
        let name = core::str::from_utf8(reader.bytes(name_len)?).map_err(|_| GenesisError::Network)?;
        let network_id = NetworkId::new(name).map_err(|_| GenesisError::Network)?;
        let peer_id = PeerId::from_bytes(reader.array()?)?;
        let nonce = reader.array()?;
        let predecessor = match reader.u8()? {
            0 => None,
            1 => {
                let tip = Tip { log: LogId(reader.array()?), next: reader.u64()?, head: CommitHash(reader.array()?) };
                Some(if tip.next == 0 { return Err(GenesisError::EmptyPredecessor) } else { tip })
            }
            flag => return Err(GenesisError::Flag(flag)),
        };
        match reader.rest().len() {
            0 => Ok(Genesis { network_id, peer_id, nonce, predecessor }),
            behind => Err(GenesisError::Trailing(behind)),
        }
    }
}

/// What a commit says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The log that it belongs to.
    pub log: LogId,
    /// The number of its first op in the log.
    pub first_seq: u64,
    /// How many ops it has: 1 to [`MAX_COMMIT_OPS`].
    pub count: u32,
    /// Bytes of its encoded ops: at most [`MAX_COMMIT`].
    pub ops_len: u32,
    /// The hash of the commit before it in the log; the log's id in the first one.
    pub prev_hash: CommitHash,
    /// The hash of its encoded ops.
    pub ops_hash: [u8; 32],
    /// The author's clock when the commit was formed.
    pub hlc: Hlc,
}

impl Header {
    /// The encoding.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let fields: [&[u8]; 7] = [
            &self.log.0,
            &self.first_seq.to_le_bytes(),
            &self.count.to_le_bytes(),
            &self.ops_len.to_le_bytes(),
            &self.prev_hash.0,
            &self.ops_hash,
            &self.hlc.0.to_le_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    /// Reads the header off the front of `bytes`, and holds it to the limits.
    ///
    /// # Errors
    /// [`CommitError::Truncated`], [`CommitError::Count`], [`CommitError::OpsLen`], [`CommitError::Sequence`].
    pub fn decode(bytes: &[u8]) -> Result<Header, CommitError> {
        let header =
            Self::read(bytes).map_err(|_| CommitError::Truncated { expected: HEAD_LEN, found: bytes.len() })?;
        if !(1..=MAX_COMMIT_OPS).contains(&(header.count as usize)) {
            return Err(CommitError::Count { count: header.count });
        }
        // The least op takes two bytes.
        if !(2 * header.count as usize..=MAX_COMMIT).contains(&(header.ops_len as usize)) {
            return Err(CommitError::OpsLen { len: header.ops_len });
        }
        match header.first_seq.checked_add(u64::from(header.count)) {
            Some(_) => Ok(header),
            None => Err(CommitError::Sequence { first_seq: header.first_seq }),
        }
    }

    fn read(bytes: &[u8]) -> Result<Header, ReadError> {
        let mut reader = Reader::new(bytes);
        Ok(Header {
            log: LogId(reader.array()?),
            first_seq: reader.u64()?,
            count: reader.u32()?,
            ops_len: reader.u32()?,
            prev_hash: CommitHash(reader.array()?),
            ops_hash: reader.array()?,
            hlc: Hlc(reader.u64()?),
        })
    }

    /// The number of the op behind the commit's last one.
    pub fn next_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count))
    }

    /// Bytes of the whole commit: header, signature, ops.
    pub fn commit_len(&self) -> usize {
        HEAD_LEN + self.ops_len as usize
    }
}

/// Why bytes are not a commit. That it is its author's, and the right one, is found out by [`Commit::verify`] and by
/// [`Chains`](super::chain::Chains).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CommitError {
    /// The bytes end within the commit.
    #[error("{found} bytes of a commit of {expected}")]
    Truncated {
        /// Bytes that it has, as far as they tell.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// There are bytes behind the commit.
    #[error("{0} bytes behind the commit")]
    Trailing(usize),
    /// No op, or more than [`MAX_COMMIT_OPS`].
    #[error("a commit of {count} ops; it may have 1 to {MAX_COMMIT_OPS}")]
    Count {
        /// How many it says that it has.
        count: u32,
    },
    /// More than [`MAX_COMMIT`] bytes of ops, or fewer than so many ops take.
    #[error("a commit of {len} bytes of ops; it may have {MAX_COMMIT}, and at least two for each op")]
    OpsLen {
        /// How many it says that it has.
        len: u32,
    },
    /// The numbers of its ops pass the end of 64 bits.
    #[error("the ops from {first_seq} on have no numbers")]
    Sequence {
        /// Its first one.
        first_seq: u64,
    },
    /// What should be an op is none.
    #[error("op {index} of the commit: {error}")]
    Op {
        /// Its number in the commit, from 0.
        index: usize,
        /// What is wrong with it.
        error: OpError,
    },
    /// There are more or fewer ops than the header says.
    #[error("the commit has {found} ops and says {claimed}")]
    OpCount {
        /// What the header says.
        claimed: u32,
        /// What is there.
        found: usize,
    },
}

/// Why a commit is not what its author wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VerifyError {
    /// The ops are not those that were hashed.
    #[error("the ops of the commit do not have the hash that its header gives")]
    OpsHash,
    /// The signature is not the author's over this header.
    #[error("the commit is not signed by the author of its log")]
    Signature,
}

/// A commit before it is signed: everything that [`Draft::sign`] needs, for any thread.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// The log that it belongs to.
    pub log: LogId,
    /// The number of its first op in the log. The numbers of its ops must not pass 2^64 - 1.
    pub first_seq: u64,
    /// The hash of the commit before it; the log's id in the first one.
    pub prev_hash: CommitHash,
    /// The author's clock.
    pub hlc: Hlc,
    /// Its ops.
    pub ops: Ops,
}

impl Draft {
    /// A commit of `ops` that continues `log` at `first_seq`, where `prev_hash` is the hash of the commit before it.
    pub fn new(log: LogId, first_seq: u64, prev_hash: CommitHash, hlc: Hlc, ops: Ops) -> Draft {
        Draft { log, first_seq, prev_hash, hlc, ops }
    }

    /// Hashes and signs: a pure function, the same every time (RFC 8032 signatures have no randomness).
    ///
    /// The signature is valid if `author` is that of the log.
    pub fn sign(self, author: &Identity) -> Commit {
        let encoded = self.ops.encoded();
        let header = Header {
            log: self.log,
            first_seq: self.first_seq,
            count: self.ops.count(),
            ops_len: encoded.len() as u32,
            prev_hash: self.prev_hash,
            ops_hash: hash(&[encoded]),
            hlc: self.hlc,
        };
        let header_bytes = header.encode();
        let signature = author.sign(&signed_message(&header_bytes));
        let mut head = [0; HEAD_LEN];
        for (to, from) in head.iter_mut().zip(header_bytes.iter().chain(&signature)) {
            *to = *from;
        }
        Commit { header, hash: CommitHash(hash(&[&head])), bytes: self.ops.into_commit(&head) }
    }
}

/// What the author of a commit signs: `"vine log commit 1" | H(header)`.
fn signed_message(header: &[u8]) -> [u8; COMMIT_DOMAIN.len() + 32] {
    let mut message = [0; COMMIT_DOMAIN.len() + 32];
    for (to, from) in message.iter_mut().zip(COMMIT_DOMAIN.iter().chain(&hash(&[header]))) {
        *to = *from;
    }
    message
}

/// A signed batch of ops, of a valid shape. Cloning it copies no ops.
///
/// Whether it is genuine is another question: see [`Commit::verify`].
#[derive(Clone, PartialEq, Eq)]
pub struct Commit {
    header: Header,
    hash: CommitHash,
    /// The encoding: header, signature, ops.
    bytes: Bytes,
}

impl Commit {
    /// Bytes of the longest encoding.
    pub const MAX_LEN: usize = HEAD_LEN + MAX_COMMIT;

    /// Takes exactly the bytes of a commit, and keeps them. Shape, limits and the form of every op are checked, nothing is
    /// allocated; a put or delete that is void is not an error.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn decode(bytes: Bytes) -> Result<Commit, CommitError> {
        let header = Header::decode(&bytes)?;
        let expected = header.commit_len();
        if bytes.len() > expected {
            return Err(CommitError::Trailing(bytes.len() - expected));
        }
        let truncated = CommitError::Truncated { expected, found: bytes.len() };
        let (head, ops) = bytes.split_at_checked(HEAD_LEN).ok_or(truncated)?;
        if ops.len() < header.ops_len as usize {
            return Err(truncated);
        }
        let found = op::count(ops).map_err(|(index, error)| CommitError::Op { index, error })?;
        if found != header.count as usize {
            return Err(CommitError::OpCount { claimed: header.count, found });
        }
        Ok(Commit { header, hash: CommitHash(hash(&[head])), bytes })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The commit's name: the hash of its header and signature.
    pub fn hash(&self) -> CommitHash {
        self.hash
    }

    /// The number of the op behind its last one.
    pub fn next_seq(&self) -> u64 {
        self.header.next_seq()
    }

    /// How far its log reaches with it.
    pub fn tip(&self) -> Tip {
        Tip { log: self.header.log, next: self.next_seq(), head: self.hash }
    }

    /// The whole commit, as it lies on the disk and travels.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The ops in order, as many as the header says. They share the commit's memory.
    pub fn ops(&self) -> impl Iterator<Item = Op> + use<> {
        let mut rest = self.bytes.slice(HEAD_LEN..);
        core::iter::from_fn(move || Op::decode(&mut rest).ok())
    }

    /// Whether the ops are those of the header.
    ///
    /// # Errors
    /// [`VerifyError::OpsHash`].
    pub fn verify_ops(&self) -> Result<(), VerifyError> {
        let (_, ops) = self.bytes.split_at(HEAD_LEN);
        if hash(&[ops]) == self.header.ops_hash { Ok(()) } else { Err(VerifyError::OpsHash) }
    }

    /// Whether `author` signed the header.
    ///
    /// # Errors
    /// [`VerifyError::Signature`].
    pub fn verify_signature(&self, author: &PeerId) -> Result<(), VerifyError> {
        self.signed_header().verify(author)
    }

    /// The header and its signature, without the ops: what [`SignedHeader::verify`] needs and no more.
    pub fn signed_header(&self) -> SignedHeader {
        let mut head = [0; HEAD_LEN];
        for (to, from) in head.iter_mut().zip(self.bytes.iter()) {
            *to = *from;
        }
        SignedHeader(head)
    }

    /// Whether this is what `author` wrote: [`Commit::verify_ops`], then [`Commit::verify_signature`].
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, author: &PeerId) -> Result<(), VerifyError> {
        self.verify_ops()?;
        self.verify_signature(author)
    }
}

/// A commit's header and its signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SignedHeader([u8; HEAD_LEN]);

impl SignedHeader {
    /// Whether `author` signed the header.
    ///
    /// # Errors
    /// [`VerifyError::Signature`].
    pub fn verify(&self, author: &PeerId) -> Result<(), VerifyError> {
        let (header, signature) = self.0.split_at(HEADER_LEN);
        let signature = signature.first_chunk().ok_or(VerifyError::Signature)?;
        author.verify(&signed_message(header), signature).map_err(|_| VerifyError::Signature)
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit").field("hash", &self.hash).field("header", &self.header).finish_non_exhaustive()
    }
}

/// Why a run of commits is not what its author wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RunError {
    /// A commit does not continue the one before it.
    #[error("commit {index} of the run does not continue the one before it")]
    Broken {
        /// Its number in the run, from 1.
        index: usize,
    },
    /// The ops of a commit are not those of its header.
    #[error("the ops of commit {index} of the run do not have the hash that its header gives")]
    OpsHash {
        /// Its number in the run, from 0.
        index: usize,
    },
    /// A commit is not signed by the author.
    #[error("commit {index} of the run is not signed by the author of its log")]
    Signature {
        /// Its number in the run, from 0.
        index: usize,
    },
}

/// Whether a run of commits of one log, each continuing the one before it, is what `author` wrote.
///
/// Every signature is verified, so that a run is what its commits are one by one. An author can sign what follows a commit
/// whose own signature is none: who looked at the last one only would take what others refuse. An empty run is what anybody
/// wrote.
///
/// # Errors
/// [`RunError`]: a commit that does not continue the one before it; else the first one that is wrong.
pub fn verify_run(author: &PeerId, run: &[Commit]) -> Result<(), RunError> {
    for (index, pair) in (1..).zip(run.windows(2)) {
        if let [before, commit] = pair
            && !continues(&before.tip(), commit.header())
        {
            return Err(RunError::Broken { index });
        }
    }
    for (index, commit) in run.iter().enumerate() {
        commit.verify(author).map_err(|error| match error {
            VerifyError::OpsHash => RunError::OpsHash { index },
            VerifyError::Signature => RunError::Signature { index },
        })?;
    }
    Ok(())
}

/// Whether a commit with `header` is the next one of a log that reaches to `tip`.
pub(super) fn continues(tip: &Tip, header: &Header) -> bool {
    header.log == tip.log && header.first_seq == tip.next && header.prev_hash == tip.head
}

/// What a log is made of, as it is exported and imported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// The beginning of a log; it comes before its commits.
    Genesis(Genesis),
    /// A commit.
    Commit(Commit),
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn author() -> Identity {
        Identity::from_seed([7; 32])
    }

    fn genesis(predecessor: Option<Tip>) -> Genesis {
        let network_id = NetworkId::new("example").unwrap();
        Genesis { network_id, peer_id: author().peer_id(), nonce: [3; 16], predecessor }
    }

    fn ops(each: &[&'static [u8]]) -> Ops {
        let ops: Vec<Op> = each.iter().map(|data| Op::Plain(Bytes::from_static(data))).collect();
        Ops::new(&ops).unwrap().unwrap()
    }

    fn commit(first_seq: u64, prev_hash: CommitHash, ops: Ops) -> Commit {
        Draft::new(genesis(None).log_id(), first_seq, prev_hash, Hlc(9), ops).sign(&author())
    }

    /// Commits of two, one and three ops.
    fn run() -> Vec<Commit> {
        let first = commit(0, genesis(None).log_id().into(), ops(&[b"a", b"b"]));
        let second = commit(2, first.hash(), ops(&[b"c"]));
        let third = commit(3, second.hash(), ops(&[b"d", b"", b"f"]));
        vec![first, second, third]
    }

    /// The commit with its bytes changed, of whatever shape it is then.
    fn changed(commit: &Commit, change: impl FnOnce(&mut Vec<u8>)) -> Result<Commit, CommitError> {
        let mut bytes = commit.bytes().to_vec();
        change(&mut bytes);
        Commit::decode(bytes.into())
    }

    fn set(at: usize, field: &[u8]) -> impl FnOnce(&mut Vec<u8>) {
        move |bytes| bytes[at..at + field.len()].copy_from_slice(field)
    }

    #[test]
    fn a_genesis_round_trips_and_every_cut_is_refused() {
        let tip = Tip { log: LogId([1; 32]), next: 5, head: CommitHash([2; 32]) };
        for genesis in [genesis(None), genesis(Some(tip))] {
            let bytes = genesis.encode();
            assert!(bytes.len() <= Genesis::MAX_LEN);
            assert_eq!(Genesis::decode(&bytes), Ok(genesis.clone()));
            for cut in 0..bytes.len() {
                assert_eq!(Genesis::decode(&bytes[..cut]), Err(GenesisError::Truncated), "{cut}");
            }
            assert_eq!(Genesis::decode(&[&bytes[..], &[0, 0]].concat()), Err(GenesisError::Trailing(2)));
        }
    }

    #[test]
    fn every_flipped_bit_of_a_genesis_names_another_log_or_none() {
        let tip = Tip { log: LogId([1; 32]), next: 5, head: CommitHash([2; 32]) };
        let genesis = genesis(Some(tip));
        let bytes = genesis.encode();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Genesis::decode(&bytes) {
                assert_ne!(other.log_id(), genesis.log_id(), "bit {bit}");
                assert_eq!(other.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_genesis_of_another_form_is_refused() {
        let tip = Tip { log: LogId([1; 32]), next: 0, head: CommitHash([2; 32]) };
        assert_eq!(Genesis::decode(&genesis(Some(tip)).encode()), Err(GenesisError::EmptyPredecessor));
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = genesis(None).encode();
            change(&mut bytes);
            Genesis::decode(&bytes)
        };
        assert_eq!(with(&|bytes| *bytes.last_mut().unwrap() = 2), Err(GenesisError::Flag(2)));
        assert_eq!(with(&|bytes| bytes[1] = 0xff), Err(GenesisError::Network));
        assert_eq!(with(&|bytes| drop(bytes.splice(..8, [0]))), Err(GenesisError::Network));
        assert_eq!(with(&|bytes| drop(bytes.splice(..8, [[65; 66].as_slice()].concat()))), Err(GenesisError::Network));
        assert!(matches!(with(&|bytes| bytes[8..40].fill(2)), Err(GenesisError::Author(_))));
    }

    #[test]
    fn the_header_lies_as_documented() {
        let commit = run().remove(2);
        let (bytes, header) = (commit.bytes(), commit.header());
        assert_eq!(bytes[..32], genesis(None).log_id().0);
        assert_eq!(bytes[32..48], [3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 8, 0, 0, 0]);
        assert_eq!(bytes[48..80], header.prev_hash.0);
        assert_eq!(bytes[80..112], hash(&[&[0, 1, b'd', 0, 0, 0, 1, b'f']]));
        assert_eq!(bytes[112..120], [9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[184..], [0, 1, b'd', 0, 0, 0, 1, b'f']);
        assert_eq!(header.encode(), bytes[..120]);
        assert_eq!(commit.hash().0, hash(&[&bytes[..184]]));
        assert_eq!(commit.tip(), Tip { log: header.log, next: 6, head: commit.hash() });
    }

    #[test]
    fn a_commit_round_trips_and_is_its_authors() {
        for commit in run() {
            let decoded = Commit::decode(commit.bytes().clone()).unwrap();
            assert_eq!(decoded, commit);
            assert_eq!(decoded.ops().count(), commit.header().count as usize);
            assert_eq!(decoded.verify(&author().peer_id()), Ok(()));
            let stranger = Identity::from_seed([8; 32]).peer_id();
            assert_eq!(decoded.verify(&stranger), Err(VerifyError::Signature));
        }
    }

    #[test]
    fn every_cut_and_every_byte_too_many_is_refused() {
        let commit = run().remove(0);
        let whole = commit.bytes().len();
        for cut in 0..whole {
            let error = changed(&commit, |bytes| bytes.truncate(cut)).unwrap_err();
            let expected = if cut < HEADER_LEN { HEAD_LEN } else { whole };
            assert_eq!(error, CommitError::Truncated { expected, found: cut });
        }
        assert_eq!(changed(&commit, |bytes| bytes.push(0)), Err(CommitError::Trailing(1)));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let commit = run().remove(2);
        for bit in 0..commit.bytes().len() * 8 {
            let Ok(flipped) = changed(&commit, |bytes| bytes[bit / 8] ^= 1 << (bit % 8)) else { continue };
            // In the hash of the ops or in the ops, or anywhere before.
            let ops = (80 * 8..112 * 8).contains(&bit) || bit >= HEAD_LEN * 8;
            let expected = if ops { VerifyError::OpsHash } else { VerifyError::Signature };
            assert_eq!(flipped.verify(&author().peer_id()), Err(expected), "bit {bit}");
            assert_eq!(flipped.hash() == commit.hash(), bit >= HEAD_LEN * 8, "bit {bit}");
        }
    }

    #[test]
    fn limits_are_enforced_before_anything_is_read() {
        let commit = run().remove(0);
        let over = MAX_COMMIT as u32 + 1;
        for (at, field, expected) in [
            (40, 0, CommitError::Count { count: 0 }),
            (40, MAX_COMMIT_OPS as u32 + 1, CommitError::Count { count: MAX_COMMIT_OPS as u32 + 1 }),
            (40, u32::MAX, CommitError::Count { count: u32::MAX }),
            (44, over, CommitError::OpsLen { len: over }),
            (44, u32::MAX, CommitError::OpsLen { len: u32::MAX }),
            (44, 3, CommitError::OpsLen { len: 3 }),
            (44, 5, CommitError::Trailing(1)),
            (44, 7, CommitError::Truncated { expected: 191, found: 190 }),
            (40, 1, CommitError::OpCount { claimed: 1, found: 2 }),
            (40, 3, CommitError::OpCount { claimed: 3, found: 2 }),
        ] {
            assert_eq!(changed(&commit, set(at, &u32::to_le_bytes(field))), Err(expected));
        }
        let last = (u64::MAX - 1).to_le_bytes();
        assert_eq!(changed(&commit, set(32, &last)), Err(CommitError::Sequence { first_seq: u64::MAX - 1 }));
        assert!(changed(&commit, set(32, &(u64::MAX - 2).to_le_bytes())).is_ok());
        let second = CommitError::Op { index: 1, error: OpError::Truncated };
        assert_eq!(changed(&commit, set(HEAD_LEN + 4, &[2])), Err(second));
    }

    #[test]
    fn the_largest_commits_round_trip() {
        let many = Ops::new(&vec![Op::Plain(Bytes::new()); MAX_COMMIT_OPS]).unwrap().unwrap();
        let mut builder = crate::log::OpsBuilder::new();
        for len in [op::MAX_OP, op::MAX_OP, op::MAX_OP, op::MAX_OP - 16] {
            builder.push(&Op::Plain(vec![5; len].into())).unwrap();
        }
        assert_eq!(builder.encoded_len(), MAX_COMMIT);
        for ops in [many, builder.finish().unwrap()] {
            let commit = commit(0, CommitHash([0; 32]), ops);
            assert!(commit.bytes().len() <= Commit::MAX_LEN);
            assert_eq!(Commit::decode(commit.bytes().clone()), Ok(commit));
        }
    }

    #[test]
    fn a_run_is_what_its_commits_are_one_by_one() {
        let author = author().peer_id();
        let run = run();
        assert_eq!(verify_run(&author, &[]), Ok(()));
        assert_eq!(verify_run(&author, &run), Ok(()));
        let stranger = Identity::from_seed([8; 32]).peer_id();
        assert_eq!(verify_run(&stranger, &run), Err(RunError::Signature { index: 0 }));

        let with = |index: usize, at: usize| {
            let mut run = run.clone();
            run[index] = changed(&run[index], |bytes| bytes[at] ^= 1).unwrap();
            verify_run(&author, &run)
        };
        assert_eq!(with(0, HEADER_LEN), Err(RunError::Broken { index: 1 }), "the next one names it");
        assert_eq!(with(1, 112), Err(RunError::Broken { index: 2 }));
        assert_eq!(with(1, HEAD_LEN + 2), Err(RunError::OpsHash { index: 1 }));
        assert_eq!(with(2, 112), Err(RunError::Signature { index: 2 }));
        // What follows the commit with a signature that is none is signed all the same.
        let unsigned = changed(&run[1], |bytes| bytes[HEADER_LEN] ^= 1).unwrap();
        let next = commit(unsigned.next_seq(), unsigned.hash(), ops(&[b"d"]));
        let signed_over = [run[0].clone(), unsigned, next];
        assert_eq!(verify_run(&author, &signed_over), Err(RunError::Signature { index: 1 }));
        assert_eq!(verify_run(&author, &[run[0].clone(), run[2].clone()]), Err(RunError::Broken { index: 1 }));
    }

    #[test]
    fn names_are_shown_in_hexadecimal() {
        let log = LogId([0xab; 32]);
        assert_eq!(log.to_string(), "ab".repeat(32));
        assert_eq!(alloc::format!("{log:?} {:?}", CommitHash::from(log)), "abababababab abababababab");
    }
}
