//! Runs `postrider run` as a child process of this program, and reads its log and its memory use.

use std::{
    env, fs,
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::servers::{Guard, Signal, send_signal};

/// Longest time that the relay may take to stop. It is longer than the default of `shutdown.grace`.
const STOP_DEADLINE: Duration = Duration::from_secs(40);

/// A running (or ended) `postrider run`. Dropping it kills it.
#[derive(Debug)]
pub struct RelayProcess {
    home: PathBuf,
    guard: Guard,
    child: Child,
}

impl RelayProcess {
    /// Starts this program a second time, as `postrider run` with a configuration file of its own.
    ///
    /// `home` becomes its directory, and is removed when this value is dropped.
    ///
    /// # Errors
    /// When the directory or the log cannot be made, or the program cannot be started.
    pub fn start(home: &Path, toml: &str, settings: &[String]) -> io::Result<Self> {
        let mut guard = Guard::start(Signal::Kill, home)?;
        let log = File::create(log_path(home))?;
        let mut command = program(home, toml)?;
        command.arg("run").args(settings.iter().flat_map(|setting| ["--set", setting]));
        let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        guard.watch(child.id())?;
        Ok(Self { home: home.to_path_buf(), guard, child })
    }

    /// The file with everything that the relay has written.
    pub fn log_path(&self) -> PathBuf {
        log_path(&self.home)
    }

    /// The relay's configuration file.
    pub fn config_path(&self) -> PathBuf {
        config_path(&self.home)
    }

    /// The lines of the relay's log that are errors or panics.
    pub fn errors(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let is_error = |line: &&str| {
            line.split_whitespace().take(2).any(|word| word == "ERROR") || line.contains("panicked")
        };
        log.lines().filter(is_error).map(str::to_owned).collect()
    }

    /// The last lines of the relay's log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// The process's peak memory so far, in bytes; `None` where the system does not report it.
    pub fn memory_bytes_max(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kibibytes * 1024)
    }

    /// Whether the relay's process has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Stops the process with SIGTERM and returns its exit code; `None` when a signal ended it.
    ///
    /// # Errors
    /// When the process cannot be signalled, or does not stop in time.
    ///
    /// # Cancel safety
    /// The process stops also when the future is dropped.
    pub async fn stop(&mut self) -> io::Result<Option<i32>> {
        if !self.has_ended() {
            send_signal(self.child.id(), Signal::Terminate)?;
        }
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // The guard kills the relay if this program dies. When the guard has ended already,
                // it cannot take this message, and the error does not matter.
                drop(self.guard.forget());
                return Ok(status.code());
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the relay did not stop"));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        // From now on another process may get the relay's process id. The guard must not kill that
        // one.
        drop(self.guard.forget());
        drop(fs::remove_dir_all(&self.home));
    }
}

/// Runs another command of this program to its end. When the command fails, the error has its
/// output.
///
/// # Errors
/// When the command cannot be started, or does not end with 0.
pub fn run_command(home: &Path, toml: &str, args: &[&str]) -> io::Result<()> {
    let output = program(home, toml)?.args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(io::Error::other(String::from_utf8_lossy(&text).trim().to_owned()))
}

/// A command that runs this program with the configuration `toml`. Of this process's environment it
/// gets only `PATH`.
fn program(home: &Path, toml: &str) -> io::Result<Command> {
    let config = config_path(home);
    fs::write(&config, toml)?;
    let mut command = Command::new(env::current_exe()?);
    command.env_clear().env("HOME", home).env("NO_COLOR", "1").env("POSTRIDER_CONFIG", config);
    command.env("PATH", env::var_os("PATH").unwrap_or_default());
    // Ctrl-C in a terminal must reach this program first, which then stops the relay.
    command.current_dir(home).stdin(Stdio::null()).process_group(0);
    Ok(command)
}

fn config_path(home: &Path) -> PathBuf {
    home.join("postrider.toml")
}

fn log_path(home: &Path) -> PathBuf {
    home.join("relay.log")
}
