//! What is wrong with a configuration, told so that it can be put right without a manual.

use std::{fmt, path::PathBuf};

/// Every problem that was found; there is at least one.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    /// The problems, in the order in which they were found.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// One thing that is wrong: what, where, what was found there, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong, in one line.
    pub primary: String,
    /// Where it was written.
    pub origin: Option<Origin>,
    /// More about it, free of secrets.
    pub detail: Option<String>,
    /// What to do; may span lines.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of which nothing but the first line is known yet.
    pub fn new(primary: impl Into<String>) -> Self {
        Self { primary: primary.into(), origin: None, detail: None, hint: None }
    }

    /// Says where it was written.
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Says more about it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.primary)?;
        if let Some(origin) = self.origin.as_ref().filter(|origin| **origin != Origin::Default) {
            write!(f, "\n   at: {origin}")?;
        }
        if let Some(detail) = &self.detail {
            write!(f, "\n  why: {}", indented(detail))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n hint: {}", indented(hint))?;
        }
        Ok(())
    }
}

fn indented(text: &str) -> String {
    text.replace('\n', "\n       ")
}

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is built in.
    Default,
    /// In a file, at this line when it could be found.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1.
        line: Option<usize>,
    },
    /// In an environment variable of this name.
    Variable(String),
    /// After `--set` on the command line.
    Flag,
    /// In a file of its own, which a `*_file` key names.
    SecretFile(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("--set on the command line"),
            Self::SecretFile(path) => write!(f, "secret file {}", path.display()),
        }
    }
}
