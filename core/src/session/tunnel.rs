//! The tunnel: a session's keys at work, sealing what goes out and opening what comes in.
//!
//! Everything takes `&self`, so that several threads may seal and open at once. Three things keep that safe:
//!
//! - A nonce cannot be used twice. Counters are handed out atomically, as [`Permit`]s that sealing consumes.
//! - A replay window moves only after authentication, and is looked at again then: of two threads that open the same
//!   envelope at once, one succeeds.
//! - A lane has a window only once something has come on it.
//!
//! ```
//! use vine_core::session::noise::Established;
//! use vine_core::session::{Cipher, RustCrypto, Tunnel};
//! use vine_core::wire::Lane;
//! use zeroize::Zeroizing;
//!
//! let keys = |send, receive| Established {
//!     // From the handshake, really.
//!     send: Zeroizing::new([send; 32]),
//!     receive: Zeroizing::new([receive; 32]),
//!     hash: [0; 32],
//! };
//! let alice = Tunnel::new(&keys(1, 2), Cipher::ChaCha20Poly1305, &RustCrypto, 7, 8);
//! let bob = Tunnel::new(&keys(2, 1), Cipher::ChaCha20Poly1305, &RustCrypto, 8, 7);
//!
//! let mut envelope = [0; 16 + 5 + 16]; // header, payload, tag
//! envelope[16..21].copy_from_slice(b"hello");
//! alice.seal(Lane(1), false, &mut envelope)?;
//! assert_eq!(bob.open(&mut envelope.clone())?.payload, b"hello");
//! assert!(bob.open(&mut envelope).is_err()); // a second time it is a replay
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

use alloc::boxed::Box;
use core::fmt;
use core::iter::FusedIterator;
use core::ops::Range;

use portable_atomic::{AtomicU64, Ordering};
use spin::{Mutex, Once};

use super::cipher::{Aead, Cipher, CryptoBackend};
use super::keys::transport_key;
use super::noise::Established;
use super::replay::ReplayWindow;
use crate::wire::{EnvelopeType, Flags, HEADER_LEN, Header, Lane, MsgId, OVERHEAD, TAG_LEN};

/// Envelopes after which a session should have new keys.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 27;
/// Envelopes that one key may seal, over all lanes: sealing refuses then.
///
/// It is the confidentiality limit of AES-GCM, the lower one of the two ciphers, for packets of up to 2^11 bytes
/// (RFC 9001, appendix B.1.1).
pub const MAX_MESSAGES: u64 = 1 << 28;
/// Envelopes that may fail to open under one key: the integrity limit of ChaCha20-Poly1305, the lower one of the two
/// ciphers (RFC 9001, section 6.6).
pub const MAX_FAILED_OPENS: u64 = 1 << 36;

/// Every number that these keys may use is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the session's keys have sealed all that they may")]
pub struct Exhausted;

/// Why an envelope does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// It is no sealed envelope of this session, or has a number that no sender may use.
    #[error("not a sealed envelope of this session")]
    Malformed,
    /// It was not sealed with this session's key, or was changed.
    #[error("the envelope does not authenticate")]
    Authentication,
    /// It has arrived before, or is too old to tell.
    #[error("the envelope has arrived before")]
    Replay,
    /// [`MAX_FAILED_OPENS`] are reached: the keys are not to be used any more, and the session closes.
    #[error("too many envelopes failed to open under this key")]
    Exhausted,
}

/// An envelope that authenticated, for the first time.
#[derive(PartialEq, Eq, Debug)]
pub struct Opened<'a> {
    /// `Sealed` or `HelloFinish`.
    pub kind: EnvelopeType,
    /// The flags of the header.
    pub flags: Flags,
    /// The lane that it came on.
    pub lane: Lane,
    /// Its number on that lane.
    pub counter: u64,
    /// What was sealed, decrypted in place.
    pub payload: &'a mut [u8],
}

/// What has arrived on a lane, for a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneReceived {
    /// The largest counter that authenticated.
    pub largest: u64,
    /// How many envelopes authenticated, each counted once.
    pub count: u64,
}

