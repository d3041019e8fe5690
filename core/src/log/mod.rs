//! The log: durable here first, delivered in order, the same on every node in the end.

pub mod archive;
pub mod chain;
pub mod clock;
pub mod commit;
mod committer;
pub mod disk;
pub mod import;
pub mod op;
pub mod reader;
pub mod recover;
pub mod replay;
pub mod report;
pub mod scan;
pub mod segment;
pub mod store;
#[cfg(test)]
mod tests;
pub mod view;
pub mod writer;

pub use chain::{Accept, Chains, LogState, Refusal};
pub use clock::{Hlc, HybridClock, KV_HORIZON};
pub use commit::{Commit, CommitHash, Draft, Genesis, Header, LogId, Record, Tip, verify_run};
pub use op::{Op, Ops, OpsBuilder};
pub use view::View;
