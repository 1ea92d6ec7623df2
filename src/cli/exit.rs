//! The exit codes, and which error ends with which.

use std::{borrow::Cow, process::ExitCode};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// Something failed that has no number of its own.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Redriven letters are dead again.
    DeadAgain,
    /// Postgres or NATS does not answer; trying again may help.
    Unavailable,
    /// A defect of this program.
    Software,
    /// Redriven letters have no outcome in time, or are tried again later.
    StillTried,
    /// A grant or a permission is missing.
    NoPermission,
    /// The configuration, the schema or the stream has to be changed by a person.
    Configuration,
    /// The answer of `status --check`, in the numbers of monitoring plugins.
    Checked(Level),
}

/// What a monitoring plugin answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Events flow.
    Ok,
    /// Somebody should look.
    Warning,
    /// Events do not flow.
    Critical,
    /// It cannot be found out.
    Unknown,
}

impl Level {
    /// The word that plugins print.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done | Exit::Checked(Level::Ok) => 0,
            Exit::Failed | Exit::Checked(Level::Warning) => 1,
            Exit::Usage | Exit::Checked(Level::Critical) => 2,
            Exit::Checked(Level::Unknown) => 3,
            Exit::DeadAgain => 65,
            Exit::Unavailable => 69,
            Exit::Software => 70,
            Exit::StillTried => 75,
            Exit::NoPermission => 77,
            Exit::Configuration => 78,
        })
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

/// The relay's own user may not change letters.
const OPERATOR_HINT: &str = "this command needs the role postrider_operator: GRANT postrider_operator TO the \
     user of database.url, or name another user for this command with POSTRIDER__DATABASE__URL";

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

    /// Says it in the log, where a daemon's reader looks, in place of printing it.
    pub(super) fn log(self) -> Exit {
        for Problem { primary, hint, .. } in self.problems {
            tracing::error!(hint, "{primary}");
        }
        self.exit
    }

    /// The first line of what would be printed.
    pub(super) fn first_line(&self) -> String {
        self.problems.first().map(|problem| problem.primary.clone()).unwrap_or_default()
    }

    /// The same for an operator's command, whose user needs another role than the relay's.
    pub(super) fn of_operator(mut self) -> Self {
        if self.exit == Exit::NoPermission {
            for problem in &mut self.problems {
                problem.hint = Some(OPERATOR_HINT.to_owned());
            }
        }
        self
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
        let problem = Problem::new(format!("could not ask postgres: {error}"));
        let hint = error.hint().map(Cow::into_owned);
        Self::new(error.class().into(), Problem { hint, ..problem })
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        let problem = Problem::new(format!("could not migrate: {error}"));
        let hint = error.hint().map(str::to_owned);
        Self::new(error.class().into(), Problem { hint, ..problem })
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
