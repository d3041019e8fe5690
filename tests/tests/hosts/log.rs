//! The durable log of a real daemon, through its commands.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use vine_tests::lab::{Finished, Lab, Node, NodeSpec, poll_until, vine_binary};

/// A node on a host of its own, not started.
pub(crate) fn node(lab: &Lab, name: &str, number: u8) -> Node {
    let node = Node::new(&lab.host(name), NodeSpec::numbered(name, number));
    node.write_config();
    node
}

/// Starts the daemon, and waits until it can be asked.
pub(crate) fn start(node: &mut Node) {
    node.start();
    let socket = node.control_socket();
    let answers = poll_until(Duration::from_secs(10), || UnixStream::connect(&socket).ok());
    assert!(answers.is_some(), "the daemon is up: {}", node.daemon().output());
}

/// A `vine` command of this node, with its configuration.
pub(crate) fn command(node: &Node, args: &[&str]) -> Command {
    let mut command = Command::new(vine_binary());
    command.args(args).arg("-c").arg(node.config());
    command
}

fn run(node: &Node, args: &[&str]) -> Finished {
    node.vine(&[args, &["-c", &node.config().to_string_lossy()]].concat())
}

/// Runs a command that has to succeed; what it prints.
#[track_caller]
pub(crate) fn done(node: &Node, args: &[&str]) -> String {
    let finished = run(node, args);
    assert!(finished.ok(), "vine {}: {finished:?}", args.join(" "));
    finished.stdout
}

/// Runs a command that has to fail with exit code 1, and to say these words.
#[track_caller]
fn fails(node: &Node, args: &[&str], words: &[&str]) -> Finished {
    let finished = run(node, args);
    assert_eq!(finished.code, 1, "vine {}: {finished:?}", args.join(" "));
    for word in words {
        assert!(finished.stderr.contains(word), "{word:?} is missing in: {}", finished.stderr);
    }
    finished
}

