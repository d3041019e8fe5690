//! `kill -9` of the daemon under load, again and again: what was acknowledged is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use vine_tests::lab::{Lab, Node, figure};

use crate::log::{command, done, json, lines, node, start};

/// Times that the daemon is killed.
const ROUNDS: u64 = 200;
/// The daemon is killed after fewer acknowledgements than this of the process that writes lines,
const MOST_ACKNOWLEDGED: u64 = 40;
/// and when fewer lines than this were written to it since: the time that they take goes over all that happens between one
/// acknowledgement and the next.
const MOST_SINCE: u64 = 1500;
/// Lines that may be written and not acknowledged until then.
const WINDOW: u64 = 150;
/// How long an acknowledgement may take.
const LIMIT: Duration = Duration::from_secs(20);
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

/// When the daemon is killed: after so many acknowledgements, and so many lines after the last of these.
#[derive(Clone, Copy, Debug)]
struct Moment {
    acknowledged: u64,
    since: u64,
}

/// Writes lines, as many as are acknowledged and some more, until the moment has come.
fn write_lines(mut input: ChildStdin, who: &str, moment: Moment, acknowledged: &Receiver<u64>) -> Result<(), String> {
    let mut numbers = 0_u64..;
    let mut write = |count: u64| {
        let mut texts = (0..count).zip(numbers.by_ref()).map(|(_, number)| format!("{who} {number}\n"));
        texts.try_for_each(|text| input.write_all(text.as_bytes())).map_err(|error| error.to_string())
    };
    write(WINDOW)?;
    for number in 0..moment.acknowledged {
        let lines = acknowledged.recv_timeout(LIMIT);
        write(lines.map_err(|error| format!("{number} acknowledgements came in time: {error}"))?)?;
    }
    write(moment.since)
}

/// Reads what it prints until it ends, and tells of how many lines each acknowledgement is.
fn read_lines(output: ChildStdout, who: &str, told: &Sender<u64>) -> Vec<Acknowledged> {
    let mut all = Vec::new();
    let mut texts = (0..).map(|number| format!("{who} {number}"));
    // The last one says that the daemon is gone.
    let lines = BufReader::new(output).lines().map(Result::unwrap).take_while(|line| line.starts_with("{\"log\":"));
    for line in lines {
        let ops = acknowledged(&line, texts.by_ref());
        // Nobody listens any more once the moment has come.
        _ = told.send(ops.len() as u64);
        all.extend(ops);
    }
    all
}

/// One life of the daemon. Returns what was acknowledged in it.
fn life(node: &Node, round: u64, moment: Moment) -> Vec<Acknowledged> {
    let is_over = AtomicBool::new(false);
    let who = format!("round {round} lines");
    let mut lines = line_writer(node);
    let (input, output) = (lines.stdin.take().unwrap(), lines.stdout.take().unwrap());
    let (told, heard) = channel();
    let all = thread::scope(|scope| {
        let reading = scope.spawn(|| read_lines(output, &who, &told));
        let singles: Vec<_> = (0..SINGLE_WRITERS)
            .map(|writer| {
                let is_over = &is_over;
                scope.spawn(move || write_singly(node, &format!("round {round} writer {writer}"), is_over))
            })
            .collect();
        let written = write_lines(input, &who, moment, &heard);
        // Whatever came of it: the other writers end when the daemon does.
        is_over.store(true, Ordering::Relaxed);
        node.kill_daemon();
        assert_eq!(written, Ok(()));
        let singles = singles.into_iter().flat_map(|single| single.join().unwrap());
        singles.chain(reading.join().unwrap()).collect()
    });
    lines.wait().unwrap();
    all
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
    let (mut from, mut total, mut unanswered, began) = (0, 0, 0, Instant::now());
    let rounds = std::env::var("VINE_LOG_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        start(&mut a);
        let moment =
            Moment { acknowledged: next(&mut random) % MOST_ACKNOWLEDGED, since: next(&mut random) % MOST_SINCE };
        let acknowledged = life(&a, round, moment);
        a.crash();
        total += acknowledged.len();
        // Without the daemon: what is shown there is what the next one finds.
        let ops = lines(&a, &["log", "tail", "--from", &from.to_string()]);
        from = check(&ops, from, &acknowledged, &mut logs, &mut texts);
        unanswered += u64::from(ops.len() > acknowledged.len());
    }
    let took = began.elapsed().as_secs_f64();
    figure(
        test,
        &format!(
            "{rounds} kills in {took:.0} s, {unanswered} of them between a write and its answer, {total} ops acknowledged, {from} \
             there, {} logs",
            logs.len()
        ),
    );
    assert!(total as u64 > rounds, "there was load");
    assert!(
        rounds < ROUNDS || (1..rounds).contains(&unanswered),
        "some kills meet a write on its way, and some meet none"
    );

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
