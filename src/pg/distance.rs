//! Distance of a server from this program, which decides whether an unverified server is reported.

/// Distance of a server from this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distance {
    /// A Unix socket of this machine, on which there is no TLS.
    Socket,
    /// A loopback address of this machine.
    Loopback,
    /// Any other address.
    Remote,
}
