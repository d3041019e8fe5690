//! What is read of a store, held against what was written.

use vine_core::log::reader::{Cursor, Damaged, Delivered, Taken};
use vine_core::log::store::Ticket;

use super::ledger::Slot;
use super::machine::{FOLLOWER, Machine, Shared};

/// Bytes that the follower asks for at once.
const READ_BYTES: usize = 64 * 1024;

impl Machine {
    /// The follower asks for what comes next. Returns whether there was something to ask for.
    pub(super) fn follow(&mut self) -> bool {
        let Some(life) = &mut self.life else { return false };
        if !life.opened || life.closed || life.following || life.follows.ordinal >= life.store.next_ordinal() {
            return false;
        }
        life.following = life.store.read(FOLLOWER, life.follows, READ_BYTES).is_ok();
        life.following
    }

    pub(super) fn was_read(
        &mut self,
        shared: &mut Shared,
        ticket: Ticket,
        taken: &[Taken],
        next: Cursor,
        damaged: Option<Damaged>,
    ) {
        let Some(life) = &mut self.life else { return };
        let is_follower = ticket == FOLLOWER;
        let from = if is_follower { Some(life.follows) } else { life.side_reads.remove(&ticket) };
        let from = from.expect("what nobody asked for is read").ordinal;
        let mut at = from;
        for item in taken.iter().flat_map(|taken| taken.delivered(from)) {
            assert_eq!(item.ordinal, at, "delivery leaves ordinals out, or repeats them");
            self.delivered(shared, &item, is_follower);
            at += 1;
        }
        if let Some(damaged) = &damaged {
            assert_eq!(damaged.ordinals.start, at, "damage is told of another place than where it is");
            self.is_lost(shared, damaged);
            at = damaged.ordinals.end;
        }
        assert_eq!(next.ordinal.max(from), at, "a cursor is not behind what was read or is damaged");
        let Some(life) = &mut self.life else { return };
        let stuck = at == from && from < life.store.next_ordinal();
        assert!(!stuck, "nothing is read at ordinal {from}, and nothing is said to be damaged");
        if is_follower {
            life.following = false;
            life.follows = if damaged.is_some() { Cursor::at(at) } else { next };
            if at >= life.store.next_ordinal() {
                self.check_view(shared);
            }
        }
    }

    fn delivered(&mut self, shared: &mut Shared, item: &Delivered, is_follower: bool) {
        let ordinal = item.ordinal;
        let position = (item.log, item.seq);
        let known = shared.ledger.get(position).expect("an op is delivered that nobody wrote");
        let refused = shared.ledger.is_refused(position);
        assert!(!refused, "ordinal {ordinal} holds what its writer was told is not there for certain");
        let same = known.op == item.op && known.commit == item.commit && known.index == item.index;
        assert!(same, "ordinal {ordinal} is delivered as something else than what was written at {position:?}");
        let Some(life) = &self.life else { return };
        // Who may not write delivers what nobody vouches for, and does not make it certain.
        let (read_only, mut uncertain) = (life.read_only, Slot::Unread);
        let slot = self.line.slots.get_mut(ordinal as usize).or(read_only.then_some(&mut uncertain));
        let slot = slot.expect("an op is delivered that is not durable");
        match *slot {
            Slot::At(there) => assert_eq!(there, position, "ordinal {ordinal} holds something else than before"),
            Slot::Unread | Slot::Lost => {
                *slot = Slot::At(position);
                let expected = self.line.expected(ordinal);
                // What a disk put elsewhere may come to light again.
                assert!(
                    self.line.lied || expected == Some(position),
                    "ordinal {ordinal} is not what was written there"
                );
            }
        }
        let durable = self.line.placed(ordinal).is_none_or(|placed| placed.is_durable(&self.disk));
        assert!(durable || read_only || !self.line.is_honest(), "ordinal {ordinal} is delivered and not on the disk");
        let Some(life) = &mut self.life else { return };
        if is_follower {
            life.model.apply(&item.op, item.commit, item.index);
            shared.trace.note("delivered", self.number, shared.now, &ordinal.to_le_bytes());
        }
    }

    /// The store says that ordinals are lost: on a disk that kept its promises they are not.
    fn is_lost(&mut self, shared: &mut Shared, damaged: &Damaged) {
        let trouble = self.is_troubled();
        assert!(trouble || !self.line.is_honest(), "an undamaged disk has lost something: {damaged}");
        shared.coverage.hit("a damaged range is told");
        let end = (damaged.ordinals.end as usize).min(self.line.slots.len());
        for slot in &mut self.line.slots[(damaged.ordinals.start as usize).min(end)..end] {
            *slot = Slot::Lost;
        }
        if let Some(life) = &mut self.life {
            life.blind = true;
        }
    }

    /// The view is that of the model, unless it is full or ops of it cannot be read.
    fn check_view(&mut self, shared: &mut Shared) {
        let Some(life) = &mut self.life else { return };
        life.state = life.store.state_hash().map(|hash| (life.store.next_ordinal(), hash));
        let view = life.store.view();
        if life.blind || view.is_full() {
            shared.coverage.add("view is full", u64::from(view.is_full()));
            return;
        }
        let mut count = 0;
        for (key, value) in life.model.entries() {
            count += 1;
            let seen = view.entry(key).expect("a key that was written is in the view");
            assert_eq!(seen.value.as_deref(), value, "the view of {key:?} is not what was written last");
        }
        assert_eq!(view.len(), count, "the view has keys that nobody wrote");
    }
}