/// The keys of a session at work. See the [module documentation](self).
///
/// The keys are inside the two ciphers, which wipe them when dropped.
pub struct Tunnel {
    sealer: Box<dyn Aead>,
    opener: Box<dyn Aead>,
    cipher: Cipher,
    local_index: u32,
    remote_index: u32,
    /// Numbers handed out on all lanes.
    sent: AtomicU64,
    failed_opens: AtomicU64,
    /// The next number of each lane.
    send_lanes: LaneTable<AtomicU64>,
    receive_lanes: LaneTable<Mutex<Option<Box<ReceiveLane>>>>,
}

impl Tunnel {
    /// The tunnel of a completed handshake. `local_index` is how the peer names this session, `remote_index` how this
    /// node names it to the peer.
    pub fn new(
        established: &Established,
        cipher: Cipher,
        backend: &dyn CryptoBackend,
        local_index: u32,
        remote_index: u32,
    ) -> Tunnel {
        Tunnel {
            sealer: backend.aead(cipher, &transport_key(&established.send, cipher)),
            opener: backend.aead(cipher, &transport_key(&established.receive, cipher)),
            cipher,
            local_index,
            remote_index,
            sent: AtomicU64::new(0),
            failed_opens: AtomicU64::new(0),
            send_lanes: LaneTable::new(),
            receive_lanes: LaneTable::new(),
        }
    }

    /// The cipher.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The session index in envelopes to this node.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The session index in envelopes to the peer.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Numbers handed out on all lanes.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether so much was sealed that the session should have new keys.
    pub fn needs_rekey(&self) -> bool {
        self.sent() >= REKEY_AFTER_MESSAGES
    }

    /// Envelopes that failed to authenticate.
    pub fn failed_opens(&self) -> u64 {
        self.failed_opens.load(Ordering::Relaxed)
    }

    /// What has arrived on `lane`; `None` while nothing has.
    pub fn received(&self, lane: Lane) -> Option<LaneReceived> {
        let guard = self.receive_lanes.get(lane)?.lock();
        let lane = guard.as_ref()?;
        Some(LaneReceived { largest: lane.window.largest()?, count: lane.count })
    }

