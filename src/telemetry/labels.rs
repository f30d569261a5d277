//! The labels of metrics, each with its few values.

use crate::domain::EscalationLevel;

/// One value of a label.
pub(super) trait Label: Copy + 'static {
    /// All values, in their order.
    const ALL: &[Self];

    /// Its place among all.
    fn index(self) -> usize;

    /// As the label has it.
    fn text(self) -> &'static str;
}

/// The values of a label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$value_doc])* $value),+ }

        impl $name {
            /// As the label has it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        impl Label for $name {
            const ALL: &[Self] = &[$(Self::$value),+];

            fn index(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

label! {
    /// Why a call was refused, so that others keep their latency.
    Shed {
        /// More requests than can be worked on.
        Requests => "requests",
        /// More connections than are served.
        Connections => "connections",
        /// More large bodies than there is memory for.
        Bodies => "bodies",
        /// More calls wait for the store than may.
        Batch => "batch",
        /// Beyond a token's limit.
        Token => "token",
    }
}

label! {
    /// What became of an occurrence.
    Outcome {
        /// It counts.
        Counted => "counted",
        /// Its id was counted before.
        Duplicate => "duplicate",
        /// It is older than 30 days.
        TooOld => "too_old",
        /// It waits for the store.
        Spooled => "spooled",
    }
}

label! {
    /// What became of an alert of a delivery.
    AlertResult {
        /// It counts.
        Counted => "counted",
        /// It was counted before, or is too old.
        NotCounted => "not_counted",
        /// It has ended.
        Resolved => "resolved",
        /// It could not be read or recorded.
        Failed => "failed",
    }
}

label! {
    /// Why a caller was turned away.
    Denial {
        /// No token came with the request.
        Missing => "missing",
        /// The token or signature is not ours.
        Unknown => "unknown",
        /// The token has expired.
        Expired => "expired",
        /// The token is not good for this.
        Forbidden => "forbidden",
    }
}

label! {
    /// The class of a store's fault.
    Fault {
        /// It did not happen.
        Transient => "transient",
        /// It did not happen, since the anomaly is being moved.
        Moving => "moving",
        /// It may have happened.
        Indeterminate => "indeterminate",
        /// It can't happen.
        Permanent => "permanent",
    }
}

label! {
    /// Where the service is between a working store and none.
    State {
        /// The store answers, and nothing waits.
        Healthy => "healthy",
        /// The store, or a part of it, does not answer.
        Degraded => "degraded",
        /// What has waited is being carried out.
        Replaying => "replaying",
    }
}

label! {
    /// One of the store's calls that take a batch.
    StoreCall {
        /// Occurrences.
        Record => "record",
        /// Questions how often something has happened.
        AnomalyStats => "tally",
        /// Repair attempts.
        Repair => "repair",
    }
}

impl Label for EscalationLevel {
    const ALL: &[Self] = &[Self::Repeat, Self::Escalate, Self::PermanentFix];

    fn index(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        self.as_str()
    }
}

/// An anomaly may be below all levels.
impl Label for Option<EscalationLevel> {
    const ALL: &[Self] = &[
        None,
        Some(EscalationLevel::Repeat),
        Some(EscalationLevel::Escalate),
        Some(EscalationLevel::PermanentFix),
    ];

    fn index(self) -> usize {
        self.map_or(0, |level| 1 + level.index())
    }

    fn text(self) -> &'static str {
        self.map_or("none", EscalationLevel::as_str)
    }
}
