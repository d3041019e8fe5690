//! Scripts that once broke a rule, kept as files: `tests/replays/*.ops`. Each says in a comment what it found.

use std::fs;
use std::path::Path;

use vine_tests::sim::Script;

#[test]
fn what_once_failed_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("replays");
    let mut files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no script", folder.display());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with('#'), "{} does not say what it found", file.display());
        let script: Script = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        if let Err(why) = script.try_run() {
            panic!("{}: {why}", file.display());
        }
    }
}
