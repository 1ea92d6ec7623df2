//! A small disk of its own, which a test may fill.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A file system in memory with a fixed size. It is unmounted when this is dropped.
pub(crate) struct SmallDisk {
    at: PathBuf,
    _directory: TempDir,
}

impl SmallDisk {
    /// Mounts one; what went wrong when this user may not, as root or through `sudo`.
    pub(crate) fn mount(size: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("disk");
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={size},mode=0777");
        let mount = ["mount", "-t", "tmpfs", "-o", &options, "postrider-test"];
        as_root(&mount, &at)?;
        Ok(Self { at, _directory: directory })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Takes all the room that is left, with one file.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.at.join("filler");
        let of = format!("of={}", path.display());
        let filled = Command::new("dd").args(["if=/dev/zero", &of, "bs=4k"]).output().unwrap();
        assert!(!filled.status.success(), "it should run out of room");
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that lives on it may not have ended yet.
        drop(as_root(&["umount", "-l"], &self.at));
    }
}

fn as_root(command: &[&str], at: &Path) -> Result<(), String> {
    let mut why = String::new();
    for before in [&[][..], &["sudo", "-n"][..]] {
        let words = [before, command].concat();
        let Some((program, arguments)) = words.split_first() else { continue };
        match Command::new(program).args(arguments).arg(at).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => why = String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!("{}: {why}", command.join(" ")))
}
