//! A setup and what happens to it: from a seed, from text, shrunk when it fails; and many of them, each made by a number.
//!
//! What tests of seeds take from the environment: `VINE_SIM_SEED=n` runs that one, `VINE_SIM_SEEDS=n` that many,
//! `VINE_SIM_FIRST=n` begins there, `VINE_SIM_FILE=path` runs the script in a file, `VINE_SIM_QUICK=1` ends with the first
//! seed that fails. With `VINE_SIM_LOG=1` and `--nocapture` all that happens is shown.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use crate::caught::{caught, shrunk};
use crate::sim::{Coverage, in_parallel};
use crate::text::ParseError;

/// Every so many seeds one runs twice.
const TWICE: u64 = 8;

/// Runs that shrinking a failure may take.
const SHRINK_RUNS: usize = 300;

/// So many failures are shrunk.
const SHRUNK: usize = 3;

/// What can be simulated from a script: the first line of it.
pub trait Simulated: Clone + fmt::Display + FromStr<Err = ParseError> {
    /// What can happen: its other lines.
    type Op: Clone + fmt::Display + FromStr<Err = ParseError>;

    /// The script of `seed`.
    fn script(seed: u64) -> Script<Self>;

    /// Runs a script: first what happens, then whether all is as it should be.
    ///
    /// # Panics
    /// Where a rule is broken.
    fn run(script: &Script<Self>) -> Outcome;
}

/// A setup and what happens to it. As text it is the line of the setup, then one line for each op; lines that begin with `#`
/// are comments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Script<S: Simulated> {
    /// What is simulated.
    pub setup: S,
    /// What happens.
    pub ops: Vec<S::Op>,
}

/// What a run that broke no rule was like.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The hash of every input and output.
    pub digest: String,
    /// How many there were.
    pub entries: u64,
    /// What was reached.
    pub coverage: Coverage,
}

impl<S: Simulated> fmt::Display for Script<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.setup)?;
        self.ops.iter().try_for_each(|op| writeln!(f, "{op}"))
    }
}

impl<S: Simulated> FromStr for Script<S> {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Script<S>, ParseError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let setup = lines.next().ok_or_else(|| ParseError("an empty script".into()))?.parse()?;
        let ops = lines.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Script { setup, ops })
    }
}

impl<S: Simulated> Script<S> {
    /// The script of `seed`.
    pub fn from_seed(seed: u64) -> Script<S> {
        S::script(seed)
    }

    /// Runs it.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn run(&self) -> Outcome {
        S::run(self)
    }

    /// Runs it; a broken rule is an error.
    ///
    /// # Errors
    /// The rule.
    pub fn try_run(&self) -> Result<Outcome, String> {
        caught(|| self.run())
    }

    /// A shorter script that fails as well, found by leaving out ever smaller parts, in at most `budget` runs.
    pub fn shrink(&self, budget: usize) -> Script<S> {
        let with = |ops: &[S::Op]| Script { setup: self.setup.clone(), ops: ops.to_vec() };
        with(&shrunk(&self.ops, budget, |ops| with(ops).try_run().is_err()))
    }

    /// Runs it, and says what it is and what came of it.
    fn show(&self) {
        println!("{self}");
        let outcome = self.run();
        println!("{}{} {} inputs and outputs", outcome.coverage, outcome.digest, outcome.entries);
    }
}

/// Runs as many seeds as the environment says, or `usual` ones; those must reach all of `situations`.
///
/// # Panics
/// Where a seed breaks a rule, or a situation is not reached.
pub fn try_seeds<S: Simulated>(usual: u64, situations: &[&str]) {
    if let Ok(file) = std::env::var("VINE_SIM_FILE") {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        return text.parse::<Script<S>>().unwrap_or_else(|error| panic!("{file}: {error}")).show();
    }
    if let Some(seed) = number("VINE_SIM_SEED") {
        return Script::<S>::from_seed(seed).show();
    }
    let count = number("VINE_SIM_SEEDS").unwrap_or(usual);
    let first = number("VINE_SIM_FIRST").unwrap_or(0);
    let reached = Mutex::new((Coverage::default(), Vec::new()));
    let is_quick = std::env::var_os("VINE_SIM_QUICK").is_some();
    let lock = || reached.lock().expect("nobody panics who holds it");
    in_parallel(first..first + count, |seed| {
        if is_quick && !lock().1.is_empty() {
            return;
        }
        match try_seed::<S>(seed) {
            Ok(reached) => lock().0.merge(&reached),
            Err(why) => lock().1.push((seed, why)),
        }
    });
    let (coverage, mut failures) = std::mem::take(&mut *lock());
    println!("{count} seeds reached:\n{coverage}");
    failures.sort();
    for (seed, why) in &failures {
        println!("VINE_SIM_SEED={seed}: {why}");
    }
    for (seed, why) in failures.iter().take(if is_quick { 0 } else { SHRUNK }) {
        let script = Script::<S>::from_seed(*seed).shrink(SHRINK_RUNS);
        println!("VINE_SIM_SEED={seed}: {why}\nas short as it could be made:\n{script}");
    }
    assert!(failures.is_empty(), "{} of {count} seeds fail; see above how to repeat them", failures.len());
    if count >= usual && !is_quick {
        assert_eq!(coverage.missing(situations), [""; 0], "situations that no seed reached");
    }
}

/// Runs a seed, some of them twice.
fn try_seed<S: Simulated>(seed: u64) -> Result<Coverage, String> {
    let script = Script::<S>::from_seed(seed);
    let first = script.try_run()?;
    if seed.is_multiple_of(TWICE) {
        let second = script.try_run()?;
        if first.digest != second.digest {
            return Err(format!("two runs differ: {} and {}", first.digest, second.digest));
        }
    }
    Ok(first.coverage)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}
