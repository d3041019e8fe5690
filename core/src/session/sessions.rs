//! The sessions of one peer: which keys send, which may still receive, and when a new one replaces the old.
//!
//! A session that this node began (it said Hello) may send as soon as the HelloAck is in; one that the peer began may not
//! send before something authenticated under it. Either way the former keys stay for receiving until the next change.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Cipher, Tunnel};
use crate::overlay::PeerIndex;
use crate::path::Via;
use crate::rng::Rng;
use crate::time::Instant;

/// Random bytes that a node draws for each peer when it is made or the peer is added: they tell a rekey from a restart.
pub type BootId = [u8; 16];

/// Sessions that a peer began and that nothing has confirmed: at most this many at once.
const MAX_PENDING: usize = 4;

/// An unconfirmed session is given up after this long.
pub const PENDING_LIFETIME: Duration = Duration::from_secs(5);

/// New keys are sought when data is sent under keys of this age.
pub const REKEY_AFTER: Duration = Duration::from_secs(120);

/// The side that did not begin the session waits this much longer, so that the two rarely rekey at once.
const REKEY_RESPONDER_DELAY: Duration = Duration::from_secs(10);

/// No data is sent under keys of this age, unless they were idle: then new keys are given [`REKEY_GRACE`].
pub const REFUSE_AFTER: Duration = Duration::from_secs(180);

/// How long data may still use keys that became old while idle.
pub const REKEY_GRACE: Duration = Duration::from_secs(60);

/// A pair that sends keepalives alone takes new keys this often.
pub const IDLE_REKEY_AFTER: Duration = Duration::from_secs(3600);

/// First interval between repeats of HelloFinish; it doubles.
const FINISH_INTERVAL: Duration = Duration::from_millis(200);

/// Keys agreed with a peer.
#[derive(Debug)]
pub(crate) struct Session {
    /// The keys, the counters and the replay windows.
    pub(crate) tunnel: Tunnel,
    /// The cipher agreed on.
    pub(crate) cipher: Cipher,
    /// Whether this node said Hello.
    pub(crate) initiator: bool,
    /// When something authenticated under these keys first arrived.
    confirmed: Option<Instant>,
    /// When the keys were made.
    pub(crate) created: Instant,
    /// The boot id that the peer stated in this handshake.
    pub(crate) remote_boot: BootId,
    /// The stamp of the peer's Hello, where the peer said it.
    pub(crate) remote_stamp: Option<u64>,
    /// Whether the peer finishes checksums that the sender's kernel left open.
    pub(crate) csum_partial: bool,
    /// When data sent under these keys starts a rekey, and later when it is refused.
    rekey_at: Instant,
    refuse_at: Option<Instant>,
    /// The next repeat of HelloFinish and the interval after it.
    finish: Option<(Instant, Duration)>,
    /// When another session took its place.
    retired: Option<Instant>,
    /// Until when an unconfirmed session is kept.
    pub(crate) unconfirmed_until: Instant,
}

/// What the handshake says of a new session.
pub(crate) struct Agreed {
    pub(crate) tunnel: Tunnel,
    pub(crate) cipher: Cipher,
    pub(crate) remote_boot: BootId,
    pub(crate) remote_stamp: Option<u64>,
    pub(crate) csum_partial: bool,
}

/// Whether a session's keys may seal data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum KeyAge {
    /// They may.
    Fresh,
    /// They may, and new ones are to be sought.
    Rekey,
    /// They may not any more.
    Expired,
}

impl Session {
    pub(crate) fn new(agreed: Agreed, initiator: bool, now: Instant) -> Session {
        let delay = if initiator { Duration::ZERO } else { REKEY_RESPONDER_DELAY };
        Session {
            tunnel: agreed.tunnel,
            cipher: agreed.cipher,
            initiator,
            confirmed: None,
            created: now,
            remote_boot: agreed.remote_boot,
            remote_stamp: agreed.remote_stamp,
            csum_partial: agreed.csum_partial,
            rekey_at: now + REKEY_AFTER + delay,
            refuse_at: None,
            finish: initiator.then_some((now + FINISH_INTERVAL, FINISH_INTERVAL * 2)),
            retired: None,
            unconfirmed_until: now + PENDING_LIFETIME,
        }
    }

