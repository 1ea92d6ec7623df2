//! Development tools: throwaway servers, a workload, its ledger and the checker.

pub mod checker;
pub mod demo;
pub mod once;
pub mod random;
pub mod relay_process;
pub mod servers;
pub mod stage;
pub mod stream_reader;
pub mod workload;
