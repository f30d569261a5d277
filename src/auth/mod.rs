//! Authentication: callers show a token, of which only the digest is kept. It knows nothing of
//! HTTP.

mod authenticator;
mod config;
mod failures;
mod token;
mod webhook;

pub use authenticator::{Authenticator, Caller};
pub use config::{AuthConfig, AuthConfigError};
pub use failures::{AuthError, AuthFailure, register_metrics};
pub use token::{InvalidScope, NewToken, RetryAfter, Scope, TokenConfig, TokenDigest};
pub use webhook::{SignedDelivery, WebhookSecret};
