//! Signal: where a peer can be reached, and what came of trying the addresses of the other side.
//!
//! ```text
//!  role u8 | peer 32 bytes, but for Own | stamp u64 | flags u8 | nat u8
//!  candidates: count, then each  kind u8 | address
//!  results:    count, then each  outcome u8 | address
//! ```

use core::fmt;
use core::net::SocketAddr;

use super::cursor::{BufferFull, ReadError, Reader, Writer};

/// Codes of [`SignalRole`].
const OWN: u8 = 0;
const CARRY: u8 = 1;
const CARRIED: u8 = 2;
/// The flag that asks for a Signal in return.
const WANTS_ANSWER: u8 = 0x01;
/// The longest address: family, IPv6 address, port.
pub(super) const MAX_ADDRESS_LEN: usize = 1 + 16 + 2;

/// Whose addresses a Signal tells, and what its receiver is to do with them.
///
/// The 32 bytes are the PeerId as it was written. Whether they name a peer, the receiver finds out by looking for it
/// among its peers; to prove that they are a key takes so long that nobody may ask for it a hundred times a datagram.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SignalRole {
    /// The sender's own, told over the session with whom it means.
    Own,
    /// The sender's own: "carry this to that peer".
    Carry([u8; 32]),
    /// Another one's: "that peer asked me to carry this to you".
    Carried([u8; 32]),
}

/// How a peer learned of an address that it can perhaps be reached at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CandidateKind {
    /// It is an address of one of its interfaces.
    Interface = 1,
    /// Other peers see it there (RFC 8445: server reflexive).
    Reflexive = 2,
    /// Its operator says so.
    Configured = 3,
    /// It was reached there once.
    LastKnown = 4,
}

impl CandidateKind {
    const fn from_code(code: u8) -> Option<CandidateKind> {
        match code {
            1 => Some(CandidateKind::Interface),
            2 => Some(CandidateKind::Reflexive),
            3 => Some(CandidateKind::Configured),
            4 => Some(CandidateKind::LastKnown),
            _ => None,
        }
    }

    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            CandidateKind::Interface => "interface",
            CandidateKind::Reflexive => "reflexive",
            CandidateKind::Configured => "configured",
            CandidateKind::LastKnown => "last_known",
        }
    }
}

/// An address that the peer can perhaps be reached at. Nothing is known of the address but its form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Candidate {
    /// How the peer learned of it.
    pub kind: CandidateKind,
    /// The address.
    pub address: SocketAddr,
}

/// What came of trying an address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CheckOutcome {
    /// Nothing yet.
    Waiting = 0,
    /// It answered.
    Answered = 1,
    /// It did not answer.
    Silent = 2,
    /// It was not tried: the address is none that may be, or the host could not send there.
    Refused = 3,
}

impl CheckOutcome {
    const fn from_code(code: u8) -> Option<CheckOutcome> {
        match code {
            0 => Some(CheckOutcome::Waiting),
            1 => Some(CheckOutcome::Answered),
            2 => Some(CheckOutcome::Silent),
            3 => Some(CheckOutcome::Refused),
            _ => None,
        }
    }

    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            CheckOutcome::Waiting => "waiting",
            CheckOutcome::Answered => "answered",
            CheckOutcome::Silent => "silent",
            CheckOutcome::Refused => "refused",
        }
    }
}

/// What the sender of a Signal found when it tried an address of the receiver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct CheckResult {
    /// The address.
    pub address: SocketAddr,
    /// What came of it.
    pub outcome: CheckOutcome,
}

/// How the NAT in front of a peer maps its socket (RFC 4787, section 4.1; found out as in RFC 5780, section 4.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(u8)]
pub enum NatVerdict {
    /// Too few peers have said where they see it. A verdict that this version does not know is this one.
    #[default]
    Unknown = 0,
    /// There is none: others see an address of the host.
    None = 1,
    /// To the same address for everybody.
    EndpointIndependent = 2,
    /// To another address, or port, for another destination. Which of the two RFC 4787 kinds it is makes no difference.
    AddressDependent = 3,
}

impl NatVerdict {
    const fn from_code(code: u8) -> NatVerdict {
        match code {
            1 => NatVerdict::None,
            2 => NatVerdict::EndpointIndependent,
            3 => NatVerdict::AddressDependent,
            _ => NatVerdict::Unknown,
        }
    }

