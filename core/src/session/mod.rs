//! A session: the end-to-end keys of two peers, from the first Hello to the last sealed byte.
//!
//! The room, in the order in which a session comes to be:
//!
//! - [`keys`]: who may say Hello at all, and which keys seal traffic;
//! - [`cookie`]: proof of an address, when Hellos are many or look like a replay;
//! - [`noise`]: the handshake pattern, `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`;
//! - [`cipher`]: the ciphers of traffic, and the seam for a faster implementation;
//! - [`replay`]: each envelope is accepted once;
//! - [`tunnel`]: all of that at work, sealing what goes out and opening what comes in;
//! - `handshake`: the datagrams of the handshake, and what both sides have agreed on after it;
//! - `gate`: how many Hellos are answered when many come;
//! - `sessions`: which session of a peer sends, and which may still receive.
//!
//! Nothing here knows a socket or a timer; what is sent when is decided elsewhere.

pub mod cipher;
pub mod cookie;
pub mod keys;
pub mod noise;
pub mod replay;
pub mod tunnel;

mod gate;
pub(crate) mod handshake;
mod sessions;

pub use cipher::{Aead, Cipher, CryptoBackend, RustCrypto};
pub use cookie::{Cookie, CookieJar};
pub use replay::ReplayWindow;
pub use sessions::{BootId, IDLE_REKEY_AFTER, PENDING_LIFETIME, REFUSE_AFTER, REKEY_AFTER, REKEY_GRACE};
pub use tunnel::{Exhausted, LaneReceived, OpenError, Opened, Permit, Reservation, Tunnel};

pub(crate) use gate::{Admission, HelloGate};
pub(crate) use sessions::{Indices, KeyAge, Pending, Session, Sessions};
