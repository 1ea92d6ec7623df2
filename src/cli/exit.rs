//! The exit codes, and which error ends with which.

use std::process::ExitCode;

use crate::{
    config::error::{ConfigError, Problem},
    pg::{
        connect::ConnectError,
        error::{Class, QueryError},
        migrate::MigrateError,
    },
};

/// How a command ends; the numbers are those of `sysexits.h`. The systemd unit does not restart
/// after [`Exit::Usage`], [`Exit::NoPermission`] and [`Exit::Configuration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Everything was done.
    Done = 0,
    /// Something failed that has no number of its own, or a question was answered with no.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Postgres or NATS does not answer; trying again may help.
    Unavailable = 69,
    /// A defect of this program.
    Software = 70,
    /// A grant or a permission is missing.
    NoPermission = 77,
    /// The configuration, the schema or the stream has to be changed by a person.
    Configuration = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Class> for Exit {
    fn from(class: Class) -> Self {
        match class {
            Class::Transient | Class::SessionLost => Self::Unavailable,
            Class::Permission => Self::NoPermission,
            Class::Schema | Class::Configuration => Self::Configuration,
            Class::Unexpected => Self::Software,
        }
    }
}

/// Why a command did not do its work: what to print, and how to end.
#[derive(Debug)]
pub struct Failure {
    /// How to end.
    pub exit: Exit,
    /// What to print, one paragraph each.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// A failure with one problem.
    pub fn new(exit: Exit, problem: Problem) -> Self {
        Self { exit, problems: vec![problem] }
    }

    /// A failure of this class while `doing`, which is a verb phrase: `could not <doing>`.
    pub(super) fn classed(class: Class, doing: &str, reason: &dyn std::fmt::Display) -> Self {
        let problem = Problem::new(format!("could not {doing}: {reason}"));
        Self::new(class.into(), Problem { hint: class.hint().map(str::to_owned), ..problem })
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self { exit: Exit::Configuration, problems: error.problems }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let problem = Problem::new(format!("could not connect to postgres: {error}"));
        let hint = error.hint().map(str::to_owned);
        Self::new(error.class().into(), Problem { hint, ..problem })
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self::classed(error.class(), "ask postgres", &error)
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        Self::classed(error.class(), "migrate", &error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // The reader of a pipe may go when it has seen enough: `postrider dlq list | head`.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Done, problems: Vec::new() };
        }
        Self::new(Exit::Failed, Problem::new(format!("could not write the output: {error}")))
    }
}
