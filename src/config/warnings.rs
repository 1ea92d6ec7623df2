//! What a valid configuration still risks: said once in the log.

use std::{collections::BTreeSet, ffi::OsString, path::Path};

use super::{
    Config,
    error::Origin,
    keys,
    layers::PREFIX,
    load::{Notice, Origins},
};

/// Every risk that is worth a line.
pub(super) fn all(
    config: &Config,
    origins: &Origins,
    variables: &[(OsString, OsString)],
) -> Vec<Notice> {
    let mut warnings = exposed_files(config, origins);
    warnings.extend(mistyped_variables(variables));
    warnings.into_iter().map(Notice::Warning).collect()
}

/// Files that everyone on the machine can read and that hold a secret.
fn exposed_files(config: &Config, origins: &Origins) -> Vec<String> {
    let Config { database, nats, .. } = config;
    let secrets = [
        ("database.url", database.url.holds_password()),
        ("nats.url", nats.url.holds_login()),
        ("nats.password", nats.password.is_some()),
        ("nats.token", nats.token.is_some()),
    ];
    let mut seen = BTreeSet::new();
    let mut warnings = Vec::new();
    for (key, is_set) in secrets {
        let Origin::File { path, .. } = origins.of(key) else { continue };
        if is_set && is_world_readable(&path) && seen.insert(path.clone()) {
            let path = path.display();
            warnings.push(format!(
                "{path} holds a secret ({key}) and everyone can read it: chmod 0640 {path}, or use {key}_file"
            ));
        }
    }
    warnings
}

fn is_world_readable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Variables that lack an underscore of the prefix, and so are not read.
fn mistyped_variables(variables: &[(OsString, OsString)]) -> Vec<String> {
    let short = |key: &str| keys::variable(key).replace("__", "_");
    let known: Vec<(String, String)> =
        keys::all().iter().map(|key| (short(key), keys::variable(key))).collect();
    let mut warnings = Vec::new();
    for (name, _) in variables {
        let Some(name) = name.to_str().filter(|name| !name.starts_with(PREFIX)) else { continue };
        let meant = known.iter().find(|(short, _)| *short == name.replace("__", "_"));
        if let Some((_, meant)) = meant {
            warnings.push(format!("environment variable {name} is not read: write {meant}"));
        }
    }
    warnings
}
