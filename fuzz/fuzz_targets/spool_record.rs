//! Reads any bytes as the spool's file: reading and salvaging never panic, written records read
//! back, and salvage finds exactly the records that were written, wherever they are.
#![no_main]

use anomaly_counter::{
    domain::{
        Action, Actor, AlertEpisode, AlertState, AnomalyKey, EventId, Fingerprint, FixMark,
        FixRemoval, Occurrence, Operation, RepairAttempt, Timestamp,
    },
    spool::fuzzing::{decode, encode, salvage},
};
use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

/// The mark of a record. It must not change, because existing files have it. The version follows.
const MARK: &[u8] = b"\xACspool";

#[derive(Arbitrary, Debug)]
struct Fields<'a> {
    kind: Kind,
    key: u64,
    id: &'a str,
    micros: i64,
    text: Text<'a>,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Occurrence,
    Alert { starts: Option<i64>, ended: Option<Option<i64>>, is_interrupted: bool },
    Repair,
    Mark,
    Unmark,
}

/// A text of a caller, which may contain a record.
#[derive(Arbitrary, Debug)]
enum Text<'a> {
    Plain(&'a str),
    Record { key: u8, micros: u8 },
}

impl Text<'_> {
    fn spelled(self) -> Option<String> {
        match self {
            Self::Plain(text) => Some(text.to_owned()),
            Self::Record { key, micros } => {
                let record = written(
                    1,
                    &Operation::Unmark(FixRemoval {
                        key: AnomalyKey::from_bits(key.into()),
                        id: EventId::parse("id").ok()?,
                        at: Timestamp::from_micros(micros.into()),
                        reason: None,
                        actor: Actor::default(),
                    }),
                );
                // The mark's first byte completes a euro sign. The checksum may be invalid UTF-8.
                String::from_utf8([b"\xE2\x82", &record[..]].concat()).ok()
            }
        }
    }
}

fn occurrence(
    key: AnomalyKey,
    id: EventId,
    at: Timestamp,
    text: String,
    episode: Option<AlertEpisode>,
) -> Operation {
    let (signature_json, episode) = (text.into(), episode.map(Box::new));
    Operation::Occurrence(Occurrence { key, id, at, signature_json, episode, rule: None })
}

impl Fields<'_> {
    fn operation(self) -> Option<Operation> {
        let key = AnomalyKey::from_bits(self.key);
        let id = EventId::parse(self.id).ok()?;
        let at = Timestamp::from_micros(self.micros);
        let text = self.text.spelled()?;
        let actor = Actor { by: Some(text.clone()), token: None, request_id: None };
        Some(match self.kind {
            Kind::Occurrence => occurrence(key, id, at, text, None),
            Kind::Alert { starts, ended, is_interrupted } => {
                let state = match ended.map(|ends| ends.map(Timestamp::from_micros)) {
                    None => AlertState::Firing,
                    Some(ends_at) if is_interrupted => AlertState::Interrupted { ends_at },
                    Some(ends_at) => AlertState::Resolved { ends_at },
                };
                let episode = AlertEpisode {
                    fingerprint: Fingerprint::of(id.as_str()),
                    starts_at: starts.map(Timestamp::from_micros),
                    delivered_at: at,
                    state,
                };
                occurrence(key, id, at, text, Some(episode))
            }
            Kind::Repair => {
                let action = Action::parse(&text).ok()?;
                Operation::Repair(RepairAttempt { key, id, action, success: true, at, actor })
            }
            Kind::Mark => {
                let fixed_by = Some(id.to_string());
                Operation::Mark(FixMark { key, id, at, description: text, fixed_by, actor })
            }
            Kind::Unmark => {
                Operation::Unmark(FixRemoval { key, id, at, reason: Some(text), actor })
            }
        })
    }
}

fn written(sequence: u64, operation: &Operation) -> Vec<u8> {
    encode(sequence, operation).expect("an operation can be encoded")
}

fn holds_mark(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK)
}

/// Checks that operations between arbitrary bytes are found, and nothing else.
fn check_salvage(mut parts: Unstructured<'_>) -> arbitrary::Result<()> {
    let mut file = Vec::new();
    let mut operations = Vec::new();
    while !parts.is_empty() {
        let rubbish: &[u8] = parts.arbitrary()?;
        let Some(operation) = parts.arbitrary::<Fields<'_>>()?.operation() else { continue };
        if !holds_mark(rubbish) {
            file.extend(rubbish);
        }
        let record = written(operations.len() as u64, &operation);
        assert_eq!(decode(&record).as_ref(), Ok(&operation));
        file.extend(record);
        operations.push(operation);
    }
    assert_eq!(salvage(&file), Some(operations));
    Ok(())
}

/// Checks an intact record of any version with any payload: it is refused, or can be written and
/// read again.
fn check_content(payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    for version in [b'1', b'2', b'3', b'4', b'5'] {
        // The checksum of version 1 is of the payload alone.
        let covered: &[u8] = if version == b'1' { &[] } else { &[version] };
        let checksum = crc32fast::hash(&[covered, payload].concat()).to_le_bytes();
        let record = [MARK, &[version, b'\n'], &length, &checksum, payload].concat();
        let decoded = decode(&record);
        assert!(version < b'5' || decoded.is_err(), "the version is not known");
        if let Ok(operation) = decoded {
            assert_eq!(decode(&written(1, &operation)), Ok(operation));
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(operation) = decode(bytes) {
        // The bytes that follow may mark the record as settled.
        let salvaged = salvage(bytes);
        assert!(salvaged.is_none_or(|all| all.is_empty() || all.contains(&operation)));
    }
    salvage(bytes);
    check_content(bytes);
    // An error only means that the bytes end early.
    let _ = check_salvage(Unstructured::new(bytes));
});
