//! Sends requests to the service that runs on this machine.

use std::{env, error::Error as _, fs, time::Duration};

use reqwest::{Client, Identity, Method, Response};

use super::Failure;
use crate::{config::Config, tls};

/// The environment variable with the token.
pub(super) const TOKEN_VARIABLE: &str = "ANOMALY_COUNTER_TOKEN";

const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// The running service.
pub(super) struct Local {
    client: Client,
    base: String,
}

impl Local {
    pub(super) fn of(config: &Config) -> Result<Self, Failure> {
        tls::install_provider();
        let mut client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy();
        let scheme = if config.tls.is_used() { "https" } else { "http" };
        if config.tls.is_used() {
            // The service is called by its address, which its certificate need not contain.
            client = client.tls_danger_accept_invalid_certs(true);
        }
        if let (Some(_), Some(certificate_file), Some(key_file)) =
            (&config.tls.client_ca_file, &config.tls.certificate_file, &config.tls.key_file)
        {
            let mut pem = fs::read(certificate_file)?;
            pem.extend(fs::read(key_file)?);
            client = client.identity(Identity::from_pem(&pem)?);
        }
        let base = format!("{scheme}://{}", config.listen.reachable());
        Ok(Self { client: client.build()?, base })
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request, with the token from the environment if there is one.
    pub(super) async fn send(&self, method: Method, path: &str) -> reqwest::Result<Response> {
        let mut request = self.client.request(method, self.url(path));
        if let Ok(token) = env::var(TOKEN_VARIABLE) {
            request = request.bearer_auth(token);
        }
        request.send().await
    }
}

/// Returns the text of the first cause.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = error.to_string();
        cause = error.source();
    }
    words
}
