//! What must arrive at a peer: encoded messages, each sent in as many packets as it takes.
//!
//! The queue belongs to the peer and outlives sessions and paths; [`Recovery`](crate::path::recovery) of whichever path a
//! packet went by says what arrived and what was lost. A message has a key: a newer one of the same key replaces the older,
//! wherever that is.
//!
//! # Order
//!
//! Messages arrive at least once and in any order. What replaced another may be overtaken by it in the network; but any
//! packet carries the newest version that there was when it was sealed. So a receiver that keeps, for each key, the largest
//! counter of the control lane that it was received under, and ignores messages from below, ends with the newest. Counters
//! of different sessions are not compared: a later session is newer, and between two that crossed what arrives later stands.
//! Messages with a stamp of their own (Signals) need no such order.

#[cfg(test)]
mod delivery;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::path::recovery::Items;

/// Messages that a peer's queue holds at most, those in flight included.
pub const MAX_MESSAGES: usize = 64;

/// Bytes of one message at most: it fits, with envelope, packet number and a relay's header, into the smallest path's
/// datagram.
pub const MAX_MESSAGE_LEN: usize = 1152;

/// One version of one message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Token(u64);

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// [`MAX_MESSAGES`] wait already. They are kept: the older a message is, the more rests on it.
    #[error("the queue of messages that must arrive is full")]
    Full,
    /// It is longer than [`MAX_MESSAGE_LEN`].
    #[error("a message that must arrive is too long for a datagram")]
    TooLong,
}

#[derive(Clone, Debug)]
struct Entry<K> {
    key: K,
    token: Token,
    bytes: Box<[u8]>,
    /// Whether it is to be put into a packet.
    is_queued: bool,
    /// Packets in flight that carry it.
    in_flight: u32,
}

/// The messages that must arrive at one peer.
#[derive(Clone, Debug)]
pub struct Reliable<K> {
    /// In the order in which they came: what was lost thereby goes before what was never sent.
    entries: Vec<Entry<K>>,
    next: u64,
}

impl<K> Default for Reliable<K> {
    fn default() -> Self {
        Reliable { entries: Vec::new(), next: 0 }
    }
}

impl<K: Copy + Eq> Reliable<K> {
    /// Adds a message, encoded whole, in the place of an older one with the same `key`. The same bytes again change nothing.
    pub fn push(&mut self, key: K, bytes: Box<[u8]>) -> Result<(), Refused> {
        if bytes.len() > MAX_MESSAGE_LEN {
            return Err(Refused::TooLong);
        }
        let older = self.entries.iter().position(|entry| entry.key == key);
        if older.is_some_and(|older| self.entries[older].bytes == bytes) {
            return Ok(());
        }
        let entry = Entry { key, token: Token(self.next), bytes, is_queued: true, in_flight: 0 };
        match older {
            Some(older) => self.entries[older] = entry,
            None if self.entries.len() >= MAX_MESSAGES => return Err(Refused::Full),
            None => self.entries.push(entry),
        }
        self.next += 1;
        Ok(())
    }

    /// Drops every message whose key is pointless.
    pub fn cancel_all(&mut self, is_pointless: impl Fn(&K) -> bool) {
        self.entries.retain(|entry| !is_pointless(&entry.key));
    }

    /// Writes messages that wait into `buffer`, one behind the other, as many as fit. Returns the bytes written and what
    /// they are, for [`Recovery::on_sent`](crate::path::recovery::Recovery::on_sent). A buffer of [`MAX_MESSAGE_LEN`] takes
    /// at least one.
    pub fn take_for_packet(&mut self, buffer: &mut [u8]) -> (usize, Items<Token>) {
        let (mut length, mut items) = (0, Items::new());
        for entry in self.entries.iter_mut().filter(|entry| entry.is_queued) {
            let end = length + entry.bytes.len();
            let Some(room) = buffer.get_mut(length..end) else { continue };
            if items.push(entry.token).is_err() {
                break;
            }
            room.copy_from_slice(&entry.bytes);
            entry.is_queued = false;
            entry.in_flight = entry.in_flight.saturating_add(1);
            length = end;
        }
        (length, items)
    }

    /// Notes that a packet with this message arrived. Returns its key, unless it had arrived before or was replaced.
    pub fn on_acked(&mut self, token: Token) -> Option<K> {
        let index = self.entries.iter().position(|entry| entry.token == token)?;
        Some(self.entries.remove(index).key)
    }

