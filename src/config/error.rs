//! Problems of a configuration, described so that a person can fix them without a manual.

use std::{fmt, path::PathBuf};

/// All problems of a configuration; at least one.
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

/// A problem: description, place, the value found there, and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Description of the problem in one line; the other fields add to it.
    pub primary: String,
    /// Place where the value was written.
    pub origin: Option<Origin>,
    /// Further detail about the problem, free of secrets.
    pub detail: Option<String>,
    /// Remedy; may have several lines.
    pub hint: Option<String>,
}

impl Problem {
    /// Creates a problem that has a description of one line and nothing else yet.
    pub fn new(primary: impl Into<String>) -> Self {
        Self { primary: primary.into(), origin: None, detail: None, hint: None }
    }

    /// Adds the place where the value was written.
    #[must_use]
    pub fn at(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Adds a detail to the problem.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the remedy to the problem.
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

/// Place where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The value is the built-in default.
    Default,
    /// The value is in a configuration file, at this line when the line could be found.
    File {
        /// The path of the configuration file.
        path: PathBuf,
        /// The number of the key's line in the file, counted from 1; `None` when the line could not
        /// be found.
        line: Option<usize>,
    },
    /// The value is in the environment variable of this name.
    Variable(String),
    /// The value follows `--set` on the command line.
    Flag,
    /// The value is the content of a file that a `*_file` key names.
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
