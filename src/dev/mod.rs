//! What a developer's machine needs: throwaway servers, a workload, its ledger and the checker.

pub mod checker;
pub mod random;
pub mod servers;
pub mod stream_reader;
pub mod workload;