    /// Takes the next `count` numbers of `lane`, for sealing a batch. A number that is not used is lost, which harms
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if fewer are left; then none is taken.
    pub fn reserve(&self, lane: Lane, count: u64) -> Result<Reservation<'_>, Exhausted> {
        // Relaxed: only the numbers themselves matter, and each atomic by itself never gives one twice.
        let mut sent = self.sent.load(Ordering::Relaxed);
        loop {
            let after = sent.checked_add(count).filter(|after| *after <= MAX_MESSAGES).ok_or(Exhausted)?;
            match self.sent.compare_exchange_weak(sent, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(current) => sent = current,
            }
        }
        // A lane's numbers are among the MAX_MESSAGES that were let through above, so this cannot overflow.
        let first = self.send_lanes.get_or_init(lane).fetch_add(count, Ordering::Relaxed);
        Ok(Reservation { tunnel: self, lane, counters: first..first + count })
    }

    /// Seals one Sealed envelope on `lane` and returns its number: [`Tunnel::reserve`] and [`Permit::seal`] in one.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if the keys may not seal any more; `envelope` is unchanged then.
    ///
    /// # Panics
    ///
    /// If `envelope` has no room for header and tag.
    pub fn seal(&self, lane: Lane, csum_partial: bool, envelope: &mut [u8]) -> Result<u64, Exhausted> {
        let permit = self.permit(lane)?;
        let counter = permit.counter();
        permit.seal(csum_partial, envelope);
        Ok(counter)
    }

    /// A HelloFinish: empty, and sealed on the control lane.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] if the keys may not seal any more.
    pub fn seal_hello_finish(&self) -> Result<[u8; OVERHEAD], Exhausted> {
        let permit = self.permit(Lane::CONTROL)?;
        let mut envelope = [0; OVERHEAD];
        let header = Header::hello_finish(self.remote_index, permit.msg_id);
        permit.tunnel.seal_with(&header, &mut envelope);
        Ok(envelope)
    }

    /// Opens an envelope in place: a whole datagram, or what was in a frame.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the envelope's bytes are undefined then. Only a success changes what the next call answers, but
    /// for the count of failures.
    pub fn open<'a>(&self, envelope: &'a mut [u8]) -> Result<Opened<'a>, OpenError> {
        let header = Header::decode(envelope).map_err(|_| OpenError::Malformed)?;
        let (lane, counter) = (header.msg_id().lane(), header.msg_id().counter());
        // No sender goes beyond MAX_MESSAGES, so it needs no cipher to see that such a number is forged.
        if !header.kind().is_sealed() || header.session() != self.local_index || counter >= MAX_MESSAGES {
            return Err(OpenError::Malformed);
        }
        if self.failed_opens() >= MAX_FAILED_OPENS {
            return Err(OpenError::Exhausted);
        }
        if !self.is_new(lane, counter) {
            return Err(OpenError::Replay);
        }
        let (head, sealed) = envelope.split_at_mut_checked(HEADER_LEN).ok_or(OpenError::Malformed)?;
        if !self.opener.open(header.msg_id().raw(), head, sealed) {
            let before = self.failed_opens.fetch_add(1, Ordering::Relaxed);
            return Err(if before + 1 >= MAX_FAILED_OPENS { OpenError::Exhausted } else { OpenError::Authentication });
        }
        if !self.mark(lane, counter) {
            return Err(OpenError::Replay);
        }
        let (payload, _tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::Malformed)?;
        Ok(Opened { kind: header.kind(), flags: header.flags(), lane, counter, payload })
    }

    fn permit(&self, lane: Lane) -> Result<Permit<'_>, Exhausted> {
        self.reserve(lane, 1)?.next().ok_or(Exhausted)
    }

    fn seal_with(&self, header: &Header, envelope: &mut [u8]) {
        let (head, body) = envelope.split_first_chunk_mut::<HEADER_LEN>().expect("room for the header, as documented");
        let (payload, tag) = body.split_last_chunk_mut::<TAG_LEN>().expect("room for the tag, as documented");
        *head = header.encode();
        *tag = self.sealer.seal(header.msg_id().raw(), head, payload);
    }

    fn is_new(&self, lane: Lane, counter: u64) -> bool {
        let Some(slot) = self.receive_lanes.get(lane) else { return true };
        slot.lock().as_ref().is_none_or(|lane| lane.window.is_new(counter))
    }

    /// Marks what has authenticated. Returns false if another thread was faster with the same envelope.
    fn mark(&self, lane: Lane, counter: u64) -> bool {
        let mut guard = self.receive_lanes.get_or_init(lane).lock();
        let lane = guard.get_or_insert_default();
        let new = lane.window.mark(counter);
        lane.count += u64::from(new);
        new
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("cipher", &self.cipher)
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .field("sent", &self.sent())
            .field("failed_opens", &self.failed_opens())
            .finish_non_exhaustive()
    }
}

/// Consecutive numbers of one lane, handed out as [`Permit`]s in order.
#[derive(Debug)]
#[must_use = "numbers that were taken and not used are lost"]
pub struct Reservation<'t> {
    tunnel: &'t Tunnel,
    lane: Lane,
    counters: Range<u64>,
}

impl Reservation<'_> {
    /// The numbers that are left.
    pub fn counters(&self) -> Range<u64> {
        self.counters.clone()
    }
}

impl<'t> Iterator for Reservation<'t> {
    type Item = Permit<'t>;

    fn next(&mut self) -> Option<Permit<'t>> {
        // Always an id: a counter is less than MAX_MESSAGES, which is far below the 56 bits that it has.
        let msg_id = MsgId::new(self.lane, self.counters.next()?)?;
        Some(Permit { tunnel: self.tunnel, msg_id })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.counters.size_hint()
    }
}

impl FusedIterator for Reservation<'_> {}

