//! What is known of every log, and the rule by which a commit is taken.
//!
//! A commit is taken if it continues its log here, its author is a member and signed it, and the position that the log
//! follows is here too. The same commit again is known. Two commits of one author for one place are a fork: the second
//! one is refused by that name, and only if it is genuine, so that nobody can accuse somebody else.
//!
//! Per log its head is kept, and of the last [`REMEMBERED`] commits of all logs where they lie. What is older than that can
//! only be compared with the store's own copy, which is for the caller to do: [`Accept::Past`].

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};

use super::commit::{Commit, CommitHash, Genesis, Header, LogId, Tip, VerifyError, continues, hash};
use crate::config::NetworkId;
use crate::identity::PeerId;

/// The most logs of which anything is known: 65,536 openings of stores that wrote something.
pub const MAX_LOGS: usize = 65_536;
/// Of how many commits it is remembered where they lie, over all logs.
pub const REMEMBERED: usize = 4096;

/// What is hashed before the state of all logs.
const STATE_DOMAIN: &[u8] = b"vine log state 1";

/// How a genesis or a commit was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accept {
    /// It is new.
    New,
    /// The very same is here already.
    Known,
    /// It lies before all that is remembered of its log: the same, if the store's own copy at its place has its hash, else a
    /// fork.
    Past,
}

/// Why a genesis or a commit is not taken. Nothing changed then.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The log belongs to another network.
    #[error("log {log} belongs to the network {:?}", network.as_str())]
    WrongNetwork {
        /// The log.
        log: LogId,
        /// Its network.
        network: NetworkId,
    },
    /// The author is not a member here.
    #[error("log {log} is of {author}, who is not a member here")]
    NotAMember {
        /// The log.
        log: LogId,
        /// Its author.
        author: PeerId,
    },
    /// There are [`MAX_LOGS`] logs.
    #[error("there are {MAX_LOGS} logs already, and none can be added")]
    TooMany,
    /// The author has as many bytes here as others may have.
    #[error("{author} has reached the {limit} bytes that the log of another one may take here")]
    Quota {
        /// The author.
        author: PeerId,
        /// The bytes.
        limit: u64,
    },
    /// The log's genesis is not here.
    #[error("log {log} is unknown: its genesis has to come first")]
    UnknownLog {
        /// The log.
        log: LogId,
    },
    /// Commits between the log's head and this one are missing.
    #[error("log {log} continues at {expected}, and this is {got}")]
    Gap {
        /// The log.
        log: LogId,
        /// The number of the next op.
        expected: u64,
        /// The number of the commit's first op.
        got: u64,
    },
    /// Another commit of the author is here, for the same place or a part of it.
    #[error("log {log} is forked at {at}: its author signed another commit for this place than the one that is here")]
    Fork {
        /// The log.
        log: LogId,
        /// The number of the commit's first op.
        at: u64,
    },
    /// The commit continues another history of the log than the one that is here: there is a fork somewhere before it.
    #[error("log {log} is forked before {at}: its author continues there what is not the history that is here")]
    ForkBefore {
        /// The log.
        log: LogId,
        /// The number of the commit's first op.
        at: u64,
    },
    /// The log follows a position that is not here yet.
    #[error("the log follows position {at} of log {log}, which is not here")]
    PredecessorMissing {
        /// The predecessor.
        log: LogId,
        /// How many ops of it have to be here.
        at: u64,
    },
    /// The log follows a log of another author.
    #[error("the log follows log {log}, which is of another author")]
    PredecessorAuthor {
        /// The predecessor.
        log: LogId,
    },
    /// The log follows another history of its predecessor than the one that is here: the predecessor is forked.
    #[error("the log follows another history of log {log} up to {at} than the one that is here")]
    PredecessorFork {
        /// The predecessor.
        log: LogId,
        /// How many ops of it.
        at: u64,
    },
    /// The ops do not have the hash that the header gives.
    #[error("commit {at} of log {log}: its ops do not have the hash that its header gives")]
    BadHash {
        /// The log.
        log: LogId,
        /// The number of the commit's first op.
        at: u64,
    },
    /// The author did not sign the commit.
    #[error("commit {at} of log {log} is not signed by the author of the log")]
    BadSignature {
        /// The log.
        log: LogId,
        /// The number of the commit's first op.
        at: u64,
    },
}

