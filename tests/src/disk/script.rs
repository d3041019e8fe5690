//! A whole run: machines, what happens to them, and whether they keep what they promised. Runs are made from seeds, replayed
//! from text, and shrunk.

use std::fmt;
use std::str::FromStr;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::dice::Dice;
use super::op::{Op, Profile, any_ops};
use super::stores::Stores;
use crate::script::{self, Outcome, Simulated};
use crate::sim::World;
use crate::text::{Fields, ParseError};

/// Stores and what happens to them.
pub type Script = script::Script<Setup>;

/// What a seed is about.
pub(crate) const fn profile_of(seed: u64) -> Profile {
    match seed % 4 {
        1 => Profile::Dishonest,
        3 => Profile::Copies,
        _ => Profile::Honest,
    }
}

/// What the stores are like: small numbers, so that a line says it all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Determines every random choice that the ops leave open.
    pub seed: u64,
    /// Thousands of bytes of a segment.
    pub segment_kb: u32,
    /// Thousands of bytes that a store may have; zero for any.
    pub max_kb: u32,
    /// Thousands of bytes of keys and values in memory; zero for any.
    pub view_kb: u32,
    /// Openings check signatures.
    pub deep: bool,
}

impl Setup {
    /// The stores of `seed`.
    pub fn from_seed(seed: u64) -> Setup {
        let mut dice = Dice::new(seed ^ 0x5e7u64);
        let segment_kb = [4, 8, 16, 32, 64, 128, 1024][dice.below(7) as usize];
        let max_kb = if dice.chance(1, 8) { 64 + dice.below(400) as u32 } else { 0 };
        let view_kb = if dice.chance(1, 12) { 1 + dice.below(20) as u32 } else { 0 };
        Setup { seed, segment_kb, max_kb, view_kb, deep: dice.chance(1, 8) }
    }

    /// A world of stores in which nothing has happened.
    pub fn world(&self) -> World {
        World::of_stores(Stores::alone(self))
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, segment_kb, max_kb, view_kb, deep } = self;
        write!(f, "stores seed={seed} segment_kb={segment_kb} max_kb={max_kb} view_kb={view_kb} deep={deep}")
    }
}

impl FromStr for Setup {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Setup, ParseError> {
        let mut words = line.split_whitespace();
        if words.next() != Some("stores") {
            return Err(ParseError("a script begins with its stores".into()));
        }
        let mut fields = Fields::new(words)?;
        let setup = Setup {
            seed: fields.take("seed")?,
            segment_kb: fields.take("segment_kb")?,
            max_kb: fields.take("max_kb")?,
            view_kb: fields.take("view_kb")?,
            deep: fields.take("deep")?,
        };
        fields.finish().map(|()| setup)
    }
}

impl Simulated for Setup {
    type Op = Op;

    fn script(seed: u64) -> Script {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[31] = 2;
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let ops = any_ops(profile_of(seed), 70).new_tree(&mut runner).expect("nothing is filtered").current();
        let ops = [Op::Open { at: 0, read_only: false }, Op::Wait { us: 2_000 }].into_iter().chain(ops).collect();
        Script { setup: Setup::from_seed(seed), ops }
    }

    fn run(script: &Script) -> Outcome {
        let mut world = script.setup.world();
        play(&mut world, &script.ops);
        let shared = world.stores.shared;
        Outcome { digest: shared.trace.digest(), entries: shared.trace.entries(), coverage: shared.coverage }
    }
}

/// What happens, and that all is as it should be when the faults have ended.
pub(super) fn play(world: &mut World, ops: &[Op]) {
    world.stores.shared.is_shown = std::env::var_os("VINE_SIM_LOG").is_some();
    for op in ops {
        if world.stores.shared.is_shown {
            println!("{:?} {op}", world.now());
        }
        world.apply_to_stores(op);
    }
    world.heal_stores();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for seed in 0..20 {
            let script = Script::from_seed(seed);
            assert_eq!(script.to_string().parse::<Script>(), Ok(script));
        }
    }
}
