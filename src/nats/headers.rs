//! Makes the header block of a message in the form that the client takes.

use async_nats::{HeaderMap, HeaderName, HeaderValue};
use serde::{
    Deserialize as _,
    de::{
        IntoDeserializer as _,
        value::{self, StrDeserializer},
    },
};

use crate::wire::Headers;

/// Header by which a stream recognises a message; the first header of every message.
const MESSAGE_ID: &str = "Nats-Msg-Id";

/// Bytes of a message besides its header block and its payload: the version, the first header's
/// name, the end of the last line, and an empty line.
pub(super) const FRAMING_BYTES: usize =
    "NATS/1.0\r\n".len() + MESSAGE_ID.len() + ": \r\n\r\n".len();

/// Makes the client's map of the headers.
///
/// A map with an entry for each header costs as much as everything else that is done for a message.
/// On the wire the headers are nothing but lines. So all of them become one entry: the first name,
/// and the rest of the text as its value. The library accepts line breaks in a value only when it
/// deserialises the value. If a later version refuses them there too, each header gets an entry.
pub(super) fn header_map(headers: &Headers) -> HeaderMap {
    const FIRST: HeaderName = HeaderName::from_static(MESSAGE_ID);
    let block: StrDeserializer<'_, value::Error> = headers.block().into_deserializer();
    let mut map = HeaderMap::new();
    if let Ok(block) = HeaderValue::deserialize(block) {
        map.insert(FIRST, block);
        return map;
    }
    let id = headers.block().split("\r\n").next().unwrap_or_default();
    map.append(MESSAGE_ID, id);
    for (name, value) in headers.iter() {
        map.append(name, value);
    }
    map
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::event::EventId;

    #[test]
    fn the_headers_go_as_one_entry() {
        let mut headers = Headers::new(EventId(Uuid::nil()));
        headers.add("ce-kind", "domain");
        let map = header_map(&headers);
        assert_eq!(map.len(), 1, "the client takes no line breaks any more: see header_map");
        let block = map.get(MESSAGE_ID).map(HeaderValue::as_str);
        assert_eq!(block, Some("00000000-0000-0000-0000-000000000000\r\nce-kind: domain"));
    }
}
