//! Real daemons on hosts of their own: network namespaces, real TUN devices, real kernels.
//!
//! Needs root; `bash scripts/test.sh` runs it with all that it needs.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod faults;
mod kill;
mod log;
mod pair;
mod reload;
mod session;
mod strangers;
mod throughput;
mod truth;
