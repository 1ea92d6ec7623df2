//! A directory of configuration files and an environment, in which a command of the program is run.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::daemon::Finished;

const PROGRAM: &str = env!("CARGO_BIN_EXE_postrider");

/// Files and environment variables of one run.
pub(crate) struct Sandbox {
    home: TempDir,
    variables: Vec<(String, String)>,
}

impl Sandbox {
    /// Makes an empty directory and an empty environment.
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// Writes a file that only the tests' user can read.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    /// Makes a named pipe to which nobody writes.
    pub(crate) fn pipe(self, name: &str) -> Self {
        assert!(Command::new("mkfifo").arg(self.path(name)).status().unwrap().success());
        self
    }

    /// Path of the directory.
    pub(crate) fn directory(&self) -> String {
        self.home.path().to_string_lossy().into_owned()
    }

    /// Lets every user read a file.
    pub(crate) fn expose(self, name: &str) -> Self {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    /// Sets an environment variable. `$DIR` in its value stands for the directory.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        let value = value.replace("$DIR", &self.home.path().to_string_lossy());
        self.variables.push((name.to_owned(), value));
        self
    }

    /// Runs the program in the directory until it ends. In its outputs the directory's path is
    /// replaced by `$DIR`.
    pub(crate) fn run(&self, args: &[&str]) -> Finished {
        let mut command = Command::new(PROGRAM);
        command.env_clear().envs(self.variables.iter().cloned()).current_dir(self.home.path());
        let output = command.args(args).output().unwrap();
        let text = |bytes| {
            let home = self.home.path().to_string_lossy();
            String::from_utf8(bytes).unwrap().replace(&*home, "$DIR")
        };
        Finished {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}
