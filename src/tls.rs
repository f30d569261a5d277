//! Reads the PEM files of certificates and keys, for the listener and for Redis. TLS is rustls on
//! ring.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

/// The reason for which files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PemFileError {
    /// A file can't be read, or lacks what it must contain.
    #[error("{}: {source}. It must be a PEM file that this user can read", file.display())]
    Unusable {
        /// Its path.
        file: PathBuf,
        /// The error of the PEM reader.
        source: pem::Error,
    },
    /// One of certificate and key is missing.
    #[error("certificate_file and key_file must both be set, and one of them is missing")]
    HalfAPair,
}

/// A certificate with the intermediate ones, and its private key.
pub type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Returns the cryptography of all TLS in the service.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes [`provider`] the default for all TLS in the process that names no provider.
pub fn install_provider() {
    // An error means that another one is installed, which serves as well.
    let _ = ring::default_provider().install_default();
}

/// Returns the certificates of a file: at least one.
///
/// # Errors
/// When it can't be read or has none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemFileError> {
    let unusable = |source| PemFileError::Unusable { file: file.to_owned(), source };
    let read = CertificateDer::pem_file_iter(file).map_err(unusable)?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(unusable)?;
    if found.is_empty() { Err(unusable(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// Returns the private key of a file.
///
/// # Errors
/// When it can't be read or has none.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, PemFileError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|source| PemFileError::Unusable { file: file.to_owned(), source })
}

/// Returns a certificate and its key; `None` if neither is configured.
///
/// # Errors
/// If only one of them is configured, or they can't be read.
pub fn pair(
    certificate_file: Option<&Path>,
    key_file: Option<&Path>,
) -> Result<Option<Pair>, PemFileError> {
    match (certificate_file, key_file) {
        (None, None) => Ok(None),
        (Some(certificate_file), Some(key_file)) => {
            Ok(Some((certificates(certificate_file)?, private_key(key_file)?)))
        }
        _ => Err(PemFileError::HalfAPair),
    }
}

/// Returns the CAs of a file, without certificates that can't be parsed as CAs.
///
/// # Errors
/// When it can't be read or has no certificate.
pub fn roots(file: &Path) -> Result<RootCertStore, PemFileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(file)?);
    Ok(roots)
}
