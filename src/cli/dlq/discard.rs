//! `postrider dlq discard`: gives dead letters up for good.

use super::{
    Exit, Failure, Globals, actor,
    bulk::{self, Job, Which},
    name, reason,
};
use crate::operate::letters::{Action, Attribution, LetterAct, LetterState};

/// `postrider dlq discard`
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Why, for the audit: 1 to 1,000 characters
    #[arg(long, value_name = "TEXT", value_parser = reason, required = true)]
    reason: Option<String>,
    /// Your name, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = name)]
    actor: Option<String>,
    #[command(flatten)]
    which: Which,
}

/// Discards the chosen letters.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let attribution =
        Attribution { actor: actor(args.actor.as_deref()), reason: args.reason.clone() };
    let (action, state) = (Action::Discard, LetterState::Dead);
    let act = LetterAct { action, state, hopeless: true, attribution };
    bulk::run(globals, &Job { act, which: &args.which, wait: None })
}
