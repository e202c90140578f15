//! The registry through its trait.
