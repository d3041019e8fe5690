//! `kill -9` of the daemon under load, again and again: what was acknowledged is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufWriter, Write as _};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vine_tests::lab::{Lab, Node, figure};

use crate::log::{command, done, json, lines, node, start};

/// Times that the daemon is killed.
const ROUNDS: u64 = 200;
/// The shortest and the longest time under load, in milliseconds.
const LOAD_MS: (u64, u64) = (40, 160);
/// Processes that write one op each, one process after the other, at a time.
const SINGLE_WRITERS: usize = 3;

/// An acknowledged op: what `vine log append` printed, and what was written.
#[derive(Debug)]
struct Acknowledged {
    ordinal: u64,
    log: String,
    seq: u64,
    text: String,
}

/// The next number of a fixed sequence (SplitMix64), so that every run kills at the same moments.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The ops that one line of output acknowledges.
fn acknowledged(line: &str, texts: impl Iterator<Item = String>) -> Vec<Acknowledged> {
    let position: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    let number = |name: &str| position[name].as_u64().unwrap();
    let (ordinal, seq, count) = (number("first_ordinal"), number("first_seq"), number("count"));
    let ops: Vec<Acknowledged> = (0..count)
        .zip(texts)
        .map(|(index, text)| Acknowledged {
            ordinal: ordinal + index,
            log: position["log"].as_str().unwrap().to_owned(),
            seq: seq + index,
            text,
        })
        .collect();
    assert_eq!(ops.len() as u64, count, "as many are acknowledged as were written");
    ops
}

/// Writes one op after the other by a process each until one is not acknowledged.
fn write_singly(node: &Node, who: &str, is_over: &AtomicBool) -> Vec<Acknowledged> {
    let mut all = Vec::new();
    for number in 0.. {
        let text = format!("{who} {number}");
        let output = command(node, &["log", "append", &text, "--format", "json"]).output().unwrap();
        if output.status.success() {
            all.extend(acknowledged(&String::from_utf8(output.stdout).unwrap(), [text].into_iter()));
        } else if is_over.load(Ordering::Relaxed) {
            return all;
        }
    }
    all
}

/// Begins a process that writes lines.
fn line_writer(node: &Node) -> Child {
    let mut command = command(node, &["log", "append", "--lines", "--format", "json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Feeds it until it ends.
fn write_lines(mut child: Child, who: &str) -> Vec<Acknowledged> {
    let mut input = BufWriter::new(child.stdin.take().unwrap());
    let feeder = thread::spawn({
        let who = who.to_owned();
        move || {
            for number in 0.. {
                let is_fed = writeln!(input, "{who} {number}").is_ok();
                if !is_fed || (number % 50 == 0 && input.flush().is_err()) {
                    return;
                }
                if number % 50 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    let mut texts = (0..).map(|number| format!("{who} {number}"));
    let lines = String::from_utf8(output.stdout).unwrap();
    // The last one says that the daemon is gone.
    let positions = lines.lines().take_while(|line| line.starts_with("{\"log\":"));
    positions.flat_map(|line| acknowledged(line, texts.by_ref())).collect()
}

/// One life of the daemon. Returns what was acknowledged in it.
fn life(node: &Node, round: u64, load: Duration) -> Vec<Acknowledged> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // The lines are written by a process that is begun here: what is shared with the others is the configuration.
        let writer = line_writer(node);
        let writing = scope.spawn(move || write_lines(writer, &format!("round {round} lines")));
        let singles: Vec<_> = (0..SINGLE_WRITERS)
            .map(|writer| {
                let is_over = &is_over;
                scope.spawn(move || write_singly(node, &format!("round {round} writer {writer}"), is_over))
            })
            .collect();
        thread::sleep(load);
        is_over.store(true, Ordering::Relaxed);
        node.kill_daemon();
        let singles = singles.into_iter().flat_map(|single| single.join().unwrap());
        singles.chain(writing.join().unwrap()).collect()
    })
}

/// Checks what lies in the log from an ordinal on, and returns the ordinal behind it.
fn check(
    ops: &[Value],
    from: u64,
    acknowledged: &[Acknowledged],
    logs: &mut BTreeMap<String, u64>,
    texts: &mut BTreeSet<String>,
) -> u64 {
    let mut found = BTreeMap::new();
    for (ordinal, op) in (from..).zip(ops) {
        assert_eq!(op["ordinal"].as_u64(), Some(ordinal), "every ordinal once, in order");
        let (log, text) = (op["log"].as_str().unwrap().to_owned(), op["data"].as_str().unwrap().to_owned());
        let next = logs.entry(log.clone()).or_default();
        assert_eq!(op["seq"].as_u64(), Some(*next), "every position once, in order");
        *next += 1;
        assert!(texts.insert(text.clone()), "{text:?} is there twice");
        found.insert(ordinal, (log, *next - 1, text));
    }
    for Acknowledged { ordinal, log, seq, text } in acknowledged {
        let found = found.get(ordinal);
        assert_eq!(found, Some(&(log.clone(), *seq, text.clone())), "ordinal {ordinal} was acknowledged");
    }
    from + ops.len() as u64
}

#[test]
fn two_hundred_kills() {
    let test = "two_hundred_kills";
    let Some(lab) = Lab::open(test) else { return };
    let (mut a, mut b) = (node(&lab, "a", 1), node(&lab, "b", 2));
    let (mut logs, mut texts, mut random) = (BTreeMap::new(), BTreeSet::new(), 4);
    let (mut from, mut total, began) = (0, 0, Instant::now());
    let rounds = std::env::var("VINE_LOG_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        start(&mut a);
        let load = Duration::from_millis(LOAD_MS.0 + next(&mut random) % (LOAD_MS.1 - LOAD_MS.0));
        let acknowledged = life(&a, round, load);
        a.crash();
        total += acknowledged.len();
        // Without the daemon: what is shown there is what the next one finds.
        let ops = lines(&a, &["log", "tail", "--from", &from.to_string()]);
        from = check(&ops, from, &acknowledged, &mut logs, &mut texts);
    }
    let took = began.elapsed().as_secs_f64();
    figure(
        test,
        &format!("{rounds} kills in {took:.0} s, {total} ops acknowledged, {from} there, {} logs", logs.len()),
    );
    assert!(total as u64 > rounds, "there was load");

    start(&mut a);
    let all = lines(&a, &["log", "tail"]);
    assert_eq!(all.len() as u64, from, "nothing comes and goes");
    let verified = json(&a, &["log", "verify"]);
    assert_eq!(verified["sound"], true, "{verified}");
    let archive = a.host().dir().join("archive").to_string_lossy().into_owned();
    done(&a, &["log", "export", &archive]);
    b.allow(&a);
    b.write_config();
    start(&mut b);
    done(&b, &["log", "import", &archive]);
    assert_eq!(json(&b, &["log", "verify"])["state_hash"], verified["state_hash"]);
    assert_eq!(lines(&b, &["log", "tail"]).len() as u64, from);
}