/// What is known of a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogState {
    /// Its beginning.
    pub genesis: Genesis,
    /// How many ops it has here: the number of its next one.
    pub next: u64,
    /// The hash of its last commit here, or its id while there is none.
    pub head: CommitHash,
}

/// A commit whose place is remembered.
#[derive(Clone, Copy, Debug)]
struct Place {
    next: u64,
    hash: CommitHash,
}

/// Where a commit stands against what is here.
enum Standing {
    Next,
    Known,
    Past,
    Fork(Refusal),
}

/// All logs.
#[derive(Clone, Debug)]
pub struct Chains {
    network_id: NetworkId,
    members: BTreeSet<PeerId>,
    logs: BTreeMap<LogId, LogState>,
    /// The last commits, by log and first op. Of each log these are its last ones without a hole, for they are forgotten in
    /// the order in which they came.
    places: BTreeMap<(LogId, u64), Place>,
    order: VecDeque<(LogId, u64)>,
}

impl Chains {
    /// Without any log. `members` are those whose logs are taken: this node itself has to be among them.
    pub fn new(network_id: NetworkId, members: BTreeSet<PeerId>) -> Chains {
        Chains { network_id, members, logs: BTreeMap::new(), places: BTreeMap::new(), order: VecDeque::new() }
    }

    /// Takes the beginning of a log.
    ///
    /// A genesis is signed by its log's first commit only: until that is here, anybody may have made it up.
    ///
    /// # Errors
    /// [`Refusal::WrongNetwork`], [`Refusal::NotAMember`], [`Refusal::TooMany`].
    pub fn accept_genesis(&mut self, genesis: &Genesis) -> Result<Accept, Refusal> {
        self.check_member(genesis.log_id(), genesis)?;
        self.restore_genesis(genesis)
    }

    /// Whether [`Chains::accept_genesis`] would take the beginning of a log. Nothing changes.
    ///
    /// # Errors
    /// As [`Chains::accept_genesis`].
    pub fn check_genesis(&self, genesis: &Genesis) -> Result<Accept, Refusal> {
        let log = genesis.log_id();
        self.check_member(log, genesis)?;
        self.check_new(log, genesis)
    }

    /// Takes the beginning of a log that was taken before, as the store gives it back: its author may not be a member
    /// any more.
    ///
    /// # Errors
    /// [`Refusal::WrongNetwork`], [`Refusal::TooMany`].
    pub fn restore_genesis(&mut self, genesis: &Genesis) -> Result<Accept, Refusal> {
        let log = genesis.log_id();
        if self.check_new(log, genesis)? == Accept::Known {
            return Ok(Accept::Known);
        }
        self.logs.insert(log, LogState { genesis: genesis.clone(), next: 0, head: log.into() });
        Ok(Accept::New)
    }

    /// Takes a commit of anybody: [`Chains::check`], then it is the head of its log.
    ///
    /// # Errors
    /// As [`Chains::check`].
    pub fn accept(&mut self, commit: &Commit) -> Result<Accept, Refusal> {
        self.accept_verified(commit, None)
    }

    /// As [`Chains::accept`], where it may be known what became of [`Commit::verify`] with the log's author.
    pub(super) fn accept_verified(
        &mut self,
        commit: &Commit,
        verdict: Option<Result<(), VerifyError>>,
    ) -> Result<Accept, Refusal> {
        let accept = self.check_verified(commit, verdict)?;
        if accept == Accept::New {
            self.advance(commit);
        }
        Ok(accept)
    }

    /// Whether a commit of anybody would be taken, its hash and signature included. Nothing changes.
    ///
    /// # Errors
    /// Every [`Refusal`] but [`Refusal::WrongNetwork`] and [`Refusal::TooMany`].
    pub fn check(&self, commit: &Commit) -> Result<Accept, Refusal> {
        self.check_verified(commit, None)
    }

