//! The guard: a shell that ends a server's process and removes its directory once this program has
//! ended.

use std::{
    fmt, io,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// The guard's script. It reads process ids until the pipe from this program closes, which the
/// kernel does even after `kill -9`. The last line names the process to end; an empty last line
/// names none.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -s "$1" "$pid" 2>/dev/null
    tries=0
    while [ "$tries" -lt 50 ] && kill -0 "$pid" 2>/dev/null; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL "$pid" 2>/dev/null
fi
rm -rf -- "$2"
"#;

/// The signals that throwaway processes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `SIGINT`: Postgres' fast shutdown.
    Interrupt,
    /// `SIGTERM`: an orderly stop.
    Terminate,
    /// `SIGQUIT`: Postgres' immediate shutdown, as after a crash.
    Quit,
    /// `SIGKILL`: the process ends at once and cannot react.
    Kill,
    /// `SIGHUP`: read the configuration again.
    HangUp,
    /// `SIGUSR1`: what it does depends on the program.
    User1,
    /// `SIGSTOP`: freeze.
    Stop,
    /// `SIGCONT`: thaw.
    Continue,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
            Self::HangUp => "HUP",
            Self::User1 => "USR1",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        })
    }
}

/// Sends a signal to one process, by its id.
///
/// # Errors
/// When there is no such process, or it is not ours.
pub fn send_signal(pid: u32, signal: Signal) -> io::Result<()> {
    let script = r#"kill -s "$1" "$2""#;
    let output = Command::new("/bin/sh")
        .args(["-c", script, "sh", &signal.to_string(), &pid.to_string()])
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Handle of a guard. The guard ends a process and removes a directory once this handle is dropped,
/// or the whole program has ended.
///
/// `setpriv --pdeathsig` would not do: it ends the child with the *thread* that started it, and
/// each test runs on a thread of its own. A pipe closes only when the process that holds it ends,
/// on every system.
#[derive(Debug)]
pub struct Guard {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts a guard that will send `signal` (and `SIGKILL` 5 s later) and remove `directory`.
    ///
    /// # Errors
    /// When no shell can be started.
    pub fn start(signal: Signal, directory: &Path) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "guard", &signal.to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Ctrl-C in a terminal goes to the whole foreground group; the guard must outlive it.
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Names the process to end, in place of the process that was named before.
    ///
    /// # Errors
    /// When the guard has ended.
    pub fn watch(&mut self, pid: u32) -> io::Result<()> {
        self.say(&pid.to_string())
    }

    /// Keeps the guard from ending the process. Call it once the process was waited for.
    ///
    /// # Errors
    /// When the guard has ended.
    pub fn forget(&mut self) -> io::Result<()> {
        self.say("")
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        self.pipe.as_mut().map_or(Ok(()), |pipe| writeln!(pipe, "{line}"))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // The wait avoids a zombie process. Its failure has no remedy, so it is ignored.
        drop(self.shell.wait());
    }
}
