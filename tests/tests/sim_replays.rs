//! Scripts that once broke a rule, kept as files: `tests/replays/*.ops`. Each says in a comment what it found, and by its
//! first line of what kind it is: of a world, of stores, or of a world with stores.

use std::fs;
use std::path::Path;

use vine_tests::script::{Script, Simulated};
use vine_tests::{disk, sim, whole};

#[test]
fn what_once_failed_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("replays");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no script", folder.display());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with('#'), "{} does not say what it found", file.display());
        let first = text.lines().find(|line| !line.starts_with('#') && !line.trim().is_empty()).unwrap_or_default();
        let outcome = match (first.starts_with("stores "), first.contains(" stores ")) {
            (true, _) => run::<disk::Setup>(&text),
            (_, true) => run::<whole::Setup>(&text),
            _ => run::<sim::Setup>(&text),
        };
        if let Err(why) = outcome {
            panic!("{}: {why}", file.display());
        }
    }
}

fn run<S: Simulated>(text: &str) -> Result<(), String> {
    let script: Script<S> = text.parse().map_err(|error| format!("{error}"))?;
    script.try_run().map(drop)
}
