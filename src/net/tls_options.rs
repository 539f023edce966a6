//! What an operator may set about TLS.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::limits::MAX_TIME_MS;

/// How clients are served by TLS; in the file under `[tls]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// The hub's certificate chain (the certificate and the intermediates), in PEM. Empty: a hub without TLS.
    pub cert_file: PathBuf,
    /// The private key of the certificate, in PEM.
    pub key_file: PathBuf,
    /// The authorities that sign client certificates, in PEM.
    pub client_ca_file: PathBuf,
    /// Whether clients present a certificate: `none`, `optional` (verified if presented) or `required`.
    pub client_auth: ClientAuth,
    /// The oldest version of TLS that is accepted: `1.2` or `1.3`.
    pub min_version: TlsVersion,
    /// How often the files are checked for changes, in milliseconds.
    pub reload_interval_ms: u64,
    /// Whether the operator's port is served over TLS too.
    pub ops: bool,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for one.
    None,
    /// They may; one that is shown must be good.
    Optional,
    /// They must.
    Required,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: PathBuf::new(),
            client_auth: ClientAuth::None,
            min_version: TlsVersion::V12,
            reload_interval_ms: 1_000,
            ops: false,
        }
    }
}

impl TlsOptions {
    /// What does not go together or is out of range.
    pub fn check(&self) -> Result<(), String> {
        let is_set = |path: &PathBuf| !path.as_os_str().is_empty();
        let wants_clients = self.client_auth != ClientAuth::None;
        let rules = [
            (is_set(&self.cert_file) == is_set(&self.key_file), "tls.cert_file and tls.key_file go together"),
            (self.is_on() || !wants_clients, "tls.client_auth needs tls.cert_file and tls.key_file"),
            (self.is_on() || !self.ops, "tls.ops needs tls.cert_file and tls.key_file"),
            (!wants_clients || is_set(&self.client_ca_file), "tls.client_auth needs tls.client_ca_file"),
            // Or somebody believes that clients are checked.
            (
                wants_clients || !is_set(&self.client_ca_file),
                "tls.client_ca_file needs tls.client_auth to be optional or required",
            ),
        ];
        if let Some((_, rule)) = rules.iter().find(|(kept, _)| !kept) {
            return Err((*rule).to_owned());
        }
        if !(100..=MAX_TIME_MS).contains(&self.reload_interval_ms) {
            return Err(format!(
                "tls.reload_interval_ms is {} and must be 100 to {MAX_TIME_MS}",
                self.reload_interval_ms
            ));
        }
        Ok(())
    }

    /// Whether clients are served by TLS.
    pub fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }
}
