//! vine-core: the vine protocol as one pure state machine.
#![no_std]

extern crate alloc;

pub mod identity;
pub mod overlay;
pub mod rng;
pub mod session;
pub mod rng;
pub mod time;
pub mod wire;
