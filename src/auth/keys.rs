//! The keys that check signed tokens, each bound to the algorithms it is for.
//!
//! A public key never serves as a secret, whatever a token says: which algorithms a key is good for is decided by the
//! key alone, when it is read.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::Value;

/// The most keys in one set.
pub(super) const MAX_KEYS: usize = 256;
/// The shortest secret, in bytes: RFC 7518 wants as many as HS256 has.
pub(super) const MIN_SECRET_BYTES: usize = 32;

const RSA: &[Algorithm] =
    &[Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
const HMAC: &[Algorithm] = &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
/// The points of the two curves, uncompressed, in bytes.
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    /// What tokens call it; a key without a name is good for tokens of any.
    id: Option<Box<str>>,
    algorithms: Vec<Algorithm>,
    pub(super) public_or_secret: DecodingKey,
}

/// Keys that are good at the same time.
#[derive(Clone, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// Which keys a token may have been signed with.
#[derive(Debug)]
pub(super) enum Candidates<'a> {
    /// Any of these.
    Some(Vec<&'a Key>),
    /// None has its name: perhaps it is newer than the set.
    Unknown,
    /// None of those with its name is for its algorithm.
    OtherAlgorithm,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.keys).finish()
    }
}

impl KeySet {
    /// The one key of a key file: a public key as PEM, or else a secret.
    pub(super) fn of_key_file(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (key, algorithms) = if text.contains("-----BEGIN") { public_key(text)? } else { secret(text)? };
        Ok(Self { keys: vec![Key { id: None, algorithms, public_or_secret: key }] })
    }

    /// A JSON Web Key Set. Keys it cannot use are left out; `may_be_secret` says whether it may have secrets.
    pub(super) fn of_jwks(text: &str, may_be_secret: bool) -> Result<Self, String> {
        let set: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("is not a key set: it has no list `keys`")?;
        if keys.len() > MAX_KEYS {
            return Err(format!("has {} keys; the limit is {MAX_KEYS}", keys.len()));
        }
        let usable: Vec<Key> = keys.iter().filter_map(|key| of_jwk(key, may_be_secret)).collect();
        if usable.is_empty() {
            Err("has no key for RS, PS, ES, EdDSA or HS".to_owned())
        } else {
            Ok(Self { keys: usable })
        }
    }

    /// The keys of both.
    #[must_use]
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.keys.extend_from_slice(&other.keys);
        self
    }

    /// The keys that a token of that name and algorithm may have been signed with.
    pub(super) fn candidates(&self, id: Option<&str>, algorithm: Algorithm) -> Candidates<'_> {
        let named = |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let mut named = self.keys.iter().filter(named).peekable();
        if named.peek().is_none() {
            return Candidates::Unknown;
        }
        let some: Vec<&Key> = named.filter(|key| key.algorithms.contains(&algorithm)).collect();
        if some.is_empty() { Candidates::OtherAlgorithm } else { Candidates::Some(some) }
    }
}

fn public_key(text: &str) -> Result<(DecodingKey, Vec<Algorithm>), String> {
    if text.contains("PRIVATE KEY-----") {
        return Err("has a private key: give the hub the public one".to_owned());
    }
    let bytes = text.as_bytes();
    if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
        return Ok((key, RSA.to_vec()));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        let algorithm = match key.try_get_as_bytes().map_or(0, <[u8]>::len) {
            P256_POINT_BYTES => Algorithm::ES256,
            P384_POINT_BYTES => Algorithm::ES384,
            _ => return Err("has a key on a curve other than P-256 and P-384".to_owned()),
        };
        return Ok((key, vec![algorithm]));
    }
    let key = DecodingKey::from_ed_pem(bytes).map_err(|_| "has no public key of RSA, EC or Ed25519")?;
    Ok((key, vec![Algorithm::EdDSA]))
}

fn secret(text: &str) -> Result<(DecodingKey, Vec<Algorithm>), String> {
    // What looks otherwise is a public key in another form, and must never be taken for a secret.
    if text.starts_with('{') || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("is neither a public key as PEM nor a secret of printable characters".to_owned());
    }
    if text.len() < MIN_SECRET_BYTES {
        return Err(format!("has a secret of {} characters; the minimum is {MIN_SECRET_BYTES}", text.len()));
    }
    Ok((DecodingKey::from_secret(text.as_bytes()), HMAC.to_vec()))
}

