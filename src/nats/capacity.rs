//! Room of a stream and its account, asked by `check`.

use std::time::Duration;

use async_nats::jetstream;
use tokio::time::timeout;

use super::stream_info::find;
use crate::broker::BrokerError;

/// The account may be asked about by few users; without permission there is no answer.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// How much is there of something that has a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Of what.
    pub what: &'static str,
    /// How much is there.
    pub used: u64,
    /// How much there may be.
    pub max: u64,
}

/// Room of a stream, for `check`.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "settings of the stream, each by itself")]
pub struct Capacity {
    /// Limits of the stream, and of its account if that could be asked.
    pub used: Vec<Used>,
    /// The stream refuses what does not fit, instead of dropping its oldest messages.
    pub refuses: bool,
    /// Each subject has a limit, at which its messages are refused.
    pub refuses_per_subject: bool,
    /// The stream is a counter, and takes nothing but increments.
    pub is_counter: bool,
}

/// Asks for the limits of a stream and what it has of them.
///
/// # Errors
/// As the stream's.
pub async fn capacity(context: &jetstream::Context, name: &str) -> Result<Capacity, BrokerError> {
    let info = find(context, name).await?;
    let (config, state) = (&info.config, &info.state);
    let mut used = Vec::new();
    let mut limited = |what, is_used: u64, max: i64| {
        if let Some(max) = u64::try_from(max).ok().filter(|max| *max > 0) {
            used.push(Used { what, used: is_used, max });
        }
    };
    limited("bytes", state.bytes, config.max_bytes);
    limited("messages", state.messages, config.max_messages);
    limited("consumers", state.consumer_count as u64, i64::from(config.max_consumers));
    if let Ok(Ok(account)) = timeout(ACCOUNT_TIMEOUT, context.query_account()).await {
        let limits = account.limits;
        limited(
            "bytes of the account's storage",
            account.storage,
            limits.max_storage.unwrap_or_default(),
        );
        limited(
            "consumers of the account",
            account.consumers as u64,
            limits.max_consumers.unwrap_or_default(),
        );
    }
    Ok(Capacity {
        used,
        refuses: config.discard == jetstream::stream::DiscardPolicy::New,
        refuses_per_subject: config.discard_new_per_subject,
        is_counter: config.allow_message_counter,
    })
}
