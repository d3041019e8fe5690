//! One test a fault, and one file that has most of them at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A directory with an identity and a configuration that is valid as it stands.
struct Fixture {
    dir: tempfile::TempDir,
    own: PeerId,
}

/// Peer ids of other machines.
fn id(seed: u8) -> String {
    Identity::from_seed([seed; 32]).peer_id().to_string()
}

impl Fixture {
    fn new() -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let identity = crate::identity_file::create(&dir.path().join("identity"), false).expect("an identity");
        Fixture { dir, own: identity.peer_id() }
    }

    fn valid() -> String {
        format!(
            r#"
[node]
name = "alpha"
network_id = "home-net"
identity_path = "identity"
listen = ["udp://0.0.0.0:4100", "udp://[::]:4100"]
state_dir = "state"
control_socket = "/run/vine/vine.sock"
network_key = "{key}"

[tun]
name = "vine0"
address = "10.42.0.1"
prefix_len = 24
mtu = 1400

[[bootstrap_peers]]
peer_id = "{beta}"
address = "udp://198.51.100.40:4100"

[[bootstrap_peers]]
peer_id = "{beta}"
address = "udp://beta.example.org:4100"

[[allowed_peers]]
name = "beta"
peer_id = "{beta}"
prefix = "10.42.1.0/24"
relay_capable = true

[[allowed_peers]]
name = "gamma"
peer_id = "{gamma}"
prefixes = ["10.42.2.0/24", "fd42:2::/64"]

[policy]
strict_allowlist = true
allow_relay = true
allow_signaling_upgrade = false
"#,
            key = "5a".repeat(32),
            beta = id(2),
            gamma = id(3),
        )
    }

    fn load(&self, text: &str) -> Result<Config, Faults> {
        let path = self.dir.path().join("vine.toml");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        load(&path).map(|(config, _)| config)
    }

    /// The single fault of the valid text with `old` replaced, without the file's path: `line:column: message`.
    fn fault(&self, old: &str, new: &str) -> String {
        let valid = Self::valid();
        assert!(valid.contains(old), "the valid text has no {old:?}");
        let faults = self.load(&valid.replacen(old, new, 1)).expect_err(new);
        assert_eq!(faults.len(), 1, "one fault, not:\n{faults}");
        let text = faults.to_string();
        let path = self.dir.path().join("vine.toml").display().to_string();
        let first = text.lines().next().expect("a line");
        first.strip_prefix(&path).expect("the path comes first").trim_start_matches(':').trim().to_owned()
    }
}

#[track_caller]
fn says(fault: &str, parts: &[&str]) {
    for part in parts {
        assert!(fault.contains(part), "{part:?} is not in {fault:?}");
    }
}

#[test]
fn a_valid_file_means_what_it_says() {
    let fixture = Fixture::new();
    let config = fixture.load(&Fixture::valid()).unwrap();
    assert_eq!(config.node.name, "alpha");
    assert_eq!(config.node.listen.len(), 2);
    assert_eq!(config.node.state_dir, fixture.dir.path().join("state"));
    assert_eq!(config.node.control_socket, Path::new("/run/vine/vine.sock"));
    assert_eq!(config.node.network_key.as_ref().map(|key| key.as_bytes()[0]), Some(0x5a));
    assert_eq!(config.tun.addresses, [("10.42.0.1".parse().unwrap(), 24)]);
    assert_eq!(config.tun.own_prefixes(), ["10.42.0.0/24".parse().unwrap()]);
    assert_eq!(config.tun.mtu, 1400);
    let [beta, gamma] = &config.peers[..] else { panic!("two peers") };
    assert_eq!(beta.endpoints.len(), 2);
    assert!(beta.relay_capable && !gamma.relay_capable);
    assert_eq!(gamma.prefixes.len(), 2);
    assert!(config.policy.allow_relay && !config.policy.allow_signaling_upgrade);
    assert_eq!(config.warnings, [""; 0]);
    assert_eq!(format!("{:?}", config.node.network_key), "Some(NetworkKey(..))");
}

