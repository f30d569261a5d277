//! TLS for the listener. The certificate can be replaced while the service runs.

use std::{path::PathBuf, sync::Arc};

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    server::{VerifierBuilderError, WebPkiClientVerifier},
};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use crate::tls::{PemFileError, pair, provider, roots};

/// The section `tls` of the configuration. Without a certificate the listener speaks plain HTTP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate, followed by the intermediate ones. All three files are read
    /// again on SIGHUP.
    pub certificate_file: Option<PathBuf>,
    /// PEM file of its private key.
    pub key_file: Option<PathBuf>,
    /// PEM file of the CAs of client certificates; clients need none if it is absent.
    pub client_ca_file: Option<PathBuf>,
}

/// TLS can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be used, or is missing.
    #[error("tls: {0}")]
    File(#[from] PemFileError),
    /// The CAs of clients can't be used.
    #[error("tls.client_ca_file: {0}")]
    ClientCas(#[from] VerifierBuilderError),
    /// rustls refuses the contents of the files.
    #[error("tls: {0}: do the certificate and the key belong together?")]
    Refused(#[from] rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub struct Tls {
    config: TlsConfig,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files; `None` if no certificate is configured.
    ///
    /// # Errors
    /// If they can't be used.
    pub fn load(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let Some(current) = config.read()? else { return Ok(None) };
        Ok(Some(Self { config: config.clone(), current: RwLock::new(Arc::new(current)) }))
    }

    /// Reads the files again, for new connections.
    ///
    /// # Errors
    /// If they can't be used; the certificate in use stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        if let Some(fresh) = self.config.read()? {
            *self.current.write() = Arc::new(fresh);
        }
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.current.read()).into()
    }
}

impl TlsConfig {
    /// Returns whether clients have to use TLS.
    pub fn is_used(&self) -> bool {
        self.certificate_file.is_some()
    }

    fn read(&self) -> Result<Option<ServerConfig>, TlsError> {
        let (certificate_file, key_file) =
            (self.certificate_file.as_deref(), self.key_file.as_deref());
        let Some((certificates, key)) = pair(certificate_file, key_file)? else { return Ok(None) };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca_file {
            None => builder.with_no_client_auth(),
            Some(client_ca_file) => {
                let cas = Arc::new(roots(client_ca_file)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(cas, provider());
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_single_cert(certificates, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(config))
    }
}
