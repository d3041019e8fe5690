//! Tests of vine as a whole.
