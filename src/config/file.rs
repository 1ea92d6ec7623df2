//! Reads small files that a person names: bounded in size, and never a pipe, which could block.

use std::{
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
};

/// The largest configuration file in bytes, inclusive. A larger one is refused.
pub(super) const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// The largest secret in bytes, inclusive. A larger file is refused: it is not a secret.
pub(super) const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The largest file of certificates or revocation lists in bytes, inclusive. A larger one is
/// refused.
pub const CERTIFICATES_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The largest connection service file or password file in bytes, inclusive. A larger one is
/// refused.
pub const LOGINS_BYTES_MAX: u64 = 1024 * 1024;

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
///
/// The reason in words, without any content of the file. A pipe is refused because opening one
/// waits for its writer.
pub fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    refuse_special(&metadata)?;
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("it is larger than {} KiB", bytes_max / 1024));
    }
    Ok(bytes)
}

/// Reads a text as [`read`] reads bytes.
///
/// # Errors
///
/// The errors of [`read`], and one for bytes that are not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    String::from_utf8(read(path, bytes_max)?).map_err(|_| "it is not UTF-8 text".to_owned())
}

/// Reads a secret and removes the line break at its end.
///
/// # Errors
///
/// The errors of [`read_text`], and one when nothing is left.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let text = read_text(path, SECRET_BYTES_MAX)?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

fn refuse_special(metadata: &Metadata) -> Result<(), String> {
    if metadata.is_file() {
        Ok(())
    } else if metadata.is_dir() {
        Err("it is a directory".to_owned())
    } else {
        Err("it is a pipe, socket or device; name a regular file".to_owned())
    }
}

/// Whether every user of the machine can read the file.
pub(super) fn is_world_readable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Whether any user but the owner has access to the file, which libpq forbids for password files.
pub fn has_group_or_world_access(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Whether a private key has more readers than libpq and ssh allow. Only the owner may have access;
/// when root owns the key, its group may read it.
pub fn is_private_key_exposed(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| {
        let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
        metadata.permissions().mode() & forbidden != 0
    })
}
