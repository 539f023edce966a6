//! Signed tokens: from what a caller shows to a principal, or why not.
//!
//! Signatures and the claims `iss`, `aud`, `exp` and `nbf` are checked by the library; here stands what must be there,
//! and which key may have made the signature. Why a token is refused is for the log: its owner learns only that it is,
//! or that it has expired.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde_json::Value;

use super::{
    Options,
    keys::{Candidates, KeySet},
    principal::{Principal, Source},
};
use crate::model::limits::MAX_CREDENTIAL_BYTES;

/// The signature is wrong, or is of another key than those that were tried.
const FOREIGN: Fault = Fault::Bad("the signature matches no known key");

/// What a token must say.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    issuer: String,
    audience: String,
    leeway: u64,
    name_claim: String,
    roles_claim: String,
}

/// Why a token is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It was good once.
    Expired,
    /// None of the keys has the name it tells.
    UnknownKey,
    /// It was never good; in words for the log.
    Bad(&'static str),
}

impl Verifier {
    /// As the operator set it.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            issuer: options.jwt_issuer.clone(),
            audience: options.jwt_audience.clone(),
            leeway: options.jwt_leeway_ms / 1000,
            name_claim: options.jwt_name_claim.clone(),
            roles_claim: options.jwt_roles_claim.clone(),
        }
    }

    /// Who the token is of.
    pub(super) fn verify(&self, keys: &KeySet, token: &str) -> Result<Principal, Fault> {
        if token.len() > MAX_CREDENTIAL_BYTES {
            return Err(Fault::Bad("too long"));
        }
        // `none` is no algorithm that the library knows.
        let header = decode_header(token).map_err(|_| Fault::Bad("not a token, or of an unknown algorithm"))?;
        if header.crit.is_some() {
            return Err(Fault::Bad("it has a critical header that the hub does not support"));
        }
        let candidates = match keys.candidates(header.kid.as_deref(), header.alg) {
            Candidates::Some(keys) => keys,
            Candidates::Unknown => return Err(Fault::UnknownKey),
            Candidates::OtherAlgorithm => return Err(Fault::Bad("its algorithm is not that of the key")),
        };
        let mut validation = Validation::new(header.alg);
        validation.leeway = self.leeway;
        validation.validate_nbf = true;
        validation.set_audience(&[&self.audience]);
        let mut required = vec!["exp", "aud"];
        if !self.issuer.is_empty() {
            validation.set_issuer(&[&self.issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let mut fault = FOREIGN;
        for key in candidates {
            match decode::<Value>(token, &key.public_or_secret, &validation) {
                Ok(token) => return self.principal(&token.claims),
                Err(error) => match of_library(error.kind()) {
                    // Another key may be the right one.
                    FOREIGN => {}
                    other => fault = other,
                },
            }
        }
        Err(fault)
    }

    fn principal(&self, claims: &Value) -> Result<Principal, Fault> {
        let name = claims.get(&self.name_claim).and_then(Value::as_str).ok_or(Fault::Bad("it names no principal"))?;
        let seconds = claims.get("exp").and_then(Value::as_f64).ok_or(Fault::Bad("its expiry is no time"))?;
        let expires = Duration::try_from_secs_f64(seconds).ok().and_then(|since| UNIX_EPOCH.checked_add(since));
        let expires: SystemTime = expires.ok_or(Fault::Bad("its expiry is no time"))?;
        // The library counts whole seconds, and a session does not.
        if expires.checked_add(Duration::from_secs(self.leeway)).is_some_and(|end| end <= SystemTime::now()) {
            return Err(Fault::Expired);
        }
        let roles = roles(claims, &self.roles_claim);
        Principal::new(Source::Jwt, name, roles, Some(expires)).ok_or(Fault::Bad("the name is not valid"))
    }
}

fn of_library(kind: &ErrorKind) -> Fault {
    match kind {
        ErrorKind::ExpiredSignature => Fault::Expired,
        ErrorKind::InvalidSignature => FOREIGN,
        ErrorKind::InvalidAudience => Fault::Bad("it is meant for another audience"),
        ErrorKind::InvalidIssuer => Fault::Bad("it is from another issuer"),
        ErrorKind::ImmatureSignature => Fault::Bad("it is not valid yet"),
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Fault::Bad("a claim is missing"),
        _ => Fault::Bad("it does not decode"),
    }
}

/// The values at a dotted path: a list of texts, or texts with spaces between them, as scopes are written. A claim may have dots
/// in its name, as an address has.
fn roles(claims: &Value, path: &str) -> Vec<Box<str>> {
    let found = claims.get(path).or_else(|| path.split('.').try_fold(claims, |value, part| value.get(part)));
    match found {
        Some(Value::String(text)) => text.split(' ').filter(|role| !role.is_empty()).map(Into::into).collect(),
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).map(Into::into).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const ED_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
    const ED_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";

    fn now() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed()
    }

    fn verifier() -> Verifier {
        Verifier::new(&Options { jwt_issuer: "https://issuer".into(), ..Options::default() })
    }

    /// Good claims, with some changed, or left out where they are null.
    fn claims(changed: Value) -> Value {
        let mut claims = json!({
            "sub": "alice", "iss": "https://issuer", "aud": "switchyard", "exp": now() + 600, "roles": ["a", "b"],
        });
        for (name, value) in changed.as_object().expect("claims") {
            match value {
                Value::Null => drop(claims.as_object_mut().expect("claims").remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    fn signed(claims: &Value) -> String {
        encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
    }

    fn verify(token: &str) -> Result<Principal, Fault> {
        verifier().verify(&KeySet::of_key_file(SECRET).expect("a key"), token)
    }

    #[test]
    fn a_good_token_names_a_principal_its_roles_and_its_end() {
        let alice = verify(&signed(&claims(json!({})))).expect("a principal");
        assert_eq!((alice.name(), alice.claims()), ("alice", &["a".into(), "b".into()][..]));
        let left = alice.expires().expect("an end").duration_since(SystemTime::now()).expect("not yet");
        assert!(left > Duration::from_secs(500) && left <= Duration::from_secs(600), "{left:?}");
        for audience in [json!(["other", "switchyard"]), json!("switchyard")] {
            assert!(verify(&signed(&claims(json!({ "aud": audience })))).is_ok());
        }
    }

    #[test]
    fn roles_may_stand_deep_inside_or_be_written_as_scopes() {
        let roles = |claims: Value, path: &str| roles(&claims, path);
        let two: Vec<Box<str>> = vec!["a".into(), "b".into()];
        assert_eq!(roles(json!({ "realm": { "roles": ["a", "b"] } }), "realm.roles"), two);
        assert_eq!(roles(json!({ "https://x.y/roles": ["a", 1, "b"] }), "https://x.y/roles"), two);
        assert_eq!(roles(json!({ "scope": "a  b" }), "scope"), two);
        assert!(roles(json!({ "roles": { "a": 1 } }), "roles").is_empty() && roles(json!({}), "roles").is_empty());
    }

    #[test]
    fn times_have_a_leeway_and_end_there() {
        assert!(verify(&signed(&claims(json!({ "exp": now() - 20 })))).is_ok());
        assert_eq!(verify(&signed(&claims(json!({ "exp": now() - 40 })))), Err(Fault::Expired));
        assert!(verify(&signed(&claims(json!({ "nbf": now() + 20 })))).is_ok());
        let early = verify(&signed(&claims(json!({ "nbf": now() + 60 }))));
        assert_eq!(early, Err(Fault::Bad("it is not valid yet")));
    }

    #[test]
    fn every_claim_that_is_wrong_or_missing_is_refused() {
        for changed in [
            json!({ "exp": null }),
            json!({ "exp": "tomorrow" }),
            json!({ "exp": 1e300 }),
            json!({ "aud": null }),
            json!({ "aud": "other" }),
            json!({ "aud": [] }),
            json!({ "aud": { "switchyard": true } }),
            json!({ "iss": null }),
            json!({ "iss": "https://other" }),
            json!({ "iss": 7 }),
            json!({ "sub": null }),
            json!({ "sub": "" }),
            json!({ "sub": ["alice"] }),
            json!({ "sub": "a\nb" }),
            json!({ "sub": "bob\u{202e}ecila" }),
            json!({ "nbf": "yesterday" }),
        ] {
            let refused = verify(&signed(&claims(changed.clone())));
            assert!(matches!(refused, Err(Fault::Bad(_))), "{changed}: {refused:?}");
        }
    }

    #[test]
    fn a_token_without_a_signature_of_the_key_is_refused() {
        let good = signed(&claims(json!({})));
        let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let other = URL_SAFE_NO_PAD.encode(claims(json!({ "sub": "root" })).to_string());
        let foreign = encode(&Header::default(), &claims(json!({})), &EncodingKey::from_secret(&[b'x'; 32]));
        let critical = Header { crit: Some(vec!["new".into()]), ..Header::default() };
        let critical = encode(&critical, &claims(json!({})), &EncodingKey::from_secret(SECRET.as_bytes()));
        for bad in [
            format!("{none}.{payload}."),
            format!("{none}.{payload}.{signature}"),
            format!("{header}.{payload}."),
            format!("{header}.{other}.{signature}"),
            format!("{header}.{payload}.{}", &signature[1..]),
            foreign.expect("a token"),
            critical.expect("a token"),
            String::new(),
            "..".to_owned(),
            "é.é.é".to_owned(),
            format!("{good}.x"),
            "a".repeat(MAX_CREDENTIAL_BYTES + 1),
        ] {
            assert!(matches!(verify(&bad), Err(Fault::Bad(_))), "{bad}: {:?}", verify(&bad));
        }
    }

    #[test]
    fn a_public_key_is_no_secret() {
        let keys = KeySet::of_key_file(ED_PUBLIC).expect("a key");
        let own = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).expect("a key");
        let good = encode(&Header::new(Algorithm::EdDSA), &claims(json!({})), &own).expect("a token");
        assert!(verifier().verify(&keys, &good).is_ok());
        for secret in [ED_PUBLIC.as_bytes(), ED_PUBLIC.trim().as_bytes()] {
            let forged = encode(&Header::new(Algorithm::HS256), &claims(json!({})), &EncodingKey::from_secret(secret));
            let refused = verifier().verify(&keys, &forged.expect("a token"));
            assert_eq!(refused, Err(Fault::Bad("its algorithm is not that of the key")));
        }
    }
}