#[test]
fn defaults_are_those_of_the_design() {
    let fixture = Fixture::new();
    let text = r#"
        node = { name = "alpha", network_id = "n", identity_path = "identity" }
        tun = { addresses = ["10.42.0.1/24", "fd42::1/64", "10.42.0.2/24"] }
    "#;
    let config = fixture.load(text).unwrap();
    assert_eq!(config.node.listen, ["0.0.0.0:4100".parse().unwrap()]);
    assert_eq!(config.node.state_dir, Path::new("/var/lib/vine"));
    assert_eq!(config.node.control_socket, Path::new("/var/lib/vine/vine.sock"));
    assert_eq!((config.tun.name.as_str(), config.tun.mtu), ("vine0", 1400));
    assert_eq!(config.tun.own_prefixes().len(), 2);
    assert!(config.policy.allow_relay && config.policy.allow_signaling_upgrade);
    assert_eq!(config.warnings.len(), 1, "a node without peers is worth a word");
}

#[test]
fn what_a_relay_grants() {
    let f = Fixture::new();
    let config = f.load(&Fixture::valid()).expect("it is valid");
    assert_eq!(config.policy.relay, RelayLimits::default());
    let text =
        format!("{}\n[relay]\nchannels = 10\npeer_channels = 3\npeer_kilobytes_per_second = 2000\n", Fixture::valid());
    let relay = f.load(&text).expect("it is valid").policy.relay;
    assert_eq!((relay.channels, relay.channels_per_peer), (10, 3));
    let rate = relay.bytes_per_peer.expect("there is a rate");
    assert_eq!((rate.units, rate.per.as_secs(), rate.burst), (2_000_000, 1, 500_000));
    let text = format!("{}\n[relay]\npeer_channels = 0\n", Fixture::valid());
    assert!(f.load(&text).is_err());
}

#[test]
fn the_template_is_valid() {
    let fixture = Fixture::new();
    let text = template(&Template {
        name: "alpha",
        network_id: "quote \" and \\ and \u{7}",
        identity_path: Path::new("identity"),
        state_dir: Path::new("state"),
        address: "10.42.0.1",
        prefix_len: 24,
    });
    let config = fixture.load(&text).unwrap();
    assert_eq!(config.node.network_id.as_str(), "quote \" and \\ and \u{7}");
    // What is commented out is valid too, once it is filled in.
    let text =
        text.replace("# [[", "[[").replace("# peer_id", "peer_id").replace("# address = \"udp", "address = \"udp");
    let text =
        text.replace("# name", "name").replace("# prefix =", "prefix =").replace("# relay_capable", "relay_capable");
    let text = text.replace("vine1...", &id(2));
    assert_eq!(fixture.load(&text).unwrap().peers[0].endpoints.len(), 1);
}

#[test]
fn unknown_keys_and_sections() {
    let f = Fixture::new();
    says(
        &f.fault("prefix = \"10.42.1.0/24\"", "prefix = \"10.42.1.0/24\"\nrelay_capabel = true"),
        &["29:1:", "unknown key `relay_capabel` in [[allowed_peers]]; did you mean `relay_capable`?"],
    );
    says(&f.fault("mtu = 1400", "mut = 1400"), &["15:1:", "unknown key `mut` in [tun]; did you mean `mtu`?"]);
    says(&f.fault("[policy]", "[polices]"), &["unknown key `polices` in the file; did you mean `policy`?"]);
    says(&f.fault("mtu = 1400", "colour = \"green\""), &["unknown key `colour` in [tun]; known here: name, "]);
}

#[test]
fn wrong_types() {
    let f = Fixture::new();
    says(&f.fault("name = \"alpha\"", "name = 3"), &["3:8:", "`name` in [node] must be a string, not an integer"]);
    says(&f.fault("mtu = 1400", "mtu = \"1400\""), &["`mtu` in [tun] must be an integer, not a string"]);
    says(&f.fault("mtu = 1400", "mtu = 1400.5"), &["not a number with a fraction"]);
    says(&f.fault("relay_capable = true", "relay_capable = \"yes\""), &["must be true or false, not a string"]);
    says(
        &f.fault("prefixes = [\"10.42.2.0/24\", \"fd42:2::/64\"]", "prefixes = \"10.42.2.0/24\""),
        &["must be a list of strings"],
    );
    says(&f.fault("\"fd42:2::/64\"]", "7]"), &["an entry of `prefixes` must be a string, not an integer"]);
}

#[test]
fn sections_of_the_wrong_shape() {
    let f = Fixture::new();
    says(&f.fault("[policy]", "[[policy]]"), &["`policy` is a table, written [policy], not a list"]);
    let faults = f.load("allowed_peers = 3\nbootstrap_peers = [4]").unwrap_err().to_string();
    says(&faults, &["1:17: `allowed_peers` is a list of tables", "2:20: an entry of `bootstrap_peers` is a table"]);
}

