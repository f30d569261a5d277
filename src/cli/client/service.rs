//! Calls the service, and explains why a call failed.

use std::{error::Error, io, path::PathBuf, time::Duration};

use reqwest::{
    Certificate, Identity, Method, StatusCode, Url,
    blocking::{Client, Response},
    header::{CONTENT_TYPE, LOCATION, RETRY_AFTER},
    redirect,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    answers::Problem,
    failure::{Failure, Refusal},
    settings::{PemFile, Settings, Token, URL_VARIABLE},
};
use crate::{
    cli::local::{TOKEN_VARIABLE, innermost},
    tls,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the service's own timeouts of a write.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The running service.
#[derive(Debug)]
pub(super) struct Service {
    client: Client,
    url: Url,
    url_origin: String,
    token: Option<Token>,
    ca: Option<PemFile>,
    /// The file of the client's certificate.
    certificate_file: Option<PathBuf>,
}

/// A call of the service.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    method: Method,
    path: Vec<&'a str>,
    query: Vec<(&'a str, String)>,
    body: Option<Value>,
}

/// A successful response.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// The body as it was received.
    pub(super) body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(super) fn new(method: Method, path: impl IntoIterator<Item = &'a str>) -> Self {
        Self { method, path: path.into_iter().collect(), query: Vec::new(), body: None }
    }

    /// Adds a parameter, if there is a value.
    pub(super) fn with(mut self, name: &'a str, value: impl Into<Option<String>>) -> Self {
        self.query.extend(value.into().map(|value| (name, value)));
        self
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Returns the names of its parameters.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.query.iter().map(|(name, _)| *name)
    }

    /// Returns the scope that a token needs for the call.
    fn scope(&self) -> &'static str {
        if self.method == Method::GET { "read" } else { "operate" }
    }
}

impl Service {
    pub(super) fn new(settings: Settings) -> Result<Self, Failure> {
        let Settings { url, url_origin, token, ca, identity, output: _ } = settings;
        tls::install_provider();
        let mut client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("anomaly-counter/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&url) {
            client = client.no_proxy();
        }
        let is_unusable = |path: &PemFile, why: &dyn std::fmt::Display| {
            let path = path.path.display();
            Failure::Misuse(format!("{path} has no usable certificate in PEM format: {why}"))
        };
        if let Some(ca) = &ca {
            let certificates = Certificate::from_pem_bundle(&ca.pem)
                .map_err(|error| is_unusable(ca, &innermost(&error)))?;
            if certificates.is_empty() {
                return Err(is_unusable(ca, &"it contains no certificate"));
            }
            client = client.tls_certs_only(certificates);
        } else if url.scheme() == "http" {
            // A machine without CA certificates can still use HTTP.
            client = client.tls_certs_only([]);
        }
        if let Some(file) = &identity {
            let identity = Identity::from_pem(&file.pem).map_err(|error| {
                let (path, why) = (file.path.display(), innermost(&error));
                Failure::Misuse(format!("{path} and its key can't be used: {why}"))
            })?;
            client = client.identity(identity);
        }
        let client = client.build().map_err(|error| match &ca {
            Some(ca) => is_unusable(ca, &innermost(&error)),
            None => Failure::Misuse(format!(
                "https can't be used: {}. Give the CA of the certificate of {url} with --ca-file \
                 or `ca_file`",
                innermost(&error)
            )),
        })?;
        Ok(Self {
            client,
            url,
            url_origin,
            token,
            ca,
            certificate_file: identity.map(|file| file.path),
        })
    }

    /// Returns the address as a person writes it.
    pub(super) fn address(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Calls the service.
    ///
    /// # Errors
    /// When the service is unreachable, or the status of its response is not 2xx.
    pub(super) fn call(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut url = self.url.clone();
        // Addresses with the scheme http or https always have a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.client.request(call.method.clone(), url);
        if let Some(token) = &self.token {
            request = request.header(Token::HEADER, &token.header);
        }
        if let Some(body) = &call.body {
            request = request.json(body);
        }
        let response = request.send().map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            let body = response.bytes().map_err(|error| self.unreachable(&error))?;
            return Ok(Answer { status, body: body.into() });
        }
        Err(self.refused(call, response))
    }

