//! Maps the errors of fred and of the server to the classes of [`StoreError`].

use fred::error::{Error, ErrorKind};

use crate::store::{Cause, StoreError};

/// The reason why a server did not run a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Declined {
    /// The slot of its keys is on another server of the cluster.
    Moved(String),
    /// The slot is moving to another server, and this call must be sent there, to `host:port`.
    Ask(String),
    /// The slot is moving, and its keys are split between two servers.
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

/// For a single server, which has no slots to follow: the call was not run.
impl From<Declined> for StoreError {
    fn from(declined: Declined) -> Self {
        match declined {
            Declined::Moved(text) | Declined::Ask(text) | Declined::TryAgain(text) => {
                Self::transient(
                    Cause::Cluster,
                    format!(
                        "the server is part of a Redis Cluster, which requires a redis-cluster:// \
                         URL: {text}"
                    ),
                )
            }
            Declined::Fault(fault) => fault,
        }
    }
}

/// Classifies the error of a call. An error reply to a whole call says nothing about its elements:
/// some of them may have taken effect.
fn classify(error: &Error) -> StoreError {
    let text = error.details();
    match error.kind() {
        // The server was not found, so the call was not run.
        ErrorKind::Routing
        | ErrorKind::Url
        | ErrorKind::Sentinel
        | ErrorKind::Tls
        | ErrorKind::Backpressure => StoreError::transient(cause_of_connecting(error), text),
        ErrorKind::Timeout => StoreError::indeterminate(Cause::Timeout, error.to_string()),
        _ => match cause(text) {
            Some(cause) => StoreError::indeterminate(cause, text),
            // The server's own errors begin with a code in capitals, such as ERR.
            None if is_code(text.split(' ').next().unwrap_or_default()) => {
                StoreError::indeterminate(Cause::Refused, text)
            }
            // The command was in flight when the connection was lost. fred reports that in many
            // ways, including "Unknown"; none of them means that the command was not run.
            None => StoreError::indeterminate(Cause::Unreachable, error.to_string()),
        },
    }
}

/// Returns the cause of a failure to connect.
pub(super) fn cause_of_connecting(error: &Error) -> Cause {
    match error.kind() {
        ErrorKind::Auth => Cause::Auth,
        // Sentinel names a server that reports that it is a replica.
        ErrorKind::Sentinel if error.details().starts_with("Invalid role") => Cause::Readonly,
        _ => cause(error.details()).unwrap_or(Cause::Unreachable),
    }
}

