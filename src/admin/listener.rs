//! Binds the listener, and bounds what a client can hold: connections, and the life of each.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};

use crate::config::value::Listen;

/// Connections at a time. At the bound the next one waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;

/// How long one connection may send, from its first byte to its last; a request takes
/// milliseconds, and who sends its headers drop by drop shall not keep a place.
const CONNECTION_LIFE: Duration = Duration::from_secs(5);

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be bound.
    #[error("admin.listen {address}: {source}; {}", hint(.source))]
    Bind {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system said.
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

/// A bound address.
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    places: Arc<Semaphore>,
}

/// Binds `[admin] listen`; `None` when it is off.
///
/// # Errors
///
/// The address is taken or not ours; the text names the key.
///
/// # Cancel safety
///
/// Dropping the future leaves nothing bound.
pub async fn bind(listen: Listen) -> Result<Option<Listener>, AdminError> {
    let Listen::Address(address) = listen else { return Ok(None) };
    let failed = |source| AdminError::Bind { address, source };
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    let address = tcp.local_addr().map_err(failed)?;
    Ok(Some(Listener { tcp, address, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }))
}

impl Listener {
    /// The address that is bound, with the port that the kernel chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl axum::serve::Listener for Listener {
    type Io = Bounded;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Bounded, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        let (stream, peer) = axum::serve::Listener::accept(&mut self.tcp).await;
        let end = Box::pin(tokio::time::sleep(CONNECTION_LIFE));
        (Bounded { stream, end, _place: place }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection that ends by itself.
pub struct Bounded {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Bounded {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
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