    /// The name used in reports.
    pub const fn name(self) -> &'static str {
        match self {
            NatVerdict::Unknown => "unknown",
            NatVerdict::None => "none",
            NatVerdict::EndpointIndependent => "endpoint_independent",
            NatVerdict::AddressDependent => "address_dependent",
        }
    }
}

/// A Signal as it was received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signal<'a> {
    role: SignalRole,
    stamp: u64,
    wants_answer: bool,
    nat: NatVerdict,
    /// Both lists with their counts; read once, so they are known to hold what the format asks for.
    candidates: &'a [u8],
    results: &'a [u8],
}

impl<'a> Signal<'a> {
    /// The most candidates of one Signal, and the most results.
    pub const MAX_ITEMS: usize = 16;
    /// The longest body, in bytes.
    pub(super) const MAX_BODY_LEN: usize = 1 + 32 + 8 + 1 + 1 + 2 * MAX_LIST_LEN;

    /// Whose it is, and where it goes.
    pub const fn role(&self) -> SignalRole {
        self.role
    }

    /// Grows with every Signal that a peer makes for another one.
    pub const fn stamp(&self) -> u64 {
        self.stamp
    }

    /// Whether its maker asks for a Signal in return.
    pub const fn wants_answer(&self) -> bool {
        self.wants_answer
    }

    /// The NAT in front of its maker.
    pub const fn nat(&self) -> NatVerdict {
        self.nat
    }

    /// The addresses of its maker, best first; at most [`Signal::MAX_ITEMS`]. Kinds that this version does not know
    /// are passed over.
    pub fn candidates(&self) -> impl Iterator<Item = Candidate> + Clone + use<'a> {
        let candidate = |(code, address)| CandidateKind::from_code(code).map(|kind| Candidate { kind, address });
        Items::of(self.candidates).filter_map(candidate)
    }

    /// What came of trying the receiver's addresses; at most [`Signal::MAX_ITEMS`]. Outcomes that this version does
    /// not know are passed over.
    pub fn results(&self) -> impl Iterator<Item = CheckResult> + Clone + use<'a> {
        let result = |(code, address)| CheckOutcome::from_code(code).map(|outcome| CheckResult { address, outcome });
        Items::of(self.results).filter_map(result)
    }

    /// The same with another role: what a peer passes on that was asked to carry it.
    #[must_use]
    pub const fn with_role(self, role: SignalRole) -> Signal<'a> {
        Signal { role, ..self }
    }

    /// Bytes of the body.
    pub(super) const fn body_len(&self) -> usize {
        let peer = match self.role {
            SignalRole::Own => 0,
            SignalRole::Carry(_) | SignalRole::Carried(_) => 32,
        };
        1 + peer + 8 + 1 + 1 + self.candidates.len() + self.results.len()
    }

    pub(super) fn decode(body: &mut Reader<'a>) -> Result<Signal<'a>, ReadError> {
        let role = match body.u8()? {
            OWN => SignalRole::Own,
            CARRY => SignalRole::Carry(body.array()?),
            CARRIED => SignalRole::Carried(body.array()?),
            _ => return Err(ReadError::OutOfRange),
        };
        let stamp = body.u64()?;
        let wants_answer = body.u8()? & WANTS_ANSWER != 0;
        let nat = NatVerdict::from_code(body.u8()?);
        let candidates = list(body)?;
        let results = list(body)?;
        Ok(Signal { role, stamp, wants_answer, nat, candidates, results })
    }

    pub(super) fn encode(&self, body: &mut Writer<'_>) -> Result<(), BufferFull> {
        match self.role {
            SignalRole::Own => body.u8(OWN)?,
            SignalRole::Carry(peer) => {
                body.u8(CARRY)?;
                body.bytes(&peer)?;
            }
            SignalRole::Carried(peer) => {
                body.u8(CARRIED)?;
                body.bytes(&peer)?;
            }
        }
        body.u64(self.stamp)?;
        body.u8(if self.wants_answer { WANTS_ANSWER } else { 0 })?;
        body.u8(self.nat as u8)?;
        body.bytes(self.candidates)?;
        body.bytes(self.results)
    }
}

