//! The example configurations are valid as they stand, once the identities are filled in.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vine_tests::lab::vine_binary;

const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "relay"];

fn vine(args: &[&str]) -> Output {
    Command::new(vine_binary()).args(args).output().unwrap()
}

/// A directory of this test, empty.
fn scratch() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("multi-pc");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn the_four_configurations_of_multi_pc_are_valid() {
    let dir = scratch();
    let identities = NAMES.map(|name| {
        let path = dir.join(name).join("identity");
        let made = vine(&["identity", "init", "--path", path.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
        let public = vine(&["identity", "export-public", "--path", path.to_str().unwrap()]);
        (path, String::from_utf8(public.stdout).unwrap().trim().to_owned())
    });
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/multi-pc");
    for (name, (identity, _)) in NAMES.iter().zip(&identities) {
        let mut text = fs::read_to_string(examples.join(format!("{name}.toml"))).unwrap();
        for (peer, (_, peer_id)) in NAMES.iter().zip(&identities) {
            text = text.replace(&format!("PEER_ID_OF_{}", peer.to_uppercase()), peer_id);
        }
        assert!(!text.contains("PEER_ID_OF_"), "{name}");
        text = text.replace("/var/lib/vine/identity", identity.to_str().unwrap());
        let file = dir.join(format!("{name}.toml"));
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let checked = vine(&["config", "validate", "-c", file.to_str().unwrap()]);
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
}

#[test]
fn an_example_without_identities_is_refused_by_name() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/multi-pc/alpha.toml");
    let checked = vine(&["config", "validate", "--without-identity", "-c", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(said.contains("PEER_ID_OF_BETA"), "{said}");
}
