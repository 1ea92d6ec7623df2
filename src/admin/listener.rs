//! Binds the listener, and bounds what a client can occupy: the number of connections, and the life
//! of each.

use std::{
    collections::VecDeque,
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};

/// Connections at a time, at most. At the bound the oldest one is closed for the next, so that a
/// client that opens many connections and sends nothing keeps no other client out.
const CONNECTIONS_MAX: usize = 64;

/// Longest time that a client may take for the head of its request; a probe takes milliseconds.
/// Then its connection is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time that a client may take for the answer, from its first byte on. Then its connection
/// is closed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be bound.
    #[error("admin.listen {address}: {source}; {}", hint(.source))]
    Bind {
        /// The address that `admin.listen` has in the configuration.
        address: SocketAddr,
        /// The error with which the system refused the address.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest has one remedy")]
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there: set admin.listen to a free address, or to \"off\""
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: set admin.listen to one that it has, or to \"off\""
        }
        io::ErrorKind::PermissionDenied => "set admin.listen to a port above 1023, or to \"off\"",
        _ => "set admin.listen to another address, or to \"off\"",
    }
}

/// The listener for HTTP requests: a bound address, and the connections that it has accepted.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    /// The accepted connections that may still be open, the oldest first.
    open: VecDeque<ConnectionSlot>,
}

/// The listener's entry for a connection: one token asks it to end, the other says that it has.
struct ConnectionSlot {
    evict: CancellationToken,
    /// Cancelled when the connection has ended.
    ended: CancellationToken,
}

/// Binds the address of `[admin] listen`.
///
/// # Errors
///
/// The address is taken, or this machine does not have it. The text names the key `admin.listen`.
///
/// # Cancel safety
///
/// Dropping the future leaves nothing bound.
pub async fn bind(address: SocketAddr) -> Result<Listener, AdminError> {
    let failed = |source| AdminError::Bind { address, source };
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    Ok(Listener { tcp, address, open: VecDeque::new() })
}

impl Listener {
    /// The address that is bound, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes room for one more connection; at the bound the oldest connection is asked to end.
    fn admit(&mut self) -> ConnectionSlot {
        self.open.retain(|place| !place.ended.is_cancelled());
        if self.open.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.evict.cancel();
        }
        let (evict, ended) = (CancellationToken::new(), CancellationToken::new());
        self.open.push_back(ConnectionSlot { evict: evict.clone(), ended: ended.clone() });
        ConnectionSlot { evict, ended }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Bounded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Bounded, SocketAddr) {
        let (stream, peer) = axum::serve::Listener::accept(&mut self.tcp).await;
        let ConnectionSlot { evict, ended } = self.admit();
        let end = Box::pin(tokio::time::sleep(HEAD_TIMEOUT));
        let evicted = Box::pin(evict.cancelled_owned());
        (Bounded { stream, end, evicted, is_answering: false, _ended: ended.drop_guard() }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that ends when its time is up, or when the listener closes it in favour of a new
/// one.
pub struct Bounded {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
    is_answering: bool,
    _ended: DropGuard,
}

impl Bounded {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let is_over = self.end.as_mut().poll(context).is_ready();
        if is_over || self.evicted.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if !self.is_answering {
            self.is_answering = true;
            self.end.as_mut().reset(Instant::now() + ANSWER_TIMEOUT);
        }
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn at_the_bound_the_oldest_connection_is_closed_for_the_next() {
        let mut listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let places: Vec<ConnectionSlot> = (0..CONNECTIONS_MAX).map(|_| listener.admit()).collect();
        assert!(places.iter().all(|place| !place.evict.is_cancelled()));
        listener.admit();
        let evicted = places.iter().filter(|place| place.evict.is_cancelled()).count();
        assert!(evicted == 1 && places[0].evict.is_cancelled());
        // A connection that has ended by itself makes room for the next.
        places[1].ended.cancel();
        listener.admit();
        assert_eq!(places.iter().filter(|place| place.evict.is_cancelled()).count(), 1);
        assert_eq!(listener.open.len(), CONNECTIONS_MAX);
    }
}
