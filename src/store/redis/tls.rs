//! TLS to Redis with rustls (ring): with the system's certificates or a private CA, and a client
//! certificate if the server requires one.

use std::path::PathBuf;

use fred::types::config::TlsConnector;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::tls::{self, PemFileError, pair, provider};

/// The section `redis.tls` of the configuration, for `rediss://` URLs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisTlsConfig {
    /// PEM file of the CA that signed the server's certificate; absent for the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// PEM file of this service's certificate, if the server requires one.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub key_file: Option<PathBuf>,
}

/// The reason why TLS to Redis can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum RedisTlsError {
    /// A file is missing, can't be read, or holds nothing usable.
    #[error("redis.tls: {0}")]
    File(#[from] PemFileError),
    /// The system's certificates can't be loaded.
    #[error("the system has no CA certificates: install ca-certificates, or set redis.tls.ca_file")]
    NoSystemCas,
    /// rustls refuses the content of the files.
    #[error("redis.tls: {0}")]
    Refused(#[from] rustls::Error),
}

impl RedisTlsConfig {
    /// Returns the connector for fred.
    pub(super) fn connector(&self) -> Result<TlsConnector, RedisTlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?);
        let config = match pair(self.certificate_file.as_deref(), self.key_file.as_deref())? {
            None => builder.with_no_client_auth(),
            Some((certificates, key)) => builder.with_client_auth_cert(certificates, key)?,
        };
        Ok(config.into())
    }

    fn roots(&self) -> Result<RootCertStore, RedisTlsError> {
        let roots = if let Some(ca_file) = &self.ca_file {
            tls::roots(ca_file)?
        } else {
            let mut roots = RootCertStore::empty();
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            roots
        };
        if roots.is_empty() { Err(RedisTlsError::NoSystemCas) } else { Ok(roots) }
    }
}
