//! Signed tokens of every kind: what a hub takes with which key, and what it takes for no credential, whether it comes with a
//! call or in a running session.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use switchyard::proto::v1::{self, session_request::Command as Wire, session_response::Frame};
use tonic::Code;

use crate::{
    auth_harness::{Guarded, bad_credentials, claims, code_of, refused, token},
    harness::{Folder, event, metric, reason, spec, texts},
};

/// A key of an issuer, made for one test.
struct Key {
    name: &'static str,
    algorithms: &'static [Algorithm],
    private: EncodingKey,
    public_pem: String,
    /// As a set has it.
    public: Value,
}

impl Key {
    /// One of every kind that hubs know.
    fn all() -> [Self; 4] {
        let new = |kind| KeyPair::generate_for(kind).expect("a key");
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let [rsa, p256, p384, ed] =
            [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519].map(new);

        let private = EncodingKey::from_rsa_pem(rsa.serialize_pem().as_bytes()).expect("a key");
        let jwk = Jwk::from_encoding_key(&private, Algorithm::RS256).expect("its public half");
        let public = serde_json::to_value(jwk.algorithm).expect("JSON");
        let algorithms = &[Algorithm::RS256, Algorithm::PS256];
        let rsa = Self { name: "rsa", algorithms, private, public_pem: rsa.public_key_pem(), public };

        let elliptic = |name, pair: &KeyPair, curve, algorithms| {
            let (x, y) = pair.public_key_raw()[1..].split_at(pair.public_key_raw().len() / 2);
            let public = json!({ "kty": "EC", "crv": curve, "x": text(x), "y": text(y) });
            let private = EncodingKey::from_ec_der(pair.serialized_der());
            Self { name, algorithms, private, public_pem: pair.public_key_pem(), public }
        };
        let p256 = elliptic("p256", &p256, "P-256", &[Algorithm::ES256][..]);
        let p384 = elliptic("p384", &p384, "P-384", &[Algorithm::ES384][..]);

        let public = json!({ "kty": "OKP", "crv": "Ed25519", "x": text(ed.public_key_raw()) });
        let private = EncodingKey::from_ed_der(ed.serialized_der());
        let algorithms = &[Algorithm::EdDSA];
        let ed = Self { name: "ed", algorithms, private, public_pem: ed.public_key_pem(), public };
        [rsa, p256, p384, ed]
    }

    /// The key of a set, by its name.
    fn in_a_set(&self) -> Value {
        let mut key = self.public.clone();
        key["kid"] = json!(self.name);
        key
    }

    /// A token of one who may publish to `open.>`, that says it is signed with the key of a name.
    fn sign(&self, algorithm: Algorithm, name: Option<&str>) -> String {
        let header = Header { kid: name.map(str::to_owned), ..Header::new(algorithm) };
        encode(&header, &claims("alice", &["reader"], 3600), &self.private).expect("a token")
    }
}