    /// Parses a response.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Failure> {
        serde_json::from_slice(&answer.body).map_err(|error| {
            Failure::NoAnswer(format!(
                "{} ({}) returns {}, but not in the format of this version of anomaly-counter \
                 ({error}): is it another program, or another version?",
                self.address(),
                self.url_origin,
                answer.status
            ))
        })
    }

    fn refused(&self, call: &Call<'_>, response: Response) -> Failure {
        let status = response.status();
        let address = self.address();
        let header = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let retry_after = header(RETRY_AFTER);
        if status.is_redirection() {
            let to = header(LOCATION).unwrap_or_else(|| "nowhere".to_owned());
            return Failure::NoAnswer(format!(
                "{address} ({}) redirects to {to}: if that is the service, use its address",
                self.url_origin
            ));
        }
        let is_problem = header(CONTENT_TYPE).is_some_and(|kind| kind.contains("problem+json"));
        let body: Vec<u8> = match response.bytes() {
            Ok(body) => body.into(),
            Err(error) => return self.unreachable(&error),
        };
        let problem = is_problem.then(|| serde_json::from_slice::<Problem>(&body).ok()).flatten();
        let Some(problem) = problem else {
            return Failure::NoAnswer(format!(
                "{address} ({}) returns {status}, but not in the format of anomaly-counter: is the \
                 address right, and is the proxy in front of the service healthy?",
                self.url_origin
            ));
        };
        let text = self.explained(call, status, &problem.detail, retry_after.as_deref());
        Failure::Refused(Box::new(Refusal { status, problem, body, text, near: Vec::new() }))
    }

    fn explained(
        &self,
        call: &Call<'_>,
        status: StatusCode,
        detail: &str,
        retry_after: Option<&str>,
    ) -> String {
        let (address, scope) = (self.address(), call.scope());
        let give = format!(
            "put one with the scope `{scope}` into {TOKEN_VARIABLE}, or into a file and give its \
             path with --token-file or `token_file` in client.toml; `anomaly-counter token new` \
             creates one"
        );
        match (status, &self.token) {
            (StatusCode::UNAUTHORIZED, None) => format!("{address} requires a token: {give}"),
            (StatusCode::UNAUTHORIZED, Some(Token { origin, .. })) => format!(
                "{address} does not accept the token from {origin}, because it is unknown or \
                 expired: {give}"
            ),
            (StatusCode::FORBIDDEN, Some(Token { origin, .. })) => {
                format!("the token from {origin} is not sufficient: {detail}")
            }
            (StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST, _)
            | (StatusCode::UNPROCESSABLE_ENTITY, _) => detail.to_owned(),
            _ => {
                let again = retry_after.map(|seconds| format!(" (try again in {seconds} s)"));
                format!("{address} returns {status}: {detail}{}", again.unwrap_or_default())
            }
        }
    }

    /// Returns the failure of a call without a response.
    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let (address, origin) = (self.address(), &self.url_origin);
        let why = innermost(error);
        let otherwise = format!(
            "For another address, use --url URL, {URL_VARIABLE}, or `url` in \
             ~/.config/anomaly-counter/client.toml"
        );
        Failure::NoAnswer(if is_of_certificate(error) {
            let trusted = match &self.ca {
                Some(ca) => format!("the CA in {} has not signed it", ca.path.display()),
                None => "give the CA that signed it with --ca-file or `ca_file`".to_owned(),
            };
            format!("the certificate of {address} ({origin}) is not accepted ({why}): {trusted}")
        } else if is_of_client_certificate(error) {
            let signed = "one that the service's `tls.client_ca_file` has signed";
            let given = match &self.certificate_file {
                Some(file) => format!("that in {} is not accepted", file.display()),
                None => "none is given".to_owned(),
            };
            format!(
                "{address} ({origin}) requires a client certificate, and {given} ({why}): give \
                 {signed}, with --certificate-file and --key-file, or with `certificate_file` and \
                 `key_file` in client.toml"
            )
        } else if error.is_timeout() {
            format!("{address} ({origin}) does not answer in time. Is it overloaded? {otherwise}")
        } else if error.is_connect() && of_tls(error).is_none() {
            format!("no service at {address} ({origin}): {why}. Is it running? {otherwise}")
        } else {
            format!(
                "{address} ({origin}) does not respond in HTTP ({why}): does it use http instead \
                 of https, or the reverse? {otherwise}"
            )
        })
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Returns true if the service's certificate is invalid.
fn is_of_certificate(error: &reqwest::Error) -> bool {
    matches!(of_tls(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// Returns true if the service has refused the client's certificate, or that there is none.
fn is_of_client_certificate(error: &reqwest::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let Some(rustls::Error::AlertReceived(alert)) = of_tls(error) else { return false };
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError
    )
}

/// Returns the TLS error among the causes of an error.
fn of_tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(fault) = error.downcast_ref::<rustls::Error>() {
        return Some(fault);
    }
    // The cause of an I/O error that wraps another is the cause of the inner one, not the inner
    // one.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => of_tls(wrapped),
        None => of_tls(error.source()?),
    }
}
