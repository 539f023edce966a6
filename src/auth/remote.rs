//! Keys from an address: fetched in the background, kept when the address fails, and fetched again when a token names a
//! key that nobody knows, though not as often as somebody might spec who sends such tokens.

use std::{
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use parking_lot::{Mutex, RwLock};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use switchyard_client::Backoff;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use super::{Options, keys::KeySet};
use crate::tasks::{OnPanic, Tasks};

/// One answer may take this long
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// and have so many bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Unknown keys cause a fetch at most this often.
const SHORTEST_WAIT: Duration = Duration::from_secs(10);
/// How long at most the first attempt after a failure waits; later ones up to as long as between two fetches.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// What discovery adds to an issuer.
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Keys that are kept at an address.
pub(super) struct Remote {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    address: Address,
    refresh: Duration,
    keys: RwLock<Arc<KeySet>>,
    version: AtomicU64,
    /// How often the keys were fetched, with or without success.
    rounds: watch::Sender<u64>,
    asked: Mutex<Asked>,
    ask: Notify,
}

#[derive(Debug)]
enum Address {
    Keys(String),
    Issuer(String),
}

/// The last time that an unknown key was met.
#[derive(Debug, Default)]
struct Asked {
    at: Option<Instant>,
    /// The round before it.
    round: u64,
}

/// Runs the connections to the server of the keys.
#[derive(Clone)]
struct Connections(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Connections {
    fn execute(&self, work: F) {
        self.0.spawn("keys", OnPanic::Log, work);
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Remote {
    /// Without keys until the first is fetched.
    pub(super) fn new(options: &Options, tasks: &Tasks) -> Result<Self, String> {
        let tls = tls(&options.jwks_ca_file)?;
        let address = if options.jwt_discovery { &options.jwt_issuer } else { &options.jwks_url };
        if is_open_to_others(address) {
            tracing::warn!(address, "WITHOUT TLS: anyone on the network can replace the keys that check tokens");
        }
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self {
            client: Client::builder(Connections(tasks.clone())).build(connector),
            address: if options.jwt_discovery {
                Address::Issuer(options.jwt_issuer.clone())
            } else {
                Address::Keys(options.jwks_url.clone())
            },
            refresh: Duration::from_millis(options.jwks_refresh_ms),
            keys: RwLock::default(),
            version: AtomicU64::new(0),
            rounds: watch::Sender::new(0),
            asked: Mutex::default(),
            ask: Notify::new(),
        })
    }

    /// The keys fetched last.
    pub(super) fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read())
    }

    /// Changes with the keys.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    /// Waits until the keys were fetched once, with or without success.
    pub(super) async fn until_tried(&self) {
        // The sender lives as long as this.
        self.rounds.subscribe().wait_for(|round| *round > 0).await.ok();
    }

    /// Fetches the keys because one is unknown, unless that was done lately. False when nothing was done.
    pub(super) async fn look_again(&self) -> bool {
        let mut rounds = self.rounds.subscribe();
        let before = *rounds.borrow();
        {
            let (mut asked, now) = (self.asked.lock(), Instant::now());
            let lately = asked.at.is_some_and(|at| now.saturating_duration_since(at) < SHORTEST_WAIT);
            if lately && asked.round != before {
                return false;
            }
            // While one fetch goes on all wait for that one.
            if !lately {
                *asked = Asked { at: Some(now), round: before };
                self.ask.notify_one();
            }
        }
        timeout(2 * FETCH_TIMEOUT, rounds.wait_for(|round| *round > before)).await.is_ok()
    }

    /// Fetches keys for as long as somebody needs them.
    pub(super) async fn run(remote: Weak<Self>) {
        let Some(refresh) = remote.upgrade().map(|remote| remote.refresh) else { return };
        let mut backoff = Backoff::new(FIRST_BACKOFF, refresh);
        while let Some(remote) = remote.upgrade() {
            let wait = match remote.fetch().await {
                Ok(keys) => {
                    tracing::debug!(address = ?remote.address, ?keys, "keys fetched");
                    *remote.keys.write() = Arc::new(keys);
                    remote.version.fetch_add(1, Relaxed);
                    backoff.reset();
                    refresh
                }
                Err(error) => {
                    tracing::error!(address = ?remote.address, error, "keys for tokens cannot be fetched; the old ones stay");
                    backoff.next()
                }
            };
            remote.rounds.send_modify(|rounds| *rounds += 1);
            tokio::select! {
                () = sleep(wait) => {}
                () = remote.ask.notified() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        let address = match &self.address {
            Address::Keys(address) => address.clone(),
            Address::Issuer(issuer) => {
                let told = self.get(&format!("{}{DISCOVERY}", issuer.trim_end_matches('/'))).await?;
                discovered(issuer, &told).map_err(|error| format!("discovery: {error}"))?
            }
        };
        // Whoever can read what is at an address knows every secret there.
        KeySet::of_jwks(&self.get(&address).await?, false).map_err(|error| format!("{address} {error}"))
    }

    async fn get(&self, address: &str) -> Result<String, String> {
        let failed = |error: String| format!("{address}: {error}");
        let uri = address.parse().map_err(|_| failed("is not an address".to_owned()))?;
        let get = async {
            let response = self.client.get(uri).await.map_err(|error| told(&error))?;
            if response.status() != http::StatusCode::OK {
                return Err(format!("answers {}", response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            String::from_utf8(body.into()).map_err(|_| "the answer is not text".to_owned())
        };
        timeout(FETCH_TIMEOUT, get).await.map_err(|_| failed("timed out".to_owned()))?.map_err(failed)
    }
}

/// Where the keys of an issuer are, as it tells.
fn discovered(issuer: &str, told: &str) -> Result<String, String> {
    let told: serde_json::Value = serde_json::from_str(told).map_err(|error| format!("not JSON: {error}"))?;
    let text = |name: &str| told.get(name).and_then(serde_json::Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(format!("it is for {:?}, not for the issuer", text("issuer")));
    }
    let address = text("jwks_uri").ok_or("it has no jwks_uri")?;
    // What was asked for with TLS is not taken without.
    if issuer.starts_with("https://") && !address.starts_with("https://") {
        return Err(format!("its keys are at {address:?}, without TLS"));
    }
    Ok(address.to_owned())
}

/// True for an address without TLS that is not on this machine.
fn is_open_to_others(address: &str) -> bool {
    let Some(rest) = address.strip_prefix("http://") else { return false };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name != "localhost" && !name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The deepest cause.
fn told(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn tls(ca_file: &Path) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if ca_file.as_os_str().is_empty() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    } else {
        let failed = |error: String| format!("auth.jwks_ca_file: {}: {error}", ca_file.display());
        let certificates = CertificateDer::pem_file_iter(ca_file).map_err(|error| failed(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots.add(certificate).map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(failed("has no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_tells_where_its_keys_are_and_never_gives_up_tls() {
        let told = |issuer: &str, keys: &str| {
            discovered("https://issuer", &format!(r#"{{"issuer": "{issuer}", "jwks_uri": "{keys}"}}"#))
        };
        assert_eq!(told("https://issuer", "https://keys").as_deref(), Ok("https://keys"));
        assert!(told("https://issuer", "http://keys").expect_err("refused").contains("without TLS"));
        assert!(told("https://other", "https://keys").expect_err("refused").contains("not for the issuer"));
        assert!(discovered("https://issuer", r#"{"issuer": "https://issuer"}"#).is_err());
        assert!(discovered("https://issuer", "keys").is_err());
    }

    #[test]
    fn addresses_without_tls_are_for_this_machine() {
        for ours in ["https://a", "http://localhost:1/k", "http://127.0.0.1", "http://[::1]:8080/keys"] {
            assert!(!is_open_to_others(ours), "{ours}");
        }
        for open in ["http://a", "http://10.0.0.1:80/keys", "http://[2001:db8::1]/keys", "http://localhost.example"] {
            assert!(is_open_to_others(open), "{open}");
        }
    }
}
