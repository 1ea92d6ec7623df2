//! Reasons of a failed migration, and their remedies.

use super::{LOCK_WAIT, POSTGRES_MAJOR_MIN};
use crate::pg::error::{Class, classify, describe};

/// Reason why the schema was not brought up to date. Migrations that were applied before stay.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Another session is migrating this schema and has not ended in time.
    #[error(
        "another migration of this schema has been running for longer than {}: {holder}",
        humantime::format_duration(LOCK_WAIT)
    )]
    Locked {
        /// The session that holds the lock, as far as Postgres shows it.
        holder: String,
    },
    /// The server is older than what the statements need.
    #[error("PostgreSQL {have} is too old: Postrider needs version {POSTGRES_MAJOR_MIN} or later")]
    OldServer {
        /// The version of the server.
        have: String,
    },
    /// A newer program has migrated this schema.
    #[error(
        "schema version {have} is newer than version {supported} of this program: update the program"
    )]
    Newer {
        /// The version of the schema.
        have: i32,
        /// The newest version that this program supports.
        supported: i32,
    },
    /// A newer program has replaced the functions.
    #[error(
        "the functions of the schema are those of postrider {program}, which is newer than this \
         program: update the program"
    )]
    NewerFunctions {
        /// The version of the program that installed them.
        program: String,
    },
    /// A migration was applied with a text that differs from the one in this program.
    #[error(
        "migration {name} was applied with another text: use a released build, or restore the \
         database that belongs to this one"
    )]
    Changed {
        /// Name of the migration.
        name: String,
    },
    /// A statement failed; its migration was rolled back.
    #[error("{doing}: {text}")]
    Failed {
        /// Attempted step as a verb phrase, such as "let the relay read the schema version".
        doing: String,
        /// The class of the error, which decides the remedy.
        class: Class,
        /// Message of Postgres or the driver.
        text: String,
    },
    /// The migration library refused the files of this program: a defect of this build.
    #[error("migrations of this build are inconsistent: {0}")]
    Inconsistent(String),
}

impl MigrateError {
    /// Remedy for operators, unless the text or the server says it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Failed { text, .. } if text.contains("hint: ") => None,
            Self::Failed { class: Class::Permission, .. } => Some(
                "run it as the owner of the schema, who needs CREATE on the database; the relay's \
                 own user needs no more than postrider_relay",
            ),
            // The usual remedy of this class, `postrider migrate`, is the command that has just
            // failed.
            Self::Failed { class: Class::Schema, .. } => {
                Some("the objects of the schema are not what migrations made: restore all of them")
            }
            Self::Failed { class, .. } => class.hint(),
            Self::OldServer { .. } => Some("upgrade the server, or use another one"),
            Self::Locked { .. }
            | Self::Newer { .. }
            | Self::NewerFunctions { .. }
            | Self::Changed { .. }
            | Self::Inconsistent(_) => None,
        }
    }

    /// Class of the error, which decides the remedy.
    pub fn class(&self) -> Class {
        match self {
            Self::Locked { .. } => Class::Transient,
            Self::Newer { .. } | Self::NewerFunctions { .. } | Self::Changed { .. } => {
                Class::Schema
            }
            Self::OldServer { .. } => Class::Configuration,
            Self::Failed { class, .. } => *class,
            Self::Inconsistent(_) => Class::Unexpected,
        }
    }
}

pub(super) fn failed(doing: &str) -> impl Fn(tokio_postgres::Error) -> MigrateError {
    move |error| because(doing, &error)
}

pub(super) fn because(doing: &str, error: &tokio_postgres::Error) -> MigrateError {
    MigrateError::Failed { doing: doing.to_owned(), class: classify(error), text: describe(error) }
}
