//! What an operator may set about who may do what.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::limits;

/// Who may do what; in the file under `[auth]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Whether callers need a credential and the right to what they do.
    pub enabled: bool,
    /// The policy file: roles, and what they allow and deny. Empty: nobody may do anything. Reloaded when it changes.
    pub policy_file: PathBuf,
    /// A key that checks tokens: a public key as PEM, or a secret of at least 32 characters.
    pub jwt_key_file: PathBuf,
    /// Keys that check tokens: a JSON Web Key Set.
    pub jwks_file: PathBuf,
    /// The address from which such a key set is fetched.
    pub jwks_url: String,
    /// Whether the address of the key set is looked up at the issuer, by OpenID Connect Discovery.
    pub jwt_discovery: bool,
    /// The required issuer of tokens (`iss` claim). Empty: any, which is allowed only with key files of your own.
    pub jwt_issuer: String,
    /// The required audience of tokens (`aud` claim).
    pub jwt_audience: String,
    /// The claim that names the principal.
    pub jwt_name_claim: String,
    /// The claim that lists its roles; dots lead into objects.
    pub jwt_roles_claim: String,
    /// By how much the clocks of issuer and hub may differ, in milliseconds.
    pub jwt_leeway_ms: u64,
    /// How often a key set is fetched again, in milliseconds.
    pub jwks_refresh_ms: u64,
    /// The authorities that sign the certificate of the issuer's address, in PEM. Empty: those of the system.
    pub jwks_ca_file: PathBuf,
    /// Static tokens, for development.
    pub token_file: PathBuf,
    /// Whether the certificate of a client's connection is a credential.
    pub client_certificates: bool,
    /// How long a session goes on after its credential has expired, in milliseconds; at least as long as the leeway.
    pub expiry_grace_ms: u64,
    /// Access to reflection: `off` for nobody, `on` for callers with a credential where one is needed, `open` for
    /// everybody.
    pub reflection: Reflection,
}

/// Who may ask what the services look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reflection {
    /// Nobody.
    Off,
    /// Who has a credential; everybody where none is needed.
    On,
    /// Everybody.
    Open,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: false,
            policy_file: PathBuf::new(),
            jwt_key_file: PathBuf::new(),
            jwks_file: PathBuf::new(),
            jwks_url: String::new(),
            jwt_discovery: false,
            jwt_issuer: String::new(),
            jwt_audience: "switchyard".to_owned(),
            jwt_name_claim: "sub".to_owned(),
            jwt_roles_claim: "roles".to_owned(),
            jwt_leeway_ms: 30_000,
            jwks_refresh_ms: 300_000,
            jwks_ca_file: PathBuf::new(),
            token_file: PathBuf::new(),
            client_certificates: false,
            expiry_grace_ms: 30_000,
            reflection: Reflection::On,
        }
    }
}

/// Keys are not fetched more often than this, in milliseconds.
const SHORTEST_REFRESH_MS: u64 = 1_000;

impl Options {
    /// What is out of range or does not fit together, with its key.
    pub fn check(&self) -> Result<(), String> {
        for (key, value, least) in [
            ("jwt_leeway_ms", self.jwt_leeway_ms, 0),
            ("jwks_refresh_ms", self.jwks_refresh_ms, SHORTEST_REFRESH_MS),
            ("expiry_grace_ms", self.expiry_grace_ms, 0),
        ] {
            if !(least..=limits::MAX_TIME_MS).contains(&value) {
                return Err(format!("auth.{key} is {value} and must be {least} to {}", limits::MAX_TIME_MS));
            }
        }
        let sources = self.sources();
        if !self.enabled {
            let set = sources.iter().chain(&self.more()).find(|(_, set)| *set).map(|(key, _)| *key);
            // Somebody meant to protect the hub, and it would not be.
            return set.map_or(Ok(()), |key| Err(format!("auth.{key} is set, but auth.enabled is not true")));
        }
        if !sources.iter().any(|(_, set)| *set) {
            let keys = sources.map(|(key, _)| format!("auth.{key}")).join(", ");
            return Err(format!("auth.enabled is true, but callers have no way to authenticate: set one of {keys}"));
        }
        if self.policy_file.as_os_str().is_empty() {
            return Err("auth.enabled is true, but nobody may do anything: set auth.policy_file".to_owned());
        }
        self.check_tokens()
    }

