//! Development tools: throwaway servers, a workload of random transactions, and a checker that
//! compares what was committed with what arrived.

pub mod checker;
pub mod demo;
pub mod once;
pub mod random;
pub mod relay_process;
pub mod servers;
pub mod stage;
pub mod stream_reader;
pub mod workload;
