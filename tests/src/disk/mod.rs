//! Production stores in the [simulator](crate::sim), over a disk that tears, rots, lies, fills up and crashes. They have the
//! world's clock; without hosts, such a world is a simulator of the log.
//!
//! | file | what it is |
//! | --- | --- |
//! | `device` | the disk: what programs see, what is durable, and what a crash may leave of the difference |
//! | `content` | the bytes of one file of it, twice |
//! | `op` | the vocabulary of what can happen; one op a line as text |
//! | `script` | stores and ops: from a seed, from text, shrunk when it fails |
//! | `stores` | machines and what happens to them; `sim` lets time pass for them, and heals them |
//! | `machine` | one store on one disk: runs it, and holds what it asks for and says against the ledger |
//! | `check` | what is read of a store, held against what was written |
//! | `ledger` | what was written, by whom, and where it has to be |
//! | `model` | what the key-value view has to be, said in the simplest way |
//! | `twin` | the disk once more, as real files |
//! | `on_files` | the same scripts over real files |
//! | `crashes` | every crash of a small workload |
//!
//! What holds at every moment, or the run fails:
//!
//! - nothing is acknowledged, imported or delivered that is not on the disk for certain, under a name that is;
//! - what was acknowledged, or found by an opening that may write, is there at every later opening. Where a disk has rotted or
//!   lied, what is missing is told, by the opening or by the reading; only an end that a lie took may be missing in silence;
//! - a position is given to one op, over all lives, clones and backups; an ordinal is given to one op of a store;
//! - a commit is made of what was submitted, in that order, and no append is in two commits;
//! - what was refused, or given up before it was on its way to the disk, never appears anywhere;
//! - delivery is in order, without a gap that is not told, and as it was written; the view is that of what was delivered;
//! - a store that is closed and opened is in the same state;
//! - a segment's header is handed to the disk when all of the segment before it is there for certain;
//! - a store writes nothing when it is open for reading, closed or stopped, grows to no more than its limit, stops and refuses
//!   for a reason, answers everybody, and wakes exactly when something is due.
//!
//! The same scripts run over real files as well, the files of a `twin` of the disk: there each operation has to give what it
//! gives on the simulated disk, and a program that opens the directory afterwards has to find the same store.
//!
//! To repeat a seed: `VINE_SIM_SEED=n cargo test -p vine-tests --test log_seeds`, or `--test log_files` for real files; to see
//! every effect of it, with `VINE_SIM_LOG=1` and `-- --nocapture`.

mod check;
mod content;
pub mod crashes;
mod device;
mod dice;
mod ledger;
mod machine;
mod model;
mod on_files;
mod op;
mod script;
mod stores;
mod twin;

pub use content::SECTOR;
pub use device::{BLOCK, Fault, SimDisk, Unsynced};
pub use dice::Dice;
pub use ledger::{Known, Ledger, Placed, Position, Slot, Timeline};
pub use machine::{Content, Machine, Shared};
pub use model::Model;
pub use on_files::OnFiles;
pub use op::{Kind, Op, Profile, any_op, any_op_on, any_ops};
pub(crate) use script::profile_of;
pub use script::{Script, Setup};
pub use stores::Stores;
pub use twin::Twin;
