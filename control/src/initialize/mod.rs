//! Waking sites.
pub mod machine;
#[cfg(test)]
mod machine_tests;
#[cfg(test)]
mod simulation;
pub mod words;
