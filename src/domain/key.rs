//! The key that identifies an anomaly to callers and in the store.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

/// The first 64 bits of the signature's SHA-256, written as 16 lower-case hex digits.
///
/// In JSON, it is written as these digits; in binary formats, as the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnomalyKey(u64);

/// The error for a text that is not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an anomaly key: a key is 16 lower-case hex digits, such as b119b2edaa9fb08c")]
pub struct InvalidKey;

impl AnomalyKey {
    /// Returns the key whose digits spell `bits`.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the number that the digits spell.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Returns the digits, which are written into `text`.
    pub fn digits(self, text: &mut [u8; 16]) -> &str {
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
        }
        str::from_utf8(text).unwrap_or_default()
    }
}

impl FromStr for AnomalyKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        // `from_str_radix` alone would accept capitals and a sign, so that a key would have two
        // spellings.
        let spelled =
            text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !spelled {
            return Err(InvalidKey);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidKey)
    }
}

impl fmt::Display for AnomalyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits(&mut [0; 16]))
    }
}

impl Serialize for AnomalyKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_u64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for AnomalyKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            u64::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_spelling() {
        assert_eq!("00ff00ff00ff00ff".parse(), Ok(AnomalyKey::from_bits(0x00ff_00ff_00ff_00ff)));
        assert_eq!(AnomalyKey::from_bits(0xab).to_string(), "00000000000000ab");
        assert_eq!(AnomalyKey::from_bits(u64::MAX - 1).to_string(), "fffffffffffffffe");
        for wrong in [
            "",
            "ab",
            "00FF00FF00FF00FF",
            "+0ff00ff00ff00ff",
            "00ff00ff00ff00ffa",
            "zzzzzzzzzzzzzzzz",
        ] {
            assert_eq!(wrong.parse::<AnomalyKey>(), Err(InvalidKey), "{wrong}");
        }
    }
}
