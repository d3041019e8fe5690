//! The store under strace: what it asks of the system, in which order, and what it does when the system refuses.
//!
//! Each test runs this executable again, under strace, with the test `child` as the program to look at.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use common::{all, identity, open, options, text, texts};
use vine_store::{Handle, Options};

/// Says to the test `child` in which directory it is to work.
const DIR: &str = "VINE_STORE_TEST_DIR";
/// How many ops each thread of the child writes.
const OPS: &str = "VINE_STORE_TEST_OPS";
const THREADS: usize = 3;

/// The program: writes from several threads, and says of each op on standard output when it is acknowledged, with a
/// system call of its own.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let ops: usize = std::env::var(OPS).unwrap().parse().unwrap();
    let small = Options { segment_bytes: 16 * 1024, ..options() };
    let store = match Handle::open(Path::new(&dir), identity(), small) {
        Ok(store) => store,
        Err(error) => return say(&format!("error {error}")),
    };
    let writers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let store = store.clone();
            thread::spawn(move || {
                for op in 0..ops {
                    let op = format!("op-{thread}-{op:05}-{}", "x".repeat(1000));
                    match store.append(vec![text(&op)]).wait() {
                        Ok(_) => say(&format!("acked {}", &op[..10])),
                        Err(error) => say(&format!("error {error}")),
                    }
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    if let Err(error) = store.close().wait() {
        say(&format!("error {error}"));
    }
}

/// One write(2).
fn say(line: &str) {
    // Not through the test harness's lock and buffer.
    let mut stdout = fs::File::options().append(true).open("/proc/self/fd/1").unwrap();
    stdout.write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Runs the child under strace with these options; its trace goes to `log`.
fn strace(dir: &Path, log: &Path, ops: usize, args: &[String]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", "strace"]);
    command.args(["-f", "-s", "1000000", "-o"]).arg(log).args(args);
    command.arg("--").arg(std::env::current_exe().unwrap()).args(["--exact", "child", "--nocapture"]);
    command.env(DIR, dir).env(OPS, ops.to_string());
    command.output().expect("strace is installed: scripts/test.sh does that")
}

fn lines<'a>(output: &'a str, what: &'a str) -> impl Iterator<Item = &'a str> {
    output.lines().filter_map(move |line| line.strip_prefix(what)?.strip_prefix(' '))
}

/// A system call of a trace, with the lines at which it began and returned.
#[derive(Debug)]
struct Call {
    name: String,
    args: String,
    result: String,
    began: usize,
    ended: usize,
}

impl Call {
    /// Its first argument, where that is a descriptor.
    fn fd(&self) -> Option<&str> {
        self.args.split([',', ')']).next().filter(|fd| fd.parse::<u32>().is_ok())
    }

    fn is_ok(&self) -> bool {
        !self.result.trim_start().starts_with('-')
    }
}

/// Puts the two halves of calls together that another thread interrupted.
fn calls(trace: &str) -> Vec<Call> {
    let (mut done, mut open): (Vec<Call>, Vec<(String, Call)>) = (Vec::new(), Vec::new());
    for (number, line) in trace.lines().enumerate() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let at = open.iter().position(|(of, _)| of == pid);
            if let (Some(at), Some((_, result))) = (at, resumed.rsplit_once(" = ")) {
                let (_, call) = open.remove(at);
                done.push(Call { result: result.into(), ended: number, ..call });
            }
        } else if let Some((name, args)) = rest.split_once('(') {
            let call = |args: &str, result: &str| {
                let (name, args, result) = (name.into(), args.into(), result.into());
                Call { name, args, result, began: number, ended: number }
            };
            if let Some(args) = args.strip_suffix(" <unfinished ...>") {
                open.push((pid.into(), call(args, "")));
            } else if let Some((args, result)) = args.rsplit_once(" = ") {
                done.push(call(args, result));
            }
        }
    }
    done
}

#[test]
fn no_reply_leaves_before_the_sync_that_covers_it_returned() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = (dir.path().join("store"), dir.path().join("trace"));
    let output = strace(&store, &log, 30, &["-e".into(), "trace=openat,pwrite64,fdatasync,fsync,write".into()]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines(&stdout, "acked").count(), 30 * THREADS, "{stdout}");

    let trace = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    let calls = calls(&trace);
    let named = |name: &'static str| calls.iter().filter(move |call| call.name == name && call.is_ok());
    let opened = |path: String| named("openat").find(move |call| call.args.contains(&path)).unwrap();
    let dir_fd = opened(format!("\"{}\", O_RDONLY", store.display())).result.clone();

    let mut checked = 0;
    for reply in named("write").filter(|call| call.args.contains("acked op-")) {
        let at = reply.args.find("op-").unwrap();
        let op = &reply.args[at..at + 10];
        let written = named("pwrite64").find(|call| call.args.contains(&format!("{op}-x"))).unwrap();
        let file = written.fd().unwrap();
        let covers = |sync: &&Call| sync.fd() == Some(file) && sync.began > written.ended && sync.ended < reply.began;
        assert!(named("fdatasync").any(|sync| covers(&sync)), "{op} was acknowledged before it was synced");
        // The segment that the descriptor stands for: descriptors are not used again, for all are kept.
        let made = named("openat").find(|call| call.result.trim() == file && call.args.contains(".seg")).unwrap();
        let names =
            |sync: &&Call| sync.fd() == Some(dir_fd.trim()) && sync.began > made.ended && sync.ended < written.began;
        assert!(made.args.contains("O_CREAT"), "{made:?}");
        assert!(named("fsync").any(|sync| names(&sync)), "{op} relies on a name that was not synced");
        checked += 1;
    }
    assert_eq!(checked, 30 * THREADS);
    let segments: BTreeSet<_> =
        named("openat").filter(|call| call.args.contains(".seg")).map(|call| &call.args).collect();
    assert!(segments.len() > 3, "several segments were begun: {segments:?}");
    // The store's directory was made, so its own name had to be synced as well.
    let parent = opened(format!("\"{}\", O_RDONLY", dir.path().display()));
    assert!(named("fsync").any(|sync| sync.fd() == Some(parent.result.trim())));
}

