//! A deterministic simulator: production nodes and stores in one thread, on virtual time, over a network and disks that a seed
//! makes worse.
//!
//! | file | what it is |
//! | --- | --- |
//! | `op` | the vocabulary of what can happen; one op a line as text |
//! | `script` | a world and its ops: from a seed, from text, shrunk when it fails |
//! | `world` | hosts, network, stores and clock; the events of all of them in order of time |
//! | `stores` | a machine is a node and a store: what happens to it happens to both. The stores are those of [`disk`](crate::disk) |
//! | `apply` | what each op does to a world |
//! | `heal` | the second phase: faults end, and everybody must reach everybody soon |
//! | `trial` | the third phase, where nothing is lost: what a healed world is put to |
//! | `observe` | which situations a world is in |
//! | `host` | one machine: its node, its configuration, its sockets |
//! | `network` | links, NATs and firewalls, what theory says of them, and the attacker's memory |
//! | `traffic` | packets whose every byte is known beforehand |
//! | `crypto` | a stub cipher, and the audit of nonces |
//! | `parallel` | many runs on all processors |
//! | `trace`, `coverage` | the hash of everything, and the situations that were reached |
//!
//! What holds at every moment, or the run fails:
//!
//! - a packet arrives at most once, at its owner, unchanged, and only under its sender's address;
//! - a node wakes exactly when it said it would: it never turns out to have forgotten a deadline, and never asks to be
//!   called again and again for nothing;
//! - what it sends is an envelope, leaves by a socket of the right family, and uses no nonce twice;
//! - data goes where something has reached the peer in its present life, under keys that are confirmed and not too old;
//! - a Hello that was dealt with is not answered anew, and one that may be a replay proves its address first;
//! - a peer goes up and down in turn, and counters count what was delivered.
//!
//! To repeat a seed: `VINE_SIM_SEED=n cargo test -p vine-tests --test sim_seeds`; to see every datagram of it, with
//! `VINE_SIM_LOG=1` and `-- --nocapture`; to run more of them, `VINE_SIM_SEEDS=n`.
//!
//! Whether the seeds would notice a mistake is tried out: `scripts/planted.sh` applies each patch of `tests/planted/`
//! to a copy of the tree, and a patch that 2,000 seeds and the scenarios do not notice fails. Who changes a rule here makes sure that none
//! comes to be missed; who finds a mistake that was missed adds a patch that makes it again.

mod apply;
mod coverage;
mod crypto;
pub mod heal;
mod host;
mod network;
mod observe;
mod op;
mod parallel;
mod script;
mod stores;
mod trace;
mod traffic;
mod trial;
mod world;

pub use coverage::Coverage;
pub use crypto::AuditedCrypto;
pub use host::{BoxSpec, Host, HostSpec, Topology, wall_clock};
pub use network::{
    Attachment, Audit, Behaviour, Captured, Fate, Link, NatBox, NatKind, Network, PORT, Reach, Realm, Record, ghost,
    socket_of,
};
pub use op::{Op, Origin, Profile, Traffic, Way, any_op, any_ops};
pub use parallel::in_parallel;
pub(crate) use script::profile_of;
pub use script::{Script, Setup};
pub use trace::Trace;
pub use traffic::{Ledger, Offered, Tally, overlay_address, overlay_prefixes};
pub use world::World;

pub use crate::text::ParseError;
