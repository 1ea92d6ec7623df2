//! Risks of a valid configuration, which the log mentions once.

use std::{collections::BTreeSet, ffi::OsString, path::Path};

use super::{
    AdminConfig, Config,
    error::Origin,
    file::is_world_readable,
    keys,
    origin::{Notice, Origins},
    value::Listen,
};

/// Warnings about all risks.
pub(super) fn all(
    config: &Config,
    origins: &Origins,
    variables: &[(OsString, OsString)],
) -> Vec<Notice> {
    let mut warnings = exposed_files(config, origins);
    warnings.extend(exposed_listener(&config.admin));
    warnings.extend(mistyped_variables(variables));
    warnings.into_iter().map(Notice::Warning).collect()
}

/// Files that contain a secret and that every user of the machine can read.
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
    let mut exposed = |path: &Path| is_world_readable(path) && seen.insert(path.to_owned());
    for (key, is_set) in secrets {
        match origins.of(key) {
            Origin::File { path, .. } if is_set && exposed(&path) => {
                let path = path.display();
                warnings.push(format!(
                    "{path} contains a secret ({key}) and everyone can read it: chmod 0640 {path}, or use {key}_file"
                ));
            }
            Origin::SecretFile(path) if is_set && exposed(&path) => {
                warnings.push(exposed_secret(&format!("{key}_file"), &path));
            }
            Origin::Default
            | Origin::File { .. }
            | Origin::Variable(_)
            | Origin::Flag
            | Origin::SecretFile(_) => {}
        }
    }
    for (key, file) in [
        ("nats.creds_file", &nats.creds_file),
        ("nats.nkey_file", &nats.nkey_file),
        ("nats.tls_key", &nats.tls_key),
    ] {
        let Some(path) = file.as_ref().map(Path::new) else { continue };
        if exposed(path) {
            warnings.push(exposed_secret(key, path));
        }
    }
    warnings
}

fn exposed_secret(key: &str, path: &Path) -> String {
    let path = path.display();
    format!(
        "{path}, which {key} names, contains a secret and everyone can read it: chmod 0600 {path}, or 0640 \
         with a group of ours"
    )
}

/// A listener that other machines can reach.
fn exposed_listener(admin: &AdminConfig) -> Option<String> {
    let Listen::Address(address) = admin.listen else { return None };
    (!address.ip().is_loopback()).then(|| {
        format!(
            "admin.listen {address} can be reached from other machines, without a login: keep it behind \
             a firewall or NetworkPolicy, or set admin.listen to 127.0.0.1:{}",
            address.port()
        )
    })
}

/// Variables that lack an underscore of the prefix, and are ignored.
fn mistyped_variables(variables: &[(OsString, OsString)]) -> Vec<String> {
    let short = |key: &str| keys::variable(key).replace("__", "_");
    let known: Vec<(String, String)> =
        keys::all().iter().map(|key| (short(key), keys::variable(key))).collect();
    let mut warnings = Vec::new();
    for (name, _) in variables {
        let Some(name) = name.to_str().filter(|name| !name.starts_with(keys::PREFIX)) else {
            continue;
        };
        let meant = known.iter().find(|(short, _)| *short == name.replace("__", "_"));
        if let Some((_, meant)) = meant {
            warnings.push(format!("environment variable {name} is not read: write {meant}"));
        }
    }
    warnings
}
