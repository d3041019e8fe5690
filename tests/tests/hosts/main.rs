//! Real daemons on hosts of their own: network namespaces, real TUN devices, real kernels.
//!
//! Needs root; `bash scripts/test.sh` runs it with all that it needs.

mod faults;
mod pair;
mod reload;
mod session;
mod strangers;
mod throughput;
mod truth;