    /// Whether something authenticated under these keys has arrived.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.is_some()
    }

    /// The index by which the peer names this session.
    pub(crate) fn index(&self) -> u32 {
        self.tunnel.local_index()
    }

    /// Whether data may be sealed now. Asking is using: the first use of old keys starts their last minute.
    pub(crate) fn key_age(&mut self, now: Instant) -> KeyAge {
        if now < self.rekey_at && !self.tunnel.needs_rekey() {
            return KeyAge::Fresh;
        }
        let end = self.created + REFUSE_AFTER;
        // Keys that became old while idle get a last minute from their first use on.
        let fallback = if now < end { end } else { now + REKEY_GRACE };
        if now < *self.refuse_at.get_or_insert(fallback) { KeyAge::Rekey } else { KeyAge::Expired }
    }

    /// Whether data was refused for the age of the keys.
    fn is_expired(&self, now: Instant) -> bool {
        self.refuse_at.is_some_and(|at| at <= now)
    }

    /// Whether keys that only keepalives use are old enough to be changed.
    pub(crate) fn is_due_for_idle_rekey(&self, now: Instant) -> bool {
        self.created + IDLE_REKEY_AFTER <= now
    }

    /// Whether a repeat of HelloFinish is due, scheduling the next.
    pub(crate) fn finish_due(&mut self, now: Instant) -> bool {
        match self.finish {
            Some((next, interval)) if next <= now => {
                self.finish = Some((now + interval, interval * 2));
                true
            }
            _ => false,
        }
    }

    fn next_deadline(&self) -> Instant {
        if self.is_confirmed() {
            return self.retired.map_or(Instant::FAR_FUTURE, |retired| retired + REFUSE_AFTER);
        }
        self.finish.map_or(self.unconfirmed_until, |(next, _)| next.min(self.unconfirmed_until))
    }
}

/// A session that the peer began, with the answer that its Hello got.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) session: Session,
    /// The HelloAck.
    pub(crate) ack: Box<[u8]>,
    /// Where the Hello came from, and the HelloAck went. `None` where it came from more than one place: one of them may be
    /// somebody's who caught it.
    pub(crate) path: Option<Via>,
}

/// Which session indices of this node are in use, by which peer, and which of them answered a Hello.
#[derive(Debug, Default)]
pub(crate) struct Indices {
    used: BTreeMap<u32, (PeerIndex, Option<[u8; 32]>)>,
    /// By the ephemeral key of the Hello that led to the session.
    answered: BTreeMap<[u8; 32], u32>,
}

impl Indices {
    /// Draws an unused index, unguessable and never zero.
    pub(crate) fn allocate(&mut self, rng: &mut Rng, peer: PeerIndex) -> u32 {
        loop {
            let index = rng.u32();
            if index != 0 && !self.used.contains_key(&index) {
                self.used.insert(index, (peer, None));
                return index;
            }
        }
    }

    /// Remembers which Hello the session `index` answers, for as long as the index is in use.
    pub(crate) fn remember(&mut self, index: u32, ephemeral: [u8; 32]) {
        if let Some((_, hello)) = self.used.get_mut(&index) {
            *hello = Some(ephemeral);
            self.answered.insert(ephemeral, index);
        }
    }

    /// Gives an index back.
    pub(crate) fn release(&mut self, index: u32) {
        if let Some((_, Some(ephemeral))) = self.used.remove(&index) {
            self.answered.remove(&ephemeral);
        }
    }

    /// Whose index it is.
    pub(crate) fn owner(&self, index: u32) -> Option<PeerIndex> {
        self.used.get(&index).map(|(peer, _)| *peer)
    }

    /// The session that a Hello with this ephemeral key led to.
    pub(crate) fn answer_to(&self, ephemeral: &[u8; 32]) -> Option<(PeerIndex, u32)> {
        let index = *self.answered.get(ephemeral)?;
        Some((self.owner(index)?, index))
    }
}

/// The sessions of one peer.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// The one that sends.
    pub(crate) current: Option<Session>,
    /// One that may still receive.
    previous: Option<Box<Session>>,
    /// Begun by the peer, not confirmed; at most [`MAX_PENDING`]. On the heap as most peers have none.
    pending: Vec<Pending>,
}

