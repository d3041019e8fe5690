//! The vocabulary of everything that can happen to simulated nodes.
//!
//! One [`Op`] drives the seeds of the simulator, the property tests, the fuzzers and the committed replay files. Every op is
//! legal in every state of a world: hosts are counted modulo the number there is, captured datagrams modulo what was
//! captured, and what makes no sense at the moment (to crash a host that is down) does nothing. So any list of ops can be
//! cut and reordered, which is what shrinking does.
//!
//! The text form is one op a line, `name field=value ...`; [`Display`](fmt::Display) and [`FromStr`] are each other's inverse.

use proptest::prelude::*;
use vine_core::path::Family;

words! {
    /// What a host sends into the tunnel.
    Traffic {
        /// UDP over IPv4.
        Udp4 = "udp4",
        /// UDP over IPv6.
        Udp6 = "udp6",
        /// TCP over IPv4; several segments are handed over as one packet with segmentation offload.
        Tcp4 = "tcp4",
        /// TCP over IPv6, likewise.
        Tcp6 = "tcp6",
        /// UDP over IPv4, several datagrams in one packet with segmentation offload.
        Uso4 = "uso4",
        /// A protocol of which vine knows nothing, over IPv4.
        Raw4 = "raw4",
        /// The same over IPv6.
        Raw6 = "raw6",
    }
}

words! {
    /// Where an attacker sends a datagram from.
    Origin {
        /// From where the original came.
        Same = "same",
        /// From an address that belongs to nobody.
        Ghost = "ghost",
    }
}

words! {
    /// Which of the two ways between two hosts.
    Way {
        /// Both.
        Both = "both",
        /// What goes by IPv4.
        V4 = "v4",
        /// What goes by IPv6.
        V6 = "v6",
    }
}

impl Way {
    /// The families that go this way.
    pub fn families(self) -> &'static [Family] {
        match self {
            Way::Both => &[Family::V4, Family::V6],
            Way::V4 => &[Family::V4],
            Way::V6 => &[Family::V6],
        }
    }
}

