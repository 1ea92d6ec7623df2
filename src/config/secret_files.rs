//! Finds the separate files that contain secrets, and reads them.

use std::path::{Path, PathBuf};

use super::{
    Config,
    error::{Origin, Problem},
    file::{SECRET_BYTES_MAX, read_text},
    origin::Origins,
    secret::{Secret, SecretUrl},
};

/// Directory in which Docker, Compose and Podman mount secrets.
const RUN_SECRETS: &str = "/run/secrets";

/// Directories that are searched for relative names.
pub(super) struct Places<'a> {
    /// systemd's `$CREDENTIALS_DIRECTORY`.
    pub(super) credentials: Option<PathBuf>,
    /// Place where every key was written.
    pub(super) origins: &'a mut Origins,
}

/// Reads the secrets in the files that the `*_file` keys name, and replaces each name by the path
/// at which the file was found.
pub(super) fn read(config: &mut Config, mut places: Places<'_>) -> Vec<Problem> {
    let Config { database, nats, .. } = config;
    let mut problems = Vec::new();
    let mut take = |key: &str, is_inline: bool, file: Option<&String>| {
        let name = file?;
        let text = if is_inline { Err(places.conflict(key)) } else { places.secret(key, name) };
        text.map_err(|problem| problems.push(problem)).ok()
    };
    let found = take("database.url", !database.url.is_empty(), database.url_file.as_ref());
    database.url = found.map_or_else(|| database.url.clone(), SecretUrl::new);
    let found = take("nats.url", !nats.url.is_empty(), nats.url_file.as_ref());
    nats.url = found.map_or_else(|| nats.url.clone(), SecretUrl::new);
    let found = take("nats.password", nats.password.is_some(), nats.password_file.as_ref());
    nats.password = found.map(Secret::new).or(nats.password.take());
    let found = take("nats.token", nats.token.is_some(), nats.token_file.as_ref());
    nats.token = found.map(Secret::new).or(nats.token.take());

    // The program reads these files again for each connection, and then does not search for them
    // again.
    for (key, file) in [
        ("database.url_file", &mut database.url_file),
        ("nats.url_file", &mut nats.url_file),
        ("nats.password_file", &mut nats.password_file),
        ("nats.token_file", &mut nats.token_file),
        ("nats.creds_file", &mut nats.creds_file),
        ("nats.nkey_file", &mut nats.nkey_file),
        ("nats.tls_ca", &mut nats.tls_ca),
        ("nats.tls_cert", &mut nats.tls_cert),
        ("nats.tls_key", &mut nats.tls_key),
    ] {
        let Some(name) = file.as_mut() else { continue };
        match places.find(key, name) {
            Ok(path) => *name = path.to_string_lossy().into_owned(),
            Err(problem) if problems.contains(&problem) => {}
            Err(problem) => problems.push(problem),
        }
    }
    problems
}

impl Places<'_> {
    /// The problem of a secret that is set twice.
    fn conflict(&self, key: &str) -> Problem {
        let file_key = format!("{key}_file");
        Problem::new(format!("{key} and {file_key} are both set"))
            .at(self.origins.of(&file_key))
            .detail(format!("{key} is set in {}", self.origins.of(key)))
            .hint(format!("remove one; {file_key} keeps the secret out of the configuration"))
    }

    /// The text of the file that `<key>_file` names.
    fn secret(&mut self, key: &str, name: &str) -> Result<String, Problem> {
        let file_key = format!("{key}_file");
        let origin = self.origins.of(&file_key);
        let path = self.find(&file_key, name)?;
        let text = read_text(&path, SECRET_BYTES_MAX).map_err(|reason| {
            Problem::new(format!("could not read {}, which {file_key} names", path.display()))
                .at(origin.clone())
                .detail(reason)
        })?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err(Problem::new(format!(
                "{}, which {file_key} names, is empty",
                path.display()
            ))
            .at(origin));
        }
        self.origins.set(key, Origin::SecretFile(path));
        Ok(text.to_owned())
    }

    /// The path of the file `name` in the first of the searched directories that has it.
    fn find(&self, key: &str, name: &str) -> Result<PathBuf, Problem> {
        let origin = self.origins.of(key);
        if name.is_empty() || name.contains(['\n', '\r', '\0']) {
            // The value may be the secret itself, so it is not repeated.
            return Err(Problem::new(format!("{key} takes the name of a file"))
                .at(origin)
                .detail(if name.is_empty() { "found nothing" } else { "found several lines" })
                .hint("write the secret into a file and give its path here"));
        }
        let candidates = self.candidates(name, &origin);
        if let Some(path) = candidates.iter().find(|path| path.exists()) {
            return Ok(path.clone());
        }
        let tried: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        Err(Problem::new(format!("the file that {key} names does not exist"))
            .at(origin)
            .detail(format!("there is no {}", tried.join(" and no "))))
    }

    fn candidates(&self, name: &str, origin: &Origin) -> Vec<PathBuf> {
        let path = Path::new(name);
        if path.is_absolute() {
            return vec![path.to_owned()];
        }
        let beside = match origin {
            Origin::File { path, .. } => path.parent().unwrap_or(Path::new("")),
            Origin::Default | Origin::Variable(_) | Origin::Flag | Origin::SecretFile(_) => {
                Path::new("")
            }
        };
        let credentials = self.credentials.iter().map(|directory| directory.join(path));
        credentials.chain([Path::new(RUN_SECRETS).join(path), beside.join(path)]).collect()
    }
}