    fn check_verified(&self, commit: &Commit, verdict: Option<Result<(), VerifyError>>) -> Result<Accept, Refusal> {
        let header = commit.header();
        let state = self.state(header)?;
        self.check_member(header.log, &state.genesis)?;
        let standing = self.standing(state, commit)?;
        let (log, at) = (header.log, header.first_seq);
        let verdict = verdict.unwrap_or_else(|| commit.verify(&state.genesis.peer_id));
        verdict.map_err(|error| match error {
            VerifyError::OpsHash => Refusal::BadHash { log, at },
            VerifyError::Signature => Refusal::BadSignature { log, at },
        })?;
        standing.accept()
    }

    /// Takes a commit that needs no verification: this node formed it, or verified it before it stored it.
    ///
    /// # Errors
    /// What is wrong with its place: [`Refusal::UnknownLog`], [`Refusal::Gap`], [`Refusal::Fork`],
    /// [`Refusal::ForkBefore`], and what is wrong with the predecessor.
    pub fn extend(&mut self, commit: &Commit) -> Result<Accept, Refusal> {
        let accept = self.standing(self.state(commit.header())?, commit)?.accept()?;
        if accept == Accept::New {
            self.advance(commit);
        }
        Ok(accept)
    }

    /// Goes on with a commit behind a hole that damage left in the log: as [`Chains::extend`], but what is missing before
    /// the commit, in its log or in the predecessor, is passed over.
    ///
    /// # Errors
    /// [`Refusal::UnknownLog`], [`Refusal::Fork`], [`Refusal::ForkBefore`], [`Refusal::PredecessorAuthor`],
    /// [`Refusal::PredecessorFork`].
    pub fn resume(&mut self, commit: &Commit) -> Result<Accept, Refusal> {
        match self.extend(commit) {
            Err(Refusal::Gap { .. } | Refusal::PredecessorMissing { .. }) => {
                self.forget(&commit.header().log);
                self.advance(commit);
                Ok(Accept::New)
            }
            other => other,
        }
    }

    /// What is known of a log.
    pub fn get(&self, log: &LogId) -> Option<&LogState> {
        self.logs.get(log)
    }

