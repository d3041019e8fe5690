//! The log: durable here first, delivered in order, the same on every node in the end.

pub mod disk;
pub mod scan;
pub mod segment;
pub mod writer;
