//! Values with a notation for people: durations, sizes and listen addresses.

use std::{fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration such as `250ms`, `5s` or `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanDuration(pub Duration);

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "a duration such as \"250ms\", \"5s\" or \"24h\"", |text| {
            humantime::parse_duration(text).ok().map(Self)
        })
    }
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        // Durations are printed as people write them: a day is 24h, where the library humantime
        // would print 1day.
        match (self.0.subsec_nanos(), seconds) {
            (0, 172_800..) if seconds.is_multiple_of(86_400) => write!(f, "{}d", seconds / 86_400),
            (0, 1..) if seconds.is_multiple_of(3600) => write!(f, "{}h", seconds / 3600),
            (0, 1..) if seconds.is_multiple_of(60) => write!(f, "{}m", seconds / 60),
            (0, 1..) => write!(f, "{seconds}s"),
            _ => write!(f, "{}", humantime::format_duration(self.0)),
        }
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number of bytes such as `512KiB` or `8MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "a size such as \"512KiB\" or \"8MiB\"", |text| {
            let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
            let number = text.strip_suffix(unit)?.trim().parse::<u64>().ok()?;
            number.checked_mul(*factor).map(Self)
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = UNITS
            .iter()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The address of a listener, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// The listener binds this address; port 0 lets the kernel choose the port.
    Address(SocketAddr),
    /// The value `off`: there is no listener.
    Off,
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parse_text(deserializer, "an address such as \"127.0.0.1:8085\", or \"off\"", |text| {
            if text == "off" { Some(Self::Off) } else { text.parse().ok().map(Self::Address) }
        })
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Address(address) => serializer.collect_str(address),
            Self::Off => serializer.serialize_str("off"),
        }
    }
}

/// Deserializes a text that `parse` accepts. The error for any other value says what was expected.
pub(super) fn parse_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor { expected, parse })
}

struct TextVisitor<F> {
    expected: &'static str,
    parse: F,
}

impl<T, F: FnOnce(&str) -> Option<T>> de::Visitor<'_> for TextVisitor<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        let expected = self.expected;
        (self.parse)(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &expected))
    }
}

#[cfg(test)]
mod tests {
    use figment::{
        Figment,
        providers::{Format as _, Toml},
    };
    use proptest::prelude::*;

    use super::*;

    fn duration(text: &str) -> Result<HumanDuration, serde_json::Error> {
        serde_json::from_value(serde_json::json!(text))
    }

    fn size(text: &str) -> Result<ByteSize, serde_json::Error> {
        serde_json::from_value(serde_json::json!(text))
    }

    #[test]
    fn durations_are_written_back_as_people_write_them() {
        for text in ["2ms", "250ms", "5s", "10m", "24h", "90s", "7d", "1s 500ms"] {
            assert_eq!(duration(text).unwrap().to_string(), text);
        }
        assert_eq!(duration("1day").unwrap().to_string(), "24h");
        assert_eq!(duration("0s").unwrap().to_string(), "0s");
    }

    #[test]
    fn durations_without_a_unit_are_refused_with_an_example() {
        let error = duration("5").unwrap_err().to_string();
        assert!(error.contains("expected a duration such as"), "{error}");
        assert!(duration("-5s").is_err());
        assert!(duration("").is_err());
        assert!(duration("99999999999999999999h").is_err());
    }

    #[test]
    fn sizes_are_written_back_as_people_write_them() {
        for text in ["8MiB", "512KiB", "3B", "1GiB"] {
            assert_eq!(size(text).unwrap().to_string(), text);
        }
        assert_eq!(size("1 kB").unwrap(), ByteSize(1000));
    }

    #[test]
    fn sizes_that_overflow_or_lack_a_unit_are_refused() {
        for text in ["8", "MiB", "-1MiB", "8 MiBs", "99999999999GiB", "1.5MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_250))]

        #[test]
        fn no_text_can_panic_and_what_is_accepted_is_written_back(
            text in prop_oneof![".{0,20}", "[0-9.e+-]{0,22} ?[a-zA-Z]{0,4}", "([0-9]{1,4}[smhd] ?){0,3}"],
        ) {
            if let Ok(read) = duration(&text) {
                prop_assert_eq!(duration(&read.to_string()).unwrap(), read);
            }
            if let Ok(read) = size(&text) {
                prop_assert_eq!(size(&read.to_string()).unwrap(), read);
            }
        }

        #[test]
        fn no_toml_can_panic(text in prop_oneof![
            ".{0,60}",
            "(\\[[a-z.]{0,8}\\]\n|[a-z_]{1,8} ?= ?[0-9a-z\"'{}.-]{0,10}\n){0,6}",
        ]) {
            // Every input gives a value or an error, and both can be displayed.
            let read: Result<crate::config::Config, _> = Figment::from(Toml::string(&text)).extract().map_err(|error| error.to_string());
            if let Err(error) = read {
                prop_assert!(!error.is_empty());
            }
        }
    }
}
