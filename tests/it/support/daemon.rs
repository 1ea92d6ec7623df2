//! Runs the real program as a child process: starts it, sends signals, reads its log, and fails on
//! unexpected warnings.

use std::{
    fs::{self, File, Permissions},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use postrider::dev::servers::{Guard, Signal, free_port, send_signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{DEADLINE, eventually, toml::Toml};

/// Exit code of a program that the watchdog has ended, because it was frozen with work to do for
/// longer than its lease is trusted.
pub(crate) const WATCHDOG: i32 = postrider::relay::leadership::watchdog::EXIT_CODE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postrider");

/// Exit code and outputs of a finished command.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command of the program with this configuration until it ends.
pub(crate) async fn run(toml: &Toml, args: &[&str]) -> Finished {
    run_with(toml, args, &[]).await
}

/// Runs a command with this configuration and these environment variables until it ends.
pub(crate) async fn run_with(toml: &Toml, args: &[&str], env: &[(&str, &str)]) -> Finished {
    let home = tempfile::tempdir().unwrap();
    let mut command = program(home.path(), toml);
    command.args(args).envs(env.iter().copied());
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, output).await.expect("an end in time").unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Command of the program with its configuration file, and without the environment of the tests.
fn program(home: &Path, toml: &Toml) -> Command {
    let config = home.join("postrider.toml");
    fs::write(&config, toml.to_string()).unwrap();
    // The file contains URLs with passwords, and the program warns when others can read it.
    fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("HOME", home).env("NO_COLOR", "1").env("POSTRIDER_CONFIG", config);
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.current_dir(home).stdin(Stdio::null());
    command
}

/// Settings of a program that has not been started yet.
#[derive(Debug, Clone)]
pub(crate) struct DaemonBuilder {
    toml: Toml,
    args: Vec<String>,
    env: Vec<(String, String)>,
    allowed: Vec<String>,
    admin_port: Option<u16>,
    output: Option<Arc<OwnedFd>>,
    stdout: Option<Arc<OwnedFd>>,
}

impl DaemonBuilder {
    /// Makes a builder for `postrider run` with this configuration.
    pub(crate) fn new(toml: Toml) -> Self {
        let args = vec!["run".to_owned()];
        let (env, allowed) = (Vec::new(), Vec::new());
        Self { toml, args, env, allowed, admin_port: None, output: None, stdout: None }
    }

    /// Sets one key of the configuration.
    pub(crate) fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.toml = self.toml.set(path, value);
        self
    }

    /// Changes the configuration by a function.
    pub(crate) fn config(mut self, change: impl FnOnce(Toml) -> Toml) -> Self {
        self.toml = change(self.toml);
        self
    }

    /// Adds an argument of the command line.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Adds an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Opens the admin listener on a free port; see [`Daemon::get`].
    pub(crate) fn admin(self) -> Self {
        self.listening(free_port().unwrap())
    }

    /// Opens the admin listener on this port.
    pub(crate) fn listening(mut self, port: u16) -> Self {
        self.admin_port = Some(port);
        self.set("admin.listen", format!("127.0.0.1:{port}"))
    }

    /// Sends both outputs of the program to this file or pipe, so that [`Daemon::log`] stays empty.
    pub(crate) fn output(mut self, output: impl Into<OwnedFd>) -> Self {
        self.output = Some(Arc::new(output.into()));
        self
    }

    /// Sends standard output to this file or pipe. The log goes on to the log file.
    pub(crate) fn stdout(mut self, stdout: impl Into<OwnedFd>) -> Self {
        self.stdout = Some(Arc::new(stdout.into()));
        self
    }

    /// Allows warnings and errors that contain this text. Any other one fails the test.
    pub(crate) fn allow_log(mut self, text: &str) -> Self {
        self.allowed.push(text.to_owned());
        self
    }

    /// Starts the program. It may not be ready when this returns.
    pub(crate) fn start(self) -> Daemon {
        let home = tempfile::tempdir().unwrap();
        // The guard removes the directory too when the test program is killed.
        let guard = Guard::start(Signal::Kill, home.path()).unwrap();
        let log = home.path().join("log");
        let mut daemon = Daemon { builder: self, home, guard, log, log_start: 0, child: None };
        daemon.start_again();
        daemon
    }
}

/// Log line of an instance that waits for the leader's lease to end.
pub(crate) const STANDS_BY: &str = "another instance leads this relay";

/// Starts two instances with the same settings. The first one leads, and the second stands by.
pub(crate) async fn pair(build: impl Fn() -> DaemonBuilder) -> (Daemon, Daemon) {
    let mut first = build().start();
    first.wait_log("relaying", DEADLINE).await;
    let mut second = build().start();
    second.wait_log(STANDS_BY, DEADLINE).await;
    (first, second)
}

/// A program that runs, or that the test has ended. Dropping the value kills the program, and fails
/// the test when the log contains a warning or an error that was not allowed.
pub(crate) struct Daemon {
    builder: DaemonBuilder,
    home: TempDir,
    guard: Guard,
    log: PathBuf,
    log_start: u64,
    child: Option<Child>,
}

impl Daemon {
    /// Starts the program again with the same configuration. The earlier process must have ended.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        self.log_start = log.metadata().unwrap().len();
        let mut command = program(self.home.path(), &self.builder.toml);
        command.args(&self.builder.args).envs(self.builder.env.iter().cloned());
        let log = self.builder.output.as_ref().map_or_else(
            || OwnedFd::from(log),
            |elsewhere| elsewhere.try_clone().expect("another handle"),
        );
        let stdout = self.builder.stdout.as_deref().unwrap_or(&log);
        command.stdout(stdout.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        self.guard.watch(child.id()).unwrap();
        self.child = Some(child);
    }

    /// Allows warnings and errors that contain this text, in the log of all starts.
    pub(crate) fn allow_log(&mut self, text: &str) {
        self.builder.allowed.push(text.to_owned());
    }

    /// Changes the configuration file of the running program, and sends SIGHUP to make the program
    /// read it.
    pub(crate) fn reload(&mut self, change: impl FnOnce(Toml) -> Toml) {
        self.builder.toml = change(self.builder.toml.clone());
        fs::write(self.home.path().join("postrider.toml"), self.builder.toml.to_string()).unwrap();
        self.signal(Signal::HangUp);
    }

    /// Path of the configuration file.
    pub(crate) fn config_path(&self) -> PathBuf {
        self.home.path().join("postrider.toml")
    }

    /// Process id of the running program.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("a running program").id()
    }

    /// Kills the program with SIGKILL.
    pub(crate) fn kill9(&mut self) {
        let mut child = self.child.take().expect("a running program");
        child.kill().unwrap();
        child.wait().unwrap();
        self.guard.forget().unwrap();
    }

    /// Sends SIGTERM; follow with [`wait_exit`](Self::wait_exit).
    pub(crate) fn terminate(&self) {
        self.signal(Signal::Terminate);
    }

    /// Stops the program with SIGTERM, and asserts that its exit code is 0.
    pub(crate) async fn stop(&mut self) {
        self.terminate();
        assert_eq!(self.wait_exit(DEADLINE).await, Some(0), "{}", self.log());
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn wait_ready(&self) {
        eventually("a program that is ready", DEADLINE, async || {
            self.get("/readyz").await.is_some_and(|answer| answer.status == 200)
        })
        .await;
    }

    /// Freezes the program with SIGSTOP.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::Stop);
    }

    /// Lets a frozen program go on, with SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::Continue);
    }

    /// Sends a signal to the program.
    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal).unwrap();
    }

    /// Waits until the program has ended. Returns its exit code, or `None` when a signal ended it.
    pub(crate) async fn wait_exit(&mut self, deadline: Duration) -> Option<i32> {
        let child = self.child.as_mut().expect("a running program");
        let status = eventually("the program's end", deadline, async || child.try_wait().unwrap());
        let code = status.await.code();
        self.child = None;
        self.guard.forget().unwrap();
        code
    }

    /// Lets a program go on that was frozen with work to do. Waits until it logs this text, or
    /// until its watchdog has ended it; then starts it again. Returns whether it was started again.
    pub(crate) async fn thaw_at_work(&mut self, text: &str, deadline: Duration) -> bool {
        let said = self.log().len();
        self.thaw();
        let what = format!("{text:?} in the log, or the program's end");
        let ended = eventually(what, deadline, async || {
            let child = self.child.as_mut().expect("a running program");
            match child.try_wait().unwrap() {
                Some(status) => Some(Some(status.code())),
                None => self.log().get(said..)?.contains(text).then_some(None),
            }
        })
        .await;
        let Some(code) = ended else { return false };
        assert_eq!(code, Some(WATCHDOG), "{}", self.log());
        self.child = None;
        self.guard.forget().unwrap();
        self.start_again();
        true
    }

    /// Waits for a line with this text in the log since the last start, and returns the line. Fails
    /// when the program ends without it.
    pub(crate) async fn wait_log(&mut self, text: &str, deadline: Duration) -> String {
        let what = format!("{text:?} in the log");
        eventually(what, deadline, async || {
            let ended = !matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)));
            let log = self.log();
            let line = log.lines().find(|line| line.contains(text)).map(str::to_owned);
            assert!(
                line.is_some() || !ended,
                "the program ended without {text:?} in its log:\n{log}"
            );
            line
        })
        .await
    }

    /// The two outputs of the program since its last start.
    pub(crate) fn log(&self) -> String {
        let log = fs::read(&self.log).unwrap();
        let start = usize::try_from(self.log_start).unwrap();
        String::from_utf8_lossy(log.get(start..).unwrap_or_default()).into_owned()
    }

    /// Sends a GET request to the admin listener. `None` when nobody answers.
    pub(crate) async fn get(&self, path: &str) -> Option<Answer> {
        let port = self.builder.admin_port.expect("a daemon built with admin()");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await.ok()?.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.split_whitespace().nth(1)?.parse().ok()?;
        Some(Answer { status, body: body.to_owned() })
    }

    /// Value of one series of `/metrics`.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        self.metric_if_up(series).await.unwrap()
    }

    /// Value of one series of `/metrics`. `None` when the admin listener does not answer.
    pub(crate) async fn metric_if_up(&self, series: &str) -> Option<f64> {
        let page = self.get("/metrics").await?.body;
        let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        Some(line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap())
    }

    fn complaints(&self) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let allowed = |line: &str| self.builder.allowed.iter().any(|text| line.contains(text));
        String::from_utf8_lossy(&log)
            .lines()
            .filter(|line| is_complaint(line) && !allowed(line))
            .map(str::to_owned)
            .collect()
    }
}

/// Status and body of an answer of the admin listener.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill9();
        }
        if thread::panicking() {
            eprintln!("the program's log:\n{}", self.log());
            return;
        }
        let complaints = self.complaints();
        assert!(
            complaints.is_empty(),
            "unexpected in the log (see allow_log):\n{}",
            complaints.join("\n")
        );
    }
}

/// Whether a log line is a warning, an error or a panic, in the format text or JSON.
fn is_complaint(line: &str) -> bool {
    let level = line.split_whitespace().take(2).any(|word| word == "WARN" || word == "ERROR");
    let json = line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
    level || json || line.contains("panicked at")
}

#[test]
fn warnings_errors_and_panics_are_complaints_in_both_log_formats() {
    assert!(is_complaint("2026-11-21T10:00:00Z  WARN postrider::relay: late"));
    assert!(is_complaint("ERROR postrider::relay: gone"));
    assert!(is_complaint(r#"{"timestamp":"…","level":"ERROR","fields":{}}"#));
    assert!(is_complaint("thread 'main' (1) panicked at src/main.rs:1:1:"));
    assert!(!is_complaint("2026-11-21T10:00:00Z  INFO postrider::relay: ERROR is a word"));
}
