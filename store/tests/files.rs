//! The store on real files: against a model in memory, two processes, disks that are full or take no writes.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{all, identity, open, options, text, texts};
use vine_core::log::store::AppendError;
use vine_store::{Handle, LockError, OpenError, Options, StoreError, Verification, Watched};

/// What a store holds, as simply as it can be said.
#[derive(Default)]
struct Model {
    ops: Vec<String>,
    keys: BTreeMap<String, String>,
}

/// A generator of test cases; not a good one.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A copy of the directory as it is now: what a process that is killed at this moment leaves.
fn killed_copy(dir: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn compare(store: &Handle, model: &Model) {
    assert_eq!(texts(&all(store)), model.ops);
    let pairs = store.scan(Bytes::new(), None, 4096).wait().unwrap().pairs;
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let pairs: BTreeMap<_, _> = pairs.iter().map(|(key, value)| (text(key), text(value))).collect();
    assert_eq!(pairs, model.keys);
}

#[test]
fn the_store_does_what_a_model_in_memory_does() {
    for seed in 0..6 {
        let root = tempfile::tempdir().unwrap();
        let (mut life, mut dice, mut model) = (0, Dice(seed), Model::default());
        let mut dir = root.path().join("0");
        let options = Options { segment_bytes: 16 * 1024, ..options() };
        let mut store = Handle::open(&dir, identity(), options.clone()).unwrap();
        for step in 0..120 {
            let key = format!("key {}", dice.roll(8));
            match dice.roll(24) {
                0..8 => {
                    let ops: Vec<String> = (0..=dice.roll(4))
                        .map(|n| format!("{step} {n} {}", "x".repeat(dice.roll(3000) as usize)))
                        .collect();
                    let at = store.append(ops.iter().map(|op| text(op)).collect()).wait().unwrap();
                    assert_eq!(at.count as usize, ops.len());
                    model.ops.extend(ops);
                }
                8..16 => {
                    store.put(text(&key), text(&format!("value {step}"))).wait().unwrap();
                    model.keys.insert(key, format!("value {step}"));
                }
                16..19 => {
                    store.delete(text(&key)).wait().unwrap();
                    model.keys.remove(&key);
                }
                19..22 => {
                    let value = store.get(text(&key)).wait().unwrap();
                    assert_eq!(value, model.keys.get(&key).map(|value| text(value)));
                }
                22 => {
                    store.close().wait().unwrap();
                    store = Handle::open(&dir, identity(), options.clone()).unwrap();
                    compare(&store, &model);
                }
                _ => {
                    life += 1;
                    let next = root.path().join(life.to_string());
                    killed_copy(&dir, &next);
                    store.close().wait().unwrap();
                    dir = next;
                    store = Handle::open(&dir, identity(), options.clone()).unwrap();
                    compare(&store, &model);
                }
            }
        }
        compare(&store, &model);
        let state = store.state_hash().wait().unwrap();
        store.close().wait().unwrap();
        let reader = Handle::open_read_only(&dir, identity().peer_id(), options).unwrap();
        compare(&reader, &model);
        assert_eq!(reader.state_hash().wait().unwrap(), state);
        assert!(matches!(reader.append(vec![text("no")]).wait(), Err(StoreError::ReadOnly)));
    }
}

#[test]
fn a_watch_tells_every_change_that_was_not_overtaken() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    store.put(text("a/1"), text("before")).wait().unwrap();
    let from = store.scan(text("a/"), None, 10).wait().unwrap().next_ordinal;
    let mut watch = store.watch(text("a/"), from);
    store.put(text("b/1"), text("elsewhere")).wait().unwrap();
    store.append(vec![text("plain")]).wait().unwrap();
    store.put(text("a/1"), text("overtaken")).wait().unwrap();
    store.put(text("a/1"), text("after")).wait().unwrap();
    store.delete(text("a/2")).wait().unwrap();
    let mut next = || match watch.wait_next().unwrap() {
        Watched::Change(change) => (change.key, change.value),
        Watched::Damaged(damaged) => panic!("{damaged}"),
    };
    assert_eq!(next(), (text("a/1"), Some(text("after"))));
    assert_eq!(next(), (text("a/2"), None));
}

/// Says to the test `holder` which store it is to hold.
const HOLD: &str = "VINE_STORE_TEST_HOLD";

