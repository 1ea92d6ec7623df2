//! What a developer's machine needs: throwaway servers, a workload, its ledger and the checker.

pub mod checker;
pub mod servers;
