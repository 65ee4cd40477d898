//! TLS with a certificate from files, which are read again when they change.

use crate::config::TlsFiles;
use crate::error::ServerError;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio_rustls::TlsAcceptor;

/// When both files were written.
type Written = (Option<SystemTime>, Option<SystemTime>);

/// The certificate in use.
pub(crate) struct Tls {
    files: TlsFiles,
    current: Mutex<(Written, TlsAcceptor)>,
    protocols: Vec<Vec<u8>>,
}

impl Tls {
    /// Reads the files. `protocols` are those that clients choose from by ALPN.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub(crate) fn new(files: TlsFiles, protocols: &[&str]) -> Result<Self, ServerError> {
        let protocols: Vec<Vec<u8>> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = acceptor(&files, &protocols)?;
        Ok(Self { current: Mutex::new((written(&files), acceptor)), files, protocols })
    }

    /// What new connections are accepted with. A new certificate that cannot be used leaves the old one in place.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let now = written(&self.files);
        let mut current = self.current.lock();
        if current.0 != now {
            match acceptor(&self.files, &self.protocols) {
                Ok(acceptor) => *current = (now, acceptor),
                Err(error) => {
                    tracing::warn!(%error, "the changed certificate cannot be used, the one before stays");
                    current.0 = now;
                }
            }
        }
        current.1.clone()
    }
}

fn written(files: &TlsFiles) -> Written {
    let modified = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    (modified(&files.certificate), modified(&files.key))
}

fn acceptor(files: &TlsFiles, protocols: &[Vec<u8>]) -> Result<TlsAcceptor, ServerError> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| {
        ServerError::configuration(
            format!("cannot use \"{}\": {error}", path.display()),
            "It is a file in PEM form, which begins with -----BEGIN.",
        )
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| wrong(&files.certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| wrong(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&files.certificate, &error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| wrong(&files.certificate, &error))?;
    config.alpn_protocols = protocols.to_vec();
    Ok(TlsAcceptor::from(Arc::new(config)))
}