impl Sessions {
    /// The session with the index `index`, wherever it stands.
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Session> {
        let standing = self.current.iter_mut().chain(self.previous.as_deref_mut());
        standing.chain(self.pending.iter_mut().map(|p| &mut p.session)).find(|session| session.index() == index)
    }

    /// The session that may seal data now.
    pub(crate) fn sender(&mut self, now: Instant) -> Option<&mut Session> {
        let current = self.current.as_mut()?;
        (current.key_age(now) != KeyAge::Expired).then_some(current)
    }

    /// Whether there is a session whose keys may seal data now.
    pub(crate) fn has_sender(&self, now: Instant) -> bool {
        self.current.as_ref().is_some_and(|current| !current.is_expired(now))
    }

    /// Whether a session that the peer began waits for its confirmation.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The pending session with the index `index`.
    pub(crate) fn pending(&self, index: u32) -> Option<&Pending> {
        self.pending.iter().find(|pending| pending.session.index() == index)
    }

    /// Notes that the Hello of the pending session `index` came again, by `path`.
    pub(crate) fn on_repeat(&mut self, index: u32, path: &Via) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.session.index() == index) {
            pending.path.take_if(|first| !first.admits(path));
        }
    }

    /// Adds a session that the peer began; the oldest unconfirmed one gives way.
    pub(crate) fn add_pending(&mut self, pending: Pending, indices: &mut Indices) {
        if self.pending.len() >= MAX_PENDING {
            indices.release(self.pending.remove(0).session.index());
        }
        self.pending.push(pending);
    }

    /// Puts a session that this node began into use: it sends from now on, and is confirmed later. One that was begun before
    /// it and never confirmed goes, rather than a former one that works.
    pub(crate) fn begin(&mut self, session: Session, now: Instant, indices: &mut Indices) {
        let confirmed = |session: &Session| session.is_confirmed();
        if self.previous.as_deref().is_some_and(confirmed)
            && let Some(unconfirmed) = self.current.take_if(|current| !confirmed(current))
        {
            indices.release(unconfirmed.index());
            self.current = self.previous.take().map(|session| *session);
        }
        self.make_current(session, now, indices);
    }

    /// Notes that something authenticated under the session `index`. Returns whether that confirmed it.
    ///
    /// Where both sides said Hello at once and both sessions are confirmed, the one that the peer with the lower PeerId
    /// began is used: `ours_wins` tells whether that is this node.
    pub(crate) fn confirm(&mut self, index: u32, now: Instant, ours_wins: bool, indices: &mut Indices) -> bool {
        if let Some(position) = self.pending.iter().position(|p| p.session.index() == index) {
            // What the peer began before this one is of no use to it any more; a late confirmation must not bring it back.
            for older in self.pending.iter().take(position) {
                indices.release(older.session.index());
            }
            self.pending.rotate_left(position);
            self.pending.truncate(self.pending.len() - position);
            let mut session = self.pending.remove(0).session;
            session.confirmed = Some(now);
            if self.current.as_ref().is_some_and(|current| loses_to(&session, current, ours_wins)) {
                self.set_previous(session, now, indices);
            } else {
                self.make_current(session, now, indices);
            }
            return true;
        }
        if let Some(current) = self.current.as_mut().filter(|s| s.index() == index && !s.is_confirmed()) {
            current.confirmed = Some(now);
            return true;
        }
        let Some(former) = self.previous.take_if(|s| s.index() == index && !s.is_confirmed()) else {
            return false;
        };
        let mut session = *former;
        session.confirmed = Some(now);
        match self.current.take_if(|current| !loses_to(&session, current, ours_wins)) {
            Some(current) => {
                session.retired = None;
                self.current = Some(session);
                self.set_previous(current, now, indices);
            }
            None => self.set_previous(session, now, indices),
        }
        true
    }

    fn make_current(&mut self, session: Session, now: Instant, indices: &mut Indices) {
        if let Some(former) = self.current.replace(session) {
            self.set_previous(former, now, indices);
        }
    }

    fn set_previous(&mut self, mut session: Session, now: Instant, indices: &mut Indices) {
        session.retired = Some(now);
        if let Some(former) = self.previous.replace(session.into()) {
            indices.release(former.index());
        }
    }

    /// Drops what has had its time. Returns whether the current session was given up because its peer never confirmed it;
    /// then the previous one, if it is still there, sends again.
    pub(crate) fn expire(&mut self, now: Instant, indices: &mut Indices) -> bool {
        while let Some(position) = self.pending.iter().position(|p| p.session.unconfirmed_until <= now) {
            indices.release(self.pending.remove(position).session.index());
        }
        let unconfirmed = |session: &mut Session| !session.is_confirmed() && session.unconfirmed_until <= now;
        let over = |session: &mut Session| {
            unconfirmed(session) || session.retired.is_some_and(|retired| retired + REFUSE_AFTER <= now)
        };
        if let Some(previous) = self.previous.take_if(|previous| over(previous)) {
            indices.release(previous.index());
        }
        match self.current.take_if(unconfirmed) {
            None => false,
            Some(failed) => {
                indices.release(failed.index());
                self.current = self.previous.take().map(|session| *session);
                if let Some(session) = self.current.as_mut() {
                    session.retired = None;
                }
                true
            }
        }
    }

    /// Closes one session, for a fault of its keys.
    pub(crate) fn close(&mut self, index: u32, indices: &mut Indices) {
        let is_it = |session: &Session| session.index() == index;
        if self.current.take_if(|session| is_it(session)).is_some()
            || self.previous.take_if(|session| is_it(session)).is_some()
        {
            indices.release(index);
        }
        if let Some(position) = self.pending.iter().position(|p| p.session.index() == index) {
            indices.release(self.pending.remove(position).session.index());
        }
    }

    /// Closes every session.
    pub(crate) fn close_all(&mut self, indices: &mut Indices) {
        self.close_standing(indices);
        self.pending.iter().for_each(|pending| indices.release(pending.session.index()));
        self.pending.clear();
    }

    /// Closes the sessions that send or have sent, but none that the peer began and that waits for its confirmation.
    pub(crate) fn close_standing(&mut self, indices: &mut Indices) {
        let standing = self.current.take().into_iter().chain(self.previous.take().map(|session| *session));
        standing.for_each(|session| indices.release(session.index()));
    }

    /// The sessions whose HelloFinish is to be repeated now.
    pub(crate) fn poll_finish(&mut self, now: Instant) -> Option<u32> {
        let standing = self.current.iter_mut().chain(self.previous.as_deref_mut());
        standing.filter(|session| !session.is_confirmed()).find_map(|s| s.finish_due(now).then(|| s.index()))
    }

    /// When [`Sessions::expire`] or [`Sessions::poll_finish`] next has something to do.
    pub(crate) fn next_deadline(&self) -> Instant {
        let standing = self.current.iter().chain(self.previous.as_deref());
        let pending = self.pending.iter().map(|p| p.session.unconfirmed_until);
        standing.map(Session::next_deadline).chain(pending).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

/// Whether a session that was just confirmed loses_to to the current one: they crossed on the wire (begun by different sides in
/// one life of the peer, and neither had been confirmed when its Hello came), and the current one is the lower PeerId's.
///
/// The peer decides alike, as whoever has seen a session confirmed gives up the handshake of its own that is under way: a
/// Hello that comes after that is meant.
fn loses_to(session: &Session, current: &Session, ours_wins: bool) -> bool {
    current.initiator != session.initiator
        && current.remote_boot == session.remote_boot
        && current.confirmed.is_some_and(|confirmed| session.created <= confirmed)
        && current.initiator == ours_wins
}

#[cfg(test)]
mod tests {
    use super::super::RustCrypto;
    use super::super::noise::Established;
    use super::*;
    use crate::path::{FourTuple, SocketId};
    use zeroize::Zeroizing;

    const NOW: Instant = Instant::from_millis(1_000);

    fn session(index: u32, initiator: bool) -> Session {
        session_at(NOW, index, initiator)
    }

    fn session_at(now: Instant, index: u32, initiator: bool) -> Session {
        let key = |n| Zeroizing::new([n; 32]);
        let established = Established { send: key(1), receive: key(2), hash: [0; 32] };
        let tunnel = Tunnel::new(&established, Cipher::ChaCha20Poly1305, &RustCrypto, index, 1);
        let cipher = Cipher::ChaCha20Poly1305;
        let agreed = Agreed { tunnel, cipher, remote_boot: [0; 16], remote_stamp: None, csum_partial: false };
        Session::new(agreed, initiator, now)
    }

    fn pending(index: u32) -> Pending {
        pending_at(NOW, index)
    }

    fn pending_at(now: Instant, index: u32) -> Pending {
        let path = Via::Direct(FourTuple { socket: SocketId(0), local: None, remote: "192.0.2.1:1".parse().unwrap() });
        Pending { session: session_at(now, index, false), ack: Box::new([]), path: Some(path) }
    }

    fn current(sessions: &Sessions) -> Option<u32> {
        sessions.current.as_ref().map(Session::index)
    }

    #[test]
    fn a_session_that_the_peer_began_sends_only_once_confirmed() {
        let (mut sessions, mut indices) = (Sessions::default(), Indices::default());
        sessions.add_pending(pending(1), &mut indices);
        assert_eq!(current(&sessions), None);
        assert!(sessions.confirm(1, NOW, true, &mut indices));
        assert_eq!(current(&sessions), Some(1));
        assert!(!sessions.confirm(1, NOW, true, &mut indices), "confirmed already");
    }

    #[test]
    fn crossing_handshakes_converge_on_the_lower_peer_s_session_in_any_order() {
        for ours_wins in [true, false] {
            for ours_first in [true, false] {
                let (mut sessions, mut indices) = (Sessions::default(), Indices::default());
                sessions.add_pending(pending(2), &mut indices);
                sessions.begin(session(1, true), NOW, &mut indices);
                for index in if ours_first { [1, 2] } else { [2, 1] } {
                    assert!(sessions.confirm(index, NOW, ours_wins, &mut indices));
                }
                assert_eq!(current(&sessions), Some(if ours_wins { 1 } else { 2 }), "{ours_wins} {ours_first}");
                assert!(sessions.get_mut(1).is_some() && sessions.get_mut(2).is_some(), "both still receive");
            }
        }
    }

    #[test]
    fn a_later_session_is_not_taken_for_a_crossing_one() {
        let (mut sessions, mut indices) = (Sessions::default(), Indices::default());
        sessions.begin(session(1, true), NOW, &mut indices);
        sessions.confirm(1, NOW, true, &mut indices);
        let later = NOW + Duration::from_nanos(1);
        sessions.add_pending(pending_at(later, 2), &mut indices);
        assert!(sessions.confirm(2, later, true, &mut indices));
        assert_eq!(current(&sessions), Some(2));
    }

    #[test]
    fn unconfirmed_sessions_end_and_the_former_one_sends_again() {
        let (mut sessions, mut indices) = (Sessions::default(), Indices::default());
        sessions.begin(session(1, true), NOW, &mut indices);
        sessions.confirm(1, NOW, true, &mut indices);
        sessions.begin(session(2, true), NOW, &mut indices);
        for index in 3..9 {
            sessions.add_pending(pending(index), &mut indices);
        }
        assert!(sessions.pending(4).is_none() && sessions.pending(5).is_some(), "four at most, the oldest goes");
        assert_eq!(current(&sessions), Some(2));
        assert!(!sessions.expire(NOW, &mut indices));
        assert!(sessions.expire(NOW + PENDING_LIFETIME, &mut indices));
        assert_eq!(current(&sessions), Some(1));
        assert!(!sessions.has_pending());
        assert_eq!(sessions.next_deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn keys_age_with_use_and_idle_keys_get_a_last_minute() {
        let mut busy = session(1, true);
        assert_eq!(busy.key_age(NOW + REKEY_AFTER - Duration::from_secs(1)), KeyAge::Fresh);
        assert_eq!(busy.key_age(NOW + REKEY_AFTER), KeyAge::Rekey);
        assert_eq!(busy.key_age(NOW + REFUSE_AFTER), KeyAge::Expired);
        let mut idle = session(2, true);
        let late = NOW + Duration::from_secs(1_000);
        assert_eq!(idle.key_age(late), KeyAge::Rekey);
        assert_eq!(idle.key_age(late + REKEY_GRACE), KeyAge::Expired);
    }
}
