//! A TCP proxy that inflicts faults of a network, on each direction of a connection separately.
//!
//! The kernel's `netem` is often missing and needs root; the proxy does not. Each direction has a
//! [`Mode`], which may change at any time. One task reads bytes and queues them with their time of
//! arrival. Another task writes them when the mode allows it. A delay therefore does not slow down
//! pipelining. Held bytes are sent in order once the hold ends, even when their sender is gone.

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

/// Largest number of pieces that one direction keeps while it holds. Pieces have up to 16 KiB, so
/// this is 64 MiB.
const QUEUE_MAX: usize = 4096;
const PIECE_BYTES: usize = 16 * 1024;

/// Number of bytes at the beginning of a client's connection in which the proxy looks for
/// subscriptions.
const OPENING_BYTES: usize = 64 * 1024;

/// Treatment of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Bytes pass at once.
    Pass,
    /// Bytes pass after the first duration, plus a random time of at most the second.
    Delay(Duration, Duration),
    /// Bytes pass in pieces of this size.
    Slice(usize),
    /// Bytes pass at this rate per second, as on a narrow link.
    Narrow(u32),
    /// A network that drops packets: bytes are not taken from the sender, and not even its end
    /// arrives. After the mode changes, everything sent arrives, if both sides still wait.
    Hole,
    /// A network that is very late: bytes are taken from the sender and kept. After the mode
    /// changes they arrive, even when the sender is gone by then.
    Hold,
    /// This many bytes pass, and then both sides see a reset.
    CutAfter(u64),
    /// Frames of the NATS protocol pass, each as a whole. A connection on which
    /// [`Mode::HoldMessages`] follows has to begin in this mode.
    Frames,
    /// Messages from a NATS server are kept, and its other frames pass. The messages are sent when
    /// the mode changes to [`Mode::Frames`], with the next bytes in any other mode, or when the
    /// server closes.
    HoldMessages,
}

/// Modes of both directions of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Modes {
    pub(crate) to_server: Mode,
    pub(crate) to_client: Mode,
}

impl Modes {
    /// Modes of a network without faults.
    pub(crate) const PASS: Self = Self::both(Mode::Pass);

    /// Makes both directions have this mode.
    pub(crate) const fn both(mode: Mode) -> Self {
        Self { to_server: mode, to_client: mode }
    }

    /// Changes only the direction from client to server.
    pub(crate) const fn to_server(mode: Mode) -> Self {
        Self { to_server: mode, ..Self::PASS }
    }

    /// Changes only the direction from server to client.
    pub(crate) const fn to_client(mode: Mode) -> Self {
        Self { to_client: mode, ..Self::PASS }
    }
}

/// Listener on a loopback port that forwards connections to another port. Dropping the value ends
/// the listener and all connections.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    /// Tasks of the listener and the connections. They end when the proxy is dropped.
    _tasks: JoinSet<()>,
}

struct Shared {
    /// Modes that new connections get.
    modes: Mutex<Modes>,
    /// Connections that are open or were.
    connections: Mutex<Vec<Connection>>,
    accepted: AtomicU32,
    /// Number of clients that have closed their side.
    ended: AtomicU32,
    held_bytes: AtomicU64,
    /// Inboxes to which NATS clients behind this proxy have subscribed.
    inboxes: Mutex<Vec<String>>,
}

impl Shared {
    /// Records the inboxes to which these bytes of a client subscribe.
    fn note_inboxes(&self, bytes: &[u8]) {
        for line in String::from_utf8_lossy(bytes).lines() {
            let inbox = line.strip_prefix("SUB _INBOX.").and_then(|rest| rest.split('.').next());
            lock(&self.inboxes).extend(inbox.map(str::to_owned));
        }
    }
}

/// Controls of one connection: its modes, and a token that resets it.
struct Connection {
    modes: watch::Sender<Modes>,
    cut: CancellationToken,
}

impl Proxy {
    /// Starts a proxy to a port of this machine. All bytes pass until a mode is set.
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

    /// Port on which the proxy listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Changes the modes of all connections, open and future ones.
    pub(crate) fn set(&self, modes: Modes) {
        *lock(&self.shared.modes) = modes;
        self.set_present(modes);
    }

    /// Changes the modes of the open connections. Future ones keep their modes.
    pub(crate) fn set_present(&self, modes: Modes) {
        for connection in lock(&self.shared.connections).iter() {
            connection.modes.send_replace(modes);
        }
    }

    /// Resets all open connections.
    pub(crate) fn cut(&self) {
        for connection in lock(&self.shared.connections).iter() {
            connection.cut.cancel();
        }
    }

    /// Number of connections that clients have opened so far.
    pub(crate) fn accepted(&self) -> u32 {
        self.shared.accepted.load(Relaxed)
    }

    /// Number of clients that have not closed their side. A client's end is not seen while the mode
    /// is [`Mode::Hole`].
    pub(crate) fn clients(&self) -> u32 {
        self.accepted() - self.shared.ended.load(Relaxed)
    }

    /// Number of bytes that the proxy has taken and not yet sent on.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.shared.held_bytes.load(Relaxed)
    }

    /// Whether a client behind this proxy has subscribed to `_INBOX.<inbox>.…`. A message with such
    /// a reply subject was sent by that client.
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
    // The client is connected before the server is, as with a listen queue. Without a server the
    // client sees a reset.
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
            // A regular close would reach the other side before the reset, so the write half is
            // forgotten.
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

/// Bytes, and the time at which they arrived at the proxy.
struct Piece {
    bytes: Vec<u8>,
    at: Instant,
}

impl Direction {
    fn mode(&self) -> Mode {
        (self.of)(*self.modes.borrow())
    }

    /// Forwards bytes until the sender's end was forwarded too, or the connection is reset. Returns
    /// both halves, because the caller closes them regularly or with a reset.
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
            // When the writer has given up, the bytes are discarded, so that the sender can finish.
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
                    // The delay may have ended in a mode that lets nothing pass, so the mode is
                    // checked once more.
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
        // The sender's end is delayed by the modes like its bytes.
        self.open().await;
        drop(to.write_all(&frames.take(Vec::new(), Mode::Pass)).await);
        drop(to.shutdown().await);
    }

    /// Next piece to write. The piece is empty when the mode changes while messages are kept.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Piece>, frames: &Frames) -> Option<Piece> {
        tokio::select! {
            piece = queue.recv() => piece,
            Ok(()) = self.modes.changed(), if !frames.messages.is_empty() => {
                Some(Piece { bytes: Vec::new(), at: Instant::now() })
            }
        }
    }

    /// Waits until the mode lets something pass.
    async fn open(&mut self) {
        while matches!(self.mode(), Mode::Hole | Mode::Hold) {
            if self.modes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Splits the bytes of a NATS server into frames: lines, and after the line of a message its
/// payload.
#[derive(Default)]
struct Frames {
    /// Beginning of a frame that has not arrived completely.
    begun: Vec<u8>,
    /// Messages that are kept back.
    messages: Vec<u8>,
}

impl Frames {
    /// Adds bytes, and returns the bytes that pass in this mode. In a mode without frames all bytes
    /// pass.
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

/// Length of the first complete frame, and whether it is a message. `None` while its end is
/// missing.
fn first_frame(bytes: &[u8]) -> Option<(usize, bool)> {
    let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let is_message = bytes.starts_with(b"MSG ") || bytes.starts_with(b"HMSG ");
    let payload = if is_message {
        // The line's last word is the length of the payload, which ends with CR and LF.
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
        // Another task gets the chance to read what was written so far.
        tokio::task::yield_now().await;
    }
    Ok(())
}
