//! Archives: logs as one file, to be carried to another node.
//!
//! `"vinelog1" | network name length u8 | network name`, then records of `length varint | type u8 | body`, the length being
//! that of the body:
//!
//! | type | body |
//! | --- | --- |
//! | 1 | a genesis; before the first commit of its log |
//! | 2 | a commit; behind those before it in its log |
//! | 255 | the end: `geneses u64 \| commits u64 \| ops u64 \| hash 32` |
//!
//! The hash is BLAKE2b-256 of every byte before it, so a cut or changed file is noticed wherever it is; nothing may follow.
//! Every error names the byte at which it was found, counted from the beginning of the file.
//!
//! Both sides hold one record in memory at most. What is read is of a valid shape, and the ops of a commit have the hash
//! that its header gives; whether it is its author's is for [`Chains`](super::chain::Chains) to find out.

use alloc::vec::Vec;

use blake2::digest::consts::U32;
use blake2::{Blake2b, Digest};
use bytes::Bytes;

use super::commit::{Commit, CommitError, Genesis, GenesisError, HEAD_LEN, Record};
use crate::config::NetworkId;
use crate::wire::varint::{self, VarintError};

/// What an archive begins with.
pub const MAGIC: &[u8; 8] = b"vinelog1";

/// The types of records.
mod kind {
    pub(super) const GENESIS: u8 = 1;
    pub(super) const COMMIT: u8 = 2;
    pub(super) const END: u8 = 255;
}

/// Bytes of the end record before its hash, and with it.
const COUNTS_LEN: usize = 3 * 8;
const END_LEN: usize = COUNTS_LEN + 32;

/// What an archive holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// Beginnings of logs.
    pub geneses: u64,
    /// Commits.
    pub commits: u64,
    /// Ops in the commits.
    pub ops: u64,
}

impl Summary {
    fn count(&mut self, record: &Record) {
        match record {
            Record::Genesis(_) => self.geneses += 1,
            Record::Commit(commit) => {
                self.commits += 1;
                self.ops += u64::from(commit.header().count);
            }
        }
    }

    fn encode(&self) -> [u8; COUNTS_LEN] {
        let mut out = [0; COUNTS_LEN];
        let counts = [self.geneses, self.commits, self.ops].map(u64::to_le_bytes);
        out.iter_mut().zip(counts.iter().flatten()).for_each(|(to, from)| *to = *from);
        out
    }
}

/// Writes an archive, piece by piece: each call appends bytes of the file to a buffer, which the caller writes and clears.
#[derive(Clone, Debug)]
pub struct ArchiveWriter {
    summary: Summary,
    hash: Blake2b<U32>,
}

impl ArchiveWriter {
    /// Begins an archive of logs of a network.
    pub fn new(network_id: &NetworkId, out: &mut Vec<u8>) -> ArchiveWriter {
        let mut writer = ArchiveWriter { summary: Summary::default(), hash: Blake2b::new() };
        let name = network_id.as_str().as_bytes();
        [&MAGIC[..], &[name.len() as u8], name].into_iter().for_each(|part| writer.put(part, out));
        writer
    }

    /// Adds a record. A genesis belongs before its log's commits, and a commit behind those before it.
    pub fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        self.summary.count(record);
        match record {
            Record::Genesis(genesis) => self.put_record(kind::GENESIS, &genesis.encode(), out),
            Record::Commit(commit) => self.put_record(kind::COMMIT, commit.bytes(), out),
        }
    }

    /// Ends the archive. Without that it is a cut one.
    pub fn end(mut self, out: &mut Vec<u8>) -> Summary {
        self.put(&varint::encode(END_LEN as u64), out);
        self.put(&[kind::END], out);
        self.put(&self.summary.encode(), out);
        out.extend_from_slice(&self.hash.finalize());
        self.summary
    }

    fn put_record(&mut self, kind: u8, body: &[u8], out: &mut Vec<u8>) {
        self.put(&varint::encode(body.len() as u64), out);
        self.put(&[kind], out);
        self.put(body, out);
    }

    fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.hash.update(bytes);
        out.extend_from_slice(bytes);
    }
}

/// What is wrong with an archive, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("byte {at}: {kind}")]
pub struct ArchiveError {
    /// Bytes of the file before the part that is wrong: the beginning of the record, or the end of the file.
    pub at: u64,
    /// What is wrong with it.
    pub kind: ArchiveErrorKind,
}

