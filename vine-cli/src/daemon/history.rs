//! What happened to the path to each peer: kept in memory, for `vine why`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vine_core::path::{PathClass, Via};
use vine_core::{Event, Instant, PeerId};

use crate::api::HistoryEntry;

/// Entries of one peer; the oldest gives way.
const CAPACITY: usize = 64;

/// A path with its class.
type Way = (Via<PeerId>, PathClass);

#[derive(Clone, Debug)]
enum What {
    Up,
    Down(&'static str),
    Switched { from: Option<Way>, to: Way, why: &'static str, unanswered: u16 },
}

#[derive(Clone, Debug)]
struct Entry {
    /// On the wall clock, in milliseconds since 1970.
    wall_ms: u64,
    /// On the node's clock, which nobody sets.
    at: Instant,
    what: What,
}

impl Entry {
    /// Whether it tells of a loss that `later` made good again.
    fn is_mended_by(&self, later: &Entry) -> bool {
        match (&self.what, &later.what) {
            (What::Down(_), What::Up) => true,
            (What::Switched { from: Some((_, had)), to: (_, has), .. }, What::Switched { to: (_, back), .. }) => {
                has > had && back <= had
            }
            _ => false,
        }
    }
}

/// The latest entries of every peer.
#[derive(Debug, Default)]
pub(super) struct History {
    peers: Mutex<BTreeMap<PeerId, VecDeque<Entry>>>,
}

impl History {
    /// Takes an event in, if it is about a path.
    pub(super) fn note(&self, at: Instant, wall_ms: u64, event: &Event) {
        let (peer, what) = match event {
            Event::PeerUp { peer } => (peer, What::Up),
            Event::PeerDown { peer, why } => (peer, What::Down(why.name())),
            Event::SessionSwitched { peer, from, to, why, unanswered } => {
                (peer, What::Switched { from: *from, to: *to, why: why.name(), unanswered: *unanswered })
            }
            _ => return,
        };
        let mut peers = self.lock();
        let entries = peers.entry(*peer).or_default();
        if entries.len() == CAPACITY {
            entries.pop_front();
        }
        entries.push_back(Entry { wall_ms, at, what });
    }

    /// Forgets the peers that `keep` does not name: they are not allowed any more.
    pub(super) fn retain(&self, keep: impl Fn(&PeerId) -> bool) {
        self.lock().retain(|peer, _| keep(peer));
    }

    /// The entries of a peer, the oldest first. `way` puts a path in words.
    pub(super) fn of(&self, peer: &PeerId, way: impl Fn(&Way) -> crate::api::Way) -> Vec<HistoryEntry> {
        let peers = self.lock();
        let entries: Vec<&Entry> = peers.get(peer).into_iter().flatten().collect();
        let told = entries.iter().enumerate().map(|(n, entry)| {
            let mended = entries[n + 1..].iter().find(|later| entry.is_mended_by(later));
            let (event, from, to, why, unanswered) = match &entry.what {
                What::Up => ("up", None, None, None, 0),
                What::Down(why) => ("down", None, None, Some(*why), 0),
                What::Switched { from, to, why, unanswered } => {
                    ("switched", from.as_ref(), Some(to), Some(*why), *unanswered)
                }
            };
            HistoryEntry {
                at_ms: entry.wall_ms,
                event: event.to_owned(),
                from: from.map(&way),
                to: to.map(&way),
                why: why.map(str::to_owned),
                unanswered,
                back_after_s: mended.map(|mended| super::report::seconds(mended.at.since(entry.at))),
            }
        });
        told.collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, VecDeque<Entry>>> {
        // Nothing panics while it holds the lock, and every change is complete.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vine_core::path::{FourTuple, SocketId, SwitchReason};
    use vine_core::{DownReason, Identity};

    fn id(n: u8) -> PeerId {
        Identity::from_seed([n; 32]).peer_id()
    }

    fn direct() -> Way {
        let remote = "192.0.2.2:4100".parse().unwrap();
        (Via::Direct(FourTuple { socket: SocketId(0), local: None, remote }), PathClass::Direct)
    }

    fn switched(from: Option<Way>, to: Way, why: SwitchReason) -> Event {
        Event::SessionSwitched { peer: id(1), from, to, why, unanswered: 3 }
    }

    fn way((via, class): &Way) -> crate::api::Way {
        crate::api::Way { class: class.name().to_owned(), path: via.to_string(), relay: None }
    }

    #[test]
    fn a_fallback_is_told_with_how_long_it_lasted() {
        let (history, relay) = (History::default(), (Via::Relay(id(2)), PathClass::Relay));
        for (at, event) in [
            (0, Event::PeerUp { peer: id(1) }),
            (0, switched(None, direct(), SwitchReason::First)),
            (10_000, switched(Some(direct()), relay, SwitchReason::PathLost)),
            (51_000, switched(Some(relay), direct(), SwitchReason::Upgrade)),
            (60_000, Event::PeerDown { peer: id(1), why: DownReason::Closed }),
        ] {
            history.note(Instant::from_millis(at), 1_700_000_000_000 + at, &event);
        }
        let told = history.of(&id(1), way);
        let events: Vec<&str> = told.iter().map(|entry| entry.event.as_str()).collect();
        assert_eq!(events, ["up", "switched", "switched", "switched", "down"]);
        assert_eq!((told[2].why.as_deref(), told[2].unanswered), (Some("path_lost"), 3));
        assert_eq!(told[2].at_ms, 1_700_000_010_000);
        let back: Vec<Option<f64>> = told.iter().map(|entry| entry.back_after_s).collect();
        assert_eq!(back, [None, None, Some(41.0), None, None]);
        assert_eq!(history.of(&id(3), way), []);
        history.retain(|peer| *peer != id(1));
        assert_eq!(history.of(&id(1), way), []);
    }

    #[test]
    fn the_oldest_gives_way() {
        let history = History::default();
        for n in 0..1000 {
            history.note(Instant::from_millis(n), n, &Event::PeerUp { peer: id(1) });
        }
        let told = history.of(&id(1), way);
        assert_eq!((told.len(), told[0].at_ms), (CAPACITY, 1000 - CAPACITY as u64));
    }
}
