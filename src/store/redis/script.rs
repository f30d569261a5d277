//! The Lua scripts, and a call of one. `EVALSHA` and `EVAL` are sent by hand instead of with fred's
//! script functions, which ignore options and hash the wrong argument on a cluster.

use std::{
    fmt::{Display, Write as _},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::BytesMut;
use fred::types::Value;

/// One row for each script: its name, its number of keys per anomaly, and its files after
/// `frame.lua`. The header of the last file describes its arguments and result.
macro_rules! scripts {
    ($($script:ident, $keys_each:literal keys, [$($file:literal),+];)+) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Script {
            $($script),+
        }

        impl Script {
            /// All scripts, in the order of their numbers.
            pub(super) const ALL: &[Self] = &[$(Self::$script),+];

            pub(super) const fn source(self) -> &'static str {
                match self {
                    $(Self::$script => concat!(
                        include_str!("../scripts/frame.lua"),
                        $(include_str!(concat!("../scripts/", $file))),+
                    )),+
                }
            }

            /// Returns the number of keys that it takes for each anomaly.
            pub(super) const fn keys_each(self) -> usize {
                match self {
                    $(Self::$script => $keys_each),+
                }
            }
        }
    };
}

scripts! {
    Record, 7 keys, ["library.lua", "rollup.lua", "timeline.lua", "recording.lua", "record.lua"];
    RecordKnown, 5 keys, ["timeline.lua", "known.lua", "record_known.lua"];
    Alerts, 11 keys, [
        "library.lua", "rollup.lua", "timeline.lua", "recording.lua", "incidents.lua", "alerts.lua"
    ];
    Stats, 8 keys, ["library.lua", "reading.lua", "stats.lua"];
    StatsKnown, 5 keys, ["known.lua", "stats_known.lua"];
    Series, 8 keys, ["library.lua", "reading.lua", "series.lua"];
    Rows, 11 keys, ["library.lua", "reading.lua", "incidents.lua", "rows.lua"];
    Details, 11 keys, ["library.lua", "reading.lua", "incidents.lua", "details.lua"];
    Signature, 4 keys, ["library.lua", "signature.lua"];
    Repair, 10 keys, ["library.lua", "repair.lua"];
    MarkFixed, 10 keys, ["library.lua", "mark_fixed.lua"];
    UnmarkFixed, 10 keys, ["library.lua", "unmark_fixed.lua"];
    Audit, 10 keys, ["library.lua", "audit.lua"];
    History, 10 keys, ["library.lua", "history.lua"];
    Forget, 11 keys, ["library.lua", "forget.lua"];
    Probe, 1 keys, ["probe.lua"];
}

impl Script {
    /// Returns true if it writes when there is anything to change.
    pub(super) const fn is_write(self) -> bool {
        use Script::{Audit, Details, History, Rows, Series, Signature, Stats, StatsKnown};
        !matches!(self, Stats | StatsKnown | Series | Rows | Details | Signature | Audit | History)
    }

    /// Returns the SHA-1 of the source in hex, by which a server identifies a script that it has
    /// run.
    pub(super) fn sha(self) -> &'static str {
        static SHAS: LazyLock<Vec<String>> = LazyLock::new(|| {
            Script::ALL.iter().map(|script| fred::util::sha1_hash(script.source())).collect()
        });
        &SHAS[self as usize]
    }
}

/// The scripts that a server has run. If the server no longer knows one of them, it was restarted
/// or replaced; if it does not know another script, that means nothing.
pub(super) struct SeenScripts([AtomicBool; Script::ALL.len()]);

impl Default for SeenScripts {
    fn default() -> Self {
        Self([const { AtomicBool::new(false) }; Script::ALL.len()])
    }
}

impl SeenScripts {
    pub(super) fn add(&self, script: Script) {
        self.0[script as usize].store(true, Ordering::Relaxed);
    }

    /// Forgets all scripts if `script` was one of them, because a server forgets all of them at
    /// once. Returns true if it was.
    pub(super) fn forget(&self, script: Script) -> bool {
        let was_seen = self.0[script as usize].load(Ordering::Relaxed);
        if was_seen {
            for seen in &self.0 {
                seen.store(false, Ordering::Relaxed);
            }
        }
        was_seen
    }
}

/// The initial size of a call's buffer for keys in bytes: enough for those of some occurrences.
const BUFFER_BYTES: usize = 4 << 10;

/// The size of arguments for which a call has room at once, for a script and for each element:
/// those of `record_known.lua`, in bytes.
const FIXED_ARGUMENTS_BYTES: usize = 128;
const ARGUMENTS_BYTES_EACH: usize = 64;