/// What is wrong with an archive.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArchiveErrorKind {
    /// It does not begin with [`MAGIC`].
    #[error("this is no archive of logs")]
    Magic,
    /// The name of its network is empty, too long or not UTF-8.
    #[error("it names no valid network")]
    Network,
    /// The length of a record is none, or is not in its shortest form.
    #[error("the length of the record: {0}")]
    Length(VarintError),
    /// The type of a record is unknown.
    #[error("the record has the unknown type {0}")]
    UnknownType(u8),
    /// A record has a length that its type does not have.
    #[error("a record of type {kind} has {len} bytes")]
    RecordLength {
        /// The type.
        kind: u8,
        /// The length.
        len: u64,
    },
    /// What should be a genesis is none.
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    /// What should be a commit is none.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The ops of a commit are not those that its author hashed.
    #[error("the ops of the commit do not have the hash that its header gives")]
    OpsHash,
    /// The end counts something else than what came.
    #[error("{found:?} came, and the archive says that it holds {claimed:?}")]
    Counts {
        /// What the end says.
        claimed: Summary,
        /// What came.
        found: Summary,
    },
    /// The bytes do not have the hash that the end gives.
    #[error("the archive does not have the hash that its end gives: it was changed")]
    Hash,
    /// The file ends before its end record does.
    #[error("the archive is cut off")]
    Cut,
    /// There are bytes behind the end.
    #[error("there are bytes behind the end of the archive")]
    Trailing,
}

/// A part of an archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// The network that the logs belong to: the first item.
    Network(NetworkId),
    /// A genesis or a commit.
    Record(Record),
    /// The last item: the archive is complete and unchanged, if nothing follows.
    End(Summary),
}

/// What comes next in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Magic and length of the network's name.
    Magic,
    Name {
        len: usize,
    },
    /// Length and type of a record.
    RecordHead,
    Record {
        kind: u8,
        len: usize,
    },
    Nothing,
}

/// Reads an archive from pieces of any size.
///
/// ```
/// # use bytes::Bytes;
/// # use vine_core::{Identity, NetworkId};
/// # use vine_core::log::*;
/// use vine_core::log::archive::{ArchiveReader, ArchiveWriter, Item};
///
/// # let network_id = NetworkId::new("example").unwrap();
/// # let genesis = Genesis { network_id: network_id.clone(), peer_id: Identity::from_seed([7; 32]).peer_id(), nonce: [1; 16], predecessor: None };
/// let mut file = Vec::new();
/// let mut writer = ArchiveWriter::new(&network_id, &mut file);
/// writer.record(&Record::Genesis(genesis), &mut file);
/// writer.end(&mut file);
///
/// let mut reader = ArchiveReader::new();
/// for mut piece in file.chunks(100) {
///     while let Some(item) = reader.read(&mut piece).unwrap() {
///         match item {
///             Item::Network(network) => assert_eq!(network, network_id),
///             Item::Record(record) => {} // The record at byte `reader.item_at()`.
///             Item::End(summary) => assert_eq!(summary.geneses, 1),
///         }
///     }
/// }
/// assert!(reader.finish().is_ok(), "a cut file has given no error so far");
/// ```
#[derive(Clone, Debug)]
pub struct ArchiveReader {
    part: Part,
    /// What is there of the part.
    buffer: Vec<u8>,
    /// Where the part begins, where the record begins that it belongs to, and where the last item began.
    at: u64,
    record_at: u64,
    item_at: u64,
    found: Summary,
    hash: Blake2b<U32>,
    failed: Option<ArchiveError>,
}

impl Default for ArchiveReader {
    fn default() -> Self {
        ArchiveReader::new()
    }
}

impl ArchiveReader {
    /// At the beginning of a file.
    pub fn new() -> ArchiveReader {
        ArchiveReader {
            part: Part::Magic,
            buffer: Vec::new(),
            at: 0,
            record_at: 0,
            item_at: 0,
            found: Summary::default(),
            hash: Blake2b::new(),
            failed: None,
        }
    }

