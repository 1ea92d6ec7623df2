//! Reads processor time and memory of another process from `/proc`.

use std::fs;

use anyhow::{Context as _, Result};

use crate::measure::float;

/// Processor time that all threads of a process have used, in seconds.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let mut nanoseconds = 0;
    for task in tasks.with_context(|| format!("read the threads of process {pid}"))? {
        // A thread that has ended since the directory was listed is skipped.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let first = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
        nanoseconds += first.context("read schedstat")?;
    }
    Ok(float(nanoseconds) / 1e9)
}

/// Processor time that several processes together have used, in seconds.
pub(crate) fn cpu_seconds_of_all(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| cpu_seconds(*pid)).sum()
}

/// Peak of a process's resident memory, in MiB.
pub(crate) fn resident_peak(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("read VmHWM")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}