/// `None` for a key that checks no tokens, or is of a kind that the hub does not have.
fn of_jwk(value: &Value, may_be_secret: bool) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        AlgorithmParameters::OctetKey(_) if may_be_secret => HMAC.to_vec(),
        _ => return None,
    };
    if let Some(only) = value.get("alg") {
        let only: Algorithm = only.as_str()?.parse().ok()?;
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let short = matches!(&jwk.algorithm, AlgorithmParameters::OctetKey(_))
        && key.try_get_as_bytes().map_or(0, <[u8]>::len) < MIN_SECRET_BYTES;
    (!algorithms.is_empty() && !short).then(|| Key {
        id: jwk.common.key_id.map(Into::into),
        algorithms,
        public_or_secret: key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED_PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    const ED_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn refused(text: &str) -> String {
        KeySet::of_key_file(text).expect_err("refused")
    }

    fn algorithms(set: &KeySet) -> Vec<Algorithm> {
        set.keys.iter().flat_map(|key| key.algorithms.clone()).collect()
    }

    #[test]
    fn a_key_file_has_a_secret_or_a_public_key() {
        let secret = KeySet::of_key_file(&"s".repeat(MIN_SECRET_BYTES)).expect("a key");
        assert_eq!(algorithms(&secret), HMAC);
        assert_eq!(algorithms(&KeySet::of_key_file(ED_PEM).expect("a key")), [Algorithm::EdDSA]);
        assert!(refused(&"s".repeat(MIN_SECRET_BYTES - 1)).contains("31 characters"));
        assert!(refused("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----").contains("private key"));
        assert!(refused("-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----").contains("no public key"));
        // A set, or a key in its binary form, is no secret.
        assert!(refused(&format!("{{\"keys\":[]}}{}", "x".repeat(40))).contains("neither"));
        assert!(refused(&"\u{1}\u{2}".repeat(40)).contains("neither"));
    }

    #[test]
    fn keys_of_a_set_are_bound_to_their_algorithms() {
        let text = format!(
            r#"{{"keys": [
                {{"kty": "OKP", "crv": "Ed25519", "x": "{ED_X}", "kid": "a"}},
                {{"kty": "OKP", "crv": "Ed25519", "x": "{ED_X}", "kid": "for-encryption", "use": "enc"}},
                {{"kty": "RSA", "n": "sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri", "e": "AQAB", "kid": "r", "alg": "RS256"}},
                {{"kty": "RSA", "n": "sXch", "e": "AQAB", "kid": "other", "alg": "RSA-OAEP"}},
                {{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "k"}},
                {{"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "s"}},
                {{"kty": "oct", "k": "c2hvcnQ", "kid": "short"}},
                {{"kty": "new", "kid": "n"}}
            ]}}"#
        );
        let ids =
            |set: &KeySet| set.keys.iter().filter_map(|key| key.id.as_deref().map(str::to_owned)).collect::<Vec<_>>();
        let public = KeySet::of_jwks(&text, false).expect("a set");
        assert_eq!(ids(&public), ["a", "r"]);
        assert_eq!(ids(&KeySet::of_jwks(&text, true).expect("a set")), ["a", "r", "s"]);
        assert!(matches!(public.candidates(Some("a"), Algorithm::EdDSA), Candidates::Some(_)));
        assert!(matches!(public.candidates(None, Algorithm::RS256), Candidates::Some(keys) if keys.len() == 1));
        assert!(matches!(public.candidates(Some("a"), Algorithm::RS256), Candidates::OtherAlgorithm));
        assert!(matches!(public.candidates(Some("a"), Algorithm::HS256), Candidates::OtherAlgorithm));
        assert!(matches!(public.candidates(Some("r"), Algorithm::RS384), Candidates::OtherAlgorithm));
        assert!(matches!(public.candidates(Some("new"), Algorithm::EdDSA), Candidates::Unknown));
    }

    #[test]
    fn the_number_of_keys_is_limited() {
        let set = |count: usize| {
            let key = format!(r#"{{"kty": "OKP", "crv": "Ed25519", "x": "{ED_X}"}}"#);
            format!(r#"{{"keys": [{}]}}"#, vec![key; count].join(","))
        };
        assert!(KeySet::of_jwks(&set(MAX_KEYS), false).is_ok());
        assert!(KeySet::of_jwks(&set(MAX_KEYS + 1), false).expect_err("refused").contains("257"));
        assert!(KeySet::of_jwks("{}", false).is_err() && KeySet::of_jwks(&set(0), false).is_err());
    }
}