    /// Takes bytes off the front of `input` until an item is complete, or all of them. At most one record is held, and
    /// memory is taken as its bytes arrive.
    ///
    /// # Errors
    /// [`ArchiveError`], the same one ever after. What was returned before it came from a file that is not to be trusted as
    /// a whole: each genesis and commit stands for itself.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Item>, ArchiveError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let item = self.read_on(input);
        self.failed = item.as_ref().err().cloned();
        item
    }

    /// Where the item that was returned last begins: bytes of the file before it.
    pub fn item_at(&self) -> u64 {
        self.item_at
    }

    /// What the whole file held; to be asked when there are no more bytes.
    ///
    /// # Errors
    /// [`ArchiveErrorKind::Cut`] if the end record has not come, or the error that reading ended with.
    pub fn finish(self) -> Result<Summary, ArchiveError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.part == Part::Nothing => Ok(self.found),
            None => Err(ArchiveError { at: self.at + self.buffer.len() as u64, kind: ArchiveErrorKind::Cut }),
        }
    }

    fn read_on(&mut self, input: &mut &[u8]) -> Result<Option<Item>, ArchiveError> {
        while !input.is_empty() {
            let Some(part) = self.fill(input).map_err(|kind| ArchiveError { at: self.record_at, kind })? else { break };
            let bytes = core::mem::take(&mut self.buffer);
            let record_at = self.record_at;
            self.at += bytes.len() as u64;
            let item = self.take(part, bytes).map_err(|kind| ArchiveError { at: record_at, kind })?;
            if matches!(self.part, Part::RecordHead | Part::Nothing) {
                self.record_at = self.at;
            }
            if item.is_some() {
                self.item_at = record_at;
                return Ok(item);
            }
        }
        Ok(None)
    }

    /// Moves bytes of the current part to the buffer. Returns the part once it is complete.
    fn fill(&mut self, input: &mut &[u8]) -> Result<Option<Part>, ArchiveErrorKind> {
        let complete = match self.part {
            Part::Magic => self.fill_to(MAGIC.len() + 1, input),
            Part::Name { len } | Part::Record { len, .. } => self.fill_to(len, input),
            Part::RecordHead => return self.fill_record_head(input),
            Part::Nothing => return Err(ArchiveErrorKind::Trailing),
        };
        Ok(complete.then_some(self.part))
    }

    fn fill_to(&mut self, len: usize, input: &mut &[u8]) -> bool {
        let missing = len - self.buffer.len();
        let (taken, rest) = input.split_at_checked(missing).unwrap_or((*input, &[]));
        self.buffer.extend_from_slice(taken);
        *input = rest;
        self.buffer.len() == len
    }

    /// The length and the byte behind it, byte by byte: the length is refused at the first one that proves it wrong.
    fn fill_record_head(&mut self, input: &mut &[u8]) -> Result<Option<Part>, ArchiveErrorKind> {
        while let Some((byte, rest)) = input.split_first() {
            *input = rest;
            self.buffer.push(*byte);
            match varint::decode_up_to(&self.buffer, Commit::MAX_LEN as u64) {
                Ok((_, [])) | Err(VarintError::Truncated) => {}
                Ok(_) => return Ok(Some(Part::RecordHead)),
                Err(error) => return Err(ArchiveErrorKind::Length(error)),
            }
        }
        Ok(None)
    }

    /// Takes a complete part; what comes behind it is the next part.
    fn take(&mut self, part: Part, bytes: Vec<u8>) -> Result<Option<Item>, ArchiveErrorKind> {
        if !matches!(part, Part::Record { kind: kind::END, .. }) {
            self.hash.update(&bytes);
        }
        match part {
            Part::Magic => {
                let len = bytes.strip_prefix(MAGIC).and_then(<[u8]>::first).ok_or(ArchiveErrorKind::Magic)?;
                if !(1..=NetworkId::MAX_LEN).contains(&usize::from(*len)) {
                    return Err(ArchiveErrorKind::Network);
                }
                self.part = Part::Name { len: usize::from(*len) };
                Ok(None)
            }
            Part::Name { .. } => {
                let name = core::str::from_utf8(&bytes).map_err(|_| ArchiveErrorKind::Network)?;
                let network_id = NetworkId::new(name).map_err(|_| ArchiveErrorKind::Network)?;
                self.part = Part::RecordHead;
                Ok(Some(Item::Network(network_id)))
            }
            Part::RecordHead => {
                self.part = record_head(&bytes)?;
                Ok(None)
            }
            Part::Record { kind: kind::END, .. } => {
                self.part = Part::Nothing;
                self.end(&bytes).map(|()| Some(Item::End(self.found)))
            }
            Part::Record { kind, .. } => {
                self.part = Part::RecordHead;
                let record = record(kind, bytes)?;
                self.found.count(&record);
                Ok(Some(Item::Record(record)))
            }
            Part::Nothing => Err(ArchiveErrorKind::Trailing),
        }
    }

    fn end(&mut self, body: &[u8]) -> Result<(), ArchiveErrorKind> {
        let (counts, hash) = body.split_at_checked(COUNTS_LEN).ok_or(ArchiveErrorKind::Cut)?;
        self.hash.update(counts);
        if self.hash.clone().finalize()[..] != *hash {
            return Err(ArchiveErrorKind::Hash);
        }
        let found = self.found;
        let mut claimed = counts.as_chunks::<8>().0.iter().map(|count| u64::from_le_bytes(*count));
        let mut next = || claimed.next().unwrap_or(0);
        let claimed = Summary { geneses: next(), commits: next(), ops: next() };
        if claimed == found { Ok(()) } else { Err(ArchiveErrorKind::Counts { claimed, found }) }
    }
}

