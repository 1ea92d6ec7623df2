//! `postrider dlq redrive`: has dead letters tried again.

use super::{
    Exit, Failure, Globals, actor,
    bulk::{self, Job, Which},
    name, reason,
    wait::WaitOptions,
};
use crate::operate::letters::{Action, Attribution, LetterAct, LetterState};

/// `postrider dlq redrive`
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(in crate::cli) struct Args {
    /// Why, for the audit: 1 to 1,000 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// Your name, for the audit [default: the user of the system]
    #[arg(long, value_name = "NAME", value_parser = name)]
    actor: Option<String>,
    /// Also letters that can never be published as they are
    #[arg(long)]
    force: bool,
    /// Have letters tried at once that wait for their time, instead of dead ones
    #[arg(long, conflicts_with = "ids")]
    retrying: bool,
    #[command(flatten)]
    waiting: WaitOptions,
    #[command(flatten)]
    which: Which,
}

/// Redrives the chosen letters.
pub(super) fn run(globals: Globals, args: &Args) -> Result<Exit, Failure> {
    let attribution =
        Attribution { actor: actor(args.actor.as_deref()), reason: args.reason.clone() };
    let state = if args.retrying { LetterState::Retrying } else { LetterState::Dead };
    let act = LetterAct { action: Action::Redrive, state, hopeless: args.force, attribution };
    bulk::run(globals, &Job { act, which: &args.which, wait: args.waiting.wanted() })
}