ops! {
    /// Time passes.
    Wait = "wait" {
        /// Microseconds.
        us: u64,
    }
    /// A host sends packets to another one.
    Send = "send" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// What.
        kind: Traffic,
        /// Payload bytes of each packet.
        len: u16,
        /// How many packets.
        count: u8,
    }
    /// A host sends a packet with the source address of a third one.
    Spoof = "spoof" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// Whose address.
        whose: u8,
    }
    /// A host sends a packet to an address that nobody owns.
    Stray = "stray" {
        /// Who sends.
        from: u8,
    }
    /// A host opens a TCP connection to another one, and says how long segments may be.
    Syn = "syn" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// Over IPv6.
        v6: bool,
    }
    /// A host sends a packet every so often from now on.
    Stream = "stream" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// Milliseconds between packets; zero ends it.
        every_ms: u16,
    }
    /// How the network carries what one host sends to another from now on.
    Link = "link" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// By which way.
        way: Way,
        /// One-way delay.
        delay_ms: u16,
        /// Added to it at random, up to this much.
        jitter_ms: u16,
        /// Of a thousand datagrams so many are lost.
        loss: u16,
        /// So many arrive twice.
        duplicate: u16,
        /// So many arrive much later than others.
        reorder: u16,
        /// So many arrive with a flipped bit or cut short.
        corrupt: u16,
    }
    /// Longer IP packets than this are lost on the way from one host to another, and nobody is told.
    Mtu = "mtu" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// By which way.
        way: Way,
        /// The longest; zero for any.
        bytes: u16,
    }
    /// The way from one host to another is narrow from now on.
    Rate = "rate" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// By which way.
        way: Way,
        /// Thousands of bytes a second; zero for as many as there are.
        kbytes: u16,
        /// Thousands of bytes that may wait.
        queue: u16,
    }
    /// Nothing that one host sends to another arrives any more.
    Cut = "cut" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// By which way.
        way: Way,
    }
    /// The opposite of `cut`.
    Mend = "mend" {
        /// Who sends.
        from: u8,
        /// To whom.
        to: u8,
        /// By which way.
        way: Way,
    }
    /// A host gets new underlay addresses.
    Roam = "roam" {
        /// Which host.
        host: u8,
        /// Only the port changes.
        port: bool,
        /// The node is told, as a runtime does that watches the host's addresses.
        told: bool,
    }
    /// A host is carried to another place.
    Resettle = "resettle" {
        /// Which host.
        host: u8,
        /// The number of the NAT that it is behind now; one more than there are for none.
        behind: u8,
        /// The node is told.
        told: bool,
    }
    /// The NATs and the firewall before a host forget everything.
    Rebind = "rebind" {
        /// Which host.
        host: u8,
    }
    /// A datagram that was seen on the wire arrives (again).
    Replay = "replay" {
        /// Which of those captured lately.
        which: u16,
        /// Where from.
        origin: Origin,
    }
    /// A datagram that was seen on the wire comes back to its sender.
    Reflect = "reflect" {
        /// Which of those captured lately.
        which: u16,
    }
    /// A datagram that was seen on the wire arrives with one bit flipped.
    Garble = "garble" {
        /// Which of those captured lately.
        which: u16,
        /// Which bit, modulo its length.
        bit: u16,
    }
    /// A datagram that was seen on the wire arrives without its end.
    Truncate = "truncate" {
        /// Which of those captured lately.
        which: u16,
        /// How many bytes are left, modulo its length.
        len: u16,
    }
    /// Bytes that look like an envelope arrive.
    Garbage = "garbage" {
        /// Where.
        to: u8,
        /// The envelope's type.
        kind: u8,
        /// Bytes of payload.
        len: u16,
    }
    /// A datagram that a relay passed on arrives wrapped into another one of its kind.
    Nest = "nest" {
        /// Which of those captured lately.
        which: u16,
    }
    /// The node and all that it knew are gone.
    Crash = "crash" {
        /// Which host.
        host: u8,
    }
    /// A host that is down starts, with its identity and nothing else.
    Start = "start" {
        /// Which host.
        host: u8,
        /// Its wall clock is off by this much from now on.
        clock_ms: i64,
    }
    /// A node says goodbye and ends.
    Shutdown = "shutdown" {
        /// Which host.
        host: u8,
    }
    /// The configuration is read again.
    Reload = "reload" {
        /// Which host.
        host: u8,
        /// The peer that is not in it any more; the host itself for a complete one.
        without: u8,
    }
    /// The operator of a host permits something else.
    Policy = "policy" {
        /// Which host.
        host: u8,
        /// Whether packets may travel through relays.
        relay: bool,
        /// Whether direct paths may be set up by signaling.
        signal: bool,
    }
    /// Where a peer may be found is looked up again.
    Endpoints = "endpoints" {
        /// Who looks.
        host: u8,
        /// For whom.
        peer: u8,
        /// Whether it is found.
        found: bool,
    }
    /// The operator pings a peer.
    Ping = "ping" {
        /// Which host.
        host: u8,
        /// Whom.
        peer: u8,
    }
    /// The host wakes from sleep.
    Wake = "wake" {
        /// Which host.
        host: u8,
    }
    /// The wall clock is set.
    Clock = "clock" {
        /// Which host.
        host: u8,
        /// How far it is off.
        ms: i64,
    }
    /// `handle_timeout` is called, at a time of the caller's choice.
    Timeout = "timeout" {
        /// Which host.
        host: u8,
        /// How far from the true time, backwards or ahead.
        off_us: i64,
    }
    /// The process of a host stops, and goes on: what arrives meanwhile waits in the socket.
    Stall = "stall" {
        /// Which host.
        host: u8,
        /// Whether it stops.
        on: bool,
    }
    /// A host falls asleep, and wakes: what arrives meanwhile is lost, and the node is told.
    Sleep = "sleep" {
        /// Which host.
        host: u8,
        /// Whether it falls asleep.
        on: bool,
    }
    /// The caller hands inputs in but neither polls outputs nor keeps deadlines.
    Hoard = "hoard" {
        /// Which host.
        host: u8,
        /// Whether it begins.
        on: bool,
    }
}

/// What a list of ops is meant to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// What networks, hosts and operators do.
    Faults,
    /// What no sane caller and every attacker does.
    Calls,
    /// What those go through who need the help of others: long cuts, narrow links, operators who do not permit everything.
    Help,
}

impl Profile {
    /// Every one.
    pub const ALL: &[Profile] = &[Profile::Faults, Profile::Calls, Profile::Help];
}

/// Hosts of the strategies; a world with fewer counts modulo.
const HOSTS: u8 = 4;

/// Any op, as likely as `profile` makes it.
pub fn any_op(profile: Profile) -> BoxedStrategy<Op> {
    if profile == Profile::Help {
        return any_helped().boxed();
    }
    let weigh = move |faults: u32, calls: u32| if profile == Profile::Faults { faults } else { calls };
    prop_oneof![
        weigh(30, 16) => any_wait(profile),
        weigh(30, 20) => any_traffic(),
        weigh(14, 4) => any_network(),
        weigh(4, 24) => any_attack(),
        weigh(8, 6) => any_life(),
        weigh(5, 10) => any_command(),
        weigh(2, 20) => any_call(),
    ]
    .boxed()
}

