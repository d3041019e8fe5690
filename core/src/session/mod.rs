//! A session: the end-to-end keys of two peers, from the first Hello to the last sealed byte.
//!
//! The room, in the order in which a session comes to be:
//!
//! - [`noise`]: the handshake pattern, `Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s`.
//!
//! Nothing here knows an address, a clock or a timer; what is sent when is decided elsewhere.

pub mod noise;
