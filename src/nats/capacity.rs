//! Reads for `postrider check` how much of the limits of a stream and its account is in use.

use std::time::Duration;

use async_nats::jetstream;
use tokio::time::timeout;

use super::stream_info::find;
use crate::broker::BrokerError;

/// Longest wait for the server to describe the account. To a user without the permission to ask,
/// which is the usual case, the server never answers.
const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(1);

/// Limited resource of a stream or account, with the amount in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Name of the resource.
    pub what: &'static str,
    /// Amount in use.
    pub used: u64,
    /// Amount that may be in use at most.
    pub max: u64,
}

/// Limits of a stream, and how much of them is in use, for `postrider check`.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "settings of the stream, each by itself")]
pub struct Capacity {
    /// Resources that the stream limits. Those of the account follow, if the server described it.
    pub used: Vec<Used>,
    /// Whether the stream refuses a message that does not fit, instead of dropping its oldest ones.
    pub refuses: bool,
    /// Whether each subject has a limit at which its messages are refused.
    pub refuses_per_subject: bool,
    /// Whether the stream is a counter, which accepts nothing but increments.
    pub is_counter: bool,
}

/// Asks for the limits of a stream and how much of them is in use.
///
/// # Errors
/// [`BrokerError`] when the stream does not answer or does not exist.
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
