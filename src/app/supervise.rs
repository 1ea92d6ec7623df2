//! Keeps the flows running. Where there are several, a flow that fails is started again. The
//! failure of the only flow ends the program.
//!
//! Where there are several flows, each has a thread with a runtime of its own, which also drives
//! its sessions and its connection. So a flow that is busy, or fails, does not slow the others.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::{sync::oneshot, time::sleep};
use tracing::{error, info_span};

use super::{Flow, RunError};
use crate::{delivery::Backoff, relay::report::status::Phase};

/// The waits before a flow that failed is started again.
const RESTART: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_mins(1) };

/// Interval at which a flow that waits to be started again gives systemd a sign of life.
const TURN: Duration = Duration::from_secs(1);

/// Runs the flows until all were asked to stop.
///
/// # Errors
/// The error of [`Flow::run`] when there is only one flow. Several flows give no error.
pub(super) async fn run(flows: Vec<Arc<Flow>>) -> Result<(), RunError> {
    if let [flow] = flows.as_slice() {
        return Box::pin(flow.run()).await;
    }
    join_all(flows.into_iter().map(keep)).await;
    Ok(())
}

/// Runs a flow, and starts it again after each failure, until it is asked to stop.
async fn keep(flow: Arc<Flow>) {
    let mut failures = 0;
    loop {
        let began = Instant::now();
        let why = match on_a_thread(Arc::clone(&flow)).await {
            Ok(()) => return,
            Err(why) => why,
        };
        if flow.shutdown.is_stopping() {
            return;
        }
        failures = if began.elapsed() > RESTART.longest { 1 } else { failures + 1 };
        let wait = RESTART.after(failures);
        error!(
            route = flow.name(),
            error = why,
            "the route failed; the others go on, and it starts again in {}",
            humantime::format_duration(wait)
        );
        flow.status.send_modify(|status| {
            status.enter(Phase::Starting);
            status.failed = Some(why);
        });
        let until = Instant::now() + wait;
        while Instant::now() < until && !flow.shutdown.is_stopping() {
            flow.status.borrow().last_turn.turn(Instant::now());
            tokio::select! {
                () = sleep(until.saturating_duration_since(Instant::now()).min(TURN)) => {}
                () = flow.shutdown.stopping() => {}
            }
        }
        if flow.shutdown.is_stopping() {
            flow.status.send_modify(|status| status.enter(Phase::Stopped));
            return;
        }
    }
}

/// Runs a flow on a thread of its own. Returns why it failed.
async fn on_a_thread(flow: Arc<Flow>) -> Result<(), String> {
    let (sender, result) = oneshot::channel();
    let route = flow.name().to_owned();
    let work = move || {
        let _span = info_span!("route", name = flow.name()).entered();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let result = match runtime {
            Ok(runtime) => runtime.block_on(flow.run()).map_err(|error| error.to_string()),
            Err(error) => Err(no_thread(&error)),
        };
        // At the end of the program nobody receives the result.
        drop(sender.send(result));
    };
    thread::Builder::new().name(route).spawn(work).map_err(|error| no_thread(&error))?;
    result.await.unwrap_or_else(|_| Err("its thread ended without saying why".to_owned()))
}

fn no_thread(error: &io::Error) -> String {
    format!("the system gives no thread: {error}")
}