impl fmt::Debug for Signal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct List<I>(I);
        impl<I: Iterator<Item: fmt::Debug> + Clone> fmt::Debug for List<I> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.0.clone()).finish()
            }
        }
        f.debug_struct("Signal")
            .field("role", &self.role)
            .field("stamp", &self.stamp)
            .field("wants_answer", &self.wants_answer)
            .field("nat", &self.nat)
            .field("candidates", &List(self.candidates()))
            .field("results", &List(self.results()))
            .finish()
    }
}

/// The longest list: its count, and so many items of a byte and an address.
const MAX_LIST_LEN: usize = 1 + Signal::MAX_ITEMS * (1 + MAX_ADDRESS_LEN);

/// Reads a list and returns its bytes, count included.
fn list<'a>(body: &mut Reader<'a>) -> Result<&'a [u8], ReadError> {
    let start = body.rest();
    let count = body.u8()?;
    if usize::from(count) > Signal::MAX_ITEMS {
        return Err(ReadError::OutOfRange);
    }
    for _ in 0..count {
        body.u8()?;
        body.address()?;
    }
    let len = start.len() - body.rest().len();
    start.get(..len).ok_or(ReadError::Truncated)
}

/// The items of a list that was read once: code and address.
#[derive(Clone)]
struct Items<'a>(Reader<'a>);

impl<'a> Items<'a> {
    fn of(list: &'a [u8]) -> Items<'a> {
        Items(Reader::new(list.get(1..).unwrap_or_default()))
    }
}

impl Iterator for Items<'_> {
    type Item = (u8, SocketAddr);

    fn next(&mut self) -> Option<(u8, SocketAddr)> {
        Some((self.0.u8().ok()?, self.0.address().ok()?))
    }
}

/// What a Signal says, to be made into one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SignalBody {
    /// See [`Signal::stamp`].
    pub stamp: u64,
    /// See [`Signal::wants_answer`].
    pub wants_answer: bool,
    /// See [`Signal::nat`].
    pub nat: NatVerdict,
    /// See [`Signal::candidates`].
    pub candidates: heapless::Vec<Candidate, { Signal::MAX_ITEMS }>,
    /// See [`Signal::results`].
    pub results: heapless::Vec<CheckResult, { Signal::MAX_ITEMS }>,
}

impl SignalBody {
    /// Bytes that [`SignalBody::to_signal`] asks for.
    pub const SCRATCH_LEN: usize = 2 * MAX_LIST_LEN;

    /// The Signal with this role. Its lists are written to `scratch`.
    pub fn to_signal<'a>(&self, role: SignalRole, scratch: &'a mut [u8; Self::SCRATCH_LEN]) -> Signal<'a> {
        let (candidates, results) = scratch.split_at_mut(MAX_LIST_LEN);
        let items = self.candidates.iter().map(|item| (item.kind as u8, item.address));
        let candidates = write_list(candidates, items);
        let items = self.results.iter().map(|item| (item.outcome as u8, item.address));
        let results = write_list(results, items);
        Signal { role, stamp: self.stamp, wants_answer: self.wants_answer, nat: self.nat, candidates, results }
    }
}

