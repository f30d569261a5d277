//! Masks replace the volatile parts of a text with a name. The definition of a mask never changes:
//! a better one gets a new name, because keys of many years depend on it. The sets of Sentry's
//! `grouping/parameterization.py` were the model for the choice of masks.

use std::{net::Ipv6Addr, ops::Range, sync::LazyLock};

use regex::Regex;
use serde::Deserialize;

use super::pod_name;

/// A mask. The masks of a field are applied in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mask {
    /// A UUID.
    Uuid,
    /// An IPv4 or IPv6 address, with its port.
    Ip,
    /// The hash at the end of a pod's name.
    PodHash,
    /// A hexadecimal number of at least 8 digits, one of which is decimal.
    Hex,
    /// A number that is a word of its own, with its decimal places.
    Number,
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| fixed("[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"));
static IP_V4: LazyLock<Regex> =
    LazyLock::new(|| fixed(r"([0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]{1,5})?"));
/// Candidates: any text that consists of parts of an address.
static IP_V6: LazyLock<Regex> = LazyLock::new(|| {
    fixed(
        r"\[?[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,}(?:\.[0-9]{1,3}){0,3}(?:\](?::[0-9]{1,5})?)?",
    )
});
static HEX: LazyLock<Regex> = LazyLock::new(|| fixed("(?:0[xX])?[0-9A-Fa-f]{8,}"));
static NUMBER: LazyLock<Regex> = LazyLock::new(|| fixed(r"[0-9]+(?:\.[0-9]+)?"));

fn fixed(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a fixed pattern, which the tests compile")
}

impl Mask {
    /// Returns its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Ip => "ip",
            Self::PodHash => "pod_hash",
            Self::Hex => "hex",
            Self::Number => "number",
        }
    }

    /// Returns the text with what the mask matches replaced.
    pub(super) fn apply(self, text: &str) -> String {
        match self {
            Self::Uuid => replace(text, &UUID, "<uuid>", |_, found| Ok(found)),
            Self::Ip => {
                let without_v6 = replace(text, &IP_V6, "<ip>", |text, found| {
                    address_v6(text, &found).ok_or(found.end)
                });
                replace(&without_v6, &IP_V4, "<ip>", |text, found| {
                    address_v4(text, &found).ok_or(found.end)
                })
            }
            Self::PodHash => match pod_name::before_hash(text) {
                Some(before) => format!("{before}-<pod_hash>"),
                None => text.to_owned(),
            },
            Self::Hex => replace(text, &HEX, "<hex>", |text, found| {
                let part = word(text, found)?;
                let has_digit = text[part.clone()].bytes().any(|byte| byte.is_ascii_digit());
                if has_digit { Ok(part) } else { Err(part.end) }
            }),
            Self::Number => replace(text, &NUMBER, "<number>", word),
        }
    }
}

/// Replaces the parts of a text that `hit` returns for the matches of a pattern. If `hit` rejects a
/// match, it returns the position at which to continue.
fn replace(
    text: &str,
    pattern: &Regex,
    with: &str,
    hit: impl Fn(&str, Range<usize>) -> Result<Range<usize>, usize>,
) -> String {
    let mut replaced = String::new();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = pattern.find_at(text, at) {
        match hit(text, found.range()) {
            Ok(part) => {
                replaced.push_str(&text[copied..part.start]);
                replaced.push_str(with);
                copied = part.end;
                at = part.end.max(found.end());
            }
            Err(after) => at = after,
        }
    }
    replaced.push_str(&text[copied..]);
    replaced
}

/// Returns a part that consists of whole words, or the end of the word in which it begins.
fn word(text: &str, part: Range<usize>) -> Result<Range<usize>, usize> {
    if is_word(text, &part) {
        return Ok(part);
    }
    let after = &text[part.start..];
    Err(part.start + after.find(|c: char| !c.is_alphanumeric()).unwrap_or(after.len()))
}

/// Returns true if no letter or digit is next to a part of a text.
fn is_word(text: &str, part: &Range<usize>) -> bool {
    let before = text[..part.start].chars().next_back();
    let after = text[part.end..].chars().next();
    !before.into_iter().chain(after).any(char::is_alphanumeric)
}

/// Returns the part of `found` that is an IPv4 address, with its port if one follows.
fn address_v4(text: &str, found: &Range<usize>) -> Option<Range<usize>> {
    let (address, port) = match text[found.clone()].split_once(':') {
        Some((address, port)) => (address, Some(port)),
        None => (&text[found.clone()], None),
    };
    if !address.split('.').all(|octet| octet.parse::<u8>().is_ok()) {
        return None;
    }
    let without_port = found.start..found.start + address.len();
    if port.is_some() && is_word(text, found) {
        return Some(found.clone());
    }
    // With a fifth part, it is a version number.
    let mut after = text[without_port.end..].chars();
    let goes_on = after.next() == Some('.') && after.next().is_some_and(|c| c.is_ascii_digit());
    (is_word(text, &without_port) && !goes_on).then_some(without_port)
}

