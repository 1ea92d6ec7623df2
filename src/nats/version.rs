//! Versions of nats-server: which one is needed, and which one has what.

use async_nats::Client;

/// The oldest server that events are published to. An older one lacks what the promises rest on and
/// is tested with nothing.
const OLDEST: [u64; 3] = [2, 12, 0];

/// From here on a message of an atomic batch may have a message id.
const ATOMIC: [u64; 3] = [2, 12, 1];

/// From here on there are fast batches.
const FAST: [u64; 3] = [2, 14, 0];

/// Abilities of a server, by its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(Option<[u64; 3]>);

impl Version {
    /// The version of the server that a client is connected to.
    pub(super) fn of(client: &Client) -> Self {
        Self::read(&client.server_info().version)
    }

    /// Reads `2.12.1`, and `2.14.0-RC.2` as the release that it comes before.
    fn read(text: &str) -> Self {
        let mut numbers =
            text.trim_start_matches('v').split(['-', '+']).next().unwrap_or("").split('.');
        let mut next = || numbers.next()?.parse().ok();
        Self(next().zip(next()).zip(next()).map(|((major, minor), patch)| [major, minor, patch]))
    }

    /// Whether it is known to be too old. A version that cannot be read is taken for a new one.
    pub(super) fn is_too_old(self) -> bool {
        self.0.is_some_and(|version| version < OLDEST)
    }

    /// Whether it takes atomic batches of messages with ids.
    pub(super) fn has_atomic(self) -> bool {
        self.0.is_some_and(|version| version >= ATOMIC)
    }

    /// Whether it takes fast batches.
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
            // It refuses a message id in an atomic batch (10177).
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
