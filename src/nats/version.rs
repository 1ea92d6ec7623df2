//! Versions of nats-server: the oldest supported one, and those with each kind of batch.

use async_nats::Client;

/// Oldest server that is supported, inclusive. Older ones lack features that the promises rest on,
/// and are not tested.
const OLDEST: [u64; 3] = [2, 12, 0];

/// First version that accepts a message id in an atomic batch.
const ATOMIC: [u64; 3] = [2, 12, 1];

/// First version with fast batches.
const FAST: [u64; 3] = [2, 14, 0];

/// Version of a server; `None` when it cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(Option<[u64; 3]>);

impl Version {
    /// The version of the server that a client is connected to.
    pub(super) fn of(client: &Client) -> Self {
        Self::read(&client.server_info().version)
    }

    /// Reads `2.12.1`, and `2.14.0-RC.2` as the release that follows it.
    fn read(text: &str) -> Self {
        let mut numbers =
            text.trim_start_matches('v').split(['-', '+']).next().unwrap_or("").split('.');
        let mut next = || numbers.next()?.parse().ok();
        Self(next().zip(next()).zip(next()).map(|((major, minor), patch)| [major, minor, patch]))
    }

    /// Whether the server is too old. A version that cannot be read counts as new enough.
    pub(super) fn is_too_old(self) -> bool {
        self.0.is_some_and(|version| version < OLDEST)
    }

    /// Whether the server accepts atomic batches of messages with ids.
    pub(super) fn has_atomic(self) -> bool {
        self.0.is_some_and(|version| version >= ATOMIC)
    }

    /// Whether the server accepts fast batches.
    pub(super) fn has_fast(self) -> bool {
        self.0.is_some_and(|version| version >= FAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_its_server_has() {
        for (text, too_old, atomic, fast) in [
            ("2.10.26", true, false, false),
            ("2.11.99", true, false, false),
            // Version 2.12.0 refuses a message id in an atomic batch (10177).
            ("2.12.0", false, false, false),
            ("2.12.1", false, true, false),
            ("2.14.0-RC.2", false, true, true),
            ("v3.0.0+local", false, true, true),
            ("unknown", false, false, false),
        ] {
            let version = Version::read(text);
            let says = (version.is_too_old(), version.has_atomic(), version.has_fast());
            assert_eq!(says, (too_old, atomic, fast), "{text}");
        }
    }
}