/// A script with its KEYS and ARGV.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) script: Script,
    keys: Vec<Value>,
    /// The buffer for keys, so that many of them share an allocation. A full one is replaced by one
    /// of the same size.
    key_buffer: BytesMut,
    /// The elements of the MessagePack array that `frame.lua` reads.
    arguments: Vec<u8>,
    argument_count: u32,
    /// The last argument that was printed.
    printed: String,
}

impl Call {
    pub(super) fn new(script: Script) -> Self {
        Self::with_room(script, 0)
    }

    /// Returns a call that has room for the keys and arguments of `elements`.
    pub(super) fn with_room(script: Script, elements: usize) -> Self {
        let arguments = FIXED_ARGUMENTS_BYTES + elements * ARGUMENTS_BYTES_EACH;
        Self {
            script,
            keys: Vec::with_capacity(elements * script.keys_each()),
            key_buffer: BytesMut::with_capacity(BUFFER_BYTES),
            arguments: Vec::with_capacity(arguments),
            argument_count: 0,
            printed: String::new(),
        }
    }

    /// Adds a key that consists of these parts.
    pub(super) fn key(&mut self, parts: [&str; 3]) {
        for part in parts {
            self.key_buffer.extend_from_slice(part.as_bytes());
        }
        self.keys.push(self.key_buffer.split().freeze().into());
    }

    /// Adds an argument that is a text, or other bytes.
    pub(super) fn argument(&mut self, argument: impl AsRef<[u8]>) {
        add_text(&mut self.arguments, argument.as_ref());
        self.argument_count += 1;
    }

    /// Adds an argument that is printed as a text.
    pub(super) fn print(&mut self, argument: impl Display) {
        self.printed.clear();
        // Writing to a text can't fail.
        let _ = write!(self.printed, "{argument}");
        add_text(&mut self.arguments, self.printed.as_bytes());
        self.argument_count += 1;
    }

    /// Returns the words after the command's name: the script by `handle`, numkeys, KEYS, and the
    /// arguments as one word.
    pub(super) fn command_line(&self, handle: &'static str) -> Vec<Value> {
        let mut line = Vec::with_capacity(3 + self.keys.len());
        line.push(Value::from_static_str(handle));
        line.push(Value::Integer(self.keys.len() as i64));
        line.extend(self.keys.iter().cloned());
        let mut packed = Vec::with_capacity(MAX_HEAD_BYTES + self.arguments.len());
        // Writing to a vector can't fail.
        let _ = rmp::encode::write_array_len(&mut packed, self.argument_count);
        packed.extend_from_slice(&self.arguments);
        line.push(Value::Bytes(packed.into()));
        line
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.keys.len(), self.argument_count as usize)
    }
}

/// Maximum size of the head of a MessagePack array or text in bytes.
const MAX_HEAD_BYTES: usize = 5;

/// Adds a MessagePack text. Other bytes are packed like one: Lua has one type for both.
fn add_text(packed: &mut Vec<u8>, text: &[u8]) {
    // Writing to a vector can't fail, and no argument has 4 GiB.
    let _ = rmp::encode::write_str_len(packed, text.len() as u32);
    packed.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        COARSE_BUCKET_SECONDS, FINE_BUCKET_SECONDS, FIX_VALIDITY_SECONDS, MAX_FINGERPRINTS,
        PEER_SECONDS,
    };

    #[test]
    fn the_scripts_have_the_buckets_of_the_domain() {
        let buckets = format!(
            "FINE_SECONDS, COARSE_SECONDS = {FINE_BUCKET_SECONDS}, {COARSE_BUCKET_SECONDS}\n"
        );
        assert!(Script::Record.source().contains(&buckets));
    }

    #[test]
    fn the_script_of_alerts_has_the_limits_of_the_domain() {
        let days = FIX_VALIDITY_SECONDS / 86_400;
        for limit in [
            format!("local MAX_FINGERPRINTS = {MAX_FINGERPRINTS}\n"),
            format!("local PEER = {PEER_SECONDS} * SECOND\n"),
            format!("local MARK_SECONDS = {days} * 86400\n"),
        ] {
            assert!(Script::Alerts.source().contains(&limit), "{limit}");
        }
    }

    #[test]
    fn each_script_is_listed_at_its_number() {
        for (number, script) in Script::ALL.iter().enumerate() {
            assert_eq!(*script as usize, number);
        }
    }

    #[test]
    fn a_server_that_has_forgotten_one_script_has_forgotten_all() {
        for script in Script::ALL {
            let seen = SeenScripts::default();
            assert!(!seen.forget(*script), "{script:?} was never run");
            for other in Script::ALL {
                seen.add(*other);
            }
            assert!(seen.forget(*script), "{script:?} was run");
            for other in Script::ALL {
                assert!(!seen.forget(*other), "{other:?} is forgotten with {script:?}");
            }
        }
    }
}
