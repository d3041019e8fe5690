//! How long traffic stands still when a direct path goes dark, and how it comes back.
#![allow(clippy::unwrap_used, reason = "the whole file is a test")]

mod delayed;
mod relays;
mod switched;

use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const RETURN: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(10);
