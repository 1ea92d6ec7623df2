//! A TCP proxy that inflicts the faults of a network, each direction by itself.
//!
//! `netem` is missing in many kernels and wants root everywhere; this wants neither. A direction has
//! a [`Mode`] that may change at any time. What is read is queued with the moment of its arrival,
//! and a second task writes it when the mode lets it: so delay keeps pipelining alive, and what is
//! held goes on its way in order once it is released, also when its sender has long been gone.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use postrider::dev::random::Random;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Pieces of up to 16 KiB that one direction keeps while it holds: 64 MiB.
const QUEUE_MAX: usize = 4096;
const PIECE_BYTES: usize = 16 * 1024;

/// The bytes that a client of NATS sends first, at most, in which its subscriptions are searched.
const OPENING_BYTES: usize = 64 * 1024;

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They pass.
    Pass,
    /// They pass later, by so much and up to so much more.
    Delay(Duration, Duration),
    /// They pass in pieces of so many bytes.
    Slice(usize),
    /// Bytes pass at a rate of so many a second: a narrow link.
    Narrow(u32),
    /// Nothing is taken from the sender and nothing of it arrives, not even its end: a network that
    /// drops packets. What was sent arrives when it is over, if both sides still wait.
    Hole,
    /// Everything is taken from the sender and kept; it arrives when the hold is over, even if the
    /// sender is gone by then: a network that is very late.
    Hold,
    /// So many bytes pass, then both sides see a reset.
    CutAfter(u64),
    /// Frames of a NATS server pass, each as a whole. A connection that is to hold
    /// messages later has to begin in this mode.
    Frames,
    /// The messages of a NATS server are kept; its other frames pass them. The messages go on
    /// their way with the next bytes in another mode, at the change to [`Mode::Frames`], or with
    /// the server's end.
    HoldMessages,
}

/// The modes of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) to_server: Mode,
    pub(crate) to_client: Mode,
}

impl Modes {
    /// A network without a fault.
    pub(crate) const PASS: Self = Self::both(Mode::Pass);

    /// The same in both directions.
    pub(crate) const fn both(mode: Mode) -> Self {
        Self { to_server: mode, to_client: mode }
    }

    /// Only what the client sends is concerned.
    pub(crate) const fn to_server(mode: Mode) -> Self {
        Self { to_server: mode, ..Self::PASS }
    }

    /// Only what the server answers is concerned.
    pub(crate) const fn to_client(mode: Mode) -> Self {
        Self { to_client: mode, ..Self::PASS }
    }
}

/// Listens on a loopback port and passes connections on to another one. Ends when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    /// Dropped with the proxy, which ends everything.
    _tasks: JoinSet<()>,
}

struct Shared {
    /// For connections to come.
    modes: Mutex<Modes>,
    /// Of the connections that there are.
    connections: Mutex<Vec<Connection>>,
    accepted: AtomicU32,
    /// Clients whose end has come.
    ended: AtomicU32,
    held_bytes: AtomicU64,
    /// The inboxes that clients of NATS have subscribed to.
    inboxes: Mutex<Vec<String>>,
}

impl Shared {
    /// Notes the inboxes that these bytes of a client subscribe to.
    fn note_inboxes(&self, bytes: &[u8]) {
        for line in String::from_utf8_lossy(bytes).lines() {
            let inbox = line.strip_prefix("SUB _INBOX.").and_then(|rest| rest.split('.').next());
            lock(&self.inboxes).extend(inbox.map(str::to_owned));
        }
    }
}

/// How a connection learns what happens to it.
struct Connection {
    modes: watch::Sender<Modes>,
    cut: CancellationToken,
}