/// What record follows the length and type in `bytes`. A length that its type cannot have is refused before the record is
/// read.
fn record_head(bytes: &[u8]) -> Result<Part, ArchiveErrorKind> {
    let (len, behind) = varint::decode(bytes).map_err(ArchiveErrorKind::Length)?;
    let &[kind] = behind else { return Err(ArchiveErrorKind::Length(VarintError::Truncated)) };
    let may_have = match kind {
        kind::GENESIS => 1..=Genesis::MAX_LEN,
        kind::COMMIT => HEAD_LEN..=Commit::MAX_LEN,
        kind::END => END_LEN..=END_LEN,
        _ => return Err(ArchiveErrorKind::UnknownType(kind)),
    };
    match usize::try_from(len) {
        Ok(len) if may_have.contains(&len) => Ok(Part::Record { kind, len }),
        _ => Err(ArchiveErrorKind::RecordLength { kind, len }),
    }
}

fn record(kind: u8, body: Vec<u8>) -> Result<Record, ArchiveErrorKind> {
    if kind == kind::GENESIS {
        return Ok(Record::Genesis(Genesis::decode(&body)?));
    }
    let commit = Commit::decode(Bytes::from(body))?;
    commit.verify_ops().map_err(|_| ArchiveErrorKind::OpsHash)?;
    Ok(Record::Commit(commit))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::identity::Identity;
    use crate::log::{Draft, Hlc, Op, Ops};
    use alloc::vec;

    fn network() -> NetworkId {
        NetworkId::new("example").unwrap()
    }

    /// A log of two commits, of two ops and one.
    fn records() -> Vec<Record> {
        let author = Identity::from_seed([7; 32]);
        let peer_id = author.peer_id();
        let genesis = Genesis { network_id: network(), peer_id, nonce: [3; 16], predecessor: None };
        let log = genesis.log_id();
        let ops = |texts: &[&'static str]| {
            let ops: Vec<Op> = texts.iter().map(|text| Op::Plain(Bytes::from_static(text.as_bytes()))).collect();
            Ops::new(&ops).unwrap().unwrap()
        };
        let first = Draft::new(log, 0, log.into(), Hlc(1), ops(&["a", "b"])).sign(&author);
        let second = Draft::new(log, 2, first.hash(), Hlc(2), ops(&["c"])).sign(&author);
        vec![Record::Genesis(genesis), Record::Commit(first), Record::Commit(second)]
    }

    fn archive(records: &[Record]) -> (Vec<u8>, Summary) {
        let mut file = Vec::new();
        let mut writer = ArchiveWriter::new(&network(), &mut file);
        records.iter().for_each(|record| writer.record(record, &mut file));
        let summary = writer.end(&mut file);
        (file, summary)
    }

    /// All items of a file in pieces of this size, and where they begin.
    fn read(file: &[u8], piece: usize) -> Result<(Vec<(u64, Item)>, Summary), ArchiveError> {
        let mut reader = ArchiveReader::new();
        let mut items = Vec::new();
        for mut input in file.chunks(piece) {
            while let Some(item) = reader.read(&mut input)? {
                items.push((reader.item_at(), item));
            }
            assert!(input.is_empty());
        }
        reader.finish().map(|summary| (items, summary))
    }

    fn error(file: &[u8]) -> (u64, ArchiveErrorKind) {
        let error = read(file, usize::MAX).unwrap_err();
        assert_eq!(read(file, 1), Err(error.clone()), "the same in pieces");
        (error.at, error.kind)
    }

    #[test]
    fn what_is_written_is_read_in_pieces_of_any_size() {
        let records = records();
        let (file, summary) = archive(&records);
        assert_eq!(summary, Summary { geneses: 1, commits: 2, ops: 3 });
        let (whole, found) = read(&file, usize::MAX).unwrap();
        assert_eq!(found, summary);
        let items: Vec<Item> = whole.iter().map(|(_, item)| item.clone()).collect();
        let expected = records.into_iter().map(Item::Record);
        let expected: Vec<Item> =
            [Item::Network(network())].into_iter().chain(expected).chain([Item::End(summary)]).collect();
        assert_eq!(items, expected);
        // Magic and name, then a length of one or two bytes, a type, and the body.
        let places: Vec<u64> = whole.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, [0, 16, 16 + 2 + 57, 75 + 3 + 190, 268 + 3 + 187]);
        for piece in 1..file.len() {
            assert_eq!(read(&file, piece), Ok((whole.clone(), summary)));
        }
        let (empty, summary) = archive(&[]);
        assert_eq!(read(&empty, 3).map(|(_, found)| found), Ok(summary));
    }

    #[test]
    fn a_cut_is_noticed_wherever_it_is() {
        let (file, _) = archive(&records());
        for cut in 0..file.len() {
            assert_eq!(error(&file[..cut]), (cut as u64, ArchiveErrorKind::Cut));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (file, _) = archive(&records());
        let places: Vec<u64> = read(&file, usize::MAX).unwrap().0.iter().map(|(at, _)| *at).collect();
        for bit in 0..file.len() * 8 {
            let mut changed = file.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // At the record that holds the bit, or behind it where that is of a valid form still.
            let (at, kind) = error(&changed);
            let record = places.iter().rev().find(|from| **from <= (bit / 8) as u64);
            assert!(Some(&at) >= record, "bit {bit}: {at}: {kind}");
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        let (file, _) = archive(&records());
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = file.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            error(&changed)
        };
        assert_eq!(with(0, b"V"), (0, ArchiveErrorKind::Magic));
        assert_eq!(with(8, &[0]), (0, ArchiveErrorKind::Network));
        assert_eq!(with(8, &[65]), (0, ArchiveErrorKind::Network));
        assert_eq!(with(9, &[0xff]), (0, ArchiveErrorKind::Network));
        assert_eq!(with(16, &[0xc0, 0x00]), (16, ArchiveErrorKind::Length(VarintError::Overlong)));
        assert_eq!(with(16, &[0xff; 4]), (16, ArchiveErrorKind::Length(VarintError::TooLarge)));
        assert_eq!(with(17, &[3]), (16, ArchiveErrorKind::UnknownType(3)));
        assert_eq!(with(17, &[2]), (16, ArchiveErrorKind::RecordLength { kind: 2, len: 57 }));
        assert_eq!(with(17, &[255]), (16, ArchiveErrorKind::RecordLength { kind: 255, len: 57 }));
        assert_eq!(with(16, &[0]), (16, ArchiveErrorKind::RecordLength { kind: 1, len: 0 }));
        assert_eq!(with(18, &[0]), (16, ArchiveErrorKind::Genesis(GenesisError::Network)));
        assert_eq!(with(18 + 56, &[1]), (16, ArchiveErrorKind::Genesis(GenesisError::Truncated)));
        assert_eq!(with(78 + 40, &[0]), (75, ArchiveErrorKind::Commit(CommitError::Count { count: 0 })));
        assert_eq!(with(78 + 189, b"x"), (75, ArchiveErrorKind::OpsHash));
        // The signature of the first commit is for the chains to look at, or for the hash at the end.
        assert_eq!(with(78 + 130, &[1, 2, 3, 4]), (458, ArchiveErrorKind::Hash));
        assert_eq!(with(file.len() - 1, &[!file[file.len() - 1]]), (458, ArchiveErrorKind::Hash));
        assert_eq!(error(&[&file[..], &[0]].concat()), (file.len() as u64, ArchiveErrorKind::Trailing));
    }

    #[test]
    fn wrong_counts_are_noticed_even_with_the_right_hash() {
        let mut file = Vec::new();
        let mut writer = ArchiveWriter::new(&network(), &mut file);
        writer.record(&records()[0], &mut file);
        writer.summary.ops = 7;
        let claimed = writer.end(&mut file);
        let found = Summary { ops: 0, ..claimed };
        assert_eq!(error(&file), (75, ArchiveErrorKind::Counts { claimed, found }));
    }

    #[test]
    fn an_error_stays() {
        let (file, _) = archive(&records());
        let mut reader = ArchiveReader::new();
        let first = reader.read(&mut &b"vinelog2 and more"[..]).unwrap_err();
        assert_eq!(reader.read(&mut &file[..]), Err(first.clone()));
        assert_eq!(reader.finish(), Err(first));
    }

    #[test]
    fn memory_follows_what_arrives_and_not_what_is_claimed() {
        let (file, _) = archive(&[]);
        let mut reader = ArchiveReader::new();
        assert!(reader.read(&mut &file[..16]).unwrap().is_some());
        let head = [&varint::encode(Commit::MAX_LEN as u64)[..], &[kind::COMMIT]].concat();
        assert_eq!(reader.read(&mut &head[..]), Ok(None));
        assert_eq!(reader.read(&mut &[0; 100][..]), Ok(None));
        assert!(reader.buffer.capacity() < 1000);
    }
}