    /// All logs, sorted by their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&LogId, &LogState)> {
        self.logs.iter()
    }

    /// How far a log reaches.
    pub fn tip(&self, log: &LogId) -> Option<Tip> {
        self.logs.get(log).map(|state| Tip { log: *log, next: state.next, head: state.head })
    }

    /// The members.
    pub fn members(&self) -> &BTreeSet<PeerId> {
        &self.members
    }

    /// Takes other members. What is here of former ones stays; nothing more of them is taken.
    pub fn set_members(&mut self, members: BTreeSet<PeerId>) {
        self.members = members;
    }

    /// The hash of all that a store holds: that of the key-value view ([`View::digest`](super::view::View::digest)), and of
    /// every log that has a commit its id, its number of ops and its head.
    ///
    /// Two nodes with the same logs have the same hash.
    pub fn state_hash(&self, view_digest: &[u8; 32]) -> [u8; 32] {
        let mut parts = alloc::vec::Vec::from([STATE_DOMAIN, view_digest]);
        let written = self.logs.iter().filter(|(_, state)| state.next > 0);
        let numbers: alloc::vec::Vec<_> =
            written.map(|(log, state)| (log, state.next.to_le_bytes(), &state.head)).collect();
        parts.extend(numbers.iter().flat_map(|(log, next, head)| [&log.0[..], next, &head.0]));
        hash(&parts)
    }

    fn state(&self, header: &Header) -> Result<&LogState, Refusal> {
        self.logs.get(&header.log).ok_or(Refusal::UnknownLog { log: header.log })
    }

    fn check_new(&self, log: LogId, genesis: &Genesis) -> Result<Accept, Refusal> {
        if genesis.network_id != self.network_id {
            return Err(Refusal::WrongNetwork { log, network: genesis.network_id.clone() });
        }
        if self.logs.contains_key(&log) {
            return Ok(Accept::Known);
        }
        if self.logs.len() >= MAX_LOGS { Err(Refusal::TooMany) } else { Ok(Accept::New) }
    }

    fn check_member(&self, log: LogId, genesis: &Genesis) -> Result<(), Refusal> {
        let author = genesis.peer_id;
        if self.members.contains(&author) { Ok(()) } else { Err(Refusal::NotAMember { log, author }) }
    }

    fn standing(&self, state: &LogState, commit: &Commit) -> Result<Standing, Refusal> {
        let header = commit.header();
        let (log, at) = (header.log, header.first_seq);
        if at > state.next {
            return Err(Refusal::Gap { log, expected: state.next, got: at });
        }
        if at < state.next {
            return Ok(self.standing_behind_head(state, commit));
        }
        if !continues(&Tip { log, next: state.next, head: state.head }, header) {
            return Ok(Standing::Fork(Refusal::ForkBefore { log, at }));
        }
        if at == 0 {
            self.check_predecessor(&state.genesis)?;
        }
        Ok(Standing::Next)
    }

    /// A commit that begins before the head of its log.
    fn standing_behind_head(&self, state: &LogState, commit: &Commit) -> Standing {
        let header = commit.header();
        let (log, at) = (header.log, header.first_seq);
        let fork = Standing::Fork(Refusal::Fork { log, at });
        if commit.hash() == state.head {
            return Standing::Known;
        }
        if commit.next_seq() >= state.next {
            return fork;
        }
        // The commit that holds the same op, and the first one that is remembered at all.
        let holder = self.places.range((log, 0)..=(log, at)).next_back();
        match (holder, self.places.range((log, 0)..=(log, u64::MAX)).next()) {
            (Some((_, place)), _) if place.hash == commit.hash() => Standing::Known,
            (Some(_), _) => fork,
            (None, Some(((_, oldest), _))) if commit.next_seq() > *oldest => fork,
            (None, _) => Standing::Past,
        }
    }

    /// Whether the position that the log follows is here.
    fn check_predecessor(&self, genesis: &Genesis) -> Result<(), Refusal> {
        let Some(tip) = genesis.predecessor else { return Ok(()) };
        let (log, at) = (tip.log, tip.next);
        let state = self.logs.get(&log).ok_or(Refusal::PredecessorMissing { log, at })?;
        if state.genesis.peer_id != genesis.peer_id {
            return Err(Refusal::PredecessorAuthor { log });
        }
        if state.next < at {
            return Err(Refusal::PredecessorMissing { log, at });
        }
        // What ends there, as far as it is remembered.
        let last = self.places.range((log, 0)..(log, at)).next_back();
        let same = match last {
            _ if state.next == at => state.head == tip.head,
            Some((_, place)) => place.next == at && place.hash == tip.head,
            None => true,
        };
        if same { Ok(()) } else { Err(Refusal::PredecessorFork { log, at }) }
    }

    fn advance(&mut self, commit: &Commit) {
        let header = commit.header();
        if let Some(state) = self.logs.get_mut(&header.log) {
            (state.next, state.head) = (commit.next_seq(), commit.hash());
        }
        let place = (header.log, header.first_seq);
        self.places.insert(place, Place { next: commit.next_seq(), hash: commit.hash() });
        self.order.push_back(place);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }

    /// Forgets where the commits of a log lie: what comes does not follow them without a hole.
    fn forget(&mut self, log: &LogId) {
        self.order.retain(|(other, _)| other != log);
        self.places.retain(|(other, _), _| other != log);
    }
}