fn is_code(word: &str) -> bool {
    word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// Returns the state of the server that an error names. Redis 6.2 and proxies put other words
/// before the code, as in "@user_script: 113: -OOM command not allowed".
fn cause(text: &str) -> Option<Cause> {
    let mut words = text.split([' ', ':']).map(|word| word.trim_start_matches('-'));
    let by_code = words.find_map(|word| {
        Some(match word {
            "READONLY" | "MASTERDOWN" => Cause::Readonly,
            "LOADING" => Cause::Loading,
            "BUSY" | "UNKILLABLE" => Cause::Busy,
            "OOM" => Cause::Memory,
            "MISCONF" => Cause::Disk,
            "NOREPLICAS" => Cause::Replicas,
            "CLUSTERDOWN" => Cause::Cluster,
            "NOAUTH" | "WRONGPASS" => Cause::Auth,
            "NOPERM" => Cause::Permission,
            _ => return None,
        })
    });
    by_code.or_else(|| {
        // Within a script, Redis reports these without a code of their own.
        let is_denied = text.contains("can't run this command") || text.contains("can't access");
        if is_denied {
            Some(Cause::Permission)
        } else if text.contains("'maxmemory'") {
            Some(Cause::Memory)
        } else if text.contains("cluster support disabled") {
            Some(Cause::Cluster)
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FaultClass;

    /// Returns the fault for an error reply, as fred reports it.
    fn reply(text: &'static str) -> StoreError {
        let kind = match text.split(' ').next() {
            Some("WRONGTYPE") => ErrorKind::InvalidArgument,
            Some("NOAUTH" | "WRONGPASS") => ErrorKind::Auth,
            Some("CLUSTERDOWN") => ErrorKind::Cluster,
            _ => ErrorKind::Unknown,
        };
        match Declined::from(&Error::new(kind, text)) {
            Declined::Fault(fault) => fault,
            redirection => panic!("{redirection:?}"),
        }
    }

    #[test]
    fn an_error_reply_to_a_call_is_indeterminate_in_whatever_words_and_has_a_cause() {
        use Cause::*;
        for (text, cause) in [
            ("READONLY You can't write against a read only replica.", Readonly),
            ("ERR READONLY You can't write against a read-only instance", Readonly),
            ("ERR DISABLE You can't write or read against a disable instance", Refused),
            ("ERR Connection timed out", Refused),
            ("ERR Connection refused", Refused),
            ("ERR max number of clients reached", Refused),
            ("ERR server is down", Refused),
            ("upstream failure", Unreachable),
            ("no upstream host", Unreachable),
            ("LOADING Redis is loading the dataset in memory", Loading),
            ("MISCONF Redis is configured to save RDB snapshots, but it's currently", Disk),
            ("NOREPLICAS Not enough good replicas to write.", Replicas),
            ("OOM command not allowed when used memory > 'maxmemory'.", Memory),
            ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", Busy),
            ("UNKILLABLE Sorry the script already executed write commands", Busy),
            ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is", Readonly),
            ("CLUSTERDOWN The cluster is down", Cluster),
            ("NOAUTH Authentication required.", Auth),
            ("WRONGPASS invalid username-password pair or user is disabled.", Auth),
            ("NOPERM this user has no permissions to run the 'evalsha' command", Permission),
            ("ERR The user executing the script can't run this command or subcommand", Permission),
            ("ERR unknown command 'EVALSHA', with args beginning with:", Refused),
            ("ERR command not allowed when used memory > 'maxmemory'", Memory),
            (
                "ERR Error running script (call to f_1): @user_script:113: @user_script: 113: \
                 -READONLY You can't write against a read only slave.",
                Readonly,
            ),
            ("UNAVAILABLE backend is restarting", Refused),
            ("ERR The server is currently in failover, retry later", Refused),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Refused),
        ] {
            let fault = reply(text);
            assert_eq!(fault.class(), FaultClass::Indeterminate, "{text}");
            assert_eq!(fault.cause(), cause, "{text}");
            assert!(fault.to_string().contains(text), "the log has the server's words: {fault}");
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
    }

    #[test]
    fn what_fred_says_of_a_broken_connection_is_indeterminate() {
        for (kind, details, cause) in [
            (ErrorKind::Unknown, "Failed to route command.", Cause::Unreachable),
            (ErrorKind::Unknown, "Too many failed write attempts.", Cause::Unreachable),
            (ErrorKind::Protocol, "Unexpected frame", Cause::Unreachable),
            (ErrorKind::Parse, "Could not convert", Cause::Unreachable),
            (ErrorKind::Canceled, "Canceled.", Cause::Unreachable),
            (ErrorKind::IO, "Connection reset by peer", Cause::Unreachable),
            (ErrorKind::Timeout, "Request timed out.", Cause::Timeout),
        ] {
            let fault = classify(&Error::new(kind, details));
            assert_eq!(fault.class(), FaultClass::Indeterminate, "{details}");
            assert_eq!(fault.cause(), cause, "{details}");
        }
    }

    #[test]
    fn a_failure_to_connect_has_the_cause_that_the_server_gives() {
        for (kind, details, cause) in [
            (ErrorKind::Auth, "WRONGPASS invalid username-password pair", Cause::Auth),
            (ErrorKind::Unknown, "LOADING Redis is loading the dataset", Cause::Loading),
            (ErrorKind::Unknown, "NOPERM this user has no permissions", Cause::Permission),
            (ErrorKind::Sentinel, "Invalid role: Some(\"slave\")", Cause::Readonly),
            (ErrorKind::IO, "Connection refused (os error 111)", Cause::Unreachable),
        ] {
            assert_eq!(cause_of_connecting(&Error::new(kind, details)), cause, "{details}");
        }
    }
}
