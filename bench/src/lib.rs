//! Benchmarks of Windlass beside its peers.
