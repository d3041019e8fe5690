//! Everything that went into the nodes and came out of them, folded into one hash.

use blake2::{Blake2s256, Digest};
use vine_core::Instant;

/// A hash over every input and every output, in order, with their bytes and times. Two runs of one script have the same.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: Blake2s256,
    entries: u64,
}

impl Trace {
    /// Takes in one input or output of a host.
    pub fn note(&mut self, kind: &str, host: usize, at: Instant, bytes: &[u8]) {
        self.entries += 1;
        self.hash.update([kind.len() as u8]);
        self.hash.update(kind);
        self.hash.update((host as u64).to_le_bytes());
        self.hash.update(at.as_nanos().to_le_bytes());
        self.hash.update((bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
    }

    /// How much was taken in.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The hash so far, in hexadecimal.
    pub fn digest(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