    fn check_tokens(&self) -> Result<(), String> {
        if self.wants_jwt() && (self.jwt_audience.is_empty() || self.jwt_name_claim.is_empty()) {
            return Err("auth.jwt_audience and auth.jwt_name_claim must not be empty".to_owned());
        }
        if self.is_remote() && self.jwt_issuer.is_empty() {
            return Err("auth.jwt_issuer must be set when keys come from an address".to_owned());
        }
        if self.jwt_discovery && !self.jwks_url.is_empty() {
            return Err("auth.jwks_url and auth.jwt_discovery exclude each other: set one".to_owned());
        }
        let address = if self.jwt_discovery { ("jwt_issuer", &self.jwt_issuer) } else { ("jwks_url", &self.jwks_url) };
        if self.is_remote() && !address.1.starts_with("https://") && !address.1.starts_with("http://") {
            return Err(format!("auth.{} is {:?} and must begin with https:// or http://", address.0, address.1));
        }
        Ok(())
    }

    /// The ways to show a credential, and whether each is set.
    fn sources(&self) -> [(&'static str, bool); 6] {
        [
            ("jwt_key_file", !self.jwt_key_file.as_os_str().is_empty()),
            ("jwks_file", !self.jwks_file.as_os_str().is_empty()),
            ("jwks_url", !self.jwks_url.is_empty()),
            ("jwt_discovery", self.jwt_discovery),
            ("token_file", !self.token_file.as_os_str().is_empty()),
            ("client_certificates", self.client_certificates),
        ]
    }

    fn more(&self) -> [(&'static str, bool); 2] {
        [("policy_file", !self.policy_file.as_os_str().is_empty()), ("jwt_issuer", !self.jwt_issuer.is_empty())]
    }

    /// True when signed tokens are taken.
    pub(super) fn wants_jwt(&self) -> bool {
        self.sources()[..4].iter().any(|(_, set)| *set)
    }

    /// True when keys come from an address.
    pub(super) fn is_remote(&self) -> bool {
        self.jwt_discovery || !self.jwks_url.is_empty()
    }

    /// How long a session goes on when its credential has expired; not shorter than the credential is taken.
    pub fn expiry_grace(&self) -> Duration {
        Duration::from_millis(self.expiry_grace_ms.max(self.jwt_leeway_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Options)) -> String {
        let mut options =
            Options { enabled: true, token_file: "t".into(), policy_file: "p".into(), ..Options::default() };
        assert_eq!(options.check(), Ok(()));
        change(&mut options);
        options.check().expect_err("refused")
    }

    #[test]
    fn what_would_protect_nothing_is_refused() {
        assert_eq!(Options::default().check(), Ok(()));
        assert!(refused(|o| o.enabled = false).contains("auth.token_file is set, but auth.enabled"));
        assert!(refused(|o| o.token_file = PathBuf::new()).contains("no way to authenticate"));
        assert!(refused(|o| o.policy_file = PathBuf::new()).contains("auth.policy_file"));
        assert!(refused(|o| o.jwks_url = "https://a".into()).contains("auth.jwt_issuer"));
        let from_address = |o: &mut Options| {
            (o.jwks_url, o.jwt_issuer) = ("ftp://a".into(), "https://a".into());
        };
        assert!(refused(from_address).contains("auth.jwks_url is \"ftp://a\""));
        assert!(refused(|o| (o.jwt_key_file, o.jwt_audience) = ("k".into(), String::new())).contains("jwt_audience"));
        assert!(refused(|o| o.jwks_refresh_ms = 999).contains("auth.jwks_refresh_ms is 999"));
        assert!(refused(|o| o.expiry_grace_ms = limits::MAX_TIME_MS + 1).contains("auth.expiry_grace_ms"));
        assert!(refused(|o| o.jwt_leeway_ms = limits::MAX_TIME_MS + 1).contains("auth.jwt_leeway_ms"));
    }
}