#[test]
fn missing_keys() {
    let f = Fixture::new();
    says(&f.fault("name = \"alpha\"\n", ""), &["2:1:", "key `name` is missing in [node]"]);
    says(&f.fault("network_id = \"home-net\"\n", ""), &["key `network_id` is missing"]);
    says(&f.fault("identity_path = \"identity\"\n", ""), &["key `identity_path` is missing"]);
    says(&f.fault("prefix_len = 24\n", ""), &["key `prefix_len` is missing in [tun]"]);
    says(&f.fault("name = \"beta\"\n", ""), &["25:1:", "key `name` is missing in [[allowed_peers]]"]);
    says(&f.fault("prefix = \"10.42.1.0/24\"\n", ""), &["key `prefix` is missing in [[allowed_peers]]"]);
    says(
        &f.fault("address = \"udp://198.51.100.40:4100\"\n", ""),
        &["key `address` is missing in [[bootstrap_peers]]"],
    );
    let faults = f.load("").unwrap_err().to_string();
    says(&faults, &["section [node] is missing", "section [tun] is missing"]);
}

#[test]
fn bad_addresses() {
    let f = Fixture::new();
    says(&f.fault("udp://0.0.0.0:4100", "tcp://0.0.0.0:4100"), &["6:11:", "`tcp://` is not in this version"]);
    says(&f.fault("udp://0.0.0.0:4100", "quic://0.0.0.0:4100"), &["`quic://` is not in this version"]);
    says(&f.fault("udp://[::]:4100", "udp://0.0.0.0:4100"), &["cannot both be listened on"]);
    says(&f.fault("udp://[::]:4100", "udp://127.0.0.1:4100"), &["cannot both be listened on"]);
    says(
        &f.fault("udp://198.51.100.40:4100", "udp://198.51.100.400:4100"),
        &["19:11:", "neither an IP address nor a host name"],
    );
    says(&f.fault("udp://198.51.100.40:4100", "udp://beta.example.org:4100"), &["listed twice for this peer"]);
    says(&f.fault("[\"udp://0.0.0.0:4100\", \"udp://[::]:4100\"]", "[]"), &["`listen` is empty"]);
    says(&f.fault("/run/vine/vine.sock", &format!("/{}", "x".repeat(120))), &["121 bytes", "at most 107"]);
}

#[test]
fn the_tun_device() {
    let f = Fixture::new();
    says(&f.fault("vine0", "a-name-that-is-long"), &["12:8:", "at most 15 bytes"]);
    says(&f.fault("mtu = 1400", "mtu = 1279"), &["15:7:", "must lie between 1280 and"]);
    says(&f.fault("mtu = 1400", "mtu = 65536"), &["must lie between"]);
    says(&f.fault("mtu = 1400", "mtu = 99999999999999999999999999"), &["must lie between"]);
    says(&f.fault("prefix_len = 24", "prefix_len = 33"), &["14:14:", "up to 32"]);
    says(&f.fault("10.42.0.1", "10.42.0.1/24"), &["goes into `prefix_len`"]);
    says(&f.fault("10.42.0.1", "10.42.0.0"), &["the network's own address"]);
    says(&f.fault("10.42.0.1", "10.42.0.255"), &["the broadcast address"]);
    says(&f.fault("10.42.0.1", "127.0.0.1"), &["cannot be the address of a network interface"]);
    says(&f.fault("mtu = 1400", "addresses = [\"fd42::1/64\"]"), &["exclude each other"]);
    let list = |list: &str| f.fault("address = \"10.42.0.1\"\nprefix_len = 24", &format!("addresses = {list}"));
    says(&list("[]"), &["names no address"]);
    says(&list("[\"10.42.0.1\"]"), &["has no prefix length"]);
    says(&list("[\"10.42.0.1/24\", \"10.42.0.1/25\"]"), &["listed twice"]);
}

#[test]
fn bad_and_overlapping_prefixes() {
    let f = Fixture::new();
    says(&f.fault("10.42.1.0/24", "10.42.1.7/24"), &["28:10:", "write 10.42.1.0/24"]);
    says(&f.fault("10.42.1.0/24", "10.42.1.0/40"), &["up to 32"]);
    says(&f.fault("10.42.1.0/24", "10.42.1.0"), &["10.42.1.0/32"]);
    says(&f.fault("10.42.1.0/24", "10.42.2.128/25"), &["overlaps that of `beta`, 10.42.2.128/25 (line 28)"]);
    says(&f.fault("10.42.1.0/24", "10.42.0.64/26"), &["overlaps this node's own, 10.42.0.0/24 (line 13)", "one owner"]);
    says(&f.fault("fd42:2::/64", "10.42.2.0/30"), &["overlaps 10.42.2.0/24 of the same peer"]);
}

