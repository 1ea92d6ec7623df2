//! A digest: 64 bits that stand for bytes which are compared and never shown.

use std::hash::{DefaultHasher, Hasher};

/// A 64-bit digest of some bytes. Two digests are comparable within one process only.
///
/// The digest protects against accidents, not against forgers. Two of ten million events have the
/// same digest with a probability below one in a hundred thousand. Such a collision hides a fault
/// only between two values of the same event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(u64);

impl Digest {
    /// The digest of a sequence of bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes.as_ref());
        Self(hasher.finish())
    }

    /// The digest of a list of headers, whatever their order. Repeated names keep their order.
    pub fn of_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut sorted: Vec<(&str, &str)> = headers.into_iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        let mut hasher = DefaultHasher::new();
        for (name, value) in sorted {
            hasher.write(name.as_bytes());
            hasher.write_u8(0xff);
            hasher.write(value.as_bytes());
            hasher.write_u8(0xff);
        }
        Self(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_compared_without_regard_to_their_order() {
        let one = Digest::of_headers([("a", "1"), ("b", "2")]);
        assert_eq!(one, Digest::of_headers([("b", "2"), ("a", "1")]));
        assert_ne!(one, Digest::of_headers([("a", "1")]));
        assert_ne!(one, Digest::of_headers([("a", "2"), ("b", "1")]));
        assert_ne!(one, Digest::of_headers([("a", "1b"), ("", "2")]));
    }
}