    /// Notes that a packet with this message was lost: it waits again, unless it was replaced or another packet still
    /// carries it.
    pub fn on_lost(&mut self, token: Token) {
        if let Some(entry) = self.find(token) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            entry.is_queued |= entry.in_flight == 0;
        }
    }

    /// Notes that a packet with this message may have been lost, and that a probe should carry the message as well.
    pub fn on_doubt(&mut self, token: Token) {
        if let Some(entry) = self.find(token) {
            entry.is_queued = true;
        }
    }

    /// Lets everything wait anew: the peer restarted and knows nothing. What was in flight is to be abandoned first.
    pub fn requeue_all(&mut self) {
        for entry in &mut self.entries {
            entry.is_queued = true;
            entry.in_flight = 0;
        }
    }

    /// Whether something waits to be put into a packet.
    pub fn has_queued(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_queued)
    }

    /// How many messages there are, those in flight included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether everything has arrived.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&mut self, token: Token) -> Option<&mut Entry<K>> {
        self.entries.iter_mut().find(|entry| entry.token == token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn bytes(message: &[u8]) -> Box<[u8]> {
        message.into()
    }

    /// What a packet of `room` bytes takes.
    fn take(queue: &mut Reliable<u8>, room: usize) -> (Vec<u8>, Items<Token>) {
        let mut buffer = vec![0; room];
        let (length, items) = queue.take_for_packet(&mut buffer);
        buffer.truncate(length);
        (buffer, items)
    }

    #[test]
    fn what_is_acknowledged_is_gone_and_what_is_lost_goes_first() {
        let mut queue = Reliable::default();
        for key in 0..3 {
            queue.push(key, bytes(&[key, key])).unwrap();
        }
        let (sent, items) = take(&mut queue, 5);
        assert_eq!((sent.as_slice(), items.len()), ([0, 0, 1, 1].as_slice(), 2));
        assert_eq!(queue.on_acked(items[1]), Some(1));
        assert_eq!(queue.on_acked(items[1]), None);
        queue.on_lost(items[0]);
        let (sent, items) = take(&mut queue, 100);
        assert_eq!(sent, [0, 0, 2, 2]);
        assert!(!queue.has_queued() && !queue.is_empty());
        for item in items {
            queue.on_acked(item);
        }
        assert!(queue.is_empty());
    }

    #[test]
    fn a_newer_message_replaces_an_older_one_in_flight() {
        let mut queue = Reliable::default();
        queue.push(1, bytes(b"old")).unwrap();
        let (_, old) = take(&mut queue, 100);
        queue.push(1, bytes(b"new")).unwrap();
        queue.on_lost(old[0]);
        assert_eq!(queue.on_acked(old[0]), None);
        let (sent, new) = take(&mut queue, 100);
        assert_eq!(sent, b"new");
        queue.push(1, bytes(b"new")).unwrap();
        assert!(!queue.has_queued());
        assert_eq!(queue.on_acked(new[0]), Some(1));
    }

    #[test]
    fn a_copy_in_a_probe_is_not_lost_with_the_original() {
        let mut queue = Reliable::default();
        queue.push(1, bytes(b"once")).unwrap();
        let (_, first) = take(&mut queue, 100);
        queue.on_doubt(first[0]);
        let (sent, second) = take(&mut queue, 100);
        assert_eq!((sent.as_slice(), first == second), (b"once".as_slice(), true));
        queue.on_lost(first[0]);
        assert!(!queue.has_queued());
        queue.on_lost(second[0]);
        assert!(queue.has_queued());
    }

    #[test]
    fn a_restart_of_the_peer_and_a_change_of_mind() {
        let mut queue = Reliable::default();
        queue.push(1, bytes(b"a")).unwrap();
        queue.push(2, bytes(b"b")).unwrap();
        take(&mut queue, 100);
        queue.requeue_all();
        queue.cancel_all(|key| *key == 1);
        assert_eq!(take(&mut queue, 100).0, b"b");
    }

    #[test]
    fn bounds() {
        let mut queue = Reliable::default();
        for key in 0..MAX_MESSAGES as u8 {
            queue.push(key, bytes(&[0; MAX_MESSAGE_LEN])).unwrap();
        }
        assert_eq!(queue.push(255, bytes(b"more")), Err(Refused::Full));
        assert_eq!(queue.push(0, bytes(b"newer")), Ok(()));
        assert_eq!(queue.push(0, bytes(&[0; MAX_MESSAGE_LEN + 1])), Err(Refused::TooLong));
        assert_eq!(take(&mut queue, MAX_MESSAGE_LEN + 2).0.len(), 5);
        assert_eq!(take(&mut queue, MAX_MESSAGE_LEN).0.len(), MAX_MESSAGE_LEN);
        let mut small = Reliable::default();
        for key in 0..20 {
            small.push(key, bytes(b"x")).unwrap();
        }
        assert_eq!(take(&mut small, 100).0.len(), 8);
    }
}
