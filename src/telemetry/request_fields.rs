//! The fields by which the log lines of a request name it. They become text when a line is written,
//! because most requests have none: a span for each took a tenth of a request's time.

use std::{fmt, sync::Arc};

use axum::http::{HeaderValue, Method, Uri};
use tokio::{task::futures::TaskLocalFuture, task_local};
use uuid::Uuid;

/// A text of a caller is shown up to this length in each line of the log.
const SHOWN_CHARS: usize = 256;

task_local! {
    /// The request that this task works on.
    static REQUEST: RequestFields;
}

/// The id of a request.
#[derive(Clone, Debug)]
pub enum RequestId {
    /// The id that the caller has sent; printable ASCII.
    Sent(HeaderValue),
    /// A new id.
    New(Uuid),
}

impl RequestId {
    /// The id as the value of a header.
    pub fn header_value(&self) -> HeaderValue {
        match self {
            Self::Sent(value) => value.clone(),
            Self::New(id) => {
                let mut text = Uuid::encode_buffer();
                let text: &str = id.hyphenated().encode_lower(&mut text);
                HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
            }
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(value) => f.write_str(value.to_str().unwrap_or_default()),
            Self::New(id) => id.fmt(f),
        }
    }
}

/// A request as its log lines name it.
#[derive(Clone, Debug)]
pub struct RequestFields {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its id.
    pub id: RequestId,
    /// The address that it comes from.
    pub client: Arc<str>,
}

impl RequestFields {
    /// Runs a future; the lines that are written meanwhile have these fields.
    pub fn around<F: Future>(self, work: F) -> TaskLocalFuture<Self, F> {
        REQUEST.scope(self, work)
    }

    /// The fields of the request that this task works on, if any.
    pub fn current() -> Option<Self> {
        REQUEST.try_with(Self::clone).ok()
    }

    /// The names of the fields and their values.
    pub fn named(&self) -> Vec<(&'static str, String)> {
        vec![
            ("method", shown(self.method.as_str())),
            ("path", shown(self.uri.path())),
            ("request_id", self.id.to_string()),
            ("client", self.client.to_string()),
        ]
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).collect()
}
