//! Compares the limits of the account with what a new stream would use.

use async_nats::jetstream::{
    account::{Account, Limits},
    response::Response,
};

use super::fault::{Fault, refused, unavailable};
use crate::{broker::BrokerError, config};

/// Limits of the account, and how much of each its streams use already.
struct Use {
    limits: Limits,
    streams: u64,
    consumers: u64,
    /// Bytes that the account's streams have reserved.
    reserved: u64,
    /// Factor for the new stream's bytes: 1 when the limits are those of a tier (of streams with
    /// the same replicas), else the number of replicas.
    times: u64,
}

/// Limits that a new stream would exceed, read from the answer to a request for the account. `None`
/// when the answer cannot be read.
pub fn obstacles(answer: &[u8], stream: &config::StreamConfig) -> Option<Vec<BrokerError>> {
    let Ok(Response::Ok(account)) = serde_json::from_slice::<Response<Account>>(answer) else {
        return None;
    };
    Some(judge(&used(&account, stream.replicas), stream))
}

/// Use and limits of the account's tier for streams with this number of replicas; of the whole
/// account when it has no such tier.
fn used(account: &Account, replicas: u8) -> Use {
    match account.tiers.get(&format!("R{replicas}")) {
        Some(tier) => Use {
            limits: tier.limits,
            streams: tier.streams as u64,
            consumers: tier.consumers as u64,
            reserved: tier.reserved_storage,
            times: 1,
        },
        None => Use {
            streams: account.streams as u64,
            consumers: account.consumers as u64,
            reserved: account.reserved_storage,
            times: u64::from(replicas),
            limits: account.limits,
        },
    }
}

fn judge(used: &Use, stream: &config::StreamConfig) -> Vec<BrokerError> {
    let (name, bytes) = (&stream.name, stream.max_bytes.0);
    let limit = |max: Option<i64>| max.and_then(|max| u64::try_from(max).ok());
    let cannot = |text: String, hint: &str| {
        refused(name, format!("cannot be created: {text}"), hint.to_owned())
    };
    let mut found = Vec::new();
    if let Some(max) = limit(used.limits.max_streams).filter(|max| used.streams >= *max) {
        let text = format!("the account has {} of {max} streams", used.streams);
        let hint = "raise the account's max_streams, or name a stream that exists in [stream] name";
        found.push(cannot(text, hint));
    }
    if used.limits.max_bytes_required && bytes == 0 {
        let text =
            "the account requires a limit of bytes for each stream, and stream.max_bytes is 0B";
        found.push(cannot(text.to_owned(), "set stream.max_bytes"));
    }
    // In the account's limit for the bytes of one stream, 0 and -1 mean that there is none.
    let largest = limit(used.limits.storage_max_stream_bytes).filter(|max| *max > 0);
    if let Some(max) = largest.filter(|max| bytes == 0 || bytes > *max) {
        let text = format!("the account allows {max} bytes a stream, stream.max_bytes is {bytes}");
        found.push(cannot(text, "lower stream.max_bytes, or raise the account's limit"));
    }
    // A stream without a limit of bytes counts as one byte: it reserves next to nothing.
    let taken = bytes.max(1).saturating_mul(used.times);
    if let Some(max) =
        limit(used.limits.max_storage).filter(|max| used.reserved.saturating_add(taken) > *max)
    {
        let reason = format!(
            "it would reserve {taken} bytes, and {} of the account's {max} are reserved",
            used.reserved
        );
        found.push(unavailable(name, Fault::NoStorage, reason));
    }
    if let Some(max) = limit(used.limits.max_consumers).filter(|max| used.consumers >= *max) {
        let reason = format!("the account has {} of {max} consumers", used.consumers);
        found.push(unavailable(name, Fault::NoConsumer, reason));
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::value::ByteSize;

    fn found(change: impl FnOnce(&mut Value), max_bytes: u64) -> Vec<String> {
        let mut answer = json!({
            "memory": 0, "storage": 0, "reserved_memory": 0, "reserved_storage": 600,
            "streams": 2, "consumers": 1, "api": { "total": 1, "errors": 0 },
            "limits": {
                "max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1,
                "max_ack_pending": -1, "memory_max_stream_bytes": -1,
                "storage_max_stream_bytes": -1, "max_bytes_required": false
            }
        });
        change(&mut answer);
        let name = "EVENTS".to_owned();
        let stream = config::StreamConfig {
            name,
            max_bytes: ByteSize(max_bytes),
            ..config::StreamConfig::default()
        };
        let found = obstacles(answer.to_string().as_bytes(), &stream).unwrap();
        found.iter().map(BrokerError::to_string).collect()
    }

    #[test]
    fn each_limit_that_a_new_stream_would_pass_is_named() {
        let limit = |name: &'static str, value: Value, bytes| {
            found(move |answer| answer["limits"][name] = value, bytes)
        };
        assert!(found(|_| (), 0).is_empty());
        for (name, fits, passes, bytes, text) in [
            ("max_streams", json!(3), json!(2), 0, "the account has 2 of 2 streams"),
            ("max_consumers", json!(2), json!(1), 0, "the account has 1 of 1 consumers"),
            ("max_storage", json!(700), json!(699), 100, "reserve 100 bytes, and 600 of"),
            ("max_storage", json!(601), json!(600), 0, "reserve 1 bytes, and 600 of"),
            ("storage_max_stream_bytes", json!(100), json!(99), 100, "allows 99 bytes a stream"),
            ("max_bytes_required", json!(false), json!(true), 0, "stream.max_bytes is 0B"),
        ] {
            assert!(limit(name, fits, bytes).is_empty(), "{name}");
            let found = limit(name, passes, bytes);
            assert!(found.len() == 1 && found[0].contains(text), "{name}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_account_says_nothing() {
        let stream = config::StreamConfig::default();
        for answer in ["", "{}", r#"{"error":{"code":503,"err_code":10039}}"#] {
            assert!(obstacles(answer.as_bytes(), &stream).is_none(), "{answer}");
        }
    }
}
