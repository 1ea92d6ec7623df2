//! Abilities of a server, by its version.

/// Whether a server of this version has `transaction_timeout`: 17 and newer.
pub(super) fn limits_transactions(version: &str) -> bool {
    let major = version.split(|digit: char| !digit.is_ascii_digit()).next();
    major.and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 17)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_from_17_on_can_end_a_transaction_for_its_length() {
        for version in ["17.0", "18.4 (Debian 18.4-1)", "19devel"] {
            assert!(limits_transactions(version), "{version}");
        }
        for version in ["16.9", "9.6.24", "", "x"] {
            assert!(!limits_transactions(version), "{version}");
        }
    }
}
