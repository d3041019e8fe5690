//! Tests of vine as a whole.
//!
//! [`lab`] puts real daemons into network namespaces: `tests/hosts` and `tests/flood` stand on it. [`flood`] makes hostile datagrams. `tests/tidy.rs` holds the
//! rules of the repository. [`sim`] runs production nodes on virtual time, [`disk`] production stores over a disk that fails, [`whole`] both in one
//! world. [`heap`] counts allocations.

#[macro_use]
mod text;

mod caught;
pub mod disk;
pub mod flood;
pub mod heap;
pub mod lab;
pub mod script;
pub mod sim;
pub mod whole;
