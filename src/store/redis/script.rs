//! The Lua scripts, and a call of one. `EVALSHA` and `EVAL` are sent by hand rather than through
//! fred's script functions, which ignore options and hash the wrong argument on a cluster.

use std::sync::LazyLock;

use fred::types::Value;

macro_rules! script {
    ($($file:literal),+) => {
        concat!(
            include_str!("../scripts/library.lua"),
            $(include_str!(concat!("../scripts/", $file))),+
        )
    };
}

/// A script; each file's header says what it takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    Record,
    Stats,
    Details,
    Repair,
    MarkFixed,
    UnmarkFixed,
    Audit,
}

impl Script {
    pub(super) const ALL: [Self; 7] = [
        Self::Record,
        Self::Stats,
        Self::Details,
        Self::Repair,
        Self::MarkFixed,
        Self::UnmarkFixed,
        Self::Audit,
    ];

    pub(super) const fn source(self) -> &'static str {
        match self {
            Self::Record => script!("folding.lua", "record.lua"),
            Self::Stats => script!("stats.lua"),
            Self::Details => script!("details.lua"),
            Self::Repair => script!("repair.lua"),
            Self::MarkFixed => script!("mark_fixed.lua"),
            Self::UnmarkFixed => script!("unmark_fixed.lua"),
            Self::Audit => script!("audit.lua"),
        }
    }

    /// How many of an anomaly's keys it takes.
    pub(super) const fn keys_each(self) -> usize {
        match self {
            Self::Record => 7,
            Self::Stats | Self::Details => 8,
            Self::Repair | Self::MarkFixed | Self::UnmarkFixed | Self::Audit => 10,
        }
    }

    /// The SHA-1 of the source in hex, by which a server that has seen it knows it.
    pub(super) fn sha(self) -> &'static str {
        static SHAS: LazyLock<[String; Script::ALL.len()]> =
            LazyLock::new(|| Script::ALL.map(|script| fred::util::sha1_hash(script.source())));
        &SHAS[self as usize]
    }
}

/// A script with its KEYS and ARGV.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) script: Script,
    keys: Vec<Value>,
    arguments: Vec<Value>,
}

impl Call {
    pub(super) fn new(script: Script) -> Self {
        Self { script, keys: Vec::new(), arguments: Vec::new() }
    }

    pub(super) fn keys(&mut self, names: impl IntoIterator<Item = String>) {
        self.keys.extend(names.into_iter().map(Value::from));
    }

    pub(super) fn argument(&mut self, value: impl Into<Value>) {
        self.arguments.push(value.into());
    }

    pub(super) fn arguments(&mut self, values: impl IntoIterator<Item = Value>) {
        self.arguments.extend(values);
    }

    /// What follows the command's name: the script by `handle`, numkeys, KEYS, ARGV.
    pub(super) fn command_line(&self, handle: &'static str) -> Vec<Value> {
        let mut line = Vec::with_capacity(2 + self.keys.len() + self.arguments.len());
        line.push(Value::from_static_str(handle));
        line.push(Value::Integer(self.keys.len() as i64));
        line.extend(self.keys.iter().cloned());
        line.extend(self.arguments.iter().cloned());
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{COARSE_BUCKET_SECONDS, FINE_BUCKET_SECONDS};

    #[test]
    fn the_scripts_have_the_buckets_of_the_domain() {
        let buckets = format!(
            "FINE_SECONDS, COARSE_SECONDS = {FINE_BUCKET_SECONDS}, {COARSE_BUCKET_SECONDS}\n"
        );
        assert!(Script::Record.source().contains(&buckets));
    }

    #[test]
    fn each_script_stands_at_its_place_in_the_list() {
        for (place, script) in Script::ALL.into_iter().enumerate() {
            assert_eq!(script as usize, place);
        }
    }
}
