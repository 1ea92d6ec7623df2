//! Denials by the server: complaints about permissions, and what each concerns.

use crate::{
    broker::{Absorbed, Forbidden},
    delivery::{Closure, ClosureKind},
};

/// Advice for a user who lacks permissions.
const HINT: &str = "allow this user to publish to the route's subjects and, of the stream, to \
                    $JS.API.STREAM.INFO, STREAM.MSG.GET, CONSUMER.CREATE, CONSUMER.MSG.NEXT and \
                    CONSUMER.DELETE, and to subscribe to its inbox";

/// Whether a complaint of the server is about permissions.
pub(super) fn is_denial(text: &str) -> bool {
    text.to_ascii_lowercase().contains("permissions violation")
}

/// Subject in a complaint such as `Permissions Violation for Publish to "orders.placed"`.
pub(super) fn denied_subject(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("for Publish to \"")?;
    rest.split_once('"').map(|(subject, _)| subject.to_owned())
}

/// Denial for a complaint. The subject in the complaint says what the server denies.
pub(super) fn denial(complaint: String, api_prefix: &str) -> Absorbed {
    let forbidden = denied_subject(&complaint)
        .map_or(Forbidden::Everything, |subject| scope(subject, api_prefix));
    Absorbed::Denied { closure: closure(complaint), forbidden }
}

/// Denial of everything, because the server refuses the login.
pub(super) fn refused_login() -> Absorbed {
    let closure = closure("the server refuses the relay's login".to_owned());
    Absorbed::Denied { closure, forbidden: Forbidden::Everything }
}

fn closure(text: String) -> Closure {
    Closure::with_hint(ClosureKind::PermissionDenied, text, HINT)
}

/// Scope of a denial, by the denied subject: a kind of request to JetStream, or the events of that
/// subject.
fn scope(subject: String, api_prefix: &str) -> Forbidden {
    let request = subject.strip_prefix(api_prefix).and_then(|rest| rest.strip_prefix('.'));
    let Some(request) = request else { return Forbidden::Subject(subject) };
    let is_one_of = |verbs: &[&str]| verbs.iter().any(|verb| request.starts_with(verb));
    if is_one_of(&["STREAM.INFO", "STREAM.CREATE"]) {
        Forbidden::Verifying
    } else if is_one_of(&["CONSUMER.CREATE", "CONSUMER.MSG.NEXT"]) {
        Forbidden::Scanning
    } else {
        // The relay works without the remaining requests, which read single messages or delete a
        // consumer.
        Forbidden::Spare
    }
}
