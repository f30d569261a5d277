//! Maps fred's errors, and those that the server returns, to the classes of [`StoreError`].

use fred::error::{Error, ErrorKind};

use crate::store::{Cause, StoreError};

/// Why a server did not run a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Declined {
    /// The slot of its keys is on another server of the cluster.
    Moved(String),
    /// The slot is moving to another server, and this call is to be sent there, to `host:port`.
    Ask(String),
    /// The slot is moving, and its keys are in part on either server.
    TryAgain(String),
    /// Any other fault.
    Fault(StoreError),
}

impl From<&Error> for Declined {
    fn from(error: &Error) -> Self {
        let text = error.details().to_owned();
        let mut words = error.details().split(' ');
        match (words.next(), words.nth(1)) {
            (Some("MOVED"), _) => Self::Moved(text),
            (Some("ASK"), Some(address)) => Self::Ask(address.to_owned()),
            (Some("TRYAGAIN"), _) => Self::TryAgain(text),
            _ => Self::Fault(classify(error)),
        }
    }
}

/// For a single server, which has no slots to follow: nothing was run.
impl From<Declined> for StoreError {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Moved(text) | Declined::Ask(text) | Declined::TryAgain(text) => {
                Self::transient(
                    Cause::Cluster,
                    format!(
                        "the server is part of a Redis Cluster, which takes a redis-cluster:// \
                         URL: {text}"
                    ),
                )
            }
            Declined::Fault(fault) => fault,
        }
    }
}

/// Classifies a call's error.
fn classify(error: &Error) -> StoreError {
    match error.kind() {
        // Connecting, authenticating, finding the server: nothing was run.
        ErrorKind::Config
        | ErrorKind::Auth
        | ErrorKind::Routing
        | ErrorKind::Url
        | ErrorKind::Sentinel
        | ErrorKind::Tls
        | ErrorKind::Backpressure => StoreError::transient(Cause::Unreachable, error.to_string()),
        // The server's own errors begin with a code in capitals, such as WRONGTYPE.
        ErrorKind::Unknown | ErrorKind::InvalidArgument | ErrorKind::InvalidCommand
            if is_code(error.details().split(' ').next().unwrap_or_default()) =>
        {
            server_fault(error.details())
        }
        // The command was in flight when the connection broke or the time ran out. fred reports
        // that in many ways, "Unknown" among them; none of them says that it has not run. Nor does
        // "Cluster": with one CLUSTERDOWN fred fails everything that was in flight.
        _ => StoreError::indeterminate(Cause::Unreachable, error.to_string()),
    }
}

fn is_code(word: &str) -> bool {
    word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Classifies an error that the server itself has returned: nothing of the element was written.
pub(super) fn server_fault(message: &str) -> StoreError {
    // The server's state and not the data; it changes without anyone fixing the data.
    const STATES: [&str; 12] = [
        "LOADING",
        "BUSY",
        "OOM",
        "READONLY",
        "MISCONF",
        "MASTERDOWN",
        "NOREPLICAS",
        "CLUSTERDOWN",
        "TRYAGAIN",
        "NOAUTH",
        "NOPERM",
        "UNKILLABLE",
    ];
    // Redis 6.2 reports an error raised in Lua as "@user_script: 113: -OOM command not allowed".
    let mut words = message.split([' ', ':']).map(|word| word.trim_start_matches('-'));
    if words.any(|word| STATES.contains(&word)) {
        StoreError::transient(Cause::Refused, message)
    } else {
        StoreError::permanent(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Label as _;

    fn class(fault: &StoreError) -> &'static str {
        fault.class().value()
    }

    #[test]
    fn the_servers_words_tell_its_state_from_the_data_in_every_version() {
        for (message, expected) in [
            ("OOM command not allowed when used memory > 'maxmemory'.", "transient"),
            ("@user_script: 113: -OOM command not allowed when used memory", "transient"),
            ("READONLY You can't write against a read only replica.", "transient"),
            ("@user_script: 113: -READONLY You can't write against a read", "transient"),
            ("NOREPLICAS Not enough good replicas to write.", "transient"),
            ("LOADING Redis is loading the dataset in memory", "transient"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", "permanent"),
            ("@user_script: 20: WRONGTYPE Operation against a key", "permanent"),
            ("ERR value is not an integer or out of range", "permanent"),
        ] {
            assert_eq!(class(&server_fault(message)), expected, "{message}");
        }
    }

    #[test]
    fn the_redirections_of_a_cluster_are_told_from_faults() {
        let declined =
            |details: &'static str| Declined::from(&Error::new(ErrorKind::Cluster, details));
        let moved = "MOVED 3999 127.0.0.1:6381";
        assert_eq!(declined(moved), Declined::Moved(moved.to_owned()));
        assert_eq!(declined("ASK 3999 [::1]:6381"), Declined::Ask("[::1]:6381".to_owned()));
        let later = "TRYAGAIN Multiple keys request during rehashing of slot";
        assert_eq!(declined(later), Declined::TryAgain(later.to_owned()));
        let down = "CLUSTERDOWN The cluster is down";
        let Declined::Fault(fault) = declined(down) else { panic!("a redirection") };
        assert_eq!(class(&fault), "indeterminate");
    }

    #[test]
    fn what_fred_says_of_a_broken_connection_is_never_permanent() {
        for (kind, details) in [
            (ErrorKind::Unknown, "Failed to route command."),
            (ErrorKind::Unknown, "Too many failed write attempts."),
            (ErrorKind::Protocol, "Unexpected frame"),
            (ErrorKind::Parse, "Could not convert"),
            (ErrorKind::Canceled, "Canceled."),
            (ErrorKind::IO, "Connection reset by peer"),
            (ErrorKind::Timeout, "Request timed out."),
        ] {
            let fault = classify(&Error::new(kind, details));
            assert_eq!(class(&fault), "indeterminate", "{details}");
        }
        let wrong_type = Error::new(ErrorKind::InvalidArgument, "WRONGTYPE Operation against");
        assert_eq!(class(&classify(&wrong_type)), "permanent");
        let no_password = Error::new(ErrorKind::Auth, "NOAUTH Authentication required.");
        assert_eq!(class(&classify(&no_password)), "transient");
    }
}
