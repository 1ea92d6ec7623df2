//! Kills the relay with `kill -9` in the middle of a backlog, and measures how soon the next event
//! is stored.

use std::collections::HashSet;

use anyhow::{Result, ensure};
use postrider::dev::stream_reader::read_stream;

use crate::{
    backlog::{self, USUAL},
    goals,
    measure::{Measure, float},
    options::Options,
    progress::note,
    report::Report,
    stage::Stage,
    stream,
};

const DATABASE: &str = "resume";
const STREAM: &str = "RESUME";

pub(crate) async fn run(stage: &Stage, options: &Options) -> Result<Report> {
    let count = options.resume_events();
    let client = stage.database(DATABASE).await?;
    backlog::insert(&client, USUAL, count).await?;
    stage.checkpoint().await?;
    let mut daemon = stage.relay(DATABASE, STREAM)?;
    let (mut seconds, mut resident) = (Vec::new(), Vec::new());
    // Each kill comes at another place of the same backlog.
    let kills = u64::from(options.rounds());
    for kill in 1..=kills {
        let at = count * kill / (kills + 1);
        stream::wait_for_count(&stage.jetstream, STREAM, at, &mut daemon).await?;
        resident.push(daemon.resident_peak()?);
        daemon.kill()?;
        // Messages that the broker had already received are still being stored.
        let stored = stream::settled_count(&stage.jetstream, STREAM).await?;
        ensure!(stored < count, "the backlog was drained before the kill");
        daemon.start_again()?;
        stream::wait_for_count(&stage.jetstream, STREAM, stored + 1, &mut daemon).await?;
        let next = stream::stored_at(&stage.jetstream, STREAM, stored + 1).await?;
        seconds.push(next.duration_since(daemon.started)?.as_secs_f64());
        note(&format!("resume: killed at {stored}, resumed after {seconds:.3?} s"));
    }
    stream::wait_for_count(&stage.jetstream, STREAM, count, &mut daemon).await?;
    resident.push(daemon.resident_peak()?);
    daemon.stop().await?;
    stream::settled_count(&stage.jetstream, STREAM).await?;
    let stored = read_stream(&stage.brokers.first_url()?, STREAM).await?;
    let ids: HashSet<_> = stored.iter().filter_map(|message| message.id).collect();
    let duplicates = stored.len() - ids.len();
    let lost = float(count) - float(ids.len() as u64);
    let duplicates = vec![float(duplicates as u64)];
    Ok(Report::of(vec![
        Measure::new("resume after kill -9", "s", seconds).goal(goals::RESUME_SECONDS),
        Measure::new("resume: duplicates", "", duplicates).goal(goals::NONE),
        Measure::new("resume: lost", "", vec![lost]).goal(goals::NONE),
        Measure::new("resume: relay RSS peak", "MiB", resident),
    ]))
}
