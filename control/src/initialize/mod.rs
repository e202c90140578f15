//! Waking sites.
pub mod held;
pub mod machine;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod simulation;
pub mod queue;
pub mod words;
