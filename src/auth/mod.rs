//! Who may do what: callers show a token, of which only the digest is kept. Knows nothing of HTTP.

mod config;
mod failures;
mod gate;
mod token;
mod webhook;

pub use config::{AuthConfig, AuthError};
pub use failures::Denied;
pub use gate::{Caller, Gate};
pub use token::{InvalidScope, NewToken, Scope, TokenConfig, TokenDigest, Wait};
pub use webhook::{SignedDelivery, WebhookSecret};