fn any_helped() -> impl Strategy<Value = Op> {
    // Up to what keys and NATs outlive; once in a while longer than a channel is kept that nobody uses.
    let wait = prop_oneof![
        8 => 50_000u64..3_000_000,
        4 => 3_000_000u64..40_000_000,
        1 => 610_000_000u64..700_000_000,
    ];
    let ends = || (host(), host());
    // As long as IPv6 carries everywhere and longer, so that they have to be cut or refused on the way.
    let long = (ends(), prop::sample::select(Traffic::ALL), 1_150u16..1_380, 1u8..6);
    prop_oneof![
        30 => wait.prop_map(|us| Op::Wait { us }),
        14 => any_traffic(),
        10 => (ends(), 20u16..400).prop_map(|((from, to), every_ms)| Op::Stream { from, to, every_ms }),
        10 => long.prop_map(|((from, to), kind, len, count)| Op::Send { from, to, kind, len, count }),
        6 => (ends(), any::<bool>()).prop_map(|((from, to), v6)| Op::Syn { from, to, v6 }),
        8 => ends().prop_map(|(from, to)| Op::Cut { from, to, way: Way::Both }),
        8 => any_network(),
        3 => any_attack(),
        3 => any::<u16>().prop_map(|which| Op::Nest { which }),
        8 => any_life(),
        4 => host().prop_map(|host| Op::Crash { host }),
        4 => host().prop_map(|host| Op::Start { host, clock_ms: 0 }),
        3 => any_command(),
        2 => (host(), any::<bool>()).prop_map(|(host, on)| Op::Sleep { host, on }),
        4 => (host(), any::<bool>(), any::<bool>()).prop_map(|(host, relay, signal)| Op::Policy { host, relay, signal }),
    ]
}

/// A list of up to `max` ops.
pub fn any_ops(profile: Profile, max: usize) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(any_op(profile), 1..=max)
}

fn host() -> std::ops::Range<u8> {
    0..HOSTS
}

fn any_wait(profile: Profile) -> impl Strategy<Value = Op> {
    // Long enough for idle pairs, and for keys that grow old.
    let long = if profile == Profile::Faults { 20_000_000u64..200_000_000 } else { 0..200_000 };
    prop_oneof![
        4 => 0u64..50_000,
        4 => 50_000u64..1_500_000,
        3 => 1_500_000u64..8_000_000,
        1 => long,
    ]
    .prop_map(|us| Op::Wait { us })
}

fn any_traffic() -> impl Strategy<Value = Op> {
    let kind = prop::sample::select(Traffic::ALL);
    let len = prop_oneof![4 => 8u16..100, 4 => 100u16..1400, 1 => 1400u16..20_000];
    let count = prop_oneof![3 => 1u8..4, 1 => 4u8..46];
    prop_oneof![
        24 => (host(), host(), kind, len, count)
            .prop_map(|(from, to, kind, len, count)| Op::Send { from, to, kind, len, count }),
        6 => (host(), host(), prop_oneof![Just(0u16), 20u16..1000])
            .prop_map(|(from, to, every_ms)| Op::Stream { from, to, every_ms }),
        1 => (host(), host(), host()).prop_map(|(from, to, whose)| Op::Spoof { from, to, whose }),
        1 => host().prop_map(|from| Op::Stray { from }),
    ]
}

fn any_network() -> impl Strategy<Value = Op> {
    let permille = || prop_oneof![3 => Just(0u16), 2 => 1u16..50, 1 => 50u16..400];
    let delay = prop_oneof![4 => 0u16..60, 1 => 60u16..400];
    let jitter = prop_oneof![2 => Just(0u16), 2 => 1u16..40];
    let way = || prop_oneof![3 => Just(Way::Both), 1 => Just(Way::V4), 1 => Just(Way::V6)];
    // From the least that IPv6 has to what Ethernet has.
    let mtu = prop_oneof![1 => Just(0u16), 1 => Just(1_280u16), 2 => 1_280u16..1_500];
    let rate = prop_oneof![1 => Just((0u16, 0u16)), 3 => (2u16..200, 1u16..40)];
    let times = (delay, jitter);
    let link = (host(), host(), way(), times, permille(), permille(), permille(), permille());
    prop_oneof![
        5 => link.prop_map(|(from, to, way, (delay_ms, jitter_ms), loss, duplicate, reorder, corrupt)| Op::Link { from, to, way, delay_ms, jitter_ms, loss, duplicate, reorder, corrupt,
        }),
        2 => (host(), host(), way()).prop_map(|(from, to, way)| Op::Cut { from, to, way }),
        3 => (host(), host(), way()).prop_map(|(from, to, way)| Op::Mend { from, to, way }),
        2 => (host(), host(), way(), mtu).prop_map(|(from, to, way, bytes)| Op::Mtu { from, to, way, bytes }),
        2 => (host(), host(), way(), rate)
            .prop_map(|(from, to, way, (kbytes, queue))| Op::Rate { from, to, way, kbytes, queue }),
        4 => any_place(),
        2 => host().prop_map(|host| Op::Rebind { host }),
    ]
}

