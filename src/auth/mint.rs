//! Making tokens, for development: what `switchyard token` does.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Map, Value, json};

use super::keys::KeySet;

/// What a token is to say.
#[derive(Debug, Clone)]
pub struct Mint {
    /// Who it is for.
    pub name: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Who it is meant for.
    pub audience: String,
    /// Who made it; empty for nobody.
    pub issuer: String,
    /// How long it is good.
    pub life: Duration,
}

impl Mint {
    /// A token signed with the secret of a key file.
    pub fn sign(&self, key_file: &str, now: SystemTime) -> Result<String, String> {
        // What the hub would not take is not made.
        KeySet::of_key_file(key_file)?;
        if key_file.contains("-----BEGIN") {
            return Err("has a public key; tokens are signed with a secret".to_owned());
        }
        let seconds = now.duration_since(UNIX_EPOCH).map_err(|_| "the clock is before 1970")?.as_secs();
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), json!(self.name));
        claims.insert("aud".to_owned(), json!(self.audience));
        claims.insert("iat".to_owned(), json!(seconds));
        claims.insert("exp".to_owned(), json!(seconds.saturating_add(self.life.as_secs())));
        claims.insert("roles".to_owned(), json!(self.roles));
        if !self.issuer.is_empty() {
            claims.insert("iss".to_owned(), json!(self.issuer));
        }
        let key = EncodingKey::from_secret(key_file.trim().as_bytes());
        encode(&Header::new(Algorithm::HS256), &Value::Object(claims), &key).map_err(|error| error.to_string())
    }
}

/// A new secret for a key file.
pub fn new_key() -> Result<String, String> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| error.to_string())?;
    Ok(URL_SAFE_NO_PAD.encode(secret))
}