impl Standing {
    fn accept(self) -> Result<Accept, Refusal> {
        match self {
            Standing::Next => Ok(Accept::New),
            Standing::Known => Ok(Accept::Known),
            Standing::Past => Ok(Accept::Past),
            Standing::Fork(refusal) => Err(refusal),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::identity::Identity;
    use crate::log::{Draft, Hlc, Op, Ops};
    use alloc::format;
    use alloc::vec;
    use alloc::vec::Vec;
    use bytes::Bytes;

    fn author(n: u8) -> Identity {
        Identity::from_seed([n; 32])
    }

    fn network() -> NetworkId {
        NetworkId::new("example").unwrap()
    }

    fn chains() -> Chains {
        Chains::new(network(), [1, 2].map(|n| author(n).peer_id()).into())
    }

    fn genesis(author: &Identity, nonce: u8, predecessor: Option<Tip>) -> Genesis {
        Genesis { network_id: network(), peer_id: author.peer_id(), nonce: [nonce; 16], predecessor }
    }

    /// A log of author 1, without a predecessor.
    fn first() -> Genesis {
        genesis(&author(1), 0, None)
    }

    fn start(genesis: &Genesis) -> Tip {
        Tip { log: genesis.log_id(), next: 0, head: genesis.log_id().into() }
    }

    fn draft(tip: Tip, count: usize, text: &'static str) -> Draft {
        let ops = vec![Op::Plain(Bytes::from_static(text.as_bytes())); count];
        Draft::new(tip.log, tip.next, tip.head, Hlc(1), Ops::new(&ops).unwrap().unwrap())
    }

    fn commit(tip: Tip, count: usize, text: &'static str) -> Commit {
        draft(tip, count, text).sign(&author(1))
    }

    /// A log of commits of these numbers of ops.
    fn log(genesis: &Genesis, counts: &[usize]) -> Vec<Commit> {
        let mut tip = start(genesis);
        let next = |count: &usize| {
            let commit = commit(tip, *count, "op");
            tip = commit.tip();
            commit
        };
        counts.iter().map(next).collect()
    }

    /// Chains that hold `commits` of `genesis`.
    fn holding(genesis: &Genesis, commits: &[Commit]) -> Chains {
        let mut chains = chains();
        assert_eq!(chains.accept_genesis(genesis), Ok(Accept::New));
        for commit in commits {
            assert_eq!(chains.accept(commit), Ok(Accept::New));
        }
        chains
    }

    /// The refusal, which changes nothing.
    #[track_caller]
    fn refused(chains: &mut Chains, commit: &Commit) -> Refusal {
        let before = format!("{chains:?}");
        let refusal = chains.accept(commit).unwrap_err();
        assert_eq!(format!("{chains:?}"), before);
        refusal
    }

    #[test]
    fn a_log_is_taken_in_order_and_known_afterwards() {
        let commits = log(&first(), &[2, 1, 3]);
        let mut chains = holding(&first(), &commits);
        assert_eq!(chains.accept_genesis(&first()), Ok(Accept::Known));
        for commit in &commits {
            assert_eq!(chains.accept(commit), Ok(Accept::Known));
            assert_eq!(chains.extend(commit), Ok(Accept::Known));
        }
        assert_eq!(chains.tip(&first().log_id()), Some(commits[2].tip()));
    }

    #[test]
    fn a_log_of_nobody_or_elsewhere_is_refused() {
        let mut chains = chains();
        let stranger = genesis(&author(3), 0, None);
        let (log, author) = (stranger.log_id(), stranger.peer_id);
        assert_eq!(chains.accept_genesis(&stranger), Err(Refusal::NotAMember { log, author }));
        let network = NetworkId::new("elsewhere").unwrap();
        let foreign = Genesis { network_id: network.clone(), ..first() };
        let log = foreign.log_id();
        assert_eq!(chains.accept_genesis(&foreign), Err(Refusal::WrongNetwork { log, network }));
        let commit = commit(start(&first()), 1, "op");
        assert_eq!(refused(&mut chains, &commit), Refusal::UnknownLog { log: first().log_id() });
    }

    #[test]
    fn a_former_member_is_restored_but_not_continued() {
        let mut chains = Chains::new(network(), BTreeSet::new());
        let commits = log(&first(), &[1, 1]);
        assert_eq!(chains.restore_genesis(&first()), Ok(Accept::New));
        assert_eq!(chains.extend(&commits[0]), Ok(Accept::New));
        let (log, author) = (first().log_id(), first().peer_id);
        assert_eq!(refused(&mut chains, &commits[1]), Refusal::NotAMember { log, author });
    }

    #[test]
    fn there_is_a_most_of_logs() {
        let mut chains = chains();
        let nth = |n: usize| {
            let mut genesis = first();
            genesis.nonce[..8].copy_from_slice(&n.to_le_bytes());
            genesis
        };
        for n in 0..MAX_LOGS {
            assert_eq!(chains.accept_genesis(&nth(n)), Ok(Accept::New));
        }
        assert_eq!(chains.accept_genesis(&nth(MAX_LOGS)), Err(Refusal::TooMany));
        assert_eq!(chains.accept_genesis(&nth(5)), Ok(Accept::Known));
    }

    #[test]
    fn a_gap_is_named() {
        let commits = log(&first(), &[2, 1, 3]);
        let mut chains = holding(&first(), &commits[..1]);
        let gap = Refusal::Gap { log: first().log_id(), expected: 2, got: 3 };
        assert_eq!(refused(&mut chains, &commits[2]), gap);
    }

    #[test]
    fn a_forged_commit_is_named() {
        let mut chains = holding(&first(), &log(&first(), &[2]));
        let tip = chains.tip(&first().log_id()).unwrap();
        let (log, at) = (first().log_id(), 2);
        let of_another = draft(tip, 1, "op").sign(&author(2));
        assert_eq!(refused(&mut chains, &of_another), Refusal::BadSignature { log, at });
        let mut bytes = commit(tip, 1, "op").bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let damaged = Commit::decode(bytes.into()).unwrap();
        assert_eq!(refused(&mut chains, &damaged), Refusal::BadHash { log, at });
    }

    #[test]
    fn a_second_commit_for_a_place_is_a_fork() {
        let commits = log(&first(), &[2, 2, 2]);
        let mut chains = holding(&first(), &commits);
        let log = first().log_id();
        let tips = [start(&first()), commits[0].tip(), commits[1].tip()];
        let inside = Tip { next: 3, ..commits[0].tip() };
        for (tip, count) in [(tips[0], 2), (tips[0], 1), (tips[0], 9), (tips[1], 3), (tips[2], 2), (inside, 1)] {
            let other = commit(tip, count, "other");
            assert_eq!(refused(&mut chains, &other), Refusal::Fork { log, at: tip.next });
            assert_eq!(chains.extend(&other), Err(Refusal::Fork { log, at: tip.next }));
        }
        let other_history = commit(Tip { head: CommitHash([9; 32]), ..commits[2].tip() }, 1, "op");
        assert_eq!(refused(&mut chains, &other_history), Refusal::ForkBefore { log, at: 6 });
    }

    #[test]
    fn nobody_is_accused_of_a_fork_by_a_forgery() {
        let commits = log(&first(), &[2, 2]);
        let mut chains = holding(&first(), &commits);
        let log = first().log_id();
        let forged = draft(commits[0].tip(), 1, "other").sign(&author(2));
        assert_eq!(refused(&mut chains, &forged), Refusal::BadSignature { log, at: 2 });
        let other_history = draft(Tip { head: CommitHash([9; 32]), ..commits[1].tip() }, 1, "op").sign(&author(2));
        assert_eq!(refused(&mut chains, &other_history), Refusal::BadSignature { log, at: 4 });
    }

    #[test]
    fn what_is_forgotten_is_past_or_forked_but_never_new() {
        let counts = vec![1; REMEMBERED + 3];
        let mut chains = chains();
        chains.accept_genesis(&first()).unwrap();
        let commits = log(&first(), &counts);
        for commit in &commits {
            assert_eq!(chains.extend(commit), Ok(Accept::New));
        }
        assert_eq!(chains.accept(&commits[2]), Ok(Accept::Past));
        assert_eq!(chains.accept(&commits[3]), Ok(Accept::Known));
        let log = first().log_id();
        let across = commit(commits[1].tip(), 2, "other");
        assert_eq!(refused(&mut chains, &across), Refusal::Fork { log, at: 2 });
        // Which of the two it is, the store's copy has to tell.
        assert_eq!(chains.accept(&commit(commits[1].tip(), 1, "other")), Ok(Accept::Past));
        // Another log's commits make these be forgotten wholly, but for the head.
        let other = genesis(&author(1), 5, None);
        chains.accept_genesis(&other).unwrap();
        for commit in self::log(&other, &counts) {
            assert_eq!(chains.extend(&commit), Ok(Accept::New));
        }
        assert_eq!(chains.accept(&commits[REMEMBERED + 2]), Ok(Accept::Known));
        assert_eq!(chains.accept(&commits[REMEMBERED + 1]), Ok(Accept::Past));
        let at = REMEMBERED as u64;
        let beyond = commit(commits[REMEMBERED - 1].tip(), 9, "other");
        assert_eq!(refused(&mut chains, &beyond), Refusal::Fork { log, at });
    }

    #[test]
    fn a_log_waits_for_the_position_that_it_follows() {
        let commits = log(&first(), &[2, 2]);
        let tip = commits[1].tip();
        let successor = genesis(&author(1), 1, Some(tip));
        let next = log(&successor, &[1]).remove(0);
        let mut chains = chains();
        assert_eq!(chains.accept_genesis(&successor), Ok(Accept::New));
        let missing = Refusal::PredecessorMissing { log: first().log_id(), at: 4 };
        assert_eq!(refused(&mut chains, &next), missing);
        chains.accept_genesis(&first()).unwrap();
        assert_eq!(refused(&mut chains, &next), missing);
        chains.accept(&commits[0]).unwrap();
        assert_eq!(refused(&mut chains, &next), missing);
        chains.accept(&commits[1]).unwrap();
        assert_eq!(chains.accept(&next), Ok(Accept::New));
    }

    #[test]
    fn a_restored_backup_is_a_second_successor() {
        let commits = log(&first(), &[2, 2]);
        let mut chains = holding(&first(), &commits);
        // One opening goes on from the end, another one with the store of yesterday, and one more with the same again.
        for (nonce, tip) in [(1, commits[1].tip()), (2, commits[0].tip()), (3, commits[1].tip())] {
            let successor = genesis(&author(1), nonce, Some(tip));
            assert_eq!(chains.accept_genesis(&successor), Ok(Accept::New));
            assert_eq!(chains.accept(&log(&successor, &[1])[0]), Ok(Accept::New));
        }
        assert_eq!(chains.iter().len(), 4);
    }

    #[test]
    fn a_log_follows_only_its_authors_and_what_is_here() {
        let commits = log(&first(), &[2, 2]);
        let mut chains = holding(&first(), &commits);
        let log = first().log_id();
        let other_author = genesis(&author(2), 1, Some(commits[1].tip()));
        chains.accept_genesis(&other_author).unwrap();
        let next = draft(start(&other_author), 1, "op").sign(&author(2));
        assert_eq!(refused(&mut chains, &next), Refusal::PredecessorAuthor { log });
        let (mid, head) = (commits[0].hash(), CommitHash([9; 32]));
        for (at, head) in [(4, head), (2, head), (3, mid), (1, mid)] {
            let successor = genesis(&author(1), 1, Some(Tip { log, next: at, head }));
            chains.accept_genesis(&successor).unwrap();
            let next = self::log(&successor, &[1]).remove(0);
            assert_eq!(refused(&mut chains, &next), Refusal::PredecessorFork { log, at });
        }
    }

    #[test]
    fn a_hole_is_passed_over_only_on_request() {
        let commits = log(&first(), &[1, 1, 1, 1, 1]);
        let mut chains = holding(&first(), &commits[..2]);
        assert!(matches!(chains.extend(&commits[3]), Err(Refusal::Gap { .. })));
        assert_eq!(chains.resume(&commits[3]), Ok(Accept::New));
        assert_eq!(chains.resume(&commits[4]), Ok(Accept::New));
        assert_eq!(chains.tip(&first().log_id()), Some(commits[4].tip()));
        // What may have been in the hole is not known, so nothing before it is taken for a fork.
        assert_eq!(chains.accept(&commits[2]), Ok(Accept::Past));
        assert_eq!(chains.accept(&commits[3]), Ok(Accept::Known));
    }

    #[test]
    fn the_state_is_that_of_the_commits_and_not_of_how_they_came() {
        let (other, commits) = (genesis(&author(1), 5, None), log(&first(), &[2, 2]));
        let mut one = holding(&first(), &commits);
        one.accept_genesis(&other).unwrap();
        let two = holding(&first(), &commits);
        assert_eq!(one.state_hash(&[1; 32]), two.state_hash(&[1; 32]), "a log without a commit is nothing yet");
        assert_ne!(one.state_hash(&[1; 32]), two.state_hash(&[2; 32]));
        one.accept(&log(&other, &[1])[0]).unwrap();
        assert_ne!(one.state_hash(&[1; 32]), two.state_hash(&[1; 32]));
    }
}
