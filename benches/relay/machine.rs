//! Describes the machine on which the numbers were taken, and whether it was busy with other work.

use std::{
    fmt, fs,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result};
use postrider::dev::servers::{nats_server, postgres_bin};

use crate::options::Options;

/// Description of the machine, the servers' versions and the commit of the source.
#[derive(Debug)]
pub(crate) struct Machine {
    cores: usize,
    model: String,
    kernel: String,
    servers: [String; 2],
    load: f64,
    commit: String,
    is_quick: bool,
}

impl Machine {
    pub(crate) fn examine(options: &Options) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo").context("read /proc: Linux is needed")?;
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            cores: thread::available_parallelism().map_or(0, usize::from),
            model: model.map_or("unknown", |(_, name)| name).to_owned(),
            kernel: kernel.trim().to_owned(),
            servers: [version(&postgres_bin()?.join("postgres")), version(&nats_server()?)],
            load: load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            commit: commit(),
            is_quick: options.quick,
        })
    }
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

/// Commit of the source as git describes it, or `unknown`.
fn commit() -> String {
    let describe = ["describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"];
    let output = Command::new("git")
        .args(describe)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).trim().to_owned();
    if text.is_empty() { "unknown".to_owned() } else { text }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, model, kernel, servers: [postgres, nats], load, commit, .. } = self;
        if self.is_quick {
            write!(f, "QUICK run, small sizes: not for numbers; ")?;
        }
        write!(f, "commit {commit}, ")?;
        write!(f, "{cores} cores ({model}), Linux {kernel}, {postgres}, {nats}, ")?;
        write!(f, "load {load} when it began")?;
        // A load of half a core by other work makes a ratio meaningless.
        if *load > 0.5 { write!(f, ": NOT a quiet machine") } else { Ok(()) }
    }
}
