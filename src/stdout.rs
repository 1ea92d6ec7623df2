//! The sink of standard output: one CloudEvents JSON line an event, for reading and for
//! development.
//!
//! A separate thread writes, because the reader of the output may be slow or stand still. An event
//! is acknowledged once its line is flushed. Lines cannot be read back, so no id is recognised, and
//! nothing is scanned or healed: after a crash the lines that were in flight are written again.

use std::{
    collections::VecDeque,
    fs::File,
    future::pending,
    io::{self, BufWriter, Write as _},
    os::fd::AsFd as _,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Instant,
};

use bytes::Bytes;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, ready},
};
use tokio::sync::watch;

use crate::{
    broker::{Absorbed, BrokerError, Cause, LogFacts, NotSent, VerifiedLog},
    clock,
    delivery::{Outcome, StreamMark, Ticket},
    wire::Message,
};

/// Name of this log in places that otherwise have the name of a stream. It has a `/`, so no stream
/// can have the same name.
pub const LOG: &str = "/dev/stdout";

/// The name of this log in messages for people.
pub const NAME: &str = "standard output";

/// Bytes of an event's headers and payload at most, inclusive: the largest message that a NATS
/// server can be configured to take. A larger event becomes a dead letter.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// Most lines that wait for the writing thread. At the bound `publish` accepts no message until the
/// thread has taken a line.
const LINES_MAX: usize = 65_536;

/// Most further lines that are written after a first one before the output is flushed.
const FLUSH_MAX: usize = 1024;

/// Standard output as a sink.
#[derive(Debug)]
pub struct StdoutSink {
    lines: SyncSender<(u64, Bytes)>,
    news: watch::Receiver<News>,
    in_flight: VecDeque<Line>,
    /// The number of the last line that was handed to the writing thread, counted from 1.
    number: u64,
    /// The number of lines that other processes wrote before, as recorded. A line's sequence is
    /// this number plus its own.
    before: u64,
    is_connected: bool,
}

/// A line that was handed to the writing thread and is not acknowledged yet.
#[derive(Debug)]
struct Line {
    number: u64,
    ticket: Ticket,
    at: Instant,
}

/// The report of the writing thread: how far it has come, and whether it has failed.
#[derive(Debug, Default)]
struct News {
    /// Every line up to this number, inclusive, is flushed.
    flushed: u64,
    /// The error that ended the writing thread; `None` while that runs.
    failure: Option<String>,
}

impl StdoutSink {
    /// Starts the thread that writes the lines.
    ///
    /// # Errors
    /// When the system gives no thread, or standard output is closed.
    pub fn start() -> io::Result<Self> {
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let (lines, received) = sync_channel(LINES_MAX);
        let (sender, news) = watch::channel(News::default());
        let write = move || {
            if let Err(error) = write(output, &received, &sender) {
                sender.send_modify(|news| news.failure = Some(error.to_string()));
            }
        };
        thread::Builder::new().name("stdout".to_owned()).spawn(write)?;
        Ok(Self {
            lines,
            news,
            in_flight: VecDeque::new(),
            number: 0,
            before: 0,
            is_connected: false,
        })
    }

    /// The name of this log in messages for people.
    pub fn log(&self) -> String {
        NAME.to_owned()
    }

    /// Verifies that lines can be written. `mark` is the recorded end of the lines of earlier
    /// processes.
    pub fn verify(&self, mark: StreamMark) -> BoxFuture<'static, Result<VerifiedLog, BrokerError>> {
        let verified = match &self.news.borrow().failure {
            Some(failure) => Err(self.broken(failure.clone())),
            None => Ok(VerifiedLog {
                facts: LogFacts::out_of_reach(
                    NAME,
                    self.last_seq().max(mark.acked),
                    MESSAGE_BYTES_MAX,
                ),
                acked: mark.acked,
                is_rewritten: false,
            }),
        };
        ready(verified).boxed()
    }

    /// The error of a standard output that cannot be written to.
    pub fn broken(&self, reason: String) -> BrokerError {
        let hint = "start the program again with a standard output that is read";
        BrokerError::Unavailable { log: self.log(), reason, cause: Cause::Answered, hint }
    }

    /// Continues the numbering after `facts.last_seq`, the end of the lines of earlier processes.
    pub fn adopt(&mut self, facts: &LogFacts) {
        self.before += facts.last_seq.saturating_sub(self.last_seq());
    }

    /// The sequence of the last line that was handed to the writing thread. The lines of earlier
    /// processes count too.
    pub fn last_seq(&self) -> u64 {
        self.before + self.number
    }

    /// Hands a message to the writing thread as one line, and returns at once.
    ///
    /// # Errors
    /// [`NotSent::NotNow`] while `LINES_MAX` lines wait for the writing thread, and after that
    /// thread failed.
    pub fn publish(
        &mut self,
        ticket: Ticket,
        message: Message,
        now: Instant,
    ) -> Result<(), NotSent> {
        let number = self.number + 1;
        self.lines.try_send((number, message.payload)).map_err(|_| NotSent::NotNow)?;
        self.number = number;
        self.in_flight.push_back(Line { number, ticket, at: now });
        Ok(())
    }

    /// Waits for the next answer: first that the output is connected, then one for each line.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Absorbed {
        if !std::mem::replace(&mut self.is_connected, true) {
            return Absorbed::Connected;
        }
        loop {
            if let Some(absorbed) = self.try_next(clock::now()) {
                return absorbed;
            }
            if self.news.changed().await.is_err() {
                // The writing thread has ended, and every line in flight was answered. So no
                // further answer can come.
                pending::<()>().await;
            }
        }
    }

    /// The next answer about a line, if there is one already; does not wait.
    pub fn try_next(&mut self, now: Instant) -> Option<Absorbed> {
        let (flushed, has_failed) = {
            let news = self.news.borrow_and_update();
            (news.flushed, news.failure.is_some())
        };
        let is_due = |line: &mut Line| line.number <= flushed || has_failed;
        let Line { number, ticket, at } = self.in_flight.pop_front_if(is_due)?;
        if number > flushed {
            return Some(Absorbed::Unconfirmed { ticket, silent: true });
        }
        let outcome = Outcome::Acked { stream_seq: self.before + number, duplicate: false };
        Some(Absorbed::Outcome { ticket, outcome, took: now.saturating_duration_since(at) })
    }

    /// Forgets the lines in flight, because the relay waits for their answers no longer.
    pub fn forget(&mut self) {
        self.in_flight.clear();
    }
}

/// Writes lines until the sink is dropped.
fn write(
    output: File,
    lines: &Receiver<(u64, Bytes)>,
    sender: &watch::Sender<News>,
) -> io::Result<()> {
    let is_continued = output.metadata().is_ok_and(|file| file.is_file() && file.len() > 0);
    let mut output = BufWriter::new(output);
    if is_continued {
        // The file may end in a line that a crash has torn. This line break ends it.
        output.write_all(b"\n")?;
    }
    while let Ok((mut last, line)) = lines.recv() {
        output.write_all(&line)?;
        for (number, line) in lines.try_iter().take(FLUSH_MAX) {
            output.write_all(&line)?;
            last = number;
        }
        output.flush()?;
        sender.send_modify(|news| news.flushed = last);
    }
    Ok(())
}
