//! Why a command has failed, and the exit code that says so to scripts.

use reqwest::StatusCode;

use super::answers::Problem;

/// The end of the help of each command.
pub(super) const EXIT_CODES: &str = "\
Ends with
  0  done; also where a write is accepted and waits for Redis
  1  no such anomaly, or several: they are listed
  2  the command line, client.toml or a value is not as it must be
  3  the service can't be reached, refuses (token, scope, limit) or fails";

/// The exit code of what was not found, or not alone.
const NOT_FOUND: u8 = 1;
/// The exit code of clap for a command line that it can't read.
const MISUSE: u8 = 2;
const NO_ANSWER: u8 = 3;

/// Why a command has failed. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// No anomaly, or not just one, is meant.
    #[error("{0}")]
    NotFound(String),
    /// The command line, a file or the environment is at fault.
    #[error("{0}")]
    Misuse(String),
    /// The service can't be reached, or what answers is another program.
    #[error("{0}")]
    NoAnswer(String),
    /// The service has answered with a problem.
    #[error("{0}")]
    Refused(Box<Refusal>),
}

/// An answer that is a problem.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) problem: Problem,
    /// The body as it was received.
    pub(super) body: Vec<u8>,
    /// The text: the cause, and what to do next.
    pub(super) text: String,
    /// Lines about anomalies that may be meant instead.
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

    /// Lines about what may be meant instead.
    pub(super) fn near(&self) -> &[String] {
        match self {
            Self::Refused(refusal) => &refusal.near,
            _ => &[],
        }
    }

    /// The service's own answer, if there is one.
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