/// Writes a list to `room`, which takes the longest, and returns its bytes.
fn write_list(room: &mut [u8], items: impl ExactSizeIterator<Item = (u8, SocketAddr)>) -> &[u8] {
    let mut out = Writer::new(room);
    let write = || {
        // A list never has more than MAX_ITEMS.
        out.u8(items.len() as u8)?;
        for (code, address) in items {
            out.u8(code)?;
            out.address(address)?;
        }
        Ok::<(), BufferFull>(())
    };
    let written = write();
    debug_assert!(written.is_ok(), "MAX_LIST_LEN is the longest list");
    let len = out.len();
    room.get(..len).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    extern crate std;

    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
    }

    pub(in crate::wire) fn any_signal() -> impl Strategy<Value = (SignalRole, SignalBody)> {
        let role = (0u8..3, any::<[u8; 32]>()).prop_map(|(code, peer)| match code {
            OWN => SignalRole::Own,
            CARRY => SignalRole::Carry(peer),
            _ => SignalRole::Carried(peer),
        });
        let candidate = (1u8..=4, any_address())
            .prop_map(|(code, address)| Candidate { kind: CandidateKind::from_code(code).unwrap(), address });
        let result = (0u8..=3, any_address())
            .prop_map(|(code, address)| CheckResult { address, outcome: CheckOutcome::from_code(code).unwrap() });
        let lists = (prop::collection::vec(candidate, 0..=16), prop::collection::vec(result, 0..=16));
        (role, any::<u64>(), any::<bool>(), 0u8..=3, lists).prop_map(
            |(role, stamp, wants_answer, nat, (candidates, results))| {
                let body = SignalBody {
                    stamp,
                    wants_answer,
                    nat: NatVerdict::from_code(nat),
                    candidates: candidates.into_iter().collect(),
                    results: results.into_iter().collect(),
                };
                (role, body)
            },
        )
    }

    fn read(body: &[u8]) -> Result<Signal<'_>, ReadError> {
        Signal::decode(&mut Reader::new(body))
    }

    /// An Own with these lists.
    fn own(lists: &[u8]) -> Vec<u8> {
        [&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], lists].concat()
    }

    #[test]
    fn unknown_kinds_outcomes_verdicts_and_flags_are_passed_over() {
        let lists = [2, 9, 4, 192, 0, 2, 1, 1, 0, 2, 4, 192, 0, 2, 2, 1, 0, 1, 9, 4, 192, 0, 2, 1, 1, 0, 0xee];
        let bytes = own(&lists);
        let signal = read(&bytes).unwrap();
        assert_eq!((signal.role(), signal.stamp()), (SignalRole::Own, 1));
        assert!(signal.wants_answer());
        assert_eq!(signal.nat(), NatVerdict::Unknown);
        let address = "192.0.2.2:1".parse().unwrap();
        let candidates: Vec<_> = signal.candidates().collect();
        assert_eq!(candidates, [Candidate { kind: CandidateKind::Reflexive, address }]);
        assert_eq!(signal.results().count(), 0);
    }

    #[test]
    fn more_than_the_most_items_are_refused() {
        let mut lists = std::vec![17];
        lists.extend([1, 4, 192, 0, 2, 1, 1, 0].repeat(17));
        lists.push(0);
        assert_eq!(read(&own(&lists)), Err(ReadError::OutOfRange));
        lists[0] = 16;
        lists.drain(1..9);
        assert_eq!(read(&own(&lists)).unwrap().candidates().count(), 16);
        lists.pop();
        assert_eq!(read(&own(&lists)), Err(ReadError::Truncated));
        assert_eq!(read(&own(&[0, 17])), Err(ReadError::OutOfRange));
        assert_eq!(read(&own(&[1, 1, 5, 0, 0])), Err(ReadError::AddressFamily(5)));
    }

    #[test]
    fn a_role_that_is_unknown_is_refused() {
        let mut bytes = own(&[0, 0]);
        bytes[0] = 3;
        assert_eq!(read(&bytes), Err(ReadError::OutOfRange));
    }

    proptest! {
        #[test]
        fn round_trip((role, body) in any_signal()) {
            let mut scratch = [0xee; SignalBody::SCRATCH_LEN];
            let signal = body.to_signal(role, &mut scratch);
            prop_assert!(signal.body_len() <= Signal::MAX_BODY_LEN);
            let mut buf = [0; Signal::MAX_BODY_LEN];
            let mut out = Writer::new(&mut buf);
            signal.encode(&mut out).unwrap();
            prop_assert_eq!(out.len(), signal.body_len());
            let back = read(out.written()).unwrap();
            prop_assert_eq!(back, signal);
            prop_assert_eq!(back.role(), role);
            let told = SignalBody {
                stamp: back.stamp(),
                wants_answer: back.wants_answer(),
                nat: back.nat(),
                candidates: back.candidates().collect(),
                results: back.results().collect(),
            };
            prop_assert_eq!(told, body);
        }

        #[test]
        fn carrying_changes_the_role_alone((_, body) in any_signal(), to: [u8; 32], from: [u8; 32]) {
            let mut scratch = [0; SignalBody::SCRATCH_LEN];
            let signal = body.to_signal(SignalRole::Carry(to), &mut scratch);
            let carried = signal.with_role(SignalRole::Carried(from));
            prop_assert_eq!(carried.role(), SignalRole::Carried(from));
            prop_assert_eq!(carried.with_role(SignalRole::Carry(to)), signal);
        }
    }
}
