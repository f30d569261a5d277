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

/// Why files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum PemFileError {
    /// One can't be read, or has not what it must have.
    #[error("{}: {source}. It must be a PEM file that this user can read", file.display())]
    Unusable {
        /// Which one.
        file: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// One of certificate and key is missing.
    #[error("certificate_file and key_file must both be set, and one of them is missing")]
    HalfAPair,
}

/// A certificate, with those between it and its CA, and its private key.
pub type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What all TLS here is made of.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Has all TLS that names no provider use [`provider`].
pub fn install_provider() {
    // An error means that another one is installed, which serves as well.
    let _ = ring::default_provider().install_default();
}

/// The certificates of a file, of which there is one at the least.
///
/// # Errors
/// When it can't be read or has none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemFileError> {
    let unusable = |source| PemFileError::Unusable { file: file.to_owned(), source };
    let read = CertificateDer::pem_file_iter(file).map_err(unusable)?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(unusable)?;
    if found.is_empty() { Err(unusable(pem::Error::NoItemsFound)) } else { Ok(found) }
}

/// The private key of a file.
///
/// # Errors
/// When it can't be read or has none.
pub fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, PemFileError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|source| PemFileError::Unusable { file: file.to_owned(), source })
}

/// A certificate and its key; `None` where neither is configured.
///
/// # Errors
/// When just one of them is, or they can't be read.
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

/// The CAs of a file, as far as they are any.
///
/// # Errors
/// When it can't be read or has no certificate.
pub fn roots(file: &Path) -> Result<RootCertStore, PemFileError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(file)?);
    Ok(roots)
}
