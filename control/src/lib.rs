//! The control plane.
pub mod initialize;
