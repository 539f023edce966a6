//! Certificates, keys and the authorities of clients: read from files, judged, and made into what rustls serves.
//!
//! Nothing here is kept and nothing waits; [`super::tls`] decides when to read. What is read is bounded, and every
//! refusal names the file.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};
use x509_parser::parse_x509_certificate;

use super::tls_options::{ClientAuth, TlsOptions, TlsVersion};
use crate::telemetry::warn_if_open;

/// No file is read further than this.
const MOST_FILE_BYTES: u64 = 1024 * 1024;

/// What is wrong with the files. The text names the one.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {error}", .path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {problem}", .path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Certificate and key are each in order, but do not fit.
    #[error("the key in {} is not the key of the certificate in {}", .key.display(), .certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

/// The files as they were read.
pub(super) struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    /// Empty when clients show no certificates.
    client_ca: Vec<u8>,
}

/// What the files make.
pub(super) struct Made {
    pub(super) config: Arc<ServerConfig>,
    pub(super) certificate: Validity,
    /// The end of the first authority to end; `None` when clients show no certificates.
    pub(super) client_ca_ends: Option<i64>,
}

/// From when to when a certificate is good, in seconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    pub(super) starts: i64,
    pub(super) ends: i64,
}

impl Validity {
    /// Why no client would take the certificate now.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        match now {
            _ if now >= self.ends => Some("the certificate has expired"),
            _ if now < self.starts => Some("the certificate is not valid yet"),
            _ => None,
        }
    }
}

impl Files {
    pub(super) fn read(options: &TlsOptions) -> Result<Self, CertificateError> {
        let client_ca = match options.client_auth {
            ClientAuth::None => Vec::new(),
            ClientAuth::Optional | ClientAuth::Required => read(&options.client_ca_file)?,
        };
        Ok(Self { certificate: read(&options.cert_file)?, key: read(&options.key_file)?, client_ca })
    }

    /// Tells these files from others without keeping a copy of the key.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for file in [&self.certificate, &self.key, &self.client_ca] {
            hash.update((file.len() as u64).to_le_bytes());
            hash.update(file);
        }
        hash.finalize().into()
    }

    /// Makes what connections are accepted with.
    pub(super) fn make(&self, options: &TlsOptions) -> Result<Made, CertificateError> {
        let chain = certificates(&options.cert_file, &self.certificate)?;
        let certificate = validity(&options.cert_file, &chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| invalid(&options.key_file, format!("no private key in PEM: {error}")))?;
        warn_if_open("tls.key_file", &options.key_file, true);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = match options.min_version {
            TlsVersion::V12 => &[&TLS13, &TLS12][..],
            TlsVersion::V13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| invalid(&options.cert_file, error.to_string()))?;
        let (builder, client_ca_ends) = match options.client_auth {
            ClientAuth::None => (builder.with_no_client_auth(), None),
            wanted => {
                let (roots, ends) = self.authorities(options)?;
                let verifier = verifier(roots, &provider, wanted == ClientAuth::Optional)
                    .map_err(|problem| invalid(&options.client_ca_file, problem))?;
                (builder.with_client_cert_verifier(verifier), Some(ends))
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { certificate: options.cert_file.clone(), key: options.key_file.clone() }
            }
            // What is wrong with the certificate was found before.
            error => invalid(&options.key_file, error.to_string()),
        })?;
        // HTTP/1 clients are told what this port is.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would bring back a certificate that was verified once, although it has expired since, or its
        // authority was removed; and connections are few and long.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Made { config: Arc::new(config), certificate, client_ca_ends })
    }

    /// The authorities of clients, and when the first of them ends.
    fn authorities(&self, options: &TlsOptions) -> Result<(RootCertStore, i64), CertificateError> {
        let path = &options.client_ca_file;
        let mut roots = RootCertStore::empty();
        let mut ends = i64::MAX;
        for authority in certificates(path, &self.client_ca)? {
            ends = ends.min(validity(path, &authority)?.ends);
            roots.add(authority).map_err(|error| invalid(path, error.to_string()))?;
        }
        Ok((roots, ends))
    }
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
    optional: bool,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| error.to_string())
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |error| CertificateError::Unreadable { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MOST_FILE_BYTES {
        return Err(invalid(path, format!("it has more than {MOST_FILE_BYTES} bytes")));
    }
    Ok(bytes)
}

/// At least one certificate.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| invalid(path, format!("no certificates in PEM: {error}")))?;
    if all.is_empty() {
        return Err(invalid(path, "no certificate in PEM".to_owned()));
    }
    Ok(all)
}

fn validity(path: &Path, certificate: &CertificateDer<'_>) -> Result<Validity, CertificateError> {
    let (_, parsed) = parse_x509_certificate(certificate)
        .map_err(|error| invalid(path, format!("a certificate does not decode: {error}")))?;
    let validity = parsed.validity();
    Ok(Validity { starts: validity.not_before.timestamp(), ends: validity.not_after.timestamp() })
}

fn invalid(path: &Path, problem: String) -> CertificateError {
    CertificateError::Invalid { path: path.to_owned(), problem }
}
