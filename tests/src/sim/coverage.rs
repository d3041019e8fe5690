//! Which situations a run reached. A simulator that never meets a situation proves nothing about it.

use std::collections::BTreeMap;
use std::fmt;

/// How often each situation was met.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    /// Counts a situation.
    pub fn hit(&mut self, label: impl Into<String>) {
        self.add(label, 1);
    }

    /// Counts a situation `times` times.
    pub fn add(&mut self, label: impl Into<String>, times: u64) {
        if times > 0 {
            *self.0.entry(label.into()).or_default() += times;
        }
    }

    /// Adds what another run met.
    pub fn merge(&mut self, other: &Coverage) {
        for (label, times) in &other.0 {
            self.add(label.clone(), *times);
        }
    }

    /// How often a situation was met.
    pub fn times(&self, label: &str) -> u64 {
        self.0.get(label).copied().unwrap_or(0)
    }

    /// Which of these situations were never met.
    pub fn missing<'a>(&self, labels: &[&'a str]) -> Vec<&'a str> {
        labels.iter().copied().filter(|label| self.times(label) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(label, times)| writeln!(f, "{times:>10}  {label}"))
    }
}
