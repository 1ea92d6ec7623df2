//! Copies the store of a nats-server, as a backup does, and puts it back later.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use postrider::dev::servers::Nats;

/// Copy of a server's store. The server must not run while the copy is made or put back.
pub(crate) struct StoreCopy {
    store: PathBuf,
    copy: PathBuf,
}

impl StoreCopy {
    /// Copies the store of this server.
    pub(crate) fn take(nats: &Nats) -> Self {
        let (store, copy) =
            (nats.log_path().with_file_name("store"), nats.log_path().with_file_name("copy"));
        copy_tree(&store, &copy);
        Self { store, copy }
    }

    /// Replaces the store by the copy.
    pub(crate) fn put_back(&self) {
        std::fs::remove_dir_all(&self.store).unwrap();
        copy_tree(&self.copy, &self.store);
    }
}

/// Copies a directory with its owners and permissions.
fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}
