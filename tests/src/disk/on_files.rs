//! The scripts of the simulator over real files.

use std::fmt;
use std::str::FromStr;

use vine_store::{Handle, OpenError, Options};

use super::machine::Machine;
use super::op::Op;
use super::script::{Setup, play};
use crate::script::{Outcome, Script, Simulated};
use crate::sim::World;
use crate::text::ParseError;

/// Stores whose files are those of the host: what happens to them is what [`Setup`] says, with everything that is checked
/// there, and it comes to the same as on simulated files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnFiles(pub Setup);

impl fmt::Display for OnFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for OnFiles {
    type Err = ParseError;

    fn from_str(line: &str) -> Result<OnFiles, ParseError> {
        line.parse().map(OnFiles)
    }
}

impl Simulated for OnFiles {
    type Op = Op;

    fn script(seed: u64) -> Script<OnFiles> {
        let Script { setup, ops } = Setup::script(seed);
        Script { setup: OnFiles(setup), ops }
    }

    fn run(script: &Script<OnFiles>) -> Outcome {
        let Script { setup: OnFiles(setup), ops } = script.clone();
        let simulated = Setup::run(&Script { setup: setup.clone(), ops: ops.clone() });
        let dir = tempfile::tempdir().expect("a directory for files");
        let mut world = setup.world();
        world.stores.work_on_files(dir.path());
        play(&mut world, &ops);
        assert_eq!(
            world.stores.shared.trace.digest(),
            simulated.digest,
            "real files and simulated ones come to different ends"
        );
        for number in 0..world.stores.machines.len() {
            compare(&mut world, number);
        }
        Outcome { coverage: world.stores.shared.coverage, ..simulated }
    }
}

/// The store of this machine is what a program finds that opens it in this directory.
fn compare(world: &mut World, number: usize) {
    world.reopen(number, true);
    let (machine, coverage) = (&world.stores.machines[number], &mut world.stores.shared.coverage);
    let twin = machine.twin.as_ref().expect("it works on real files");
    twin.check(&machine.disk);
    let config = machine.config().clone();
    let options = Options {
        members: config.members,
        segment_bytes: config.segment_bytes,
        max_bytes: config.max_bytes,
        author_bytes: config.author_bytes,
        view_bytes: config.view_bytes,
        reserve: Some(0),
        depth: config.depth,
        ..Options::new(config.network_id)
    };
    match Handle::open_read_only(twin.dir(), config.owner, options) {
        Ok(handle) => {
            assert_eq!(state(machine), Some(found(&handle)), "a program finds another store");
            coverage.hit("a program finds the same state");
        }
        Err(OpenError::Refused { error, .. }) => {
            assert!(machine.is_refused(), "a program is refused: {error}");
            coverage.hit("a program is refused as well");
        }
        Err(error) => panic!("{error}"),
    }
}

/// The next ordinal and the state hash of a store.
type State = (u64, Option<[u8; 32]>);

fn state(machine: &Machine) -> Option<State> {
    let store = machine.store().filter(|_| !machine.is_refused())?;
    Some((store.next_ordinal(), store.state_hash()))
}

fn found(handle: &Handle) -> State {
    let status = handle.status().wait().expect("an open store");
    (status.store.next_ordinal, handle.state_hash().wait().ok())
}
