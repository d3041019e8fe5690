//! `vine demo`: a mesh on one machine that tells what happens in it. Whatever it tells was measured; what does not happen
//! in time ends it with a failure.

mod host;
mod icmp;
mod internet;
mod memory;
mod namespace;
mod narrator;
mod node;
mod ping;
mod stream;
mod tun;

use std::net::IpAddr;
use std::time::Duration;

use vine_core::Identity;
use zeroize::Zeroizing;

use crate::cli::DemoArgs;
use crate::output::{Failure, Format, Outcome};
use narrator::Narrator;

/// How long anything that is waited for may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one answer to a ping may take.
const PING_PATIENCE: Duration = Duration::from_secs(1);
/// The network of the demo.
const NETWORK: &str = "demo";

/// Runs the demo that is asked for.
pub(crate) fn run(args: &DemoArgs, format: Format) -> Outcome {
    let mut narrator = Narrator::new(format);
    if args.tun { tun::run(&mut narrator) } else { memory::run(&mut narrator) }
}

/// What did not happen.
fn broken(what: impl std::fmt::Display) -> Failure {
    Failure::failed("demo", format!("the demo failed: {what}"))
}

/// One of the machines of the demo. Number `n + 1` owns 10.42.n.0/24 and fd42:0:0:n::/64 and has the first address of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Machine {
    name: &'static str,
    number: u8,
}

const ALPHA: Machine = Machine { name: "alpha", number: 1 };
const BETA: Machine = Machine { name: "beta", number: 2 };
const GAMMA: Machine = Machine { name: "gamma", number: 3 };
const RELAY: Machine = Machine { name: "relay", number: 4 };

impl Machine {
    /// Overlay addresses with their prefix lengths.
    fn addresses(self) -> [(IpAddr, u8); 2] {
        let n = self.number - 1;
        [(IpAddr::from([10, 42, n, 1]), 24), (IpAddr::from([0xfd42, 0, 0, u16::from(n), 0, 0, 0, 1]), 64)]
    }

    /// Its overlay prefixes.
    fn prefixes(self) -> [String; 2] {
        let n = self.number - 1;
        [format!("10.42.{n}.0/24"), format!("fd42:0:0:{n:x}::/64")]
    }
}

/// A fresh seed of an identity.
fn seed() -> Outcome<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| broken(format_args!("no randomness: {error}")))?;
    Ok(seed)
}

/// The identity of a seed.
fn identity(seed: &Zeroizing<[u8; 32]>) -> Identity {
    Identity::from_seed(**seed)
}

/// Every pair of machines, each once.
fn pairs<const N: usize>(machines: [Machine; N]) -> impl Iterator<Item = (Machine, Machine)> {
    machines
        .into_iter()
        .flat_map(move |a| machines.into_iter().filter(move |b| b.number > a.number).map(move |b| (a, b)))
}
