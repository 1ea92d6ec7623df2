//! Scan of the log: pages of messages, and the question to the outbox which of them are its events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use thiserror::Error;
use tracing::info;
use uuid::Uuid;

use crate::{
    broker::{BrokerError, Keeps, SIGHTINGS_MAX, Sighting},
    clock,
    delivery::{LastValues, SCANNED_IDS_MAX, ScanResult},
    event::Seq,
    outbox::{Outbox, RecognisedEvent},
    pg::error::QueryError,
    sink::Scan,
};

/// Interval at which a scan logs its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Longest duration of the last pass of a scan, exclusive. After a longer pass messages may have
/// come since, so another pass follows.
const FRESH: Duration = Duration::from_millis(500);

/// Maximum number of passes of a scan. Without a maximum a scan would not end beside publishers
/// that write as fast as it reads.
const PASSES_MAX: u32 = 10;

/// Result of a scan.
#[derive(Debug)]
pub(in crate::relay) struct Scanned {
    /// Our events among the messages.
    pub(in crate::relay) found: ScanResult,
    /// When the last pass began: the result is complete as of then.
    pub(in crate::relay) began: Instant,
    /// Last sequence of the stream at that time.
    pub(in crate::relay) last_seq: u64,
    /// Number of messages read.
    pub(in crate::relay) messages: u64,
    /// Number of our events whose ids the scan dropped, because there were more than
    /// [`SCANNED_IDS_MAX`].
    pub(in crate::relay) forgotten: u64,
    /// How long the stream keeps a message.
    pub(in crate::relay) keeps: Keeps,
}

/// Error of a scan that did not come to its end.
#[derive(Debug, Error)]
pub(in crate::relay) enum ScanError {
    /// The stream cannot be read.
    #[error(transparent)]
    Stream(#[from] BrokerError),
    /// The outbox cannot be asked.
    #[error(transparent)]
    Outbox(#[from] QueryError),
}

/// Progress of a scan, for the status.
#[derive(Debug, Default)]
pub(in crate::relay) struct ScanProgress {
    read: AtomicU64,
    expected: AtomicU64,
}

impl ScanProgress {
    /// Text about the progress.
    pub(in crate::relay) fn text(&self) -> String {
        let (read, expected) =
            (self.read.load(Ordering::Relaxed), self.expected.load(Ordering::Relaxed));
        format!(
            "scanning the stream for events that it may contain already: read {read} of \
             {expected} messages"
        )
    }
}

/// Scans the stream above a sequence for unsettled events of ours.
pub(in crate::relay) async fn scan(
    mut scan: Scan,
    outbox: Arc<Outbox>,
    progress: Arc<ScanProgress>,
) -> Result<Scanned, ScanError> {
    let mut began = clock::now();
    scan.advance().await?;
    let mut collected = Collected::new(scan.keeps());
    for pass in 1..=PASSES_MAX {
        read(&mut scan, &outbox, &mut collected, &progress).await?;
        let now = clock::now();
        if now < began + FRESH || pass == PASSES_MAX {
            break;
        }
        began = now;
        scan.advance().await?;
    }
    let Collected { ids, latest, forgotten, .. } = collected;
    Ok(Scanned {
        found: ScanResult::of_last_values(ids, latest),
        began,
        last_seq: scan.last_seq(),
        messages: scan.messages(),
        forgotten,
        keeps: scan.keeps(),
    })
}

/// Reads one pass of a scan to its end.
async fn read(
    scan: &mut Scan,
    outbox: &Outbox,
    collected: &mut Collected,
    progress: &ScanProgress,
) -> Result<(), ScanError> {
    progress.expected.store(scan.expected(), Ordering::Relaxed);
    let mut page = Vec::with_capacity(SIGHTINGS_MAX);
    let mut logged = Instant::now();
    loop {
        let is_more = scan.page(&mut page).await?;
        if !page.is_empty() {
            let seqs: Vec<i64> = page.iter().map(|seen| seen.seq.0).collect();
            let ids: Vec<Uuid> = page.iter().map(|seen| seen.id).collect();
            for ours in outbox.recognise_events(&seqs, &ids).await? {
                if let Some(sighting) = page.get(ours.place) {
                    collected.add(sighting, &ours);
                }
            }
        }
        if !is_more {
            return Ok(());
        }
        if logged.elapsed() >= PROGRESS_INTERVAL {
            logged = Instant::now();
            // The progress is not updated more often, because each change is written to the note
            // for `status`.
            progress.read.store(scan.messages(), Ordering::Relaxed);
            info!(
                messages = scan.messages(),
                of = scan.expected(),
                ours = collected.ids.len(),
                "scanning the stream for events that it may contain already"
            );
        }
    }
}

/// Events that a scan has found so far.
struct Collected {
    ids: Vec<(Uuid, Seq)>,
    latest: LastValues,
    forgotten: u64,
    keeps: Keeps,
}

impl Collected {
    fn new(keeps: Keeps) -> Self {
        Self { ids: Vec::new(), latest: LastValues::default(), forgotten: 0, keeps }
    }

    fn add(&mut self, sighting: &Sighting, ours: &RecognisedEvent) {
        if self.ids.len() >= SCANNED_IDS_MAX {
            // The ids of the older half are dropped: their events are the first to be settled, so
            // they matter least.
            let half = SCANNED_IDS_MAX / 2;
            self.forgotten += half as u64;
            drop(self.ids.drain(..half));
        }
        self.ids.push((sighting.id, sighting.seq));
        if let (Keeps::UntilReplaced, Some(key)) = (self.keeps, &ours.key)
            && !self.latest.note(key, &sighting.subject, sighting.seq)
        {
            self.forgotten += 1;
        }
    }
}
