//! Relaying: a peer carries the sealed envelopes of two others that cannot reach each other.
//!
//! ```text
//!   alpha                          relay                           beta
//!     |  RelayOpen Request(beta, a)  |                              |      a: "address me by this handle and token"
//!     |----------------------------->|  RelayOpen Offer(alpha, s)   |
//!     |  RelayOpen Offer(beta, r)    |----------------------------->|
//!     |<-----------------------------|  RelayOpen Request(alpha, b) |
//!     |                              |<-----------------------------|
//!     |   Relayed(r, inner envelope) |  Relayed(b, inner envelope)  |
//!     |----------------------------->|----------------------------->|
//! ```
//!
//! A *channel* is what the relay holds for a pair; a *leg* is what an endpoint holds for a peer and a relay. Each hop and each
//! direction has a [`RelayAddress`] of its own, drawn by whoever is to receive by it. All statements are idempotent: saying one
//! again changes nothing, and each side goes on stating the same address for as long as it holds the channel or the leg.
//!
//! [`RelayHandles`] tells what an arriving handle means in this node, [`RelayTable`] is the relay's side, [`RelayLegs`] the
//! endpoint's. None of them sends anything: they say what is to be told to whom, and the node tells it.

mod handles;
mod legs;
mod table;

pub use handles::{ChannelEnd, Receiver, RelayAddress, RelayHandles};
pub use legs::{LegAction, LegState, LegView, MAX_LEGS, RelayLegs, RelayOption};
pub use table::{ChannelView, Forward, Opened, RelayLimits, RelayRefusal, RelayTable, Traffic};
