//! The signature of Grafana's deliveries: an HMAC-SHA256 of the body, optionally preceded by a time
//! that prevents replay. Source: Grafana's documentation of webhook contact points, "HMAC
//! signature".

use std::{fmt, fs, io, path::Path};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::domain::Timestamp;

/// Maximum difference between the time of a delivery and the clock, in seconds.
const TOLERANCE_SECONDS: i64 = 300;

/// The secret that Grafana and this service share.
#[derive(Clone)]
pub struct WebhookSecret(Vec<u8>);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl WebhookSecret {
    /// Reads the secret from a file, without the end of the line.
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(file)?;
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(Self(secret.into()))
    }
}

/// A delivery with a signature that is checked once its body has arrived.
#[derive(Clone, Debug)]
pub struct SignedDelivery {
    pub(super) secret: WebhookSecret,
    /// Hex digits.
    pub(super) signature: String,
    /// Unix seconds, as Grafana wrote them; absent if no time is signed.
    pub(super) time: Option<String>,
}

impl SignedDelivery {
    /// Returns whether the signature is that of the body, and fresh.
    pub fn matches(&self, now: Timestamp, body: &[u8]) -> bool {
        let Some(signature) = from_hex(&self.signature) else { return false };
        // HMAC takes a key of any length, so there is no error.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret.0) else { return false };
        if let Some(time) = &self.time {
            if !is_fresh(now, time) {
                return false;
            }
            mac.update(time.as_bytes());
            mac.update(b":");
        }
        mac.update(body);
        // Compares in constant time.
        mac.verify_slice(&signature).is_ok()
    }
}

fn is_fresh(now: Timestamp, time: &str) -> bool {
    let Ok(seconds) = time.parse::<i64>() else { return false };
    let now_seconds = now.as_micros().div_euclid(1_000_000);
    now_seconds.abs_diff(seconds) <= TOLERANCE_SECONDS.unsigned_abs()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_SECONDS: i64 = 1_774_799_738;

    fn delivery(signature: &str, time: Option<&str>) -> SignedDelivery {
        SignedDelivery {
            secret: WebhookSecret(b"key".to_vec()),
            signature: signature.to_owned(),
            time: time.map(str::to_owned),
        }
    }

    fn matches(delivery: &SignedDelivery, body: &str) -> bool {
        delivery.matches(Timestamp::from_micros(NOW_SECONDS * 1_000_000), body.as_bytes())
    }

    #[test]
    fn the_signature_of_the_body_is_accepted_and_no_other() {
        // The example of Wikipedia's article "HMAC", which other implementations confirm.
        let signed =
            delivery("f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8", None);
        let body = "The quick brown fox jumps over the lazy dog";
        assert!(matches(&signed, body));
        assert!(!matches(&signed, "The quick brown fox"));
        for wrong in ["", "f7", "zz", "é", "f7bc83f430538424b13298e6aa6fb143"] {
            assert!(!matches(&delivery(wrong, None), body), "{wrong}");
        }
    }

    #[test]
    fn a_signed_time_has_to_be_near_the_clock() {
        let sign = |time: &str| {
            let mut mac = Hmac::<Sha256>::new_from_slice(b"key").unwrap();
            mac.update(format!("{time}:body").as_bytes());
            mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        for (seconds, is_accepted) in
            [(0, true), (300, true), (-300, true), (301, false), (-301, false)]
        {
            let time = (NOW_SECONDS + seconds).to_string();
            let signed = delivery(&sign(&time), Some(&time));
            assert_eq!(matches(&signed, "body"), is_accepted, "{seconds}");
        }
        let unsigned_time = NOW_SECONDS.to_string();
        assert!(!matches(&delivery(&sign("0"), Some(&unsigned_time)), "body"));
    }
}
