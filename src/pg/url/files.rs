//! The files of libpq that complete a connection: connection services and passwords.

use std::{
    path::{Path, PathBuf},
    sync::Once,
};

use super::{
    error::{Source, UrlError},
    parameters::UrlParameters,
};
use crate::config::{
    file::{LOGINS_BYTES_MAX, has_group_or_world_access, read_text},
    libpq::Libpq,
};

/// Directories of the machine-wide connection service file, unless `PGSYSCONFDIR` names another.
const SYSTEM_DIRECTORIES: [&str; 2] = ["/etc/postgresql-common", "/etc"];

const SERVICE_FILE: &str = "pg_service.conf";

/// Adds the parameters of a connection service, if the URL or the environment names one.
pub(super) fn service(parameters: &mut UrlParameters, environment: &Libpq) -> Result<(), UrlError> {
    let named = parameters.get("service").or(environment.get("PGSERVICE")).map(str::to_owned);
    let Some(name) = named else { return Ok(()) };
    let files = service_files(environment);
    for file in files.iter().filter(|file| file.exists()) {
        let unusable = |reason| UrlError::ServiceFile { path: file.clone(), reason };
        let text = read_text(file, LOGINS_BYTES_MAX).map_err(unusable)?;
        if let Some(definition) = definition(&text, &name) {
            for line in definition {
                let (key, value) = line
                    .split_once('=')
                    .ok_or_else(|| unusable(format!("a line of [{name}] is not key=value")))?;
                parameters.complete(key.trim(), value.trim(), Source::Service)?;
            }
            return Ok(());
        }
    }
    let files = files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(UrlError::NoService { name, files })
}

/// Service files in the order of libpq, the user's file first.
fn service_files(environment: &Libpq) -> Vec<PathBuf> {
    let named = environment.get("PGSERVICEFILE").map(PathBuf::from);
    let home = environment.home().map(|home| home.join(".pg_service.conf"));
    let system = match environment.get("PGSYSCONFDIR") {
        Some(directory) => vec![directory],
        None => SYSTEM_DIRECTORIES.to_vec(),
    };
    let system = system.into_iter().map(|directory| Path::new(directory).join(SERVICE_FILE));
    named.or(home).into_iter().chain(system).collect()
}

/// The lines of a connection service file below the header `[name]`; `None` without that header.
fn definition<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let header = format!("[{name}]");
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == header)?;
    let is_content = |line: &&str| !line.is_empty() && !line.starts_with('#');
    Some(lines.take_while(|line| !line.starts_with('[')).filter(is_content).collect())
}

/// The content of a password file. It has no `Debug`, so that no log shows it.
pub(super) struct Passwords(String);

impl Passwords {
    /// Reads the password file that the URL or the environment names, else `~/.pgpass`. A missing
    /// file counts as empty. A file that other users may read does so too, with a warning.
    pub(super) fn read(parameters: &UrlParameters, environment: &Libpq) -> Self {
        static WARNED: Once = Once::new();
        let home = || environment.home().map(|home| home.join(".pgpass"));
        let Some(path) = parameters.get("passfile").map(PathBuf::from).or_else(home) else {
            return Self(String::new());
        };
        if !path.exists() {
            return Self(String::new());
        }
        let reason = if has_group_or_world_access(&path) {
            "others have access to it".to_owned()
        } else {
            match read_text(&path, LOGINS_BYTES_MAX) {
                Ok(text) => return Self(text),
                Err(reason) => reason,
            }
        };
        WARNED.call_once(|| {
            let (path, hint) = (path.display(), "make it a regular file with mode 0600");
            tracing::warn!(%path, hint, "the password file is ignored: {reason}");
        });
        Self(String::new())
    }

    /// Password of the first line in the password file that matches `wanted`: host, port, database
    /// and user.
    pub(super) fn find(&self, wanted: [&str; 4]) -> Option<String> {
        let lines = self.0.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(fields).find_map(|mut fields| {
            let password = fields.drain(wanted.len()..).next()?;
            let fits = |(pattern, value): (&String, &str)| pattern == "*" || pattern == value;
            fields.iter().zip(wanted).all(fits).then_some(password)
        })
    }
}

/// The fields of a line of the password file: `:` separates them, `\` escapes. The result has at
/// least five; missing fields are empty.
fn fields(line: &str) -> Vec<String> {
    const FIELDS: usize = 5;
    let mut fields = vec![String::new()];
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            ':' => {
                fields.push(String::new());
                continue;
            }
            '\\' => rest.next(),
            c => Some(c),
        };
        if let Some(field) = fields.last_mut() {
            field.extend(c);
        }
    }
    fields.resize(fields.len().max(FIELDS), String::new());
    fields
}