/// One number of one lane: the right to seal one envelope. Sealing consumes it, so no nonce is ever used twice.
#[derive(Debug)]
#[must_use = "a number that was taken and not used is lost"]
pub struct Permit<'t> {
    tunnel: &'t Tunnel,
    msg_id: MsgId,
}

impl Permit<'_> {
    /// The number.
    pub fn counter(&self) -> u64 {
        self.msg_id.counter()
    }

    /// Seals a Sealed envelope in place. The payload is all of `envelope` but its first [`HEADER_LEN`] and last
    /// [`TAG_LEN`] bytes, which are overwritten. `csum_partial`: see [`Flags::CSUM_PARTIAL`].
    ///
    /// # Panics
    ///
    /// If `envelope` has no room for header and tag.
    pub fn seal(self, csum_partial: bool, envelope: &mut [u8]) {
        let header = Header::sealed(self.tunnel.remote_index, self.msg_id, csum_partial);
        self.tunnel.seal_with(&header, envelope);
    }
}

#[derive(Default)]
struct ReceiveLane {
    window: ReplayWindow,
    count: u64,
}

/// The lanes that sessions of this version use: one for control, and one for each path.
const USUAL: usize = 1 + crate::path::MAX_PATHS;

/// A `T` for each of the 256 lanes, those beyond the usual ones made when one of them is first needed.
///
/// A reader takes no lock. A peer that uses every lane costs this node no more than 256 `T`s.
struct LaneTable<T> {
    usual: [T; USUAL],
    others: Once<Box<[T; 256 - USUAL]>>,
}

impl<T: Default> LaneTable<T> {
    fn new() -> LaneTable<T> {
        LaneTable { usual: core::array::from_fn(|_| T::default()), others: Once::new() }
    }

    fn get(&self, lane: Lane) -> Option<&T> {
        let lane = usize::from(lane.0);
        match lane.checked_sub(USUAL) {
            None => self.usual.get(lane),
            Some(other) => self.others.get()?.get(other),
        }
    }

