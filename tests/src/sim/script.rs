//! A whole run: a world, what happens to it, and whether it heals. Runs are made from seeds, replayed from text, and shrunk.

use std::fmt;
use std::str::FromStr;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use vine_core::Policy;

use super::crypto::AuditedCrypto;
use super::host::{BoxSpec, HostSpec, Topology};
use super::network::{Behaviour, NatKind};
use super::op::{Op, Profile, any_ops};
use super::world::World;
use super::{heal, trial};
use crate::script::{self, Outcome, Simulated};
use crate::text::{Fields, ParseError};

/// A world and what happens to it.
pub type Script = script::Script<Setup>;

/// What a seed is about.
pub(crate) const fn profile_of(seed: u64) -> Profile {
    match seed {
        seed if seed % 16 == 13 => Profile::Help,
        seed if seed % 5 == 4 => Profile::Calls,
        _ => Profile::Faults,
    }
}

/// What the links of some hosts take: less than Ethernet, more than what is tried first.
const NARROW_MTU: u16 = 1_400;

/// The number of the common NAT, behind those of the hosts.
const COMMON: usize = 4;

/// What a world is made of: small numbers, so that a line says it all. Masks have a bit for every host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Determines every random choice that the ops leave open.
    pub seed: u64,
    /// How many hosts there are.
    pub hosts: u8,
    /// The real ciphers are used.
    pub real: bool,
    /// The network has a key.
    pub keyed: bool,
    /// Who has IPv4. Who has neither has it too.
    pub v4: u8,
    /// Who has IPv6.
    pub v6: u8,
    /// Before whom a NAT stands.
    pub nat: u8,
    /// Whose NAT lets in only what was sent to.
    pub restricted: u8,
    /// What else the NATs are like: a byte for every host's own, then one for the common one. Two bits for the mapping, one
    /// for a filter that does not look at ports, one for hairpinning, one for the preservation of ports.
    pub kinds: u64,
    /// Who, or whose own NAT, is behind the common one.
    pub shared: u8,
    /// Before whose IPv6 address a firewall stands.
    pub firewalls: u8,
    /// Who carries packets for others.
    pub relays: u8,
    /// Whose operator does not permit relays.
    pub unrelayed: u8,
    /// Whose operator does not permit that direct paths are set up by signaling.
    pub unsignaled: u8,
    /// Who keeps where peers were reached, over its lives.
    pub remembers: u8,
    /// Whose kernel says what it cannot send, and has a link that takes less than others.
    pub narrow: u8,
    /// Who is configured with whose addresses: bit `4 * host + peer`.
    pub finds: u16,
    /// Whose kernel finishes checksums.
    pub offload: u8,
    /// Who prefers AES.
    pub aes: u8,
    /// Some datagrams are still lost when all other faults have ended.
    pub lossy: bool,
}

impl Setup {
    /// Two hosts with IPv4 that find each other.
    pub fn pair(seed: u64) -> Setup {
        let (v4, finds) = (u8::MAX, u16::MAX);
        Setup {
            seed,
            hosts: 2,
            real: false,
            keyed: false,
            v4,
            v6: 0,
            nat: 0,
            restricted: 0,
            kinds: 0,
            shared: 0,
            firewalls: 0,
            relays: 0,
            unrelayed: 0,
            unsignaled: 0,
            remembers: 0,
            narrow: 0,
            finds,
            offload: 0,
            aes: 0,
            lossy: false,
        }
    }

    /// The world of `seed`.
    pub fn from_seed(seed: u64) -> Setup {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[31] = 1;
        let mut rng = vine_core::rng::Rng::from_seed(bytes);
        let mut any = || rng.u64() as u8;
        let often = |any: &mut dyn FnMut() -> u8| any() | any();
        let setup = Setup {
            seed,
            hosts: 2 + u8::from(any() < 100) + u8::from(any() < 10),
            real: any() < 20,
            keyed: any() < 128,
            v4: often(&mut any) | any(),
            v6: any(),
            nat: any() & any(),
            restricted: any(),
            kinds: 0,
            shared: 0,
            firewalls: 0,
            relays: 0,
            unrelayed: 0,
            unsignaled: 0,
            remembers: 0,
            narrow: 0,
            finds: u16::from(often(&mut any)) << 8 | u16::from(often(&mut any)),
            offload: often(&mut any),
            aes: any(),
            lossy: seed % 2 == 1,
        };
        let shared = if any() < 80 { any() } else { 0 };
        let kinds = [any(), any(), any(), any(), any(), 0, 0, 0];
        let firewalls = any() & any();
        let setup = Setup { kinds: u64::from_le_bytes(kinds), shared, firewalls, relays: any(), ..setup };
        if profile_of(seed) != Profile::Help {
            return setup;
        }
        // Three or four that often cannot reach each other alone.
        Setup {
            hosts: 3 + (any() & 1),
            nat: setup.nat | any(),
            restricted: setup.restricted | any(),
            relays: setup.relays | any(),
            unrelayed: any() & any() & any(),
            unsignaled: any() & any() & any(),
            remembers: any() | any(),
            narrow: any() & any(),
            finds: setup.finds & (u16::from(any()) << 8 | u16::from(any())),
            ..setup
        }
    }