#[test]
fn whose_peer_ids() {
    let f = Fixture::new();
    let peer = format!("name = \"gamma\"\npeer_id = \"{}\"", id(3));
    let gamma = |id: &str| f.fault(&peer, &format!("name = \"gamma\"\npeer_id = \"{id}\""));
    says(&gamma(&f.own.to_string()), &["33:11:", "this node's own peer id"]);
    says(&gamma(&id(2)), &["duplicate peer", "line 27"]);

    let mut typo = id(3).into_bytes();
    typo[20] = if typo[20] == b'q' { b'p' } else { b'q' };
    let typo = String::from_utf8(typo).unwrap();
    says(&gamma(&typo), &["not a peer id", "probably character 21"]);
    says(&gamma("vine1short"), &["not a peer id"]);

    // The same point but for its sign: another peer id, the same X25519 key.
    let mut mirrored = *Identity::from_seed([2; 32]).peer_id().as_bytes();
    mirrored[31] ^= 0x80;
    let mirrored = PeerId::from_bytes(mirrored).unwrap();
    says(&gamma(&mirrored.to_string()), &["the one in line 27 are the same key"]);
    let mut mirrored = *f.own.as_bytes();
    mirrored[31] ^= 0x80;
    says(&gamma(&PeerId::from_bytes(mirrored).unwrap().to_string()), &["this node's own are the same key"]);
}

#[test]
fn names_are_unique() {
    let f = Fixture::new();
    says(&f.fault("name = \"gamma\"", "name = \"beta\""), &["32:8:", "duplicate name `beta`", "line 26"]);
    says(&f.fault("name = \"gamma\"", "name = \"alpha\""), &["duplicate name `alpha`: this node has it"]);
    says(&f.fault("name = \"gamma\"", "name = \"10.0.0.1\""), &["cannot be a name"]);
}

#[test]
fn bootstrap_peers_are_allowed_peers() {
    let f = Fixture::new();
    let boot = format!("peer_id = \"{}\"\naddress = \"udp://198", id(2));
    let bootstrap = |id: &str| f.fault(&boot, &format!("peer_id = \"{id}\"\naddress = \"udp://198"));
    says(&bootstrap(&id(9)), &["18:11:", "is in no [[allowed_peers]]"]);
    says(&bootstrap(&f.own.to_string()), &["does not bootstrap from itself"]);
}

#[test]
fn what_this_version_has_not() {
    let f = Fixture::new();
    says(&f.fault("strict_allowlist = true", "strict_allowlist = false"), &["37:20:", "not in this version"]);
}

#[test]
fn network_ids_and_keys() {
    let f = Fixture::new();
    says(&f.fault("home-net", ""), &["network_id has 0 bytes"]);
    says(&f.fault("home-net", &"n".repeat(65)), &["network_id has 65 bytes"]);
    let key = f.fault(&"5a".repeat(32), &"5a".repeat(31));
    says(&key, &["64 hexadecimal digits; this one has 62"]);
    assert!(!key.contains("5a5a"), "{key}");
}

#[test]
fn the_identity_is_read_with_the_configuration() {
    let f = Fixture::new();
    says(
        &f.fault("identity_path = \"identity\"", "identity_path = \"nowhere\""),
        &["5:17:", "does not exist", "vine identity init"],
    );
    let path = f.dir.path().join("identity");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    says(&f.load(&Fixture::valid()).unwrap_err().to_string(), &["mode 0644", "chmod 600"]);
    let without = load_without_identity(&f.dir.path().join("vine.toml"));
    assert_eq!(without.unwrap().peers.len(), 2);
}

