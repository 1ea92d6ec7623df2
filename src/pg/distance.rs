//! Distance of a Postgres server: whether it is on this machine. A remote server is reported when
//! TLS does not verify it.

/// Distance of a Postgres server from this program: on this machine, or remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distance {
    /// A Unix socket of this machine, over which Postgres never speaks TLS.
    Socket,
    /// A loopback address of this machine.
    Loopback,
    /// An address that is neither a Unix socket nor a loopback address.
    Remote,
}