    /// The NAT with a number: a host's own, or the common one.
    fn kind(&self, number: usize) -> NatKind {
        let byte = self.kinds.to_le_bytes()[number];
        let filtering = match (self.restricted >> number & 1, byte >> 2 & 1) {
            (0, _) => Behaviour::EndpointIndependent,
            (_, 1) => Behaviour::AddressDependent,
            _ => Behaviour::AddressAndPortDependent,
        };
        let mapping = Behaviour::ALL[usize::from(byte & 3) % 3];
        let (hairpin, preserves_ports) = (byte & 8 != 0, byte & 16 != 0);
        NatKind { hairpin, preserves_ports, ..NatKind::new(mapping, filtering) }
    }

    fn topology(&self) -> Topology {
        let common = (self.shared != 0).then(|| BoxSpec { kind: self.kind(COMMON), behind: None });
        Topology { boxes: common.into_iter().collect(), hosts: self.specs() }
    }

    fn specs(&self) -> Vec<HostSpec> {
        let count = usize::from(self.hosts.clamp(2, 4));
        let has = |mask: u8, host: usize| mask >> host & 1 == 1;
        let spec = |host: usize| {
            let others: Vec<usize> = (0..count).filter(|other| *other != host).collect();
            let finds = others.iter().copied().filter(|peer| self.finds >> (4 * host + peer) & 1 == 1).collect();
            HostSpec {
                v4: has(self.v4, host) || !has(self.v6, host),
                v6: has(self.v6, host),
                nat: has(self.nat, host).then(|| self.kind(host)),
                behind: has(self.shared, host).then_some(0),
                firewall: has(self.firewalls, host).then_some(Behaviour::AddressAndPortDependent),
                relay: has(self.relays, host),
                policy: Policy {
                    allow_relay: !has(self.unrelayed, host),
                    allow_signaling_upgrade: !has(self.unsignaled, host),
                    ..Policy::default()
                },
                remembers: has(self.remembers, host),
                link_mtu: has(self.narrow, host).then_some(NARROW_MTU),
                finds,
                network_key: self.keyed.then_some([7; 32]),
                offload: has(self.offload, host),
                aes: has(self.aes, host),
                ..HostSpec::with_peers(others)
            }
        };
        (0..count).map(spec).collect()
    }

    /// A world in which nothing runs yet.
    pub fn built(&self) -> World {
        let crypto = if self.real { AuditedCrypto::real() } else { AuditedCrypto::stub() };
        World::new(self.seed, crypto, self.topology())
    }

    fn world(&self) -> World {
        let mut world = self.built();
        for host in 0..world.hosts.len() {
            world.start(host);
        }
        world
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setup { seed, hosts, real, keyed, v4, v6, nat, restricted, finds, offload, aes, lossy, .. } = self;
        let Setup { kinds, shared, firewalls, relays, unrelayed, unsignaled, remembers, narrow, .. } = self;
        write!(f, "world seed={seed} hosts={hosts} real={real} keyed={keyed} v4={v4} v6={v6} nat={nat} ")?;
        write!(f, "restricted={restricted} kinds={kinds} shared={shared} firewalls={firewalls} relays={relays} ")?;
        write!(f, "unrelayed={unrelayed} unsignaled={unsignaled} remembers={remembers} narrow={narrow} ")?;
        write!(f, "finds={finds} offload={offload} aes={aes} lossy={lossy}")
    }
}

impl FromStr for Setup {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<Setup, ParseError> {
        let mut words = line.split_whitespace();
        if words.next() != Some("world") {
            return Err(ParseError("a script begins with its world".into()));
        }
        let mut fields = Fields::new(words)?;
        let setup = Setup {
            seed: fields.take("seed")?,
            hosts: fields.take("hosts")?,
            real: fields.take("real")?,
            keyed: fields.take("keyed")?,
            v4: fields.take("v4")?,
            v6: fields.take("v6")?,
            nat: fields.take("nat")?,
            restricted: fields.take("restricted")?,
            kinds: fields.take_or_default("kinds")?,
            shared: fields.take_or_default("shared")?,
            firewalls: fields.take_or_default("firewalls")?,
            relays: fields.take_or_default("relays")?,
            unrelayed: fields.take_or_default("unrelayed")?,
            unsignaled: fields.take_or_default("unsignaled")?,
            remembers: fields.take_or_default("remembers")?,
            narrow: fields.take_or_default("narrow")?,
            finds: fields.take("finds")?,
            offload: fields.take("offload")?,
            aes: fields.take("aes")?,
            lossy: fields.take("lossy")?,
        };
        fields.finish().map(|()| setup)
    }
}

impl Simulated for Setup {
    type Op = Op;

    fn script(seed: u64) -> Script {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(Config::default(), rng);
        let ops = any_ops(profile_of(seed), 60).new_tree(&mut runner).expect("nothing is filtered").current();
        Script { setup: Setup::from_seed(seed), ops }
    }

    fn run(script: &Script) -> Outcome {
        let mut world = script.setup.world();
        for op in &script.ops {
            if std::env::var_os("VINE_SIM_LOG").is_some() {
                println!("{:?} {op}", world.now());
            }
            world.apply(op);
        }
        heal::heal(&mut world, script.setup.lossy);
        let direct = heal::check(&mut world, heal::deadline(script.setup.lossy, &script.ops));
        if !script.setup.lossy {
            trial::run(&mut world, &direct, script.setup.seed);
        }
        world.count_all();
        Outcome { digest: world.trace.digest(), entries: world.trace.entries(), coverage: world.coverage }
    }
}
