//! Whole machines in one script: their nodes and their stores, on one clock.
//!
//! The vocabulary is that of [`sim`] and that of [`disk`], one op a line; what both can say (that
//! time passes, that the power goes, that a clock is set) is said in the words of the first and happens to all of a machine. So
//! does a kill. The first line is the world of the one followed by the stores of the other.
//!
//! What holds at every moment is what holds there, of both. When the faults have ended, the network heals as it does alone,
//! then every machine is put to what stores are put to, with its node. The stores do not change by a bit what the network
//! does: the hash of that half is the same without them.
//!
//! To repeat a seed: `VINE_SIM_SEED=n cargo test -p vine-tests --test whole_seeds`; to see every datagram and every effect of
//! it, with `VINE_SIM_LOG=1` and `-- --nocapture`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::script::{self, Outcome, Simulated};
use crate::sim::{World, heal};
use crate::text::ParseError;
use crate::{disk, sim};

/// Machines and what happens to them.
pub type Script = script::Script<Setup>;

/// Ops of a seed, at most.
const OPS: usize = 90;

/// Hosts of the strategies; a world with fewer counts modulo.
const HOSTS: u8 = 4;

/// Machines: their network, and their stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// The hosts and what is between them.
    pub network: sim::Setup,
    /// What their stores are like, if they have any.
    pub stores: Option<disk::Setup>,
}

/// One thing that happens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// To hosts and the network, or to all of a machine.
    Network(sim::Op),
    /// To stores and disks.
    Stores(disk::Op),
}

impl Setup {
    /// The machines of `seed`.
    pub fn from_seed(seed: u64) -> Setup {
        Setup { network: sim::Setup::from_seed(seed), stores: Some(disk::Setup::from_seed(seed)) }
    }

    /// A world in which every machine has just started.
    pub fn world(&self) -> World {
        let mut world = self.network.built();
        if let Some(stores) = &self.stores {
            world.give_stores(stores);
        }
        (0..world.hosts.len()).for_each(|host| world.start(host));
        world
    }
}

impl From<disk::Op> for Op {
    fn from(op: disk::Op) -> Op {
        match op {
            disk::Op::Wait { us } => Op::Network(sim::Op::Wait { us }),
            disk::Op::Crash { at } => Op::Network(sim::Op::Crash { host: at }),
            disk::Op::Clock { at, ms } => Op::Network(sim::Op::Clock { host: at, ms }),
            op => Op::Stores(op),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Network(op) => op.fmt(f),
            Op::Stores(op) => op.fmt(f),
        }
    }
}

impl FromStr for Op {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Op, ParseError> {
        let of_network = match line.parse() {
            Ok(op) => return Ok(Op::Network(op)),
            Err(error) => error,
        };
        let of_stores = |error| ParseError(format!("{of_network}, and for stores: {error}"));
        line.parse::<disk::Op>().map(Op::from).map_err(of_stores)
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.network.fmt(f)?;
        self.stores.as_ref().map_or(Ok(()), |stores| write!(f, " {stores}"))
    }
}

impl FromStr for Setup {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Setup, ParseError> {
        let Some(at) = line.find(" stores ") else {
            return Ok(Setup { network: line.parse()?, stores: None });
        };
        let (network, stores) = line.split_at(at);
        Ok(Setup { network: network.parse()?, stores: Some(stores.parse()?) })
    }
}

impl World {
    /// Makes something happen to machines. Every op is legal at any time.
    pub fn apply_to_machines(&mut self, op: &Op) {
        match op {
            Op::Network(op) => self.apply(op),
            Op::Stores(op) => self.apply_to_stores(op),
        }
    }
}

impl Script {
    /// Plays it, up to the end. Returns the world and the hash of what its network did until it was healed.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn play(&self) -> (World, String) {
        let mut world = self.setup.world();
        let lossy = self.setup.network.lossy;
        let is_shown = std::env::var_os("VINE_SIM_LOG").is_some();
        world.stores.shared.is_shown = is_shown;
        for op in &self.ops {
            if is_shown {
                println!("{:?} {op}", world.now());
            }
            world.apply_to_machines(op);
        }
        world.stores.mend();
        heal::heal(&mut world, lossy);
        world.open_stores();
        let ops = self.ops.iter().filter_map(|op| if let Op::Network(op) = op { Some(op) } else { None });
        heal::check(&mut world, heal::deadline(lossy, ops));
        let network = world.trace.digest();
        world.heal_stores();
        world.count_all();
        (world, network)
    }
}

impl Simulated for Setup {
    type Op = Op;

    fn script(seed: u64) -> Script {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[31] = 3;
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        // Any of the ones with any of the others.
        let op = any_op(sim::profile_of(seed), disk::profile_of(seed / 16));
        let ops = prop::collection::vec(op, 1..=OPS).new_tree(&mut runner).expect("nothing is filtered").current();
        Script { setup: Setup::from_seed(seed), ops }
    }

    fn run(script: &Script) -> Outcome {
        let (world, _) = script.play();
        let World { trace, mut coverage, stores, .. } = world;
        coverage.merge(&stores.shared.coverage);
        Outcome {
            digest: format!("{} {}", trace.digest(), stores.shared.trace.digest()),
            entries: trace.entries() + stores.shared.trace.entries(),
            coverage,
        }
    }
}

fn hosts() -> Range<u8> {
    0..HOSTS
}

/// Any op, as likely as the profiles make it.
pub fn any_op(network: sim::Profile, stores: disk::Profile) -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => sim::any_op(network).prop_map(Op::Network),
        8 => disk::any_op_on(stores, hosts()).prop_map(Op::from),
        // Both halves end lives, and only one of them begins any.
        1 => hosts().prop_map(|host| Op::Network(sim::Op::Start { host, clock_ms: 0 })),
        1 => (hosts(), hosts()).prop_map(|(from, to)| Op::Stores(disk::Op::Import { from, to })),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for seed in 0..40 {
            let script = Script::from_seed(seed);
            assert_eq!(script.to_string().parse::<Script>(), Ok(script));
        }
        let alone = Setup { stores: None, ..Setup::from_seed(1) };
        assert_eq!(alone.to_string().parse(), Ok(alone));
    }

    #[test]
    fn what_is_no_op() {
        let parse = |line: &str| line.parse::<Op>().map_err(|error| error.to_string());
        assert_eq!(parse("kill at=1"), Ok(Op::Stores(disk::Op::Kill { at: 1 })));
        assert_eq!(parse("crash at=1"), parse("crash host=1"));
        let error = "no op is called \"pause\", and for stores: no op is called \"pause\"";
        assert_eq!(parse("pause us=5"), Err(error.into()));
    }
}
