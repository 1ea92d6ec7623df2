//! Reads which of the relay's conditions the outbox violates, and makes a finding of each.

use crate::{
    findings::Finding,
    outbox::Inspection,
    pg::error::{Class, QueryError},
    relay::leadership::contract,
};

/// Findings about conditions of the relay that the outbox violates. Empty when the user may not
/// read them.
///
/// # Errors
/// The errors of the session.
pub(super) async fn broken(
    inspection: &Inspection,
    relay: &str,
) -> Result<Vec<Finding>, QueryError> {
    match inspection.broken_contract(relay).await {
        Ok(broken) => Ok(broken.iter().map(contract::finding).collect()),
        Err(error) if error.class() == Class::Permission => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