/// The other process: opens a store and holds it until its standard input ends.
#[test]
fn holder() {
    let Some(dir) = std::env::var_os(HOLD) else { return };
    let store = open(Path::new(&dir)).unwrap();
    store.append(vec![text("held")]).wait().unwrap();
    println!("\nheld");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

#[test]
fn two_processes_do_not_share_a_store() {
    use std::io::BufRead;
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "holder", "--nocapture"]).env(HOLD, dir.path());
    let mut child = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));

    let pid = format!("process {}", child.id());
    let names_it = |error: OpenError| {
        assert!(matches!(&error, OpenError::Lock(LockError::InUse { .. })), "{error}");
        let text = error.to_string();
        assert!(text.contains(&pid) && text.contains(dir.path().to_str().unwrap()), "{text}");
    };
    names_it(open(dir.path()).unwrap_err());
    // What the other one has not synced is not to be shown.
    names_it(Handle::open_read_only(dir.path(), identity().peer_id(), options()).unwrap_err());

    child.kill().unwrap();
    child.wait().unwrap();
    let reader = Handle::open_read_only(dir.path(), identity().peer_id(), options()).unwrap();
    assert_eq!(texts(&all(&reader)), ["held"], "what was acknowledged before it was killed");
    // A reader does not keep a writer out, and does not see what it writes.
    let writer = open(dir.path()).unwrap();
    writer.append(vec![text("later")]).wait().unwrap();
    assert_eq!(texts(&all(&reader)), ["held"]);
    assert_eq!(texts(&all(&writer)), ["held", "later"]);
}

