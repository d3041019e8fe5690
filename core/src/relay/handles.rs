//! What the handle of an arriving Relayed envelope means.

use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;

use subtle::ConstantTimeEq;

use crate::overlay::PeerIndex;
use crate::rng::Rng;

/// How a receiver of Relayed envelopes wants to be addressed: a handle that finds the entry and a token that proves that the
/// sender was told. The receiver draws both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RelayAddress {
    /// The envelope's session field.
    pub handle: NonZeroU32,
    /// The envelope's msg_id field.
    pub token: u64,
}

/// Without the token: who reads a report may not send in the reader's name.
impl fmt::Debug for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelayAddress({:08x})", self.handle)
    }
}

/// One end of a channel of the [`RelayTable`](super::RelayTable): the one that sends by the handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChannelEnd {
    /// The channel's place in the table.
    pub(super) channel: u32,
    /// Which of its two ends.
    pub(super) side: u8,
}

/// Who in this node receives by a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receiver {
    /// This node is the relay: pass it on, [`RelayTable::route`](super::RelayTable::route) says where to.
    Channel(ChannelEnd),
    /// This node is an endpoint.
    Leg {
        /// Who sealed the inner envelope.
        peer: PeerIndex,
        /// Who carries it, and from whose proven paths alone it may come.
        relay: PeerIndex,
    },
}

/// The handles of this node, of its channels and its legs, which share one space because an envelope does not say which it
/// is for.
///
/// A handle's low bits are its place in a table of twice as many places as there are handles, and it is drawn at random until
/// its place is free. So a lookup reads one entry, the table never has to move entries about (handles that differ in their low
/// bits differ in more of them too), and a handle tells nothing but that it is no other.
#[derive(Debug, Default)]
pub struct RelayHandles {
    /// A power of two of places, or none.
    slots: Vec<Option<Slot>>,
    used: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    address: RelayAddress,
    receiver: Receiver,
}

/// Places of the first table.
const FIRST_SLOTS: usize = 16;

impl RelayHandles {
    /// Draws an address for `receiver`. Its bound is that of the channels and legs.
    pub fn allocate(&mut self, rng: &mut Rng, receiver: Receiver) -> RelayAddress {
        if (self.used + 1) * 2 > self.slots.len() {
            self.grow();
        }
        loop {
            let Some(handle) = NonZeroU32::new(rng.u32()) else { continue };
            let place = self.place(handle);
            if self.slots[place].is_none() {
                let address = RelayAddress { handle, token: rng.u64() };
                self.slots[place] = Some(Slot { address, receiver });
                self.used += 1;
                return address;
            }
        }
    }

    /// Who receives by this handle and token. The token is compared in constant time.
    pub fn get(&self, handle: u32, token: u64) -> Option<Receiver> {
        let handle = NonZeroU32::new(handle)?;
        let slot = self.slots.get(self.place(handle))?.as_ref().filter(|slot| slot.address.handle == handle)?;
        bool::from(slot.address.token.ct_eq(&token)).then_some(slot.receiver)
    }

    /// Gives an address back.
    pub fn release(&mut self, address: RelayAddress) {
        let place = self.place(address.handle);
        if let Some(slot) = self.slots.get_mut(place)
            && slot.take_if(|slot| slot.address == address).is_some()
        {
            self.used -= 1;
        }
    }

    /// How many are in use.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether none is in use.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn place(&self, handle: NonZeroU32) -> usize {
        handle.get() as usize & self.slots.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let places = (self.slots.len() * 2).max(FIRST_SLOTS);
        let former = core::mem::replace(&mut self.slots, alloc::vec![None; places]);
        for slot in former.into_iter().flatten() {
            let place = self.place(slot.address.handle);
            self.slots[place] = Some(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use alloc::format;
    use proptest::prelude::*;

    fn leg(n: u32) -> Receiver {
        Receiver::Leg { peer: PeerIndex(n), relay: PeerIndex(n + 1) }
    }

    #[test]
    fn an_empty_table_knows_nothing() {
        let handles = RelayHandles::default();
        assert_eq!(handles.get(0, 0), None);
        assert_eq!(handles.get(7, 7), None);
        assert!(handles.is_empty());
    }

    #[test]
    fn reports_hide_the_token() {
        let address = RelayAddress { handle: NonZeroU32::new(0xabcd).unwrap(), token: 0x1234_5678 };
        assert_eq!(format!("{address:?}"), "RelayAddress(0000abcd)");
    }

    #[test]
    fn handles_are_spread_over_all_their_bits() {
        let (mut handles, mut rng) = (RelayHandles::default(), Rng::from_seed([3; 32]));
        let mut ones = [0u32; 32];
        for n in 0..4096 {
            let handle = handles.allocate(&mut rng, leg(n)).handle.get();
            (0..32).for_each(|bit| ones[bit] += handle >> bit & 1);
        }
        assert!(ones.iter().all(|ones| (1800..2300).contains(ones)), "{ones:?}");
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(ops in prop::collection::vec((any::<bool>(), 0usize..64), 0..300), seed in any::<[u8; 32]>()) {
            let (mut handles, mut rng) = (RelayHandles::default(), Rng::from_seed(seed));
            let mut model: Vec<(RelayAddress, Receiver)> = Vec::new();
            let mut gone: Vec<RelayAddress> = Vec::new();
            for (n, (add, at)) in ops.into_iter().enumerate() {
                if add {
                    let receiver = leg(n as u32);
                    let address = handles.allocate(&mut rng, receiver);
                    prop_assert!(model.iter().all(|(held, _)| held.handle != address.handle));
                    gone.retain(|former| former.handle != address.handle);
                    model.push((address, receiver));
                } else if at < model.len() {
                    let (address, _) = model.swap_remove(at);
                    handles.release(address);
                    handles.release(address);
                    gone.push(address);
                }
                prop_assert_eq!(handles.len(), model.len());
                for (address, receiver) in &model {
                    prop_assert_eq!(handles.get(address.handle.get(), address.token), Some(*receiver));
                    prop_assert_eq!(handles.get(address.handle.get(), address.token ^ 1 << (at % 64)), None);
                }
                for address in &gone {
                    prop_assert_eq!(handles.get(address.handle.get(), address.token), None);
                }
            }
        }
    }
}