/// What a command prints as JSON.
#[track_caller]
pub(crate) fn json(node: &Node, args: &[&str]) -> Value {
    let text = done(node, &[args, &["--format", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The lines of JSON that a command prints.
#[track_caller]
pub(crate) fn lines(node: &Node, args: &[&str]) -> Vec<Value> {
    let text = done(node, &[args, &["--format", "json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Runs a command with this standard input.
#[track_caller]
fn fed(node: &Node, args: &[&str], input: &[u8]) -> String {
    let mut child = command(node, args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "vine {}", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

fn state_hash(node: &Node) -> String {
    let verified = json(node, &["log", "verify"]);
    assert_eq!(verified["sound"], true);
    verified["state_hash"].as_str().unwrap().to_owned()
}

/// The files of the log, the oldest first.
fn segments(node: &Node) -> Vec<PathBuf> {
    let entries = fs::read_dir(node.dir().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|name| name == "seg")).collect();
    files.sort();
    files
}

#[test]
fn what_is_appended_comes_back() {
    let Some(lab) = Lab::open("what_is_appended_comes_back") else { return };
    let mut node = node(&lab, "a", 1);
    fails(&node, &["log", "append", "early"], &["not running", "vine daemon start"]);
    fails(&node, &["log", "tail"], &["no log yet"]);
    start(&mut node);

    let position = json(&node, &["log", "append", "one"]);
    assert_eq!((&position["first_seq"], &position["first_ordinal"]), (&0.into(), &0.into()));
    assert!(done(&node, &["log", "append", "two"]).starts_with("ordinal 1, seq 1 of log "));
    fed(&node, &["log", "append", "--lines"], b"three\n\nfive");
    fed(&node, &["log", "append"], b"six\n\xff");
    let ops = lines(&node, &["log", "tail"]);
    let data: Vec<&Value> = ops.iter().map(|op| &op["data"]).collect();
    assert_eq!(data[..5], ["one", "two", "three", "", "five"]);
    assert_eq!(data[5]["base64"], "c2l4Cv8=");
    for (number, op) in ops.iter().enumerate() {
        assert_eq!((op["ordinal"].as_u64(), op["seq"].as_u64()), (Some(number as u64), Some(number as u64)));
        assert_eq!((&op["log"], &op["author"]), (&position["log"], &node.peer_id().into()));
        assert_eq!((&op["author_name"], &op["kind"]), (&"a".into(), &"plain".into()));
    }
    assert!(done(&node, &["log", "tail", "--from", "5"]).ends_with("a  six\\n\\xff\n"));

    let log = &json(&node, &["status"])["log"];
    assert_eq!((&log["state"], &log["ops"], &log["logs"]), (&"open".into(), &6.into(), &1.into()));
    assert!(log["bytes"].as_u64() > Some(0) && log["last_sync_age_s"].is_number(), "{log}");
    assert_eq!(node.stop(), Some(0));

    // Without a daemon it is read all the same, and a new start is a new log behind it.
    assert_eq!(lines(&node, &["log", "tail"]), ops);
    start(&mut node);
    let second = json(&node, &["log", "append", "seven"]);
    assert_eq!((&second["first_seq"], &second["first_ordinal"]), (&0.into(), &6.into()));
    assert_ne!(second["log"], position["log"]);
}

#[test]
fn followers_see_what_is_written_later() {
    let Some(lab) = Lab::open("followers_see_what_is_written_later") else { return };
    let mut node = node(&lab, "a", 1);
    start(&mut node);
    done(&node, &["kv", "put", "colour", "green"]);
    let follow = |args: &[&str]| command(&node, args).stdout(Stdio::piped()).spawn().unwrap();
    let tail = follow(&["log", "tail", "--follow", "--from", "1"]);
    let watch = follow(&["kv", "watch", "col", "--from", "0"]);
    for args in [&["kv", "put", "other", "x"][..], &["kv", "put", "colour", "red"], &["kv", "delete", "colour"]] {
        done(&node, args);
    }
    // The end of the daemon is the end of what it gives.
    assert_eq!(node.stop(), Some(0));
    let text = |child: std::process::Child| String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let tail = text(tail);
    assert_eq!(tail.lines().count(), 3, "{tail}");
    assert!(tail.contains("put other = x") && tail.ends_with("delete colour\n"), "{tail}");
    let watch = text(watch);
    assert!(watch.contains("colour deleted") && !watch.contains("other"), "{watch}");
}

#[test]
fn keys_and_values() {
    let Some(lab) = Lab::open("keys_and_values") else { return };
    let mut node = node(&lab, "a", 1);
    start(&mut node);
    for (key, value) in [("b", "2"), ("a/1", "x"), ("a/2", "y"), ("b", "3")] {
        done(&node, &["kv", "put", key, value]);
    }
    done(&node, &["kv", "put", "--hex", "ff00", "00"]);
    assert_eq!(done(&node, &["kv", "get", "b"]), "3");
    assert_eq!(done(&node, &["kv", "get", "--hex", "ff00"]), "00\n");
    assert_eq!(done(&node, &["kv", "list", "a/"]), "a/1 = x\na/2 = y\n");
    done(&node, &["kv", "delete", "a/1"]);
    fails(&node, &["kv", "get", "a/1"], &["no value"]);
    let listed = lines(&node, &["kv", "list"]);
    assert_eq!(listed.iter().map(|entry| entry["key"].clone()).collect::<Vec<_>>()[..2], ["a/2", "b"]);
    fails(&node, &["kv", "put", &"k".repeat(1025), "x"], &["1025", "1024"]);
    assert_eq!(run(&node, &["kv", "put", "", "x"]).code, 2);
    // They are there after a crash.
    node.crash();
    start(&mut node);
    assert_eq!(lines(&node, &["kv", "list"]), listed);
}

#[test]
fn an_archive_carries_the_log_to_another_machine() {
    let Some(lab) = Lab::open("an_archive_carries_the_log_to_another_machine") else { return };
    let (mut a, mut b) = (node(&lab, "a", 1), node(&lab, "b", 2));
    start(&mut a);
    let input: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    fed(&a, &["log", "append", "--lines"], input.as_bytes());
    done(&a, &["kv", "put", "key", "value"]);
    let archive = lab_file(&a, "archive");
    let path = archive.to_string_lossy().into_owned();
    assert_eq!(json(&a, &["log", "export", &path])["ops"], 5001);
    fails(&a, &["log", "export", &path], &["exists already"]);

    fails(&b, &["log", "import", &path], &["not running", "vine daemon start"]);
    start(&mut b);
    fails(
        &b,
        &["log", "import", &path],
        &["byte", a.peer_id(), "not a member", "[[allowed_peers]]", "nothing was imported"],
    );
    b.allow(&a);
    b.write_config();
    done(&b, &["daemon", "reload"]);
    refuse_what_is_damaged(&b, &archive);
    assert_eq!(json(&b, &["log", "import", &path])["known"], 0);
    assert_eq!(state_hash(&a), state_hash(&b));
    assert_eq!(lines(&a, &["log", "tail"]), lines(&b, &["log", "tail"]), "names aside, the same");
    assert_eq!(json(&b, &["log", "import", &path])["new"], 0, "again, it is known");
    b.crash();
    assert_eq!(state_hash(&a), state_hash(&b), "and it stays");
}

fn lab_file(node: &Node, name: &str) -> PathBuf {
    node.host().dir().join(name)
}

/// Cut, forged and foreign archives.
fn refuse_what_is_damaged(node: &Node, archive: &std::path::Path) {
    let whole = fs::read(archive).unwrap();
    let bad = lab_file(node, "bad");
    let path = bad.to_string_lossy().into_owned();
    fs::write(&bad, &whole[..whole.len() - 10]).unwrap();
    fails(node, &["log", "import", &path], &["byte", "cut off", "nothing was imported"]);
    let mut forged = whole.clone();
    forged[whole.len() / 2] ^= 1;
    fs::write(&bad, &forged).unwrap();
    fails(node, &["log", "import", &path], &["byte", "nothing was imported"]);
    fs::write(&bad, b"something else altogether").unwrap();
    fails(node, &["log", "import", &path], &["no archive"]);
    let mut foreign = whole;
    foreign[9] ^= 1;
    fs::write(&bad, &foreign).unwrap();
    fails(node, &["log", "import", &path], &["nothing was imported"]);
    assert_eq!(json(node, &["status"])["log"]["ops"], 0);
}

#[test]
fn damage_is_named_and_the_rest_stays_in_use() {
    let Some(lab) = Lab::open("damage_is_named_and_the_rest_stays_in_use") else { return };
    let mut node = node(&lab, "a", 1);
    start(&mut node);
    for number in 0..20 {
        done(&node, &["log", "append", &format!("op {number}")]);
    }
    assert_eq!(node.stop(), Some(0));
    let file = segments(&node).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(5).position(|window| window == b"op 10").unwrap();
    bytes[at] ^= 0x20;
    fs::write(&file, &bytes).unwrap();

    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    for is_running in [false, true] {
        if is_running {
            start(&mut node);
        }
        let verified = run(&node, &["log", "verify", "--format", "json"]);
        assert_eq!(verified.code, 1, "{verified:?}");
        let verified: Value = serde_json::from_str(&verified.stdout).unwrap();
        let finding = &verified["findings"][0];
        assert_eq!((&verified["sound"], &finding["file"]), (&false.into(), &name.as_str().into()));
        assert!(finding["bytes"][0].as_u64() <= Some(at as u64) && finding["bytes"][1].as_u64() > Some(at as u64));
        assert_eq!(finding["ordinals"], serde_json::json!([10, 10]));
        assert_eq!(
            (&finding["positions"][0]["first_seq"], &finding["positions"][0]["last_seq"]),
            (&10.into(), &10.into())
        );
        let tail = fails(&node, &["log", "tail"], &["ordinals 10 to 10", &name, "vine log verify"]);
        assert_eq!(tail.stdout.lines().count(), 19);
        let archive = lab_file(&node, &format!("archive-{is_running}"));
        fails(&node, &["log", "export", &archive.to_string_lossy()], &["lacks 10 ops", "damage"]);
    }
    let status = done(&node, &["status"]);
    assert!(status.contains("damaged: 1 finding"), "{status}");
    assert!(node.daemon().output().contains("damaged after it was durable"));
    assert_eq!(json(&node, &["log", "append", "more"])["first_ordinal"], 20);
}

#[test]
fn a_log_that_cannot_be_opened_keeps_no_peer_away() {
    let Some(lab) = Lab::open("a_log_that_cannot_be_opened_keeps_no_peer_away") else { return };
    let mut node = node(&lab, "a", 1);
    start(&mut node);
    done(&node, &["log", "append", "mine"]);
    assert_eq!(node.stop(), Some(0));
    let identity = node.dir().join("identity").to_string_lossy().into_owned();
    done(&node, &["identity", "init", "--force", "--path", &identity]);
    start(&mut node);
    let owner = node.peer_id().to_owned();
    let words = ["is that of", &owner, "identity_path"];
    for args in [&["log", "append", "x"][..], &["kv", "get", "x"], &["log", "tail"], &["log", "verify"]] {
        fails(&node, args, &words);
    }
    let status = json(&node, &["status"]);
    assert_eq!((&status["phase"], &status["log"]["state"]), (&"running".into(), &"failed".into()));
    assert!(status["log"]["error"].as_str().unwrap().contains(&owner));
    assert_eq!(node.stop(), Some(0));
    fails(&node, &["log", "tail"], &words);
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let Some(lab) = Lab::open("a_full_disk_refuses_writes_until_there_is_room") else { return };
    let node = node(&lab, "a", 1);
    let dir = node.dir().join("log");
    fs::create_dir(&dir).unwrap();
    let config = fs::read_to_string(node.config()).unwrap();
    fs::write(node.config(), config + "\n[log]\nmin_free_bytes = 0\nsegment_bytes = 2097152\n").unwrap();
    // The mount is of this test's own processes, and goes with them.
    let script = format!(
        "mount -t tmpfs -o size=6m tmpfs {dir} && exec {vine} up -c {config}",
        dir = dir.display(),
        vine = vine_binary().display(),
        config = node.config().display()
    );
    let mut daemon = node.host().spawn("full", "unshare", &["-m", "sh", "-c", &script]);
    let socket = node.control_socket();
    assert!(poll_until(Duration::from_secs(10), || UnixStream::connect(&socket).ok()).is_some(), "{}", daemon.output());
    let value = "x".repeat(100_000);
    let refused = (0..100).find_map(|_| {
        let written = run(&node, &["log", "append", &value]);
        (!written.ok()).then_some(written)
    });
    let refused = refused.expect("6 MiB are not enough for 10 MB");
    assert!(refused.stderr.contains("no space left") && refused.stderr.contains("free some space"), "{refused:?}");
    let log = &json(&node, &["status"])["log"];
    assert_eq!(log["state"], "full", "{log}");
    let ops = log["ops"].as_u64().unwrap();
    let room = format!("mount -o remount,size=40m tmpfs {}", dir.display());
    let pid = daemon.pid().to_string();
    assert!(node.host().run("nsenter", &["-m", "-t", &pid, "sh", "-c", &room]).ok());
    let written = poll_until(Duration::from_secs(5), || {
        let written = run(&node, &["log", "append", &value, "--format", "json"]);
        written.ok().then(|| serde_json::from_str::<Value>(&written.stdout).unwrap())
    });
    assert_eq!(written.expect("it goes on by itself")["first_ordinal"], ops);
    assert_eq!(json(&node, &["status"])["log"]["state"], "open");
    assert_eq!(lines(&node, &["log", "tail"]).len() as u64, ops + 1);
    daemon.kill();
}

#[test]
fn what_the_readme_says_of_the_log() {
    let Some(lab) = Lab::open("what_the_readme_says_of_the_log") else { return };
    let mut node = node(&lab, "a", 1);
    start(&mut node);
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let section = readme.split("## Write something down").nth(1).expect("the section is there");
    let commands = section.split("```").nth(1).and_then(|block| block.strip_prefix("sh\n")).expect("it has commands");
    let script = format!(
        "set -eu\ncd '{dir}'\nsudo() {{ \"$@\"; }}\nvine() {{ '{vine}' \"$@\" -c '{config}'; }}\n{commands}",
        dir = node.host().dir().display(),
        vine = vine_binary().display(),
        config = node.config().display()
    );
    let played = node.host().run("sh", &["-c", &script]);
    assert!(played.ok(), "{played:?}");
    for words in ["ordinal 0, seq 0 of log ", "\nclosed", "a  put door = closed\n", "the log is whole: 1002 ops"] {
        assert!(played.stdout.contains(words), "{words:?} is missing in: {}", played.stdout);
    }
    assert!(lab_file(&node, "backup.vinelog").exists());
}