/// Returns the part of `found` that is an IPv6 address: in brackets with its port, or without both.
/// It has a digit, because `abc::def` is a name in other languages.
fn address_v6(text: &str, found: &Range<usize>) -> Option<Range<usize>> {
    let whole = &text[found.clone()];
    let unopened = whole.strip_prefix('[').unwrap_or(whole);
    let inner = unopened.split(']').next().unwrap_or_default();
    let is_in_brackets = whole.len() > unopened.len() && unopened.len() > inner.len();
    // A colon of the surrounding text, as in `addr:fe80::1` and `fe80::1: refused`.
    let led = match inner.strip_prefix(':') {
        Some(after) if !after.starts_with(':') => after,
        _ => inner,
    };
    let address = match led.strip_suffix(':') {
        Some(before) if !before.ends_with(':') => before,
        _ => led,
    };
    let has_digit = address.bytes().any(|byte| byte.is_ascii_digit());
    if !has_digit || address.parse::<Ipv6Addr>().is_err() {
        return None;
    }
    let part = if is_in_brackets && address == inner {
        found.clone()
    } else {
        let start = found.start + (whole.len() - unopened.len()) + (inner.len() - led.len());
        start..start + address.len()
    };
    is_word(text, &part).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(mask: Mask, cases: &[(&str, &str)]) {
        for (text, expected) in cases {
            assert_eq!(mask.apply(text), *expected, "{text}");
        }
    }

    #[test]
    fn a_uuid_is_found_anywhere() {
        masked(
            Mask::Uuid,
            &[
                ("550e8400-e29b-41d4-a716-446655440000", "<uuid>"),
                ("vol_550E8400-E29B-41D4-A716-446655440000.img", "vol_<uuid>.img"),
                (
                    "550e8400-e29b-41d4-a716-446655440000550e8400-e29b-41d4-a716-446655440001",
                    "<uuid><uuid>",
                ),
                ("550e8400-e29b-41d4-a716-44665544", "550e8400-e29b-41d4-a716-44665544"),
                ("550e8400e29b41d4a716446655440000", "550e8400e29b41d4a716446655440000"),
            ],
        );
    }

    #[test]
    fn an_address_is_found_with_its_port() {
        masked(
            Mask::Ip,
            &[
                ("dial tcp 10.0.0.1:5432: refused", "dial tcp <ip>: refused"),
                ("10.0.0.1 10.0.0.2,10.0.0.3", "<ip> <ip>,<ip>"),
                ("node_10.0.0.1", "node_<ip>"),
                ("10.0.0.0/8", "<ip>/8"),
                ("10.0.0.1.", "<ip>."),
                ("10.0.0.1:80a", "<ip>:80a"),
                ("300.0.0.1 v1.2.3.4 1.2.3.4.5 1.2.3", "300.0.0.1 v1.2.3.4 1.2.3.4.5 1.2.3"),
                ("ip-10-0-0-1", "ip-10-0-0-1"),
                ("dial tcp [fe80::1]:443: refused", "dial tcp <ip>: refused"),
                ("[::1]", "<ip>"),
                ("fe80::1: refused", "<ip>: refused"),
                ("addr:fe80::1", "addr:<ip>"),
                ("2001:db8:0:0:1:0:0:1", "<ip>"),
                ("::ffff:10.0.0.1", "<ip>"),
                ("fe80::1%eth0", "<ip>%eth0"),
                ("12:30:45 std::string abc::def ::", "12:30:45 std::string abc::def ::"),
                ("00:1a:2b:3c:4d:5e", "00:1a:2b:3c:4d:5e"),
                ("xfe80::1 fe80::1x", "xfe80::1 fe80::1x"),
                ("[fe80::1", "[<ip>"),
                ("fe80::1]:80", "<ip>]:80"),
            ],
        );
    }

    #[test]
    fn a_pod_hash_is_found_at_the_end_and_alone_only_with_a_digit() {
        masked(
            Mask::PodHash,
            &[
                ("cart-6d9f7c5b8-x2k4p", "cart-<pod_hash>"),
                ("cart-6d9f7c5b8-bcdfg", "cart-<pod_hash>"),
                ("cart-x2k4p", "cart-<pod_hash>"),
                ("api-v2245", "api-<pod_hash>"),
                ("svc-https", "svc-https"),
                ("postgres-0", "postgres-0"),
                ("cart-6d9f7c5b8-x2k4p crashed", "cart-6d9f7c5b8-x2k4p crashed"),
            ],
        );
    }

    #[test]
    fn a_hexadecimal_number_has_eight_digits_and_a_decimal_one() {
        masked(
            Mask::Hex,
            &[
                ("at 0x7f3a9c21 in", "at <hex> in"),
                ("sha 9f86d081884c7d65", "sha <hex>"),
                ("commit_9F86D081", "commit_<hex>"),
                ("12345678", "<hex>"),
                ("deadbeef facade", "deadbeef facade"),
                ("0xdeadbeef", "<hex>"),
                ("1234567 x12345678 12345678g", "1234567 x12345678 12345678g"),
            ],
        );
    }

    #[test]
    fn a_number_is_a_word_of_its_own() {
        masked(
            Mask::Number,
            &[
                ("exit code 137", "exit code <number>"),
                ("disk-3 91.5% full", "disk-<number> <number>% full"),
                ("1.2.3", "<number>.<number>"),
                ("v1.2.3 1.2s", "v1.<number> 1.2s"),
                ("http2 v3 30s caf\u{e9}1", "http2 v3 30s caf\u{e9}1"),
                ("\u{0661}\u{0662}", "\u{0661}\u{0662}"),
            ],
        );
    }
}
