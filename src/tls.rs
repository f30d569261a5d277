//! Reads the PEM files of certificates and keys, for the listener and for Redis. TLS is rustls on ring.

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

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}. It must be a PEM file that this user can read", file.display())]
pub struct PemFileError {
    file: PathBuf,
    source: pem::Error,
}

/// What all TLS here is made of.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of a file, of which there is one at the least.
///
/// # Errors
/// When it can't be read or has none.
pub fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, PemFileError> {
    let unusable = |source| PemFileError { file: file.to_owned(), source };
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
        .map_err(|source| PemFileError { file: file.to_owned(), source })
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
