//! The store under strace: what it asks of the system, in which order, and what it does when the system refuses.
//!
//! Each test runs this executable again, under strace, with the test `child` as the program to look at.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use common::{all_but_damage, identity, open, options, text, texts};
use tempfile::TempDir;
use vine_core::log::disk::FileId;
use vine_core::log::reader::Cursor;
use vine_core::log::report::Damage;
use vine_core::log::segment::FRAMES_AT;
use vine_core::log::store::AppendError;
use vine_store::{Handle, Options, StoreError};

/// Says to the test `child` in which directory it is to work.
const DIR: &str = "VINE_STORE_TEST_DIR";
/// How many ops each thread of the child writes.
const OPS: &str = "VINE_STORE_TEST_OPS";
/// The number of the first of them.
const FIRST: &str = "VINE_STORE_TEST_FIRST";
const THREADS: usize = 3;

/// The program: writes from several threads, and says of each op on standard output when it is acknowledged, with a
/// system call of its own. Then it reads all that there is.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let number = |name| -> usize { std::env::var(name).unwrap().parse().unwrap() };
    let (ops, first) = (number(OPS), number(FIRST));
    let store = match Handle::open(Path::new(&dir), identity(), small()) {
        Ok(store) => store,
        Err(error) => return say(&format!("error {error}")),
    };
    let writers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let store = store.clone();
            thread::spawn(move || {
                for op in first..first + ops {
                    let op = format!("op-{thread}-{op:05}-{}", "x".repeat(1000));
                    match store.append(vec![text(&op)]).wait() {
                        Ok(_) => say(&format!("acked {}", &op[..10])),
                        Err(error) => {
                            say(&format!("error {error}"));
                            if !matches!(error, StoreError::Append(AppendError::Unknown(_))) {
                                say(&format!("refused {}", &op[..10]));
                            }
                        }
                    }
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    read_all(&store);
    if let Err(error) = store.close().wait() {
        say(&format!("error {error}"));
    }
}

/// Reads all ops, and says which cannot be read.
fn read_all(store: &Handle) {
    let mut cursor = Cursor::at(0);
    loop {
        match store.read(cursor, 10_000).wait() {
            Ok(batch) if batch.taken.is_empty() && batch.damaged.is_none() => return,
            Ok(batch) => {
                batch.damaged.iter().for_each(|damaged| say(&format!("unread {damaged}")));
                cursor = batch.next;
            }
            Err(error) => return say(&format!("error {error}")),
        }
    }
}

/// Segments that are full soon.
fn small() -> Options {
    Options { segment_bytes: 16 * 1024, ..options() }
}

/// One write(2).
fn say(line: &str) {
    // Not through the test harness's lock and buffer.
    let mut stdout = fs::File::options().append(true).open("/proc/self/fd/1").unwrap();
    stdout.write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// Runs the child under strace with these options, to write so many ops from this number on; its trace goes to `log`.
fn strace(dir: &Path, log: &Path, ops: Range<usize>, args: &[String]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", "strace"]);
    command.args(["-f", "-s", "1000000", "-o"]).arg(log).args(args);
    command.arg("--").arg(std::env::current_exe().unwrap()).args(["--exact", "child", "--nocapture"]);
    command.env(DIR, dir).env(OPS, ops.len().to_string()).env(FIRST, ops.start.to_string());
    let output = command.output().unwrap();
    assert_ne!(output.status.code(), Some(127), "strace is not installed: scripts/test.sh does that");
    output
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
    let output = strace(&store, &log, 0..30, &["-e".into(), "trace=openat,pwrite64,fdatasync,fsync,write".into()]);
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

/// The options with which something happens to calls on the files of a store: to which ones, what, and when.
fn injected(store: &Path, call: &str, what: &str, when: &str) -> Vec<String> {
    let mut args = vec!["-e".into(), format!("trace={call}"), "-e".into()];
    args.push(format!("inject={call}:{what}:when={when}"));
    for path in ["", "/lock"].into_iter().map(String::from).chain((0..24).map(|n| format!("/{n:016x}.seg"))) {
        args.extend(["-P".into(), format!("{}{path}", store.display())]);
    }
    args
}

/// What fails: one call, that and the next one, or all from that on.
#[derive(Clone, Copy)]
enum Fails {
    Once,
    Twice,
    FromThenOn,
}

/// Lets every call of one kind fail, each in a run of its own: in the first life of a store, or in the one that follows on a
/// killed one.
fn inject(call: &str, error: &str, fails: Fails, killed: Option<&Killed>) {
    let root = tempfile::tempdir().unwrap();
    let why = if error == "EIO" { "nput/output error" } else { "o space left on" };
    let mut reached = 0;
    for when in 1.. {
        let (store, log) = (root.path().join(when.to_string()), root.path().join("trace"));
        if let Some(killed) = killed {
            copy(&killed.dir, &store);
        }
        let which = match fails {
            Fails::Once => when.to_string(),
            Fails::Twice => format!("{when}..{}", when + 1),
            Fails::FromThenOn => format!("{when}+"),
        };
        let args = injected(&store, call, &format!("error={error}"), &which);
        let ops = if killed.is_some() { LATER } else { 0..8 };
        let output = strace(&store, &log, ops.clone(), &args);
        let stdout = String::from_utf8(output.stdout).unwrap();
        let case =
            format!("{call} number {when} fails with {error}: {stdout}{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !stdout.contains("panicked"), "{case}");
        let acked: Vec<&str> = lines(&stdout, "acked").collect();
        let errors: Vec<&str> = lines(&stdout, "error").collect();
        assert!(acked.len() == ops.len() * THREADS || !errors.is_empty(), "{case}");
        assert!(errors.iter().all(|said| said.contains(why)), "{case}");
        let before = killed.iter().flat_map(|killed| killed.acked.iter().map(String::as_str));
        let unread: Vec<&str> = lines(&stdout, "unread").collect();
        let there = check(&store, &before.chain(acked).collect::<Vec<_>>(), &unread, &case);
        for op in lines(&stdout, "refused") {
            assert!(!there.iter().any(|there| there.starts_with(op)), "{op} was refused, and is there; {case}");
        }
        if !fs::read_to_string(&log).unwrap().contains("(INJECTED)") {
            assert_eq!(errors.len() + lines(&stdout, "unread").count(), 0, "{case}");
            break;
        }
        reached = when;
        fs::remove_dir_all(&store).unwrap_or_default();
    }
    assert!(reached > 0, "{call} is never called");
    println!("{call} with {error}: {reached} calls");
}

/// Kills the process at every call of one kind, each in a run of its own.
fn kill(call: &str, killed: Option<&Killed>) {
    let root = tempfile::tempdir().unwrap();
    for when in 1.. {
        let (store, log) = (root.path().join(when.to_string()), root.path().join("trace"));
        if let Some(killed) = killed {
            copy(&killed.dir, &store);
        }
        let ops = if killed.is_some() { LATER } else { 0..8 };
        let output = strace(&store, &log, ops.clone(), &injected(&store, call, "signal=KILL", &when.to_string()));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let case = format!("killed at {call} number {when}: {stdout}");
        assert!(!stdout.contains("panicked") && lines(&stdout, "error").count() == 0, "{case}");
        let acked = lines(&stdout, "acked");
        let before = killed.iter().flat_map(|killed| killed.acked.iter().map(String::as_str));
        check(&store, &before.chain(acked).collect::<Vec<_>>(), &[], &case);
        if output.status.success() {
            assert!(when > 1, "{call} is never called");
            println!("killed at {} calls of {call}", when - 1);
            return;
        }
    }
}

/// Whether this was said to be damaged while it could not be read.
fn is_told(file: FileId, range: &Range<u64>, unread: &[&str]) -> bool {
    unread.iter().filter_map(|line| line.split_once(&format!("{file}, bytes "))).any(|(_, bytes)| {
        let (from, to) = bytes.trim().split_once(" to ").unwrap();
        from.parse::<u64>().unwrap() <= range.start && range.end <= to.parse().unwrap()
    })
}

/// Opens the store again: what was acknowledged is there, once, and it takes writes. Returns all that is there.
///
/// Nothing is damaged, but what an opening for writing could not read: it went on behind that, and nobody can say any more
/// what was there.
fn check(dir: &Path, acked: &[&str], unread: &[&str], case: &str) -> Vec<String> {
    let store = open(dir).unwrap_or_else(|error| panic!("{error}; {case}"));
    store.append(vec![text("afterwards")]).wait().unwrap_or_else(|error| panic!("{error}; {case}"));
    let report = store.report().wait().unwrap();
    let lost = report.findings.iter().filter(|finding| finding.damage.is_loss());
    assert!(lost.clone().all(|finding| is_told(finding.file, &finding.range, unread)), "{report:?}; {case}");
    let there = texts(&all_but_damage(&store, |damaged| {
        assert!(is_told(damaged.file, &damaged.range, unread), "{damaged}; {case}");
    }));
    for op in acked {
        let times = there.iter().filter(|there| there.starts_with(op)).count();
        assert_eq!(times, 1, "{op} is there {times} times; {case}");
    }
    for thread in 0..THREADS {
        let of_thread: Vec<_> = there.iter().filter(|op| op.starts_with(&format!("op-{thread}-"))).collect();
        assert!(of_thread.is_sorted(), "{case}");
    }
    there
}

macro_rules! injections {
    ($fails:ident $killed:expr; $($name:ident: $call:literal $error:literal;)*) => {
        $(#[test] fn $name() { inject($call, $error, Fails::$fails, $killed); })*
    };
}

injections! { Once None;
    eio_at_every_write: "pwrite64" "EIO";
    enospc_at_every_write: "pwrite64" "ENOSPC";
    eio_at_every_read: "pread64" "EIO";
    eio_at_every_sync: "fdatasync" "EIO";
    enospc_at_every_sync: "fdatasync" "ENOSPC";
    eio_at_every_sync_of_the_directory: "fsync" "EIO";
    eio_at_every_open: "openat" "EIO";
    enospc_at_every_open: "openat" "ENOSPC";
    eio_at_every_allocation: "fallocate" "EIO";
    enospc_at_every_allocation: "fallocate" "ENOSPC";
    eio_at_every_truncation: "ftruncate" "EIO";
    eio_at_every_count_of_free_space: "fstatfs" "EIO";
    enospc_at_every_sync_of_the_directory: "fsync" "ENOSPC";
    enospc_at_every_truncation: "ftruncate" "ENOSPC";
    eio_at_every_stat: "%%stat" "EIO";
    eio_at_every_removal: "?unlink,unlinkat" "EIO";
    eio_at_every_listing: "getdents64" "EIO";
    eio_at_every_lock: "flock" "EIO";
    enospc_at_every_directory: "mkdir" "ENOSPC";
}

/// What each thread writes in the life after that of a killed store.
const LATER: Range<usize> = 100..104;

/// What a process left that was killed while it wrote: the end of its last write is not on the disk, what was acknowledged before
/// is and nothing vouches for it yet, the next segment is made and unused, and zeros follow that are to be cut off.
struct Killed {
    _root: TempDir,
    dir: PathBuf,
    acked: Vec<String>,
}

impl Killed {
    /// Kills writers at one sync after the other until one of them leaves all of that.
    fn new() -> Killed {
        (10..40).find_map(Killed::at_sync).expect("a sync at which a segment is full in part")
    }

    fn at_sync(number: usize) -> Option<Killed> {
        let root = tempfile::tempdir().unwrap();
        let (dir, log) = (root.path().join("store"), root.path().join("trace"));
        let kill = format!("inject=fdatasync:signal=KILL:when={number}");
        let output = strace(&dir, &log, 0..30, &["-e", "trace=fdatasync", "-e", &kill].map(String::from));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let acked: Vec<String> = lines(&stdout, "acked").map(String::from).collect();

        let mut segments: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|name| name == "seg"));
        segments.sort();
        let (unused, last) = (segments.pop()?, segments.pop()?);
        let is_unused = fs::read(unused).unwrap().iter().all(|byte| *byte == 0);
        let mut bytes = fs::read(&last).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        let has_room = end + 4096 < bytes.len() && end > FRAMES_AT as usize + 4096;
        if !is_unused || !has_room {
            return None;
        }
        bytes[end - 300..end].fill(0);
        fs::write(last, bytes).unwrap();
        let report = Handle::open_read_only(&dir, identity().peer_id(), small()).unwrap().report().wait().unwrap();
        let is_cut = report.findings.iter().any(|finding| finding.damage == Damage::Cut);
        (is_cut && report.is_sound()).then_some(Killed { _root: root, dir, acked })
    }
}

#[test]
fn after_a_kill_the_tail_is_written_again_and_what_is_unused_is_removed_and_cut() {
    let killed = Killed::new();
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = (dir.path().join("store"), dir.path().join("trace"));
    copy(&killed.dir, &store);
    let args = ["-e", "trace=openat,pwrite64,fdatasync,ftruncate,?unlink,unlinkat"].map(String::from);
    strace(&store, &log, LATER, &args);
    let trace = String::from_utf8_lossy(&fs::read(&log).unwrap()).into_owned();
    let calls = calls(&trace);
    let named = |name: &'static str| calls.iter().filter(move |call| call.name == name && call.is_ok());
    let written = named("pwrite64").next().unwrap();
    let made = named("openat").find(|call| call.args.contains(".seg") && call.args.contains("O_CREAT")).unwrap();
    assert!(written.ended < made.began, "the first write is one of a segment that was there");
    let file = written.fd();
    assert!(named("fdatasync").any(|sync| sync.fd() == file && sync.began > written.ended && sync.ended < made.began));
    assert!(named("ftruncate").any(|cut| cut.fd() == file && cut.began > made.ended), "zeros are cut off");
    let removed = named("unlink").chain(named("unlinkat")).find(|call| call.args.contains(".seg")).unwrap();
    assert!(removed.ended < made.began, "the unused segment makes room");
}

fn copy(dir: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

injections! { Once Some(&Killed::new());
    eio_at_every_open_after_a_kill: "openat" "EIO";
    enospc_at_every_open_after_a_kill: "openat" "ENOSPC";
    eio_at_every_lock_after_a_kill: "flock" "EIO";
    eio_at_every_stat_after_a_kill: "%%stat" "EIO";
    eio_at_every_listing_after_a_kill: "getdents64" "EIO";
    eio_at_every_read_after_a_kill: "pread64" "EIO";
    eio_at_every_write_after_a_kill: "pwrite64" "EIO";
    enospc_at_every_write_after_a_kill: "pwrite64" "ENOSPC";
    eio_at_every_sync_after_a_kill: "fdatasync" "EIO";
    enospc_at_every_sync_after_a_kill: "fdatasync" "ENOSPC";
    eio_at_every_sync_of_the_directory_after_a_kill: "fsync" "EIO";
    enospc_at_every_sync_of_the_directory_after_a_kill: "fsync" "ENOSPC";
    eio_at_every_count_of_free_space_after_a_kill: "fstatfs" "EIO";
    eio_at_every_allocation_after_a_kill: "fallocate" "EIO";
    enospc_at_every_allocation_after_a_kill: "fallocate" "ENOSPC";
    eio_at_every_truncation_after_a_kill: "ftruncate" "EIO";
    enospc_at_every_truncation_after_a_kill: "ftruncate" "ENOSPC";
    eio_at_every_removal_after_a_kill: "?unlink,unlinkat" "EIO";
    enospc_at_every_removal_after_a_kill: "?unlink,unlinkat" "ENOSPC";
}

// A disk that dies, and one that is full.
injections! { FromThenOn Some(&Killed::new());
    eio_from_every_read_on_after_a_kill: "pread64" "EIO";
    eio_from_every_open_on_after_a_kill: "openat" "EIO";
    eio_from_every_write_on_after_a_kill: "pwrite64" "EIO";
    eio_from_every_sync_on_after_a_kill: "fdatasync" "EIO";
    eio_from_everything_on_after_a_kill: "openat,pread64,pwrite64,fdatasync,fsync,fallocate,ftruncate,?unlink,unlinkat" "EIO";
    enospc_from_every_write_on_after_a_kill: "pwrite64" "ENOSPC";
    enospc_from_every_allocation_on_after_a_kill: "openat,fallocate,pwrite64" "ENOSPC";
}

macro_rules! kills {
    ($killed:expr; $($name:ident: $call:literal;)*) => {
        $(#[test] fn $name() { kill($call, $killed); })*
    };
}

kills! { None;
    killed_at_every_open: "openat";
    killed_at_every_allocation: "fallocate";
    killed_at_every_write: "pwrite64";
    killed_at_every_sync: "fdatasync";
    killed_at_every_sync_of_the_directory: "fsync";
    killed_at_every_truncation: "ftruncate";
}

kills! { Some(&Killed::new());
    killed_again_at_every_open: "openat";
    killed_again_at_every_allocation: "fallocate";
    killed_again_at_every_write: "pwrite64";
    killed_again_at_every_sync: "fdatasync";
    killed_again_at_every_sync_of_the_directory: "fsync";
    killed_again_at_every_truncation: "ftruncate";
    killed_again_at_every_removal: "?unlink,unlinkat";
}

/// A read that fails is tried again. What fails twice counts as damaged in this life, and is there in the next one.
#[test]
fn eio_twice_at_every_read_after_a_kill() {
    inject("pread64", "EIO", Fails::Twice, Some(&Killed::new()));
}

/// A file system without fallocate: space is reserved by writing.
#[test]
fn without_fallocate() {
    let dir = tempfile::tempdir().unwrap();
    let (store, log) = (dir.path().join("store"), dir.path().join("trace"));
    let args = ["-e", "trace=fallocate", "-e", "inject=fallocate:error=EOPNOTSUPP"].map(String::from);
    let output = strace(&store, &log, 0..8, &args);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let acked: Vec<&str> = lines(&stdout, "acked").collect();
    assert_eq!(acked.len(), 8 * THREADS, "{stdout}");
    assert!(fs::read_to_string(&log).unwrap().contains("(INJECTED)"));
    check(&store, &acked, &[], "without fallocate");
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
    let output = strace(&store, &log, 0..8, &args.map(String::from));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let acked: Vec<&str> = lines(&stdout, "acked").collect();
    assert_eq!(acked.len(), 8 * THREADS, "{stdout}");
    check(&store, &acked, &[], "interrupted");
}
