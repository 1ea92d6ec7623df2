//! The latest version of a configuration section: replaced by a reload, with its secret files read
//! again.

use std::{fmt, path::Path};

use tokio::sync::watch;

use super::{
    DatabaseConfig, NatsConfig,
    file::read_secret,
    secret::{Secret, SecretUrl},
};

/// A cell that every copy of one configuration section shares, for its replacement. It is empty
/// until a reload fills it.
pub struct Latest<T>(watch::Sender<Option<Box<T>>>);

impl<T: Clone> Latest<T> {
    /// Replaces the section for every copy of it, and wakes the tasks that wait in
    /// [`Replacements::next`].
    pub fn replace(&self, section: T) {
        self.0.send_replace(Some(Box::new(section)));
    }

    /// The section of the last reload; `None` before the first.
    fn get(&self) -> Option<T> {
        self.0.borrow().as_deref().cloned()
    }

    /// Watches for replacements of the section from now on.
    pub fn watch(&self) -> Replacements<T> {
        Replacements(self.0.subscribe())
    }
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Prints the name of the type only, so that the values of the section are not printed twice.
impl<T> fmt::Debug for Latest<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latest")
    }
}

/// Future replacements of a section.
pub struct Replacements<T>(watch::Receiver<Option<Box<T>>>);

impl<T> Replacements<T> {
    /// Waits for the next replacement of the section; forever when no copy of the section is left.
    ///
    /// # Cancel safety
    ///
    /// Dropping it loses nothing.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl DatabaseConfig {
    /// The latest section, with its secret files read again. Each new session begins with it, so
    /// that a rotated secret applies from the next session on.
    ///
    /// # Errors
    ///
    /// A file cannot be read; the text names its key and path.
    pub fn current(&self) -> Result<Self, String> {
        let mut now = self.latest.get().unwrap_or_else(|| self.clone());
        if let Some(text) = reread("database.url_file", now.url_file.as_deref())? {
            now.url = SecretUrl::new(text);
        }
        Ok(now)
    }
}

impl NatsConfig {
    /// The latest section, as in [`DatabaseConfig::current`].
    ///
    /// # Errors
    ///
    /// A file cannot be read; the text names its key and path.
    pub fn current(&self) -> Result<Self, String> {
        let mut now = self.latest.get().unwrap_or_else(|| self.clone());
        if let Some(text) = reread("nats.url_file", now.url_file.as_deref())? {
            now.url = SecretUrl::new(text);
        }
        if let Some(text) = reread("nats.password_file", now.password_file.as_deref())? {
            now.password = Some(Secret::new(text));
        }
        if let Some(text) = reread("nats.token_file", now.token_file.as_deref())? {
            now.token = Some(Secret::new(text));
        }
        Ok(now)
    }
}

fn reread(key: &str, file: Option<&str>) -> Result<Option<String>, String> {
    let Some(file) = file else { return Ok(None) };
    let text = read_secret(Path::new(file));
    text.map(Some).map_err(|reason| format!("cannot read {file}, which {key} names: {reason}"))
}
