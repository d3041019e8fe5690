//! The command as its users meet it: exit codes, messages, JSON. Nothing here needs privileges.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A directory to work in.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Desk {
        Desk { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// With an identity in `identity`.
    fn with_identity() -> Desk {
        let desk = Desk::new();
        desk.vine(&["identity", "init", "--path", "identity"]).exits(0);
        desk
    }

    /// With an identity and a valid `vine.toml`.
    fn with_config() -> Desk {
        let desk = Desk::with_identity();
        desk.write("vine.toml", &desk.config(""));
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("the desk can be written");
        self.chmod(name, 0o600);
    }

    fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("the file is ours");
    }

    /// A configuration with something added at its end.
    fn config(&self, more: &str) -> String {
        let port = 20_000 + std::process::id() % 20_000;
        format!(
            "[node]\nname = \"alpha\"\nnetwork_id = \"test\"\nidentity_path = \"identity\"\nstate_dir = \"state\"\n\
             listen = [\"udp://127.0.0.1:{port}\"]\n\n[tun]\naddress = \"10.42.0.1\"\nprefix_len = 24\n{more}"
        )
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vine"));
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null()).env_remove("VINE_LOG");
        command
    }

    fn vine(&self, args: &[&str]) -> Said {
        Said::of(args, self.command(args).output().expect("the binary was built"))
    }
}