    fn get_or_init(&self, lane: Lane) -> &T {
        if usize::from(lane.0) >= USUAL {
            self.others.call_once(|| Box::new(core::array::from_fn(|_| T::default())));
        }
        self.get(lane).expect("every lane is a usual one or one of the others, which there are now")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::RustCrypto;
    use alloc::collections::BTreeSet;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn pair(cipher: Cipher) -> (Tunnel, Tunnel) {
        let key = |byte| Zeroizing::new([byte; 32]);
        let alice = Established { send: key(1), receive: key(2), hash: [0; 32] };
        let bob = Established { send: key(2), receive: key(1), hash: [0; 32] };
        (Tunnel::new(&alice, cipher, &RustCrypto, 10, 20), Tunnel::new(&bob, cipher, &RustCrypto, 20, 10))
    }

    fn sealed(tunnel: &Tunnel, lane: u8, payload: &[u8]) -> Vec<u8> {
        let mut envelope = vec![0xaa; payload.len() + OVERHEAD];
        envelope[HEADER_LEN..][..payload.len()].copy_from_slice(payload);
        tunnel.seal(Lane(lane), false, &mut envelope).unwrap();
        envelope
    }

    #[test]
    fn both_directions_and_both_kinds() {
        for cipher in Cipher::ALL {
            let (alice, bob) = pair(cipher);
            let opened = bob.open(&mut sealed(&alice, 3, b"ping")).map(|opened| {
                assert_eq!((opened.kind, opened.flags), (EnvelopeType::Sealed, Flags::SEALED));
                assert_eq!((opened.lane, opened.counter), (Lane(3), 0));
                opened.payload.to_vec()
            });
            assert_eq!(opened.unwrap(), b"ping");
            assert_eq!(alice.open(&mut sealed(&bob, 3, b"pong")).unwrap().payload, b"pong");

            let mut finish = alice.seal_hello_finish().unwrap();
            let opened = bob.open(&mut finish).unwrap();
            assert_eq!((opened.kind, opened.lane), (EnvelopeType::HelloFinish, Lane::CONTROL));
            assert!(opened.payload.is_empty());

            let mut partial = [0; OVERHEAD + 1];
            alice.seal(Lane(3), true, &mut partial).unwrap();
            assert!(bob.open(&mut partial).unwrap().flags.contains(Flags::CSUM_PARTIAL));
        }
    }

    #[test]
    fn what_is_not_of_this_session_is_malformed() {
        let (alice, bob) = pair(Cipher::ChaCha20Poly1305);
        assert_eq!(bob.open(&mut []), Err(OpenError::Malformed));
        assert_eq!(bob.open(&mut sealed(&alice, 0, b"x")[..31]), Err(OpenError::Malformed));
        assert_eq!(alice.open(&mut sealed(&alice, 0, b"x")), Err(OpenError::Malformed), "the peer's index");
        let mut hello = [0; 200];
        hello[..16].copy_from_slice(&Header::hello(1).encode());
        assert_eq!(bob.open(&mut hello), Err(OpenError::Malformed));
        let mut beyond = sealed(&alice, 0, b"x");
        beyond[8..15].copy_from_slice(&MAX_MESSAGES.to_le_bytes()[..7]);
        assert_eq!(bob.open(&mut beyond), Err(OpenError::Malformed));
        assert_eq!(bob.failed_opens(), 0);
    }

    #[test]
    fn a_forged_number_does_not_move_the_window() {
        let (alice, bob) = pair(Cipher::ChaCha20Poly1305);
        let first = sealed(&alice, 1, b"first");
        let mut forged = sealed(&alice, 1, b"second");
        forged[8..12].copy_from_slice(&1_000_000u32.to_le_bytes());
        assert_eq!(bob.open(&mut forged), Err(OpenError::Authentication));
        assert_eq!((bob.failed_opens(), bob.received(Lane(1))), (1, None));
        assert!(bob.open(&mut first.clone()).is_ok());
        assert_eq!(bob.open(&mut first.clone()), Err(OpenError::Replay));
        assert_eq!(bob.received(Lane(1)), Some(LaneReceived { largest: 0, count: 1 }));
    }

    #[test]
    fn every_lane_has_numbers_and_a_window_of_its_own() {
        let (alice, bob) = pair(Cipher::ChaCha20Poly1305);
        for lane in 0..=255 {
            for counter in 0..2 {
                let opened = bob.open(&mut sealed(&alice, lane, b"")).map(|opened| (opened.lane, opened.counter));
                assert_eq!(opened, Ok((Lane(lane), counter)));
            }
            assert_eq!(bob.received(Lane(lane)), Some(LaneReceived { largest: 1, count: 2 }));
        }
        assert_eq!(alice.sent(), 512);
    }

    #[test]
    fn what_is_older_than_the_window_is_a_replay() {
        let (alice, bob) = pair(Cipher::ChaCha20Poly1305);
        let old = sealed(&alice, 1, b"old");
        let _skipped = alice.reserve(Lane(1), ReplayWindow::WIDTH - 1).unwrap();
        assert!(bob.open(&mut sealed(&alice, 1, b"new")).is_ok());
        assert_eq!(bob.open(&mut old.clone()), Err(OpenError::Replay));
    }

    #[test]
    fn numbers_end_before_they_repeat() {
        let (alice, _) = pair(Cipher::Aes256Gcm);
        assert!(!alice.needs_rekey());
        assert_eq!(alice.reserve(Lane(0), REKEY_AFTER_MESSAGES).unwrap().counters(), 0..REKEY_AFTER_MESSAGES);
        assert!(alice.needs_rekey());
        // The limit is the key's, not the lane's.
        let rest = MAX_MESSAGES - REKEY_AFTER_MESSAGES;
        assert_eq!(alice.reserve(Lane(9), rest + 1).unwrap_err(), Exhausted);
        assert_eq!(alice.reserve(Lane(9), u64::MAX).unwrap_err(), Exhausted);
        assert_eq!(alice.reserve(Lane(9), rest - 1).unwrap().counters(), 0..rest - 1);
        assert_eq!(alice.seal(Lane(9), false, &mut [0; OVERHEAD]), Ok(rest - 1));
        let mut untouched = [7; OVERHEAD];
        assert_eq!(alice.seal(Lane(9), false, &mut untouched), Err(Exhausted));
        assert_eq!(untouched, [7; OVERHEAD]);
        assert_eq!(alice.seal_hello_finish(), Err(Exhausted));
        assert_eq!(alice.reserve(Lane(9), 0).unwrap().count(), 0);
        assert_eq!(alice.sent(), MAX_MESSAGES);
    }

    #[test]
    fn failures_end_before_a_forgery_is_likely() {
        let (alice, bob) = pair(Cipher::ChaCha20Poly1305);
        bob.failed_opens.store(MAX_FAILED_OPENS - 2, Ordering::Relaxed);
        let good = sealed(&alice, 0, b"good");
        let mut bad = sealed(&alice, 0, b"bad");
        bad[20] ^= 1;
        assert_eq!(bob.open(&mut bad.clone()), Err(OpenError::Authentication));
        assert!(bob.open(&mut good.clone()).is_ok());
        assert_eq!(bob.open(&mut bad.clone()), Err(OpenError::Exhausted));
        assert_eq!(bob.open(&mut sealed(&alice, 0, b"good")), Err(OpenError::Exhausted));
        assert_eq!(bob.failed_opens(), MAX_FAILED_OPENS);
    }

    #[test]
    fn a_batch_is_numbered_in_order() {
        let (alice, bob) = pair(Cipher::ChaCha20Poly1305);
        let reserved = alice.reserve(Lane(2), 3).unwrap();
        assert_eq!(alice.seal(Lane(2), false, &mut [0; OVERHEAD]), Ok(3));
        let mut envelopes = [[0; OVERHEAD + 4]; 3];
        for (permit, envelope) in reserved.zip(&mut envelopes) {
            permit.seal(false, envelope);
        }
        for (counter, envelope) in envelopes.iter_mut().enumerate().rev() {
            assert_eq!(bob.open(envelope).unwrap().counter, counter as u64);
        }
    }

    proptest! {
        #[test]
        fn a_changed_envelope_does_not_open(
            cipher in prop::sample::select(&Cipher::ALL[..]),
            payload in prop::collection::vec(any::<u8>(), 0..100),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let (alice, bob) = pair(cipher);
            let good = sealed(&alice, 5, &payload);
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= 1 << bit;
            prop_assert!(bob.open(&mut bad).is_err());
            let mut longer = good.clone();
            longer.push(0);
            prop_assert_eq!(bob.open(&mut longer), Err(OpenError::Authentication));
            let mut opened = good.clone();
            prop_assert_eq!(&*bob.open(&mut opened).unwrap().payload, &payload[..]);
        }

        #[test]
        fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..100), plausible in any::<bool>()) {
            let (_, bob) = pair(Cipher::ChaCha20Poly1305);
            if let (true, Some(head)) = (plausible, bytes.first_chunk_mut::<8>()) {
                *head = [0x56, 1, 5, 1, 20, 0, 0, 0];
            }
            prop_assert!(bob.open(&mut bytes).is_err());
        }

        #[test]
        fn each_envelope_opens_once_in_any_order(
            lanes in prop::collection::vec(0u8..4, 1..40),
            arrivals in prop::collection::vec(any::<prop::sample::Index>(), 1..80),
        ) {
            let (alice, bob) = pair(Cipher::Aes256Gcm);
            let sent: Vec<_> = lanes.iter().map(|lane| sealed(&alice, *lane, b"payload")).collect();
            let mut seen = BTreeSet::new();
            for arrival in arrivals {
                let index = arrival.index(sent.len());
                let opened = bob.open(&mut sent[index].clone()).map(|_| ());
                prop_assert_eq!(opened, if seen.insert(index) { Ok(()) } else { Err(OpenError::Replay) });
            }
            let received: u64 = (0..4).filter_map(|lane| bob.received(Lane(lane))).map(|lane| lane.count).sum();
            prop_assert_eq!(received, seen.len() as u64);
        }
    }
}
