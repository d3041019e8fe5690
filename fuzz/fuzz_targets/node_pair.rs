//! Two nodes against each other, on a network that does what the fuzzer says. The rules are in `vine_fuzz::world`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vine_fuzz::Salted;
use vine_fuzz::world::{Scenario, World};

fuzz_target!(|scenario: Salted<Scenario>| World::run(&scenario.value, scenario.salt));
