//! The memory-mapped table that nginx reads.