/// A small file system in memory, mounted for one test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(dir: &Path, size: &str) -> Mounted {
        let mounted = Mounted(dir.to_owned());
        mounted.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "vine-store-test"]);
        mounted
    }

    fn mount(&self, args: &[&str]) {
        let status = Command::new("mount").args(args).arg(&self.0).status().unwrap();
        assert!(status.success(), "mount {args:?}: these tests run as root");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_loses_nothing_and_takes_writes_again_when_there_is_room() {
    for reserve in [0, 1 << 20] {
        let dir = tempfile::tempdir().unwrap();
        let _mounted = Mounted::new(dir.path(), "4m");
        let ballast = dir.path().join("ballast");
        fs::write(&ballast, vec![1; 1 << 20]).unwrap();
        let options = Options { reserve: Some(reserve), segment_bytes: 256 * 1024, ..options() };
        let at = dir.path().join("store");
        let store = Handle::open(&at, identity(), options.clone()).unwrap();
        let big = "x".repeat(10_000);
        let mut written = Vec::new();
        let refused = loop {
            let op = format!("{} {big}", written.len());
            match store.append(vec![text(&op)]).wait() {
                Ok(_) => written.push(op),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, StoreError::Append(AppendError::NoRoom(_))), "{refused}");
        assert!(written.len() > 50, "{}", written.len());
        assert_eq!(texts(&all(&store)), written);
        let free = rustix::fs::statvfs(dir.path()).unwrap();
        assert!(free.f_bavail * free.f_frsize >= reserve, "the reserve is untouched");

        fs::remove_file(&ballast).unwrap();
        // A segment is tried again a second after it was refused.
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(error) = store.append(vec![text("room")]).wait() {
            assert!(Instant::now() < deadline, "{error}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
        written.push("room".into());
        store.close().wait().unwrap();
        let store = Handle::open(&at, identity(), options).unwrap();
        assert_eq!(texts(&all(&store)), written);
    }
}

#[test]
fn a_file_system_that_takes_no_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Mounted::new(dir.path(), "8m");
    let at = dir.path().join("store");
    let store = open(&at).unwrap();
    store.append(vec![text("one")]).wait().unwrap();
    store.close().wait().unwrap();
    mounted.mount(&["-o", "remount,ro"]);
    let refused = open(&at).unwrap_err().to_string();
    assert!(refused.contains(at.to_str().unwrap()) && refused.contains("Read-only"), "{refused}");
    let reader = Handle::open_read_only(&at, identity().peer_id(), options()).unwrap();
    assert_eq!(texts(&all(&reader)), ["one"]);
    assert!(reader.report().wait().unwrap().is_sound());
    let missing = open(&dir.path().join("missing")).unwrap_err().to_string();
    assert!(missing.contains("missing"), "{missing}");
}

#[test]
fn foreign_files_are_left_alone_and_modes_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("store");
    let store = open(&at).unwrap();
    store.append(vec![text("one")]).wait().unwrap();
    store.close().wait().unwrap();
    for name in ["README", "0000000000000001.seg.old", "x.seg"] {
        fs::write(at.join(name), "foreign").unwrap();
    }
    let store = open(&at).unwrap();
    store.append(vec![text("two")]).wait().unwrap();
    assert_eq!(texts(&all(&store)), ["one", "two"]);
    assert!(store.report().wait().unwrap().findings.is_empty());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&at), 0o700);
    for entry in fs::read_dir(&at).unwrap() {
        let path = entry.unwrap().path();
        if fs::read(&path).unwrap() != b"foreign" {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn an_export_replayed_gives_the_same_state() {
    let root = tempfile::tempdir().unwrap();
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    for life in 0..3 {
        let store = open(&from).unwrap();
        for n in 0..40 {
            store.append(vec![text(&format!("{life} {n}")), text("two")]).wait().unwrap();
            store.put(text(&format!("key {}", n % 7)), text(&format!("{life} {n}"))).wait().unwrap();
        }
        store.close().wait().unwrap();
    }
    let store = open(&from).unwrap();
    let mut archive = Vec::new();
    let (summary, left_out) = store.export(&mut archive, |_, _| ()).unwrap();
    assert_eq!(left_out, None);
    assert_eq!((summary.geneses, summary.ops), (3, 360));

    let other = std::sync::Arc::new(vine_core::Identity::from_seed([8; 32]));
    let other_options = Options { members: vec![identity().peer_id()], ..options() };
    let copy = Handle::open(&to, other, other_options).unwrap();
    let cut = copy.import_archive(&mut &archive[..archive.len() - 1], |_, _| ()).unwrap_err().to_string();
    assert!(cut.contains("not whole"), "{cut}");
    let imported = copy.import_archive(&mut archive.as_slice(), |_, _| ()).unwrap();
    assert_eq!(u64::from(imported.new + imported.known), summary.geneses + summary.commits);
    assert_eq!(copy.state_hash().wait().unwrap(), store.state_hash().wait().unwrap());
    assert_eq!(texts(&all(&copy)), texts(&all(&store)));

    let middle = archive.len() / 2;
    archive[middle] ^= 1;
    let third = Handle::open(&root.path().join("third"), identity(), options()).unwrap();
    let refused = third.import_archive(&mut archive.as_slice(), |_, _| ()).unwrap_err().to_string();
    assert!(refused.contains("byte"), "{refused}");
}

#[test]
fn a_verification_of_full_commits_comes_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for _ in 0..40 {
        store.append(vec![Bytes::from(vec![1; 256]); 1024]).wait().unwrap();
    }
    store.close().wait().unwrap();
    let mut verification = Verification::alone(dir.path(), identity().peer_id(), options()).unwrap();
    let report = verification.run(|_, _| true).unwrap().unwrap();
    assert!(report.is_sound());
    assert_eq!(report.ops, 40 * 1024);
}

#[test]
fn a_verification_beside_a_writer_reads_what_is_durable_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let (before, dir) = (root.path().join("before"), root.path().join("dir"));
    let options = Options { segment_bytes: 64 * 1024, ..options() };
    // What a process that was killed leaves: zeros to be cut off, and a file that was made ready.
    let store = Handle::open(&before, identity(), options.clone()).unwrap();
    for n in 0..30 {
        store.append(vec![text(&format!("{n} {}", "x".repeat(1000)))]).wait().unwrap();
    }
    killed_copy(&before, &dir);
    store.close().wait().unwrap();
    let store = Handle::open(&dir, identity(), options.clone()).unwrap();
    let beside = || Verification::beside(&store, &dir, identity().peer_id(), options.clone()).unwrap();
    let mut early = beside();
    let state = store.state_hash().wait().unwrap();
    let files = |dir: &Path| -> u64 { fs::read_dir(dir).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum() };
    let len = files(&dir);
    store.append(vec![text("later")]).wait().unwrap();
    assert!(files(&dir) != len, "what was left is cleared away");
    let report = early.run(|_, _| true).unwrap().unwrap();
    assert!(report.is_sound() && report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.ops, early.state_hash()), (30, Some(state)), "it is as it was when it was asked for");

    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    store.put(text(&format!("{thread}")), text(&"x".repeat(3000))).wait().unwrap();
                }
            });
        }
        for _ in 0..20 {
            let least = store.next_ordinal().wait().unwrap();
            let mut reading = beside();
            let most = store.next_ordinal().wait().unwrap();
            let report = reading.run(|_, _| true).unwrap().unwrap();
            assert!(report.findings.is_empty(), "{:?}", report.findings);
            assert!((least..=most).contains(&report.ops), "{least} {} {most}", report.ops);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mut last = beside();
    last.run(|_, _| true).unwrap().unwrap();
    assert_eq!(last.state_hash(), Some(store.state_hash().wait().unwrap()));
}