/// What a command said.
#[derive(Debug)]
struct Said {
    args: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(args: &[&str], output: Output) -> Said {
        Said {
            args: args.join(" "),
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    #[track_caller]
    fn exits(&self, code: i32) -> &Said {
        assert_eq!(self.code, Some(code), "vine {}: {self:#?}", self.args);
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }

    /// Asserts what stands on standard error.
    #[track_caller]
    fn complains(&self, parts: &[&str]) -> &Said {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing in {self:#?}");
        }
        self
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) -> &Said {
        for part in parts {
            assert!(self.stdout.contains(part), "{part:?} is missing in {self:#?}");
        }
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

#[test]
fn version_help_and_usage() {
    let desk = Desk::new();
    assert_eq!(desk.vine(&["--version"]).exits(0).stdout, format!("vine {}\n", env!("CARGO_PKG_VERSION")));
    let help = desk.vine(&["--help"]);
    help.exits(0).says(&["identity", "config", "doctor", "up", "down", "daemon", "snapshot", "demo", "completions"]);
    help.says(&["why", "netcheck"]);
    for later in ["registry", "replay"] {
        assert!(!help.stdout.contains(later), "{later} does not work in this version");
    }
    desk.vine(&["frobnicate"]).exits(2);
    desk.vine(&["ping"]).exits(2);
    desk.vine(&["why"]).exits(2);
    desk.vine(&["ping", "-n", "0", "beta"]).exits(2);
    desk.vine(&["status", "--format", "yaml"]).exits(2);
}

#[test]
fn an_identity_is_made_shown_and_kept() {
    let desk = Desk::new();
    desk.vine(&["identity", "init", "--path", "deep/identity"]).exits(0).says(&["vine1", "deep/identity"]);
    assert_eq!(fs::metadata(desk.path("deep/identity")).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(desk.path("deep")).unwrap().permissions().mode() & 0o7777, 0o700);

    let shown = desk.vine(&["identity", "show", "--path", "deep/identity", "--format", "json"]).exits(0).json();
    let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["fingerprint", "peer_id", "public_key"]);
    let peer_id = shown["peer_id"].as_str().unwrap();
    assert!(peer_id.starts_with("vine1") && peer_id.len() == 63, "{peer_id}");
    assert_eq!(shown["public_key"].as_str().unwrap().len(), 64);
    let public = desk.vine(&["identity", "export-public", "--path", "deep/identity"]);
    assert_eq!(public.exits(0).stdout.trim(), peer_id);
    let fingerprint = desk.vine(&["identity", "fingerprint", "--path", "deep/identity"]);
    assert_eq!(fingerprint.exits(0).stdout.trim(), shown["fingerprint"]);

    let again = desk.vine(&["identity", "init", "--path", "deep/identity"]);
    again.exits(2).complains(&["deep/identity exists already", "--force"]);
    assert_eq!(desk.vine(&["identity", "export-public", "--path", "deep/identity"]).stdout.trim(), peer_id);
    desk.vine(&["identity", "init", "--path", "deep/identity", "--force"]).exits(0);
    assert_ne!(desk.vine(&["identity", "export-public", "--path", "deep/identity"]).stdout.trim(), peer_id);
}

#[test]
fn an_identity_that_cannot_be_used_is_named_with_its_cure() {
    let desk = Desk::with_identity();
    let show = |parts: &[&str]| {
        let said = desk.vine(&["identity", "show", "--path", "identity"]);
        said.exits(2).complains(&["identity file identity"]).complains(parts);
        assert!(said.stdout.is_empty(), "{said:#?}");
    };
    let text = fs::read_to_string(desk.path("identity")).unwrap();
    desk.chmod("identity", 0o644);
    show(&["mode 0644", "chmod 600 identity"]);
    desk.write("identity", &text[..30]);
    show(&["damaged", "cut short", "--force --path identity"]);
    let flipped: String =
        text.chars().enumerate().map(|(i, c)| if i == 40 { if c == 'q' { 'p' } else { 'q' } } else { c }).collect();
    desk.write("identity", &flipped);
    show(&["damaged", "checksum"]);
    desk.write("identity", "");
    show(&["damaged", "empty"]);
    fs::remove_file(desk.path("identity")).unwrap();
    show(&["does not exist", "vine identity init --path identity"]);
    let json = desk.vine(&["identity", "show", "--path", "identity", "--format", "json"]).exits(2).json();
    assert_eq!(json["error"]["code"], "identity");
}

#[test]
fn the_identity_of_the_configuration_is_the_default() {
    let desk = Desk::with_config();
    let by_path = desk.vine(&["identity", "export-public", "--path", "identity"]).stdout;
    assert_eq!(desk.vine(&["identity", "export-public"]).exits(0).stdout, by_path);
    let elsewhere = Desk::new();
    elsewhere.vine(&["identity", "show"]).exits(2).complains(&["no configuration", "vine config init"]);
}

#[test]
fn config_init_writes_a_valid_file_once() {
    let desk = Desk::new();
    let args = ["config", "init", "--name", "alpha", "--identity-path", "identity", "--state-dir", "state"];
    desk.vine(&args).exits(0).says(&["wrote vine.toml", "vine identity init --path identity"]);
    assert_eq!(fs::metadata(desk.path("vine.toml")).unwrap().permissions().mode() & 0o7777, 0o600);
    desk.vine(&["config", "validate"]).exits(2).complains(&["does not exist", "vine identity init --path"]);
    desk.vine(&["config", "validate", "--without-identity"]).exits(0);
    desk.vine(&["identity", "init"]).exits(0);
    desk.vine(&["config", "validate"]).exits(0).says(&["vine.toml is valid: node alpha of network home-net, 0 peers"]);
    let json = desk.vine(&["config", "validate", "--format", "json"]).exits(0).json();
    assert_eq!(json["valid"], true);
    desk.vine(&args).exits(2).complains(&["exists already", "--force"]);
    desk.vine(&[&args[..], &["--force", "--address", "10.42.7.1/24"]].concat()).exits(0);
    assert!(fs::read_to_string(desk.path("vine.toml")).unwrap().contains("10.42.7.1"));
    desk.vine(&["config", "init", "--force", "--address", "10.42.7.1"]).exits(2).complains(&["--address"]);
}

#[test]
fn all_faults_are_reported_at_once_like_a_compiler_does() {
    let desk = Desk::with_identity();
    let peers =
        "mtu = \"big\"\n[[allowed_peers]]\nname = \"beta\"\npeer_id = \"vine1typo\"\nprefx = \"10.42.1.0/24\"\n";
    desk.write("vine.toml", &desk.config(peers));
    let said = desk.vine(&["config", "validate"]);
    said.exits(2).complains(&[
        "vine.toml:11:7: `mtu` in [tun] must be an integer, not a string\n11 | mtu = \"big\"\n   |       ^^^^^\n",
        "vine.toml:12:1: key `prefix` is missing in [[allowed_peers]]",
        "vine.toml:14:11: not a peer id",
        "vine.toml:15:1: unknown key `prefx` in [[allowed_peers]]; did you mean `prefix`?\n15 | prefx",
    ]);
    let json = desk.vine(&["config", "validate", "--format", "json"]).exits(2).json();
    let faults = json["error"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 4, "{json:#}");
    assert_eq!((&faults[0]["line"], &faults[0]["column"]), (&11.into(), &7.into()));
    // Nothing is touched on the host by a daemon with such a configuration.
    for command in [&["up"][..], &["daemon", "run"], &["daemon", "start"]] {
        desk.vine(command).exits(2).complains(&["vine.toml:15:1: unknown key `prefx`"]);
        assert!(!desk.path("state").exists());
    }
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let desk = Desk::with_config();
    desk.chmod("vine.toml", 0o666);
    desk.vine(&["config", "validate"])
        .exits(2)
        .complains(&["vine.toml: the file is writable by everyone", "chmod go-w"]);
    desk.vine(&["up"]).exits(2).complains(&["writable by everyone"]);
}

#[test]
fn a_stopped_daemon_is_said_to_be_stopped() {
    let desk = Desk::with_config();
    let socket = desk.path("state/vine.sock");
    let live: [&[&str]; 12] = [
        &["status"],
        &["peers"],
        &["routes"],
        &["sessions"],
        &["counters"],
        &["snapshot"],
        &["ping", "beta"],
        &["ping", "10.42.1.1"],
        &["down"],
        &["daemon", "stop"],
        &["daemon", "status"],
        &["daemon", "reload"],
    ];
    let check = |desk: &Desk| {
        for args in live {
            let said = desk.vine(args);
            let message = format!("vine is not running for this configuration (no daemon at {})", socket.display());
            said.exits(1).complains(&[&message]);
            assert!(said.stdout.is_empty(), "{said:#?}");
        }
    };
    check(&desk);
    let json = desk.vine(&["status", "--format", "json"]).exits(1).json();
    assert_eq!(json["error"]["code"], "not_running");
    assert_eq!(desk.vine(&["daemon", "status", "--format", "json"]).exits(1).json()["running"], false);

    // A killed daemon leaves its socket behind.
    fs::create_dir(desk.path("state")).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    check(&desk);

    // What is asked about the daemon needs no more of the configuration than where the daemon is.
    let mut file = fs::OpenOptions::new().append(true).open(desk.path("vine.toml")).unwrap();
    writeln!(file, "nonsense = true").unwrap();
    check(&desk);
}

#[test]
fn no_configuration() {
    let desk = Desk::new();
    if Path::new("/etc/vine/vine.toml").exists() {
        return;
    }
    for args in [&["status"][..], &["up"], &["config", "validate"]] {
        desk.vine(args).exits(2).complains(&["no configuration", "-c PATH", "vine config init"]);
    }
    desk.vine(&["status", "-c", "elsewhere.toml"]).exits(2).complains(&["elsewhere.toml: there is no such file"]);
}

#[test]
fn doctor_reports_each_check_with_its_cure() {
    let desk = Desk::with_config();
    let said = desk.vine(&["doctor"]);
    said.says(&["configuration", "identity", "daemon", "not running", "tun device", "privileges", "port", "cipher"]);
    let json = desk.vine(&["doctor", "--format", "json"]).json();
    for check in json.as_array().unwrap() {
        let result = check["result"].as_str().unwrap();
        assert!(["ok", "warn", "fail"].contains(&result), "{check}");
        assert_eq!(result != "ok", check["cure"].is_string(), "{check}");
    }
    desk.write("vine.toml", "[node]\n");
    let said = desk.vine(&["doctor"]);
    said.exits(1).says(&["fail", "vine.toml", "-> mend"]).complains(&["failed"]);
}

#[test]
fn completions_and_closed_pipes() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        desk.vine(&["completions", shell]).exits(0).says(&["vine", "identity"]);
    }
    let mut child =
        desk.command(&["completions", "bash"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_demo_tells_what_happened() {
    let desk = Desk::new();
    let said = desk.vine(&["demo"]);
    said.exits(0).says(&[
        "alpha   met beta directly by udp 192.0.2.11 -> 192.0.2.12:4100",
        "beta    and gamma talk directly after signaling",
        "alpha   and gamma talk through the relay",
        "fd42:0:0:2::1 in",
        "without an answer; since then pings go through the relay",
        "direct again in both directions",
        "not one datagram came back",
        "is back with the same identity",
        "alpha   knows that gamma is gone",
        "all of this happened",
    ]);
    let json = desk.vine(&["demo", "--format", "json"]);
    let lines: Vec<Value> =
        json.exits(0).stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    assert!(lines.iter().any(|line| line["about"] == "mallory" && line["at_ms"].is_number()), "{json:#?}");
}
