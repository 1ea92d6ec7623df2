//! A temporary directory and the one server process that lives in it, without root's rights.

use std::{
    env,
    ffi::OsStr,
    fs,
    fs::{DirBuilder, File},
    io,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Guard, ServerError, Signal, io_error, send_signal};

/// Longest time that a server may take to stop before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const LOG_LINES: usize = 20;

/// The user that a server runs as when this program runs as root.
#[derive(Debug, Clone, Copy)]
struct Account {
    uid: u32,
    gid: u32,
}

/// A temporary directory and the process that lives in it.
#[derive(Debug)]
pub(super) struct Sandbox {
    directory: PathBuf,
    account: Option<Account>,
    last_signal: Signal,
    guard: Guard,
    child: Option<Child>,
}

impl Sandbox {
    /// Makes the directory below `parent` (else the system's temporary directory). `last_signal` is
    /// the signal that ends the process when the sandbox is dropped.
    pub(super) fn create(parent: Option<&Path>, last_signal: Signal) -> Result<Self, ServerError> {
        let id = Uuid::new_v4().simple().to_string();
        // The name is short because the path of a Unix socket has at most 107 bytes.
        let name = format!("postrider-{}", id.get(..12).unwrap_or(&id));
        let directory = parent.map_or_else(env::temp_dir, Path::to_path_buf).join(name);
        let furnish = || -> io::Result<(Option<Account>, Guard)> {
            let guard = Guard::start(last_signal, &directory)?;
            let account = (fs::metadata(&directory)?.uid() == 0).then(unprivileged_account);
            if let Some(account) = account {
                chown(&directory, Some(account.uid), Some(account.gid))?;
            }
            Ok((account, guard))
        };
        let make = || {
            DirBuilder::new().mode(0o700).create(&directory)?;
            furnish().inspect_err(|_| drop(fs::remove_dir(&directory)))
        };
        let (account, guard) =
            make().map_err(io_error(format!("make the directory {}", directory.display())))?;
        Ok(Self { directory, account, last_signal, guard, child: None })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A command that runs in the directory, without root's rights, and writes its output to the
    /// log and not to the terminal.
    pub(super) fn command(&self, program: &Path) -> Result<Command, ServerError> {
        let log = File::options().create(true).append(true).open(self.log_path());
        let (out, err) = log
            .and_then(|log| Ok((log.try_clone()?, log)))
            .map_err(io_error("open the server's log"))?;
        let mut command = Command::new(program);
        command.current_dir(&self.directory).stdin(Stdio::null()).stdout(out).stderr(err);
        // Ctrl-C in a terminal must reach this program first, which needs the server to finish its
        // work.
        command.process_group(0);
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        Ok(command)
    }

    /// Runs a command to its end.
    pub(super) fn run(
        &self,
        program: &'static str,
        mut command: Command,
    ) -> Result<(), ServerError> {
        let status = command.status().map_err(io_error(format!("run {program}")))?;
        if status.success() {
            return Ok(());
        }
        Err(ServerError::Ended { program, log: self.log_tail() })
    }

    /// Starts the server, and has the guard end it once this program has ended.
    pub(super) fn spawn<I, S>(&mut self, program: &Path, args: I) -> Result<(), ServerError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(program)?;
        let child =
            command.args(args).spawn().map_err(io_error(format!("run {}", program.display())))?;
        let watched = self.guard.watch(child.id());
        self.child = Some(child);
        watched.map_err(io_error("put the server under guard"))
    }

    /// Writes a file into the directory, which the server's account may read. Returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, ServerError> {
        let path = self.directory.join(name);
        fs::write(&path, text)
            .and_then(|()| self.give(&path))
            .map_err(io_error(format!("write {}", path.display())))?;
        Ok(path)
    }

    /// Copies a program into the directory, because the server's account may have no access to
    /// root's home. Returns the path of the copy.
    pub(super) fn copy_program(&self, program: &Path) -> Result<PathBuf, ServerError> {
        let path = self.directory.join("program");
        fs::copy(program, &path)
            .and_then(|_| self.give(&path))
            .map_err(io_error(format!("copy {}", program.display())))?;
        Ok(path)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        self.account.map_or(Ok(()), |account| chown(path, Some(account.uid), Some(account.gid)))
    }

    /// The id of the server's process, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the process has ended by itself, or was never started.
    pub(super) fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            self.forget();
        }
        ended
    }

    /// Sends a signal to the server's process, if there is one.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), ServerError> {
        let Some(pid) = self.pid() else { return Ok(()) };
        send_signal(pid, signal).map_err(io_error(format!("send SIG{signal}")))
    }

    /// Asks the process to end and waits for it; kills it when it takes longer than 30 s.
    pub(super) async fn stop(&mut self, signal: Signal) -> Result<(), ServerError> {
        if self.has_ended() {
            return Ok(());
        }
        self.signal(signal)?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while !self.has_ended() {
            if Instant::now() > deadline {
                return self.kill();
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Ends the process with `kill -9`, and waits until it has ended.
    pub(super) fn kill(&mut self) -> Result<(), ServerError> {
        if let Some(child) = self.child.as_mut() {
            child.kill().and_then(|()| child.wait()).map_err(io_error("kill the server"))?;
        }
        self.forget();
        Ok(())
    }

    fn forget(&mut self) {
        self.child = None;
        // A guard that has ended needs no message, so its error is ignored.
        drop(self.guard.forget());
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// The server's output so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !self.has_ended() && self.signal(self.last_signal).is_ok() {
            // The wait blocks: the directory can be removed only once no process writes to it.
            let mut tries = 0;
            while !self.has_ended() && tries < 500 {
                std::thread::sleep(Duration::from_millis(10));
                tries += 1;
            }
        }
        drop(self.kill());
        // The guard removes whatever remains of the directory.
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// The `postgres` user, else `nobody`, from /etc/passwd; 65534 is nobody nearly everywhere.
fn unprivileged_account() -> Account {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |wanted: &str| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            (name == wanted).then_some(Account { uid, gid })
        })
    };
    find("postgres").or_else(|| find("nobody")).unwrap_or(Account { uid: 65534, gid: 65534 })
}