fn any_place() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (host(), any::<bool>(), any::<bool>()).prop_map(|(host, port, told)| Op::Roam { host, port, told }),
        1 => (host(), any::<u8>(), any::<bool>()).prop_map(|(host, behind, told)| Op::Resettle { host, behind, told }),
    ]
}

fn any_attack() -> impl Strategy<Value = Op> {
    let origin = prop::sample::select(Origin::ALL);
    prop_oneof![
        4 => (any::<u16>(), origin).prop_map(|(which, origin)| Op::Replay { which, origin }),
        2 => any::<u16>().prop_map(|which| Op::Reflect { which }),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(which, bit)| Op::Garble { which, bit }),
        2 => (any::<u16>(), any::<u16>()).prop_map(|(which, len)| Op::Truncate { which, len }),
        1 => (host(), any::<u8>(), 0u16..600).prop_map(|(to, kind, len)| Op::Garbage { to, kind, len }),
        1 => (host(), 0u8..9, 0u16..600).prop_map(|(to, kind, len)| Op::Garbage { to, kind, len }),
    ]
}

fn any_life() -> impl Strategy<Value = Op> {
    let clock = prop_oneof![2 => Just(0i64), 1 => -100_000_000i64..100_000_000];
    prop_oneof![
        2 => host().prop_map(|host| Op::Crash { host }),
        4 => (host(), clock).prop_map(|(host, clock_ms)| Op::Start { host, clock_ms }),
        1 => host().prop_map(|host| Op::Shutdown { host }),
        2 => (host(), host()).prop_map(|(host, without)| Op::Reload { host, without }),
        1 => host().prop_map(|host| Op::Reload { host, without: host }),
    ]
}

fn any_command() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (host(), host(), any::<bool>()).prop_map(|(host, peer, found)| Op::Endpoints { host, peer, found }),
        2 => (host(), host()).prop_map(|(host, peer)| Op::Ping { host, peer }),
        1 => host().prop_map(|host| Op::Wake { host }),
        1 => (host(), -100_000_000i64..100_000_000).prop_map(|(host, ms)| Op::Clock { host, ms }),
    ]
}

fn any_call() -> impl Strategy<Value = Op> {
    let off = prop_oneof![2 => -5_000_000i64..0, 1 => Just(0i64), 2 => 0i64..2_000_000];
    prop_oneof![
        3 => (host(), off).prop_map(|(host, off_us)| Op::Timeout { host, off_us }),
        1 => (host(), any::<bool>()).prop_map(|(host, on)| Op::Stall { host, on }),
        1 => (host(), any::<bool>()).prop_map(|(host, on)| Op::Sleep { host, on }),
        1 => (host(), any::<bool>()).prop_map(|(host, on)| Op::Hoard { host, on }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #[test]
        fn text_round_trips(op in prop::sample::select(Profile::ALL).prop_flat_map(any_op)) {
            prop_assert_eq!(op.to_string().parse::<Op>(), Ok(op));
        }
    }

    #[test]
    fn what_is_no_op() {
        let parse = |line: &str| line.parse::<Op>().map_err(|error| error.0);
        assert_eq!(parse("wait us=5"), Ok(Op::Wait { us: 5 }));
        assert_eq!(parse("wait"), Err("field \"us\" is missing".into()));
        assert_eq!(parse("wait us=-1"), Err("us=-1 is out of range or no such value".into()));
        assert_eq!(parse("wait us=1 ms=1"), Err("unknown field \"ms\"".into()));
        assert_eq!(parse("wait 5"), Err("\"5\" is not field=value".into()));
        assert_eq!(parse("pause us=5"), Err("no op is called \"pause\"".into()));
        assert!(parse("").is_err());
    }
}