impl Proxy {
    /// Passes everything on to a port of this machine, until its mode is changed.
    pub(crate) async fn start(server_port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            modes: Mutex::new(Modes::PASS),
            connections: Mutex::new(Vec::new()),
            accepted: AtomicU32::new(0),
            ended: AtomicU32::new(0),
            held_bytes: AtomicU64::new(0),
            inboxes: Mutex::new(Vec::new()),
        });
        let server = SocketAddr::from(([127, 0, 0, 1], server_port));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&shared)));
        Ok(Self { port, shared, _tasks: tasks })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes the modes of all connections, those to come included.
    pub(crate) fn set(&self, modes: Modes) {
        *lock(&self.shared.modes) = modes;
        self.set_present(modes);
    }

    /// Changes the modes of the connections that there are; those to come keep theirs.
    pub(crate) fn set_present(&self, modes: Modes) {
        for connection in lock(&self.shared.connections).iter() {
            connection.modes.send_replace(modes);
        }
    }

    /// Resets all connections that there are.
    pub(crate) fn cut(&self) {
        for connection in lock(&self.shared.connections).iter() {
            connection.cut.cancel();
        }
    }

    /// How many connections there were.
    pub(crate) fn accepted(&self) -> u32 {
        self.shared.accepted.load(Relaxed)
    }

    /// How many clients have not ended their side. The end of one is seen while its bytes are
    /// taken: not in a [`Mode::Hole`].
    pub(crate) fn clients(&self) -> u32 {
        self.accepted() - self.shared.ended.load(Relaxed)
    }

    /// How many bytes are kept just now.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.shared.held_bytes.load(Relaxed)
    }

    /// Whether a client that went through here has subscribed to `_INBOX.<inbox>.…`: then what
    /// names it as the address of its answers came from that client.
    pub(crate) fn knows_inbox(&self, inbox: &str) -> bool {
        lock(&self.shared.inboxes).iter().any(|known| known == inbox)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.accepted.fetch_add(1, Relaxed);
        connections.spawn(connect(client, server, Arc::clone(&shared), number));
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(client: TcpStream, server: SocketAddr, shared: Arc<Shared>, number: u32) {
    let (sender, modes) = watch::channel(*lock(&shared.modes));
    let cut = CancellationToken::new();
    {
        let mut connections = lock(&shared.connections);
        connections.retain(|connection| !connection.modes.is_closed());
        connections.push(Connection { modes: sender, cut: cut.clone() });
    }
    // As a listen queue does it, the client is connected before we know whether there is a server.
    let Ok(upstream) = TcpStream::connect(server).await else {
        drop(client.set_zero_linger());
        return;
    };
    drop(client.set_nodelay(true).and_then(|()| upstream.set_nodelay(true)));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = upstream.into_split();
    let direction = |of, from_client| {
        let (modes, cut) = (modes.clone(), cut.clone());
        Direction { modes, of, from_client, cut, number }
    };
    let to_server = direction(|modes: Modes| modes.to_server, true);
    let to_client = direction(|modes: Modes| modes.to_client, false);
    let ends = tokio::join!(
        to_server.pump(client_read, server_write, &shared),
        to_client.pump(server_read, client_write, &shared),
    );
    if cut.is_cancelled() {
        for (read, write) in [ends.0, ends.1] {
            drop(read.as_ref().set_zero_linger());
            // Closing it in order would come before the reset.
            write.forget();
        }
    }
}

/// One direction of one connection.
#[derive(Clone)]
struct Direction {
    modes: watch::Receiver<Modes>,
    of: fn(Modes) -> Mode,
    from_client: bool,
    cut: CancellationToken,
    number: u32,
}

/// Some bytes and when they came.
struct Piece {
    bytes: Vec<u8>,
    at: Instant,
}

impl Direction {
    fn mode(&self) -> Mode {
        (self.of)(*self.modes.borrow())
    }

    /// Carries bytes until the sender's end was passed on, or everything was cut. Gives the halves
    /// back, for the manner of closing is a fault too.
    async fn pump(
        self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        shared: &Shared,
    ) -> (OwnedReadHalf, OwnedWriteHalf) {
        let (pieces, queue) = mpsc::channel(QUEUE_MAX);
        let cut = self.cut.clone();
        let reader = self.clone();
        tokio::select! {
            _ = async {
                tokio::join!(reader.read(&mut from, pieces, shared), self.write(&mut to, queue, shared))
            } => {}
            () = cut.cancelled() => {}
        }
        (from, to)
    }

    async fn read(
        mut self,
        from: &mut OwnedReadHalf,
        pieces: mpsc::Sender<Piece>,
        shared: &Shared,
    ) {
        let mut taken = 0;
        loop {
            while self.mode() == Mode::Hole {
                if self.modes.changed().await.is_err() {
                    return;
                }
            }
            let mut bytes = vec![0; PIECE_BYTES];
            let read = tokio::select! {
                read = from.read(&mut bytes) => read,
                _ = self.modes.changed() => continue,
            };
            let Ok(count @ 1..) = read else {
                shared.ended.fetch_add(u32::from(self.from_client), Relaxed);
                return;
            };
            bytes.truncate(count);
            if self.from_client && taken < OPENING_BYTES {
                shared.note_inboxes(&bytes);
            }
            taken += count;
            shared.held_bytes.fetch_add(count as u64, Relaxed);
            let piece = Piece { bytes, at: Instant::now() };
            // A writer that gave up leaves us to swallow what comes, so that the sender may end.
            if let Err(refused) = pieces.send(piece).await {
                shared.held_bytes.fetch_sub(refused.0.bytes.len() as u64, Relaxed);
            }
        }
    }

    async fn write(
        mut self,
        to: &mut OwnedWriteHalf,
        mut queue: mpsc::Receiver<Piece>,
        shared: &Shared,
    ) {
        let mut random = Random::new(self.number.into());
        let mut frames = Frames::default();
        let mut passed = 0;
        while let Some(Piece { bytes, at }) = self.next(&mut queue, &frames).await {
            self.open().await;
            let mode = self.mode();
            let bytes = frames.take(bytes, mode);
            let result = match mode {
                Mode::Delay(fixed, jitter) => {
                    let micros = u32::try_from(jitter.as_micros()).unwrap_or(u32::MAX);
                    let jitter = Duration::from_micros(random.between(0, micros).into());
                    sleep_until(at + fixed + jitter).await;
                    // What was late meets what has come since: a hole or a hold.
                    self.open().await;
                    to.write_all(&bytes).await
                }
                Mode::Narrow(rate) => {
                    let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                    sleep_until(Instant::now() + Duration::from_secs(1) * size / rate.max(1)).await;
                    to.write_all(&bytes).await
                }
                Mode::Slice(size) => write_sliced(to, &bytes, size).await,
                Mode::CutAfter(limit) if passed + bytes.len() as u64 > limit => {
                    let rest = usize::try_from(limit.saturating_sub(passed)).unwrap_or(0);
                    drop(to.write_all(bytes.get(..rest).unwrap_or_default()).await);
                    self.cut.cancel();
                    return;
                }
                Mode::Pass
                | Mode::CutAfter(_)
                | Mode::Hole
                | Mode::Hold
                | Mode::Frames
                | Mode::HoldMessages => to.write_all(&bytes).await,
            };
            passed += bytes.len() as u64;
            shared.held_bytes.fetch_sub(bytes.len() as u64, Relaxed);
            if result.is_err() {
                return;
            }
        }
        // The sender's end is a packet like any other.
        self.open().await;
        drop(to.write_all(&frames.take(Vec::new(), Mode::Pass)).await);
        drop(to.shutdown().await);
    }

    /// The next piece; an empty one when the mode changes and messages are kept.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Piece>, frames: &Frames) -> Option<Piece> {
        tokio::select! {
            piece = queue.recv() => piece,
            Ok(()) = self.modes.changed(), if !frames.messages.is_empty() => {
                Some(Piece { bytes: Vec::new(), at: Instant::now() })
            }
        }
    }

    /// Waits until something may pass.
    async fn open(&mut self) {
        while matches!(self.mode(), Mode::Hole | Mode::Hold) {
            if self.modes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Frames of a NATS server: lines, each with the payload that a message's line announces.
#[derive(Default)]
struct Frames {
    /// The beginning of a frame whose end is still to come.
    begun: Vec<u8>,
    /// The messages that wait.
    messages: Vec<u8>,
}

impl Frames {
    /// Takes bytes in, and returns what passes in this mode. In another mode than those of frames
    /// that is everything that was taken in.
    fn take(&mut self, bytes: Vec<u8>, mode: Mode) -> Vec<u8> {
        let holds = mode == Mode::HoldMessages;
        let is_cut = holds || mode == Mode::Frames;
        if !is_cut && self.messages.is_empty() && self.begun.is_empty() {
            return bytes;
        }
        self.begun.extend(bytes);
        let mut passing = if holds { Vec::new() } else { std::mem::take(&mut self.messages) };
        while let Some((length, is_message)) = first_frame(&self.begun) {
            let to = if holds && is_message { &mut self.messages } else { &mut passing };
            to.extend(self.begun.drain(..length));
        }
        if !is_cut {
            passing.append(&mut self.begun);
        }
        passing
    }
}

/// The length of the first frame, once its end is there, and whether it is a message.
fn first_frame(bytes: &[u8]) -> Option<(usize, bool)> {
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let is_message = bytes.starts_with(b"MSG ") || bytes.starts_with(b"HMSG ");
    let payload = if is_message {
        // The last word is the length of what follows, and a line's end comes after it.
        let text = String::from_utf8_lossy(bytes.get(..line)?);
        text.split_whitespace().last()?.parse::<usize>().ok()? + 2
    } else {
        0
    };
    (line + payload <= bytes.len()).then_some((line + payload, is_message))
}

async fn write_sliced(to: &mut OwnedWriteHalf, bytes: &[u8], size: usize) -> io::Result<()> {
    for slice in bytes.chunks(size.max(1)) {
        to.write_all(slice).await?;
        // Lets the other side read what there is.
        tokio::task::yield_now().await;
    }
    Ok(())
}