#[test]
fn permissions_of_the_file() {
    let f = Fixture::new();
    f.load(&Fixture::valid()).unwrap();
    let path = f.dir.path().join("vine.toml");
    for (mode, who) in [(0o666, "everyone"), (0o602, "everyone"), (0o660, "its group")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        says(&load(&path).unwrap_err().to_string(), &["writable by", who, "chmod go-w"]);
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(load(&path).unwrap().0.warnings[0].contains("network key"));
}

#[test]
fn files_that_are_no_configuration() {
    let f = Fixture::new();
    let path = f.dir.path().join("vine.toml");
    says(&load(&path).unwrap_err().to_string(), &["no such file", "vine config init"]);
    fs::write(&path, b"[node]\nname = \"\xff\"").unwrap();
    says(&load(&path).unwrap_err().to_string(), &["line 2 is not UTF-8"]);
    says(&load(f.dir.path()).unwrap_err().to_string(), &["not a file"]);
}

#[test]
fn torn_syntax_is_reported_without_what_follows_from_it() {
    let f = Fixture::new();
    says(&f.fault("name = \"alpha\"", "name = "), &["3:8:"]);
    says(&f.fault("name = \"alpha\"", "name = \"alpha\"\nname = \"again\""), &["4:1:", "duplicate key"]);
}

#[test]
fn all_faults_at_once_in_the_order_of_the_text() {
    let f = Fixture::new();
    let text = format!(
        r#"[node]
name = "al pha"
network_id = ""
identity_path = "identity"
listen = ["tcp://0.0.0.0:4100", 7]
network_key = "abc"
colour = "green"
[tun]
name = "much-too-long-a-name"
address = "10.42.0.1"
prefix_len = 40
mtu = 100
[[bootstrap_peers]]
peer_id = "{stranger}"
address = "198.51.100.40"
[[allowed_peers]]
name = "beta"
peer_id = "{beta}"
prefx = "10.42.1.0/24"
[[allowed_peers]]
name = "beta"
peer_id = "{beta}"
prefix = "10.42.2.1/24"
[[allowed_peers]]
name = "own"
peer_id = "{own}"
prefixes = ["10.42.3.0/24", "10.42.3.0/25"]
[policy]
strict_allowlist = false
allow_relay = 1
"#,
        stranger = id(9),
        beta = id(2),
        own = f.own
    );
    let faults = f.load(&text).unwrap_err();
    let report = faults.to_string();
    let places: Vec<(usize, usize)> =
        faults.reports().iter().map(|fault| fault.place().expect("every fault has a place")).collect();
    let lines: Vec<usize> = places.iter().map(|place| place.0).collect();
    assert_eq!(lines, [2, 3, 5, 5, 6, 7, 9, 11, 12, 14, 15, 16, 19, 21, 22, 23, 26, 27, 29, 30], "{report}");
    assert!(places.is_sorted());
    says(&report, &["vine.toml:19:1: unknown key `prefx` in [[allowed_peers]]; did you mean `prefix`?"]);
}

#[test]
fn live_commands_need_only_the_socket() {
    let f = Fixture::new();
    let path = f.dir.path().join("vine.toml");
    fs::write(&path, "[node]\nstate_dir = \"here\"\nname = 3\nwhat = 4\n[tun]\nmtu = = 3\n").unwrap();
    assert_eq!(control_socket(&path).unwrap(), f.dir.path().join("here/vine.sock"));
    fs::write(&path, "[node]\ncontrol_socket = 3\n").unwrap();
    says(&control_socket(&path).unwrap_err().to_string(), &["2:18:", "must be a string"]);
}

#[test]
fn the_log_is_on_with_its_limits() {
    let fixture = Fixture::new();
    assert_eq!(fixture.load(&Fixture::valid()).unwrap().log, Log::default());
    let text = Fixture::valid()
        + "[log]\nenabled = false\nauthor_bytes = 5\nmax_bytes = 1_073_741_824\nsegment_bytes = 4194304\nview_bytes = 2097152\nmin_free_bytes = 0\n";
    let log = fixture.load(&text).unwrap().log;
    let asked = Log {
        enabled: false,
        max_bytes: 1 << 30,
        author_bytes: 5,
        segment_bytes: 4 << 20,
        view_bytes: 2 << 20,
        min_free_bytes: Some(0),
    };
    assert_eq!(log, asked);
}

#[test]
fn limits_of_the_log() {
    let fixture = Fixture::new();
    let with = |lines: &str| fixture.fault("[policy]", &format!("[log]\n{lines}\n[policy]"));
    says(&with("segment_bytes = 1000"), &["`segment_bytes` in [log] must lie between 2097152 and 1073741824"]);
    says(&with("max_bytes = 8000000"), &["37:13", "room for 4 segments", "at least 268435456", "67108864"]);
    says(&with("max_bytes = -1"), &["must lie between"]);
    says(&with("max_bytes = \"4 GiB\""), &["must be an integer, not a string"]);
    says(&with("view_bytes = 10"), &["`view_bytes`", "1048576"]);
    says(&with("max_size = 10"), &["unknown key `max_size`", "max_bytes"]);
    says(&with("enabled = 1"), &["must be true or false"]);
}