/// Lets every call of one kind fail once, each in a run of its own.
fn inject(call: &str, error: &str) {
    let root = tempfile::tempdir().unwrap();
    let mut reached = 0;
    for when in 1.. {
        let (store, log) = (root.path().join(when.to_string()), root.path().join("trace"));
        let mut args = vec!["-e".into(), format!("trace={call}"), "-e".into()];
        args.push(format!("inject={call}:error={error}:when={when}"));
        for path in ["", "/lock"].into_iter().map(String::from).chain((0..12).map(|n| format!("/{n:016x}.seg"))) {
            args.extend(["-P".into(), format!("{}{path}", store.display())]);
        }
        let output = strace(&store, &log, 8, &args);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let case =
            format!("{call} number {when} fails with {error}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !stdout.contains("panicked"), "{case}");
        let acked: Vec<&str> = lines(&stdout, "acked").collect();
        let errors: Vec<&str> = lines(&stdout, "error").collect();
        if acked.len() < 8 * THREADS {
            // A directory that could not even be opened has no error number in common with the log's.
            assert!(!errors.is_empty() && errors.iter().all(|error| error.len() > 20), "{case}");
        }
        check(&store, &acked, &case);
        if !fs::read_to_string(&log).unwrap().contains("(INJECTED)") {
            assert_eq!(errors.len(), 0, "{case}");
            break;
        }
        reached = when;
        fs::remove_dir_all(&store).unwrap_or_default();
    }
    assert!(reached > 0, "{call} is never called");
    println!("{call} with {error}: {reached} calls");
}

/// Opens the store again: what was acknowledged is there, once, and it takes writes.
fn check(dir: &Path, acked: &[&str], case: &str) {
    let store = open(dir).unwrap_or_else(|error| panic!("{error}; {case}"));
    store.append(vec![text("afterwards")]).wait().unwrap_or_else(|error| panic!("{error}; {case}"));
    let there = texts(&all(&store));
    for op in acked {
        let times = there.iter().filter(|there| there.starts_with(op)).count();
        assert_eq!(times, 1, "{op} is there {times} times; {case}");
    }
    for thread in 0..THREADS {
        let of_thread: Vec<_> = there.iter().filter(|op| op.starts_with(&format!("op-{thread}-"))).collect();
        assert!(of_thread.is_sorted(), "{case}");
    }
}

macro_rules! injections {
    ($($name:ident: $call:literal $error:literal;)*) => {
        $(#[test] fn $name() { inject($call, $error); })*
    };
}

injections! {
    eio_at_every_write: "pwrite64" "EIO";
    enospc_at_every_write: "pwrite64" "ENOSPC";
    eio_at_every_sync: "fdatasync" "EIO";
    enospc_at_every_sync: "fdatasync" "ENOSPC";
    eio_at_every_sync_of_the_directory: "fsync" "EIO";
    eio_at_every_open: "openat" "EIO";
    enospc_at_every_open: "openat" "ENOSPC";
    eio_at_every_allocation: "fallocate" "EIO";
    enospc_at_every_allocation: "fallocate" "ENOSPC";
    eio_at_every_truncation: "ftruncate" "EIO";
    eio_at_every_count_of_free_space: "fstatfs" "EIO";
    eio_at_every_listing: "getdents64" "EIO";
    eio_at_every_lock: "flock" "EIO";
    enospc_at_every_directory: "mkdir" "ENOSPC";
}

/// A file system without fallocate: space is reserved by writing.
#[test]
fn without_fallocate() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = (dir.path().join("store"), dir.path().join("trace"));
    let args = ["-e", "trace=fallocate", "-e", "inject=fallocate:error=EOPNOTSUPP"].map(String::from);
    let output = strace(&store, &log, 8, &args);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let acked: Vec<&str> = lines(&stdout, "acked").collect();
    assert_eq!(acked.len(), 8 * THREADS, "{stdout}");
    assert!(fs::read_to_string(&log).unwrap().contains("(INJECTED)"));
    check(&store, &acked, "without fallocate");
}

/// A signal interrupts, and a write or a read does only a part of what it was asked for.
#[test]
fn interrupted_calls_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = (dir.path().join("store"), dir.path().join("trace"));
    let args = [
        "-e",
        "trace=fallocate,pwrite64,fdatasync,fsync",
        "-e",
        "inject=fallocate,pwrite64,fdatasync,fsync:error=EINTR:when=1+2",
    ];
    let output = strace(&store, &log, 8, &args.map(String::from));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let acked: Vec<&str> = lines(&stdout, "acked").collect();
    assert_eq!(acked.len(), 8 * THREADS, "{stdout}");
    check(&store, &acked, "interrupted");
}
