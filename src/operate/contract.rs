//! Reads the violated conditions of the outbox, as findings.

use crate::{
    findings::Finding,
    outbox::Inspection,
    pg::error::{Class, QueryError},
    relay::leadership::contract,
};

/// The violated conditions, as findings. Empty when the user may not read them.
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
