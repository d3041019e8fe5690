//! The commits of an import, to be verified wherever there is time for it.

use alloc::vec::Vec;

use super::commit::{Commit, Record, VerifyError};
use crate::identity::PeerId;

/// Commits, each with the author that it has to be of.
///
/// Verifying them is by far the longest part of an import, needs nothing but this, and can be done on any thread.
#[derive(Debug)]
pub struct Unverified(Vec<(usize, Commit, PeerId)>);

/// What became of it, by the number of the record in the import.
#[derive(Debug, Default)]
pub struct Verdicts(Vec<(usize, Result<(), VerifyError>)>);

impl Unverified {
    /// The commits among `records` of which `author` knows whose they would be.
    pub(super) fn new(records: &[Record], mut author: impl FnMut(&Record) -> Option<PeerId>) -> Unverified {
        let numbered = records.iter().enumerate();
        let known = numbered.filter_map(|(number, record)| match (record, author(record)) {
            (Record::Commit(commit), Some(author)) => Some((number, commit.clone(), author)),
            _ => None,
        });
        Unverified(known.collect())
    }

    /// Verifies the hash and the signature of each.
    pub fn verify(&self) -> Verdicts {
        Verdicts(self.0.iter().map(|(number, commit, author)| (*number, commit.verify(author))).collect())
    }
}

impl Verdicts {
    /// What was said of a record; `None` if it was not verified.
    pub(super) fn get(&self, number: usize) -> Option<Result<(), VerifyError>> {
        let at = self.0.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.0.get(at).map(|(_, verdict)| *verdict)
    }
}