/// A token as somebody would change it who has no key.
fn tampered(good: &str) -> Vec<String> {
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    let with = |bytes: &[u8]| format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode(bytes));
    let mut one_bit = bytes.clone();
    one_bit[bytes.len() / 2] ^= 1;
    let more = URL_SAFE_NO_PAD.encode(claims("alice", &["admin"], 3600).to_string());
    let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none" }).to_string());
    vec![
        format!("{header}.{more}.{signature}"),
        with(&one_bit),
        with(&bytes[1..]),
        // Zeros satisfy a check of ES that forgets to look at them.
        with(&vec![0; bytes.len()]),
        with(&[]),
        format!("{none}.{payload}.{signature}"),
        format!("{none}.{payload}."),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_of_every_kind_is_good_for_its_own_tokens_and_no_others() {
    let keys = Key::all();
    for key in &keys {
        let folder = Folder::new();
        let hub = Guarded::start(&folder, |config| {
            std::fs::write(&config.auth.jwt_key_file, &key.public_pem).expect("written");
        })
        .await;
        for other in &keys {
            for algorithm in other.algorithms {
                let good = other.sign(*algorithm, None);
                let expected = if other.name == key.name { "" } else { "CREDENTIAL_INVALID" };
                assert_eq!(refused(&hub, &good).await, expected, "{algorithm:?} with a key file of {}", key.name);
                for bad in tampered(&good) {
                    assert_eq!(refused(&hub, &bad).await, "CREDENTIAL_INVALID", "{algorithm:?}, {}: {bad}", key.name);
                }
            }
        }
        // Another key of the same kind.
        for other in Key::all().into_iter().filter(|other| other.name == key.name) {
            let foreign = other.sign(other.algorithms[0], None);
            assert_eq!(refused(&hub, &foreign).await, "CREDENTIAL_INVALID", "another key: {}", key.name);
        }
        // The public key, which everybody may know, as a secret.
        let secret = EncodingKey::from_secret(key.public_pem.as_bytes());
        let confused = encode(&Header::default(), &claims("alice", &["reader"], 3600), &secret).expect("a token");
        assert_eq!(refused(&hub, &confused).await, "CREDENTIAL_INVALID", "HS256 with a key file of {}", key.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_takes_tokens_of_all_its_keys_each_by_its_own_name() {
    let (folder, keys) = (Folder::new(), Key::all());
    let hub = Guarded::start(&folder, |config| {
        config.auth.jwt_key_file = std::path::PathBuf::new();
        config.auth.jwks_file = folder.path().join("keys.json");
        let set = json!({ "keys": keys.iter().map(Key::in_a_set).collect::<Vec<_>>() });
        std::fs::write(&config.auth.jwks_file, set.to_string()).expect("written");
    })
    .await;
    for key in &keys {
        for algorithm in key.algorithms {
            for name in [None, Some(key.name)] {
                let good = key.sign(*algorithm, name);
                assert_eq!(refused(&hub, &good).await, "", "{algorithm:?} of {name:?}");
                for bad in tampered(&good) {
                    assert_eq!(refused(&hub, &bad).await, "CREDENTIAL_INVALID", "{algorithm:?} of {name:?}: {bad}");
                }
            }
            for other in keys.iter().filter(|other| other.name != key.name) {
                let misnamed = key.sign(*algorithm, Some(other.name));
                assert_eq!(refused(&hub, &misnamed).await, "CREDENTIAL_INVALID", "{algorithm:?} as {}", other.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_credential_changes_nothing_in_a_running_session() {
    let folder = Folder::new();
    let hub = crate::auth::vault(&folder).await;
    let mut session = hub.session(&token("bob", &["reader"])).await;
    session.subscribe(1, spec(&["open.>"])).await;
    let more = &["reader", "admin"];
    for (kind, header, expected) in bad_credentials("bob", more) {
        // What stands behind the scheme, or all of it where it is another one.
        let shown = header.unwrap_or_default();
        let shown = shown.strip_prefix("Bearer ").unwrap_or(&shown);
        let (code, expected) = match shown {
            "" => (Code::InvalidArgument, "MALFORMED_COMMAND"),
            _ => (code_of(expected), expected),
        };
        let denied = metric(&hub.server, "switchyard_denied_total").await;
        // Nobody waits for an answer, and yet there is one.
        session.send(0, Wire::Authenticate(v1::Authenticate { token: shown.into() })).await;
        let (request_id, status) = session.error().await;
        assert_eq!((request_id, Code::from_i32(status.code)), (0, code), "{kind}: {status:?}");
        assert_eq!(reason(&status), expected, "{kind}");
        let said = format!("{} {}", status.message, String::from_utf8_lossy(&prost::Message::encode_to_vec(&status)));
        for leak in ["bob", "audience", "signature", shown] {
            assert!(leak.is_empty() || !said.contains(leak), "{kind} tells {leak}: {said}");
        }
        let counted = u64::from(code == Code::Unauthenticated);
        assert_eq!(metric(&hub.server, "switchyard_denied_total").await, denied + counted, "{kind}");

        // The session goes on as who it was, with the rights it had.
        let results = session.publish(vec![event("vault.secret", "x")]).await.results;
        assert_eq!(reason(results[0].status.as_ref().expect("refused")), "TOPIC_DENIED", "{kind}");
        hub.publish("root", "open.a", kind).await;
        assert_eq!(texts(&session.events().await), [kind]);
    }
    // A good one of the same caller is taken all the same.
    session.send(0, Wire::Authenticate(v1::Authenticate { token: token("bob", more) })).await;
    let results = session.publish(vec![event("vault.secret", "x")]).await.results;
    assert!(results[0].status.is_none(), "{results:?}");
    session.send(1, Wire::Ping(v1::Ping::default())).await;
    assert!(matches!(session.frame().await.frame, Some(Frame::Pong(_))));
}
