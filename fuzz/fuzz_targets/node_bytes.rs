//! One node and a peer with true keys that sends whatever it likes. The rules are in `vine_fuzz::peer`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_fuzz::Salted;
use vine_fuzz::peer::{Encounter, Visit};

fuzz_target!(|visit: Salted<Visit>| Encounter::run(&visit.value, visit.salt));
