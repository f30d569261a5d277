//! The failures of a command, and their exit codes for scripts.

use reqwest::StatusCode;

use super::answers::Problem;

/// The end of the help of each command.
pub(super) const EXIT_CODES: &str = "\
Exit status:
  0  success; also if a write is accepted and waits for Redis
  1  the given anomaly is not found, or several match: they are listed
  2  the command line, client.toml or a value is invalid
  3  the service is unreachable, refuses the call (token, scope, limit) or fails";

/// The exit code if no anomaly or more than one matches.
const NOT_FOUND: u8 = 1;
/// The exit code of clap for an invalid command line.
const MISUSE: u8 = 2;
const NO_ANSWER: u8 = 3;

/// The failure of a command. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No anomaly matches, or more than one.
    #[error("{0}")]
    NotFound(String),
    /// The command line, a file or the environment is invalid.
    #[error("{0}")]
    Misuse(String),
    /// The service is unreachable, or another program responds.
    #[error("{0}")]
    NoAnswer(String),
    /// The service returned a problem.
    #[error("{0}")]
    Refused(Box<Refusal>),
}

/// A problem that the service returned.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) problem: Problem,
    /// The body as it was received.
    pub(super) body: Vec<u8>,
    /// The text: the cause, and what to do next.
    pub(super) text: String,
    /// Lines about similar anomalies.
    pub(super) near: Vec<String>,
}

impl Failure {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => NOT_FOUND,
            Self::Misuse(_) => MISUSE,
            Self::NoAnswer(_) => NO_ANSWER,
            Self::Refused(refusal) => match refusal.status {
                _ if refusal.is_unknown_anomaly() => NOT_FOUND,
                StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => MISUSE,
                _ => NO_ANSWER,
            },
        }
    }

    /// Returns lines about similar anomalies.
    pub(super) fn near(&self) -> &[String] {
        match self {
            Self::Refused(refusal) => &refusal.near,
            _ => &[],
        }
    }

    /// Returns the response of the service, if any.
    pub(super) fn body(&self) -> Option<&[u8]> {
        match self {
            Self::Refused(refusal) => Some(&refusal.body),
            _ => None,
        }
    }
}

impl Refusal {
    pub(super) fn is_unknown_anomaly(&self) -> bool {
        self.problem.kind.ends_with("/unknown-anomaly")
    }
}
