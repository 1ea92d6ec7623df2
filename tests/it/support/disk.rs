//! A small file system that a test may fill.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// A file system in memory with a fixed size. Dropping the value unmounts it.
pub(crate) struct SmallDisk {
    at: PathBuf,
    _directory: TempDir,
}

impl SmallDisk {
    /// Mounts a file system of this size, as root or through `sudo`. Returns the reason as text
    /// when this user may not.
    pub(crate) fn mount(size: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("disk");
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={size},mode=0777");
        let mount = ["mount", "-t", "tmpfs", "-o", &options, "postrider-test"];
        as_root(&mount, &at)?;
        Ok(Self { at, _directory: directory })
    }

    /// Directory where the file system is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Fills all free space with one file. Returns the file's path.
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
        // The lazy unmount works even when a server on the file system has not ended yet.
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
