//! The labels of metrics, each with its few values.

use crate::domain::EscalationLevel;

/// The values of a metric's label. The owner of an enum implements it, which avoids a copy of the
/// enum here.
pub trait Label: Copy + PartialEq + 'static {
    /// All values. Each has its metric from the start, with zero.
    const ALL: &'static [Self];

    /// The text of the label.
    fn value(self) -> &'static str;
}

/// Defines a label that belongs to telemetry alone.
macro_rules! label {
    (
        $(#[$doc:meta])*
        $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value),+ }

        impl $name {
            /// The text of the label.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$value),+];

            fn value(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

label! {
    /// The reason why a call was refused to protect the latency of others.
    Shed {
        /// The limit of concurrent requests is reached.
        Requests => "requests",
        /// The limit of connections is reached.
        Connections => "connections",
        /// The memory for large bodies is in use.
        Bodies => "bodies",
        /// The queue of calls for the store is full.
        Batch => "batch",
        /// The rate limit of a token is reached.
        Token => "token",
    }
}

impl Label for EscalationLevel {
    const ALL: &'static [Self] = &[Self::Repeat, Self::Escalate, Self::PermanentFix];

    fn value(self) -> &'static str {
        self.as_str()
    }
}

/// `None` is an anomaly without a level.
impl Label for Option<EscalationLevel> {
    const ALL: &'static [Self] = &[
        None,
        Some(EscalationLevel::Repeat),
        Some(EscalationLevel::Escalate),
        Some(EscalationLevel::PermanentFix),
    ];

    fn value(self) -> &'static str {
        self.map_or("none", EscalationLevel::as_str)
    }
}
