//! The rules of the repository that neither the compiler nor clippy checks.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAX_LINES: usize = 1000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository")
}

/// Every Rust file that git tracks, relative to the root.
fn tracked() -> Vec<PathBuf> {
    let listed = Command::new("git").arg("-C").arg(root()).args(["ls-files", "-z", "--", "*.rs"]).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    assert!(!files.is_empty(), "git lists no file: {}", String::from_utf8_lossy(&listed.stderr));
    // A file that is deleted in the work tree is still listed.
    files.into_iter().filter(|file| root().join(file).exists()).collect()
}

/// The lines of a file with their numbers, without those of test modules at its foot.
fn production_lines(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut behind_cfg_test = false;
    for (number, line) in text.lines().enumerate() {
        let code = line.trim();
        if behind_cfg_test && (code.starts_with("#[") || code.starts_with("#!")) {
            continue;
        }
        if behind_cfg_test && code.contains("mod ") && code.ends_with('{') {
            break;
        }
        let is_mark = code.starts_with("#[cfg(test)]") || code.starts_with("#[cfg(all(test");
        if !behind_cfg_test && !is_mark {
            lines.push((number + 1, line.to_owned()));
        }
        behind_cfg_test = is_mark && code.ends_with(']');
    }
    lines
}

/// Whether a file holds nothing but tests or tools of tests.
fn is_test_file(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default();
    let in_tests =
        file.components().any(|part| ["tests", "benches", "fuzz"].iter().any(|dir| part.as_os_str() == *dir));
    in_tests || name == "tests.rs"
}

fn production() -> impl Iterator<Item = (PathBuf, usize, String)> {
    let files = tracked().into_iter().filter(|file| !is_test_file(file));
    files.flat_map(|file| production_lines(&file).into_iter().map(move |(number, line)| (file.clone(), number, line)))
}

/// The code of a line, without its comment.
fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether `text` holds `word` not as part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part))
}

fn fail_on(rule: &str, found: impl IntoIterator<Item = String>) {
    let found: Vec<String> = found.into_iter().collect();
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn places(bad: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let found = production().filter(|(file, _, line)| bad(file, line));
    found.map(|(file, number, line)| format!("{}:{number}: {}", file.display(), line.trim())).collect()
}

#[test]
fn no_file_is_over_1000_lines() {
    let long = tracked().into_iter().filter_map(|file| {
        let lines = fs::read_to_string(root().join(&file)).unwrap().lines().count();
        (lines > MAX_LINES).then(|| format!("{}: {lines}", file.display()))
    });
    fail_on("split these files", long);
}

#[test]
fn the_core_names_neither_std_nor_anything_unordered_or_floating() {
    let forbidden = ["std", "HashMap", "HashSet", "SystemTime", "OsRng", "thread_rng", "getrandom", "f32", "f64"];
    let in_core = |file: &Path, line: &str| {
        file.starts_with("core/src") && forbidden.iter().any(|word| has_word(code_of(line), word))
    };
    fail_on("the core is pure", places(in_core));
}

#[test]
fn the_core_is_no_std_without_condition() {
    let text = fs::read_to_string(root().join("core/src/lib.rs")).unwrap();
    assert!(text.lines().any(|line| line == "#![no_std]"), "core/src/lib.rs says `#![no_std]`, also in its tests");
}

#[test]
fn no_unwrap_outside_tests() {
    fail_on(
        "handle it, or `expect` with the sentence that proves it",
        places(|_, line| code_of(line).contains(".unwrap()")),
    );
}

#[test]
fn nothing_is_left_to_do() {
    // Spelled so that this file does not find itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimplemented", "!(")];
    let found = tracked().into_iter().flat_map(|file| {
        let text = fs::read_to_string(root().join(&file)).unwrap();
        let bad: Vec<usize> = (1..)
            .zip(text.lines())
            .filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)))
            .map(|(n, _)| n)
            .collect();
        bad.into_iter().map(move |number| format!("{}:{number}", file.display()))
    });
    fail_on("finish it or make it an issue", found);
}

#[test]
fn tests_wait_for_conditions_not_for_times() {
    // The place that asks again and again, the one that paces a flood, and the one that paces a burst and measures idleness.
    let may = ["tests/src/lab/wait.rs", "tests/src/flood.rs", "runtime-tokio/tests/two_engines.rs"].map(Path::new);
    let sleeps =
        tracked().into_iter().filter(|file| is_test_file(file) && !may.contains(&file.as_path())).flat_map(|file| {
            let text = fs::read_to_string(root().join(&file)).unwrap();
            let bad: Vec<usize> = (1..)
                .zip(text.lines())
                .filter(|(_, line)| code_of(line).contains(concat!("sleep", "(")))
                .map(|(n, _)| n)
                .collect();
            bad.into_iter().map(move |number| format!("{}:{number}", file.display()))
        });
    fail_on("use wait_until", sleeps);
}

#[test]
fn dependencies_have_one_version_for_the_workspace() {
    let manifests = ["core", "store", "runtime-tokio", "runtime-smol", "vine-cli", "tests", "tests/nostd"];
    let own = manifests.iter().filter_map(|dir| {
        let text = fs::read_to_string(root().join(dir).join("Cargo.toml")).ok()?;
        let bad = text
            .lines()
            .filter(|line| !line.starts_with('['))
            .find(|line| line.contains("version = \"") || line.contains(" = \"") && is_dependency(&text, line))?;
        Some(format!("{dir}/Cargo.toml: {bad}"))
    });
    fail_on("name the version in [workspace.dependencies]", own);
}

/// Whether a line of a manifest stands in a table of dependencies.
fn is_dependency(manifest: &str, line: &str) -> bool {
    let before = manifest.find(line).map_or("", |at| &manifest[..at]);
    let table = before.lines().rev().find(|line| line.starts_with('['));
    table.is_some_and(|table| table.trim_end_matches(']').ends_with("dependencies"))
}
