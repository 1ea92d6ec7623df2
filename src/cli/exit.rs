//! The exit codes of the commands, and the code with which each error ends.

use std::{borrow::Cow, fmt::Display, process::ExitCode};

use crate::{
    broker::BrokerError,
    config::error::{ConfigError, Problem},
    nats,
    operate::{CompareError, DatabaseError},
    pg::{
        connect::ConnectError,
        error::{Class, QueryError},
        migrate::MigrateError,
    },
};

/// End of a command. Its exit codes from 65 up are those of `sysexits.h`. The systemd unit does not
/// restart after [`Exit::Usage`], [`Exit::NoPermission`] and [`Exit::Configuration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done.
    Done,
    /// A failure for which there is no exit code of its own.
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
    /// The result of `status --check`; its exit codes are those of monitoring plugins.
    Checked(Level),
}

/// The result of `status --check`, as monitoring plugins grade it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Events flow.
    Ok,
    /// A person should read the findings.
    Warning,
    /// Events do not flow.
    Critical,
    /// The state cannot be determined.
    Unknown,
}

impl Level {
    /// The word that monitoring plugins print for this result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl Exit {
    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done | Self::Checked(Level::Ok) => 0,
            Self::Failed | Self::Checked(Level::Warning) => 1,
            Self::Usage | Self::Checked(Level::Critical) => 2,
            Self::Checked(Level::Unknown) => 3,
            Self::DeadAgain => 65,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::StillTried => 75,
            Self::NoPermission => 77,
            Self::Configuration => 78,
        }
    }

    /// The exit code that a supervisor should see when several checks refuse: a fault that needs a
    /// person comes before one that may pass by itself.
    pub(super) fn gravest(refusals: impl Iterator<Item = Self>) -> Option<Self> {
        refusals.reduce(|first, next| if next.gravity() > first.gravity() { next } else { first })
    }

    fn gravity(self) -> u8 {
        match self {
            Self::Done | Self::Checked(_) => 0,
            Self::StillTried | Self::Unavailable => 1,
            Self::Failed | Self::DeadAgain => 2,
            Self::NoPermission | Self::Configuration | Self::Usage => 3,
            Self::Software => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An exit code, and what it means for the command that ends with it.
type Meaning = (Exit, &'static str);

const DONE: Meaning = (Exit::Done, "done");
const FAILED: Meaning = (Exit::Failed, "failed");
const USAGE: Meaning = (Exit::Usage, "wrong command line");
const UNAVAILABLE: Meaning = (Exit::Unavailable, "a server does not answer: try again");
const SOFTWARE: Meaning = (Exit::Software, "a defect of this program");
const NO_PERMISSION: Meaning = (Exit::NoPermission, "a permission is missing");
const CONFIGURATION: Meaning =
    (Exit::Configuration, "the configuration, schema or stream has to be changed");

/// The exit codes of each command, which its help and the documentation list. The entry of a
/// command such as `dlq` also holds for its subcommands without an entry, such as `dlq list`.
pub(super) const COMMANDS: [(&str, &[Meaning]); 12] = [
    (
        "run",
        &[
            (Exit::Done, "stopped by a signal"),
            FAILED,
            USAGE,
            SOFTWARE,
            (Exit::StillTried, "the process stood still for too long: start it again"),
            CONFIGURATION,
        ],
    ),
    ("migrate", &[DONE, FAILED, USAGE, UNAVAILABLE, SOFTWARE, NO_PERMISSION, CONFIGURATION]),
    (
        "check",
        &[
            (Exit::Done, "nothing is refused; there may be warnings"),
            FAILED,
            USAGE,
            (Exit::Unavailable, "a server does not answer, and nothing worse"),
            SOFTWARE,
            NO_PERMISSION,
            CONFIGURATION,
        ],
    ),
    ("status", &[DONE, FAILED, USAGE, UNAVAILABLE, SOFTWARE, NO_PERMISSION, CONFIGURATION]),
    (
        "dlq redrive",
        &[
            DONE,
            FAILED,
            USAGE,
            (Exit::DeadAgain, "with --wait: letters are dead again"),
            UNAVAILABLE,
            SOFTWARE,
            (Exit::StillTried, "with --wait: letters have no outcome yet"),
            NO_PERMISSION,
            CONFIGURATION,
        ],
    ),
    ("dlq", &[DONE, FAILED, USAGE, UNAVAILABLE, SOFTWARE, NO_PERMISSION, CONFIGURATION]),
    ("why", &[DONE, FAILED, USAGE, UNAVAILABLE, SOFTWARE, NO_PERMISSION, CONFIGURATION]),
    (
        "audit",
        &[
            (Exit::Done, "everything adds up"),
            (Exit::Failed, "it does not add up, or failed"),
            USAGE,
            UNAVAILABLE,
            SOFTWARE,
            NO_PERMISSION,
            CONFIGURATION,
        ],
    ),
    (
        "reconcile",
        &[
            DONE,
            (Exit::Failed, "with --dry-run: something is missing; or failed"),
            USAGE,
            UNAVAILABLE,
            SOFTWARE,
            NO_PERMISSION,
            CONFIGURATION,
        ],
    ),
    ("relay", &[DONE, FAILED, USAGE, UNAVAILABLE, SOFTWARE, NO_PERMISSION, CONFIGURATION]),
    ("dev", &[DONE, FAILED, USAGE, SOFTWARE]),
    ("config", &[DONE, FAILED, USAGE, CONFIGURATION]),
];

/// The paragraph of `--help` about a command's exit codes. `command` is its words, such as `dlq
/// list`.
pub(super) fn help(command: &str) -> Option<String> {
    let parent = command.split(' ').next().unwrap_or_default();
    let listed = |name: &str| COMMANDS.iter().find(|(listed, _)| *listed == name);
    let (_, codes) = listed(command).or_else(|| listed(parent))?;
    let lines: Vec<String> =
        codes.iter().map(|(exit, meaning)| format!("  {:<3} {meaning}", exit.code())).collect();
    let plugin = if command == "status" {
        "\nWith --check: 0 ok, 1 warning, 2 critical, 3 unknown, as monitoring plugins"
    } else {
        ""
    };
    Some(format!("Exit codes:\n{}{plugin}", lines.join("\n")))
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

impl From<&nats::NatsConnectError> for Exit {
    fn from(error: &nats::NatsConnectError) -> Self {
        match error {
            nats::NatsConnectError::Login(_) => Self::NoPermission,
            nats::NatsConnectError::Tls { .. }
            | nats::NatsConnectError::File { .. }
            | nats::NatsConnectError::ExposedKey { .. }
            | nats::NatsConnectError::Secret(_)
            | nats::NatsConnectError::Url(_)
            | nats::NatsConnectError::UrlLogin(_) => Self::Configuration,
            nats::NatsConnectError::UnknownHost(_)
            | nats::NatsConnectError::Closed(_)
            | nats::NatsConnectError::Silent
            | nats::NatsConnectError::Unreachable(_) => Self::Unavailable,
        }
    }
}

/// The hint when a command of an operator lacks a permission. The relay's own database user may not
/// change letters.
const OPERATOR_HINT: &str = "this command needs the role postrider_operator: GRANT postrider_operator TO the \
     user of database.url, or name another user for this command with POSTRIDER__DATABASE__URL";

/// Failure of a command: the text to print, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// The problems to print, one paragraph each.
    pub problems: Vec<Problem>,
}

impl Failure {
    /// A failure with one problem.
    pub fn new(exit: Exit, problem: Problem) -> Self {
        Self { exit, problems: vec![problem] }
    }

    /// A failure with the text of an error, and a hint at the next step if there is one.
    pub(super) fn said(exit: Exit, error: &impl Display, hint: Option<Cow<'_, str>>) -> Self {
        let hint = hint.map(Cow::into_owned);
        Self::new(exit, Problem { hint, ..Problem::new(error.to_string()) })
    }

    /// Logs the failure instead of printing it, because a daemon's log is what people read.
    pub(super) fn log(self) -> Exit {
        for Problem { primary, hint, .. } in self.problems {
            tracing::error!(hint, "{primary}");
        }
        self.exit
    }

    /// The cause and the next step in one line, as monitoring shows it.
    pub(super) fn one_line(&self) -> String {
        let Some(Problem { primary, hint, .. }) = self.problems.first() else {
            return String::new();
        };
        let next = hint.as_deref().unwrap_or("postrider check");
        format!("{primary}; next: {next}")
    }

    /// Replaces the hint about a missing permission. A command of an operator needs the role
    /// `postrider_operator`, not the role of the relay.
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

impl From<&DatabaseError> for Exit {
    fn from(error: &DatabaseError) -> Self {
        match error {
            DatabaseError::Connect(error) => error.class().into(),
            DatabaseError::Query(error) => error.class().into(),
        }
    }
}

impl From<DatabaseError> for Failure {
    fn from(error: DatabaseError) -> Self {
        Self::said((&error).into(), &error, error.hint())
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        DatabaseError::from(error).into()
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        DatabaseError::from(error).into()
    }
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        let exit = match &error {
            CompareError::Unreachable { error, .. } => error.into(),
            CompareError::Unreadable(BrokerError::Unavailable { .. }) => Exit::Unavailable,
            CompareError::Database(error) => error.into(),
            CompareError::Unrouted
            | CompareError::Stdout
            | CompareError::Removing { .. }
            | CompareError::Settings(_)
            | CompareError::Unreadable(BrokerError::Missing { .. } | BrokerError::Refused { .. }) => {
                Exit::Configuration
            }
        };
        Self::said(exit, &error, error.hint())
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
        // The reader of a pipe may end early: `postrider dlq list | head`.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Done, problems: Vec::new() };
        }
        Self::new(Exit::Failed, Problem::new(format!("could not write the output: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: `check` ended with 69 (a server does not answer) although a permission was
    /// missing too, which is 77.
    #[test]
    fn what_a_person_has_to_end_comes_before_what_may_pass() {
        let of = |refusals: &[Exit]| Exit::gravest(refusals.iter().copied());
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[Exit::Unavailable, Exit::NoPermission]), Some(Exit::NoPermission));
        assert_eq!(of(&[Exit::Configuration, Exit::Unavailable]), Some(Exit::Configuration));
        assert_eq!(of(&[Exit::NoPermission, Exit::Configuration]), Some(Exit::NoPermission));
        assert_eq!(of(&[Exit::Configuration, Exit::Software]), Some(Exit::Software));
        // The routes of a redrive: letters that only need time hide neither a stop nor dead ones.
        assert_eq!(of(&[Exit::StillTried, Exit::Failed, Exit::Done]), Some(Exit::Failed));
        assert_eq!(of(&[Exit::StillTried, Exit::DeadAgain]), Some(Exit::DeadAgain));
    }

    /// The README lists the codes that every script meets, in the words of `--help`.
    #[test]
    fn the_readme_lists_the_common_codes_and_links_to_all() {
        let page = include_str!("../../README.md").split_whitespace().collect::<Vec<_>>().join(" ");
        let (_, sentence) = page.split_once("Exit codes, which scripts may rest on:").unwrap();
        let (sentence, _) = sentence.split_once(" ## ").unwrap();
        let brief = |meaning: &str| {
            let meaning = meaning.split(':').next().unwrap_or_default();
            meaning.trim_end_matches(" of this program").to_owned()
        };
        for (exit, meaning) in
            [DONE, FAILED, USAGE, UNAVAILABLE, SOFTWARE, NO_PERMISSION, CONFIGURATION]
        {
            let listed = format!("{} {}", exit.code(), brief(meaning));
            assert!(sentence.contains(&listed), "{listed} in {sentence}");
        }
        assert!(sentence.contains("docs/operations.md#exit-codes"), "{sentence}");
    }

    #[test]
    fn documentation_lists_the_codes_of_each_command() {
        let page = include_str!("../../docs/operations.md");
        let (_, table) = page.split_once("## Exit codes\n").unwrap();
        let table = table.split("\n## ").next().unwrap();
        let listed: Vec<(&str, Vec<u8>)> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .map(|row| {
                let (command, codes) = row.split_once("` |").unwrap();
                let codes = codes.trim_matches(['|', ' ']).split(", ");
                (command, codes.map(|code| code.parse().unwrap()).collect())
            })
            .collect();
        let coded: Vec<(&str, Vec<u8>)> = COMMANDS
            .iter()
            .map(|(name, codes)| (*name, codes.iter().map(|(exit, _)| exit.code()).collect()))
            .collect();
        assert_eq!(listed, coded);
        let meanings = [DONE, FAILED, USAGE, UNAVAILABLE, SOFTWARE, NO_PERMISSION, CONFIGURATION];
        for (exit, meaning) in meanings {
            let row = format!("| {} | {meaning} |", exit.code());
            assert!(table.contains(&row), "{row} in {table}");
        }
        for code in [65, 75] {
            assert!(table.contains(&format!("| {code} | ")), "{code} in {table}");
        }
    }
}
