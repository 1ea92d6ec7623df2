//! The store of a nats-server, copied as a backup does it, and put back later.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use postrider::dev::servers::Nats;

/// A store as it was when it was copied. The server has to stand still for both directions.
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

    /// Puts the copy in the place of the store.
    pub(crate) fn put_back(&self) {
        std::fs::remove_dir_all(&self.store).unwrap();
        copy_tree(&self.copy, &self.store);
    }
}

/// Copies a directory with owners and modes.
fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success(), "cp -a {} {}", from.display(), to.display());
}
