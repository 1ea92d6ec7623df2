//! Runs the real program as a child process: starts, stops and kills it, and reads what it used.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail, ensure};
use postrider::dev::servers::{Guard, Signal, send_signal};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::proc;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postrider");
const STOP_DEADLINE: Duration = Duration::from_mins(1);

/// A running `postrider run`. Dropping the value kills the process.
pub(crate) struct Daemon {
    home: TempDir,
    guard: Guard,
    child: Child,
    /// Time of the last start.
    pub(crate) started: SystemTime,
}

impl Daemon {
    /// Starts the program with this configuration. The program may not be ready when this returns.
    pub(crate) fn start(toml: &str) -> Result<Self> {
        let home = tempfile::tempdir()?;
        fs::write(home.path().join("postrider.toml"), toml)?;
        let mut guard = Guard::start(Signal::Kill, home.path())?;
        let started = SystemTime::now();
        let child = spawn(&home)?;
        guard.watch(child.id())?;
        Ok(Self { home, guard, child, started })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that the process has used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        proc::cpu_seconds(self.pid())
    }

    /// Peak of the process's resident memory, in MiB.
    pub(crate) fn resident_peak(&self) -> Result<f64> {
        proc::resident_peak(self.pid())
    }

    /// Fails, with the program's log in the error, when the program has ended.
    pub(crate) fn ensure_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("postrider ended ({status}); its log:\n{}", self.log()),
        }
    }

    /// Kills the program with SIGKILL.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).context("kill postrider")?;
        Ok(())
    }

    /// Starts the program again after it was killed.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        self.started = SystemTime::now();
        self.child = spawn(&self.home)?;
        self.guard.watch(self.child.id())?;
        Ok(())
    }

    /// Stops the program with SIGTERM. Fails unless its exit code is 0.
    pub(crate) async fn stop(mut self) -> Result<()> {
        send_signal(self.pid(), Signal::Terminate)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(Instant::now() < deadline, "postrider does not stop; its log:\n{}", self.log());
            sleep(Duration::from_millis(5)).await;
        };
        ensure!(status.success(), "postrider ended with {status}; its log:\n{}", self.log());
        Ok(())
    }

    /// Everything that the program has printed, of all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_path(&self.home)).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The error is ignored, because the program may have ended already.
        drop(self.kill());
        drop(self.guard.forget());
    }
}

fn log_path(home: &TempDir) -> PathBuf {
    home.path().join("log")
}

fn spawn(home: &TempDir) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log_path(home))?;
    Command::new(PROGRAM)
        .arg("run")
        .env_clear()
        .env("HOME", home.path())
        .env("POSTRIDER_CONFIG", home.path().join("postrider.toml"))
        .current_dir(home.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("start postrider")
}
