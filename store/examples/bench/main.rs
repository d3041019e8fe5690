//! How fast the store is, beside what else could be done with the same disk, in one run.
//!
//!     cargo run --release -p vine-store --example bench -- [--dir DIR] [--rounds N] [--seconds S] [--json]
//!
//! Every round measures everything once, one after the other, and ratios are taken within a round: a machine that is busy
//! with something else slows both sides. What is printed is the median of the rounds.
#![allow(clippy::print_stdout, reason = "a program")]

mod others;
mod scan;
mod writes;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

/// Bytes of one op.
const OP: usize = 256;
/// Writers at once.
const WRITERS: usize = 64;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Args {
    dir: PathBuf,
    rounds: usize,
    time: Duration,
    scan_mib: usize,
    json: bool,
}

fn args() -> Result<Args> {
    let mut args =
        Args { dir: PathBuf::from("."), rounds: 7, time: Duration::from_millis(500), scan_mib: 256, json: false };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--dir" => args.dir = value()?.into(),
            "--rounds" => args.rounds = value()?.parse()?,
            "--seconds" => args.time = Duration::from_secs_f64(value()?.parse()?),
            "--scan-mib" => args.scan_mib = value()?.parse()?,
            "--json" => args.json = true,
            _ => return Err(format!("what is {arg}? See the head of this file").into()),
        }
    }
    Ok(args)
}

/// What one round measured, in the order of `NAMES`: ops a second.
type Round = Vec<f64>;

const NAMES: [&str; 8] = [
    "append and fdatasync, 1 op",
    "store, 1 writer",
    "store, 64 tasks",
    "store, 64 threads",
    "sqlite, 1 op a transaction",
    "sqlite, 64 ops a transaction",
    "redb, 1 op a transaction",
    "redb, 64 ops a transaction",
];

fn main() -> Result<()> {
    let args = args()?;
    let dir = tempfile::Builder::new().prefix("vine-bench-").tempdir_in(&args.dir)?;
    let (mut rounds, mut signing) = (Vec::new(), Vec::new());
    for number in 0..args.rounds {
        let at = dir.path().join(number.to_string());
        std::fs::create_dir(&at)?;
        let one = writes::tasks(&at.join("one"), 1, args.time)?;
        let tasks = writes::tasks(&at.join("tasks"), WRITERS, args.time)?;
        let threads = writes::threads(&at.join("threads"), WRITERS, args.time)?;
        let round: Round = vec![
            writes::baseline(&at.join("baseline"), args.time)?,
            one.rate,
            tasks.rate,
            threads.rate,
            others::sqlite(&at.join("sqlite-1"), 1, args.time)?,
            others::sqlite(&at.join("sqlite-64"), WRITERS, args.time)?,
            others::redb(&at.join("redb-1"), 1, args.time)?,
            others::redb(&at.join("redb-64"), WRITERS, args.time)?,
        ];
        signing.push([one, tasks, threads]);
        rounds.push(round);
        std::fs::remove_dir_all(&at)?;
    }
    let scan = scan::measure(&dir.path().join("scan"), args.scan_mib, args.rounds)?;
    report(&args, &rounds, &signing, &scan);
    Ok(())
}

fn report(args: &Args, rounds: &[Round], signing: &[[writes::Run; 3]], scan: &scan::Rates) {
    let column = |at: usize| median(rounds.iter().filter_map(|round| round.get(at).copied()));
    let ratio = |a: usize, b: usize, times: f64| {
        median(rounds.iter().filter_map(|round| Some(round.get(a)? / (round.get(b)? * times))))
    };
    let share = |at: usize, of: fn(&writes::Run) -> f64| median(signing.iter().filter_map(|runs| runs.get(at).map(of)));
    let writers = WRITERS as f64;
    let ratios = [
        ("one writer to baseline (target 0.70)", ratio(1, 0, 1.0)),
        ("64 tasks to 64 x baseline (target 0.60)", ratio(2, 0, writers)),
        ("64 threads to 64 x baseline", ratio(3, 0, writers)),
        ("one writer to sqlite", ratio(1, 4, 1.0)),
        ("one writer to redb", ratio(1, 6, 1.0)),
        ("64 tasks to sqlite", ratio(2, 5, 1.0)),
        ("64 tasks to redb", ratio(2, 7, 1.0)),
        ("recovery to reading, pages dropped", scan.ratio(|round| round.recovery_cold / round.read_cold)),
        ("verify to reading, pages dropped", scan.ratio(|round| round.verify_cold / round.read_cold)),
    ];
    let shares = [
        ("share of signing and hashing, one writer", share(0, |run| run.sign_share)),
        ("share of signing and hashing, 64 tasks", share(1, |run| run.sign_share)),
        ("share of fdatasync, one writer", share(0, |run| run.sync_share)),
        ("share of fdatasync, 64 tasks", share(1, |run| run.sync_share)),
        ("microseconds of signing and hashing a commit, one writer", share(0, |run| run.sign_us)),
        ("microseconds of signing and hashing a commit, 64 tasks", share(1, |run| run.sign_us)),
        ("ops a commit, 64 tasks", share(1, |run| run.ops_per_commit)),
    ];
    let rates = scan.named();
    if args.json {
        let list =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| json!({ *name: value })).collect::<Vec<_>>();
        let ops: Vec<_> = NAMES.iter().enumerate().map(|(at, name)| (*name, column(at))).collect();
        println!(
            "{}",
            json!({ "op_bytes": OP, "rounds": args.rounds, "ops_per_second": list(&ops),
            "ratios": list(&ratios), "shares": list(&shares), "mb_per_second": list(&rates) })
        );
        return;
    }
    println!("{OP}-byte ops, median of {} rounds", args.rounds);
    for (at, name) in NAMES.iter().enumerate() {
        println!("{:>12.0} ops/s  {name}", column(at));
    }
    ratios.iter().for_each(|(name, value)| println!("{value:>12.2}        {name}"));
    shares.iter().for_each(|(name, value)| println!("{value:>12.2}        {name}"));
    rates.iter().for_each(|(name, value)| println!("{value:>12.0} MB/s   {name}"));
}

/// The middle one.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
