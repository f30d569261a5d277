//! Authentication: callers send a token, of which only the digest is stored. This module is
//! independent of HTTP.

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
