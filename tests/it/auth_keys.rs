//! Keys that come from an address, and keys that change.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::{
    auth_harness::{Guarded, claims, refused, token},
    harness::{Folder, until},
};

/// The first two test vectors of RFC 8032: secret and public key.
const KEYS: [(&str, &str); 2] = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ),
];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

/// A public key as a set has it.
fn public(which: usize) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(bytes(KEYS[which].1)), "kid": format!("k{which}") })
}

/// A token of the issuer, signed with a key, that says it is signed with the one named.
fn signed(issuer: &Issuer, which: usize, name: &str) -> String {
    let mut der = bytes("302e020100300506032b657004220420");
    der.extend(bytes(KEYS[which].0));
    let mut claims = claims("alice", &["reader"], 3600);
    claims["iss"] = json!(issuer.address());
    let header = Header { kid: Some(name.into()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &claims, &EncodingKey::from_ed_der(&der)).expect("a token")
}

/// A small issuer: what it answers, and how often it was asked for keys.
#[derive(Clone)]
struct Issuer {
    at: SocketAddr,
    now: Arc<Mutex<Now>>,
}

struct Now {
    answer: Option<String>,
    asked: u32,
}

impl Issuer {
    async fn start(keys: Option<Value>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let now = Now { answer: keys.map(|keys| keys.to_string()), asked: 0 };
        let issuer = Self { at: listener.local_addr().expect("an address"), now: Arc::new(Mutex::new(now)) };
        let discovery = |State(issuer): State<Issuer>| async move {
            json!({ "issuer": issuer.address(), "jwks_uri": format!("{}/keys", issuer.address()) }).to_string()
        };
        let keys = |State(issuer): State<Issuer>| async move {
            let mut now = issuer.now.lock().unwrap_or_else(PoisonError::into_inner);
            now.asked += 1;
            now.answer.clone().ok_or(StatusCode::SERVICE_UNAVAILABLE)
        };
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/moved", get(|| async { axum::response::Redirect::temporary("/keys") }))
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.expect("serving") });
        issuer
    }

    fn address(&self) -> String {
        format!("http://{}", self.at)
    }

    fn answer(&self, keys: Option<Value>) {
        self.now.lock().expect("whole").answer = keys.map(|keys| keys.to_string());
    }

    fn asked(&self) -> u32 {
        self.now.lock().expect("whole").asked
    }

    /// A hub that trusts this issuer, found by discovery.
    async fn hub(&self, folder: &Folder, refresh_ms: u64) -> Guarded {
        Guarded::start(folder, |config| {
            config.auth.jwt_key_file = std::path::PathBuf::new();
            config.auth.jwt_discovery = true;
            config.auth.jwt_issuer = self.address();
            config.auth.jwks_refresh_ms = refresh_ms;
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_new_is_fetched_when_it_is_met_and_unknown_ones_not_as_often_as_they_are() {
    let folder = Folder::new();
    let issuer = Issuer::start(Some(json!({ "keys": [public(0)] }))).await;
    let hub = issuer.hub(&folder, 3_600_000).await;
    assert_eq!(refused(&hub, &signed(&issuer, 0, "k0")).await, "");
    assert_eq!(refused(&hub, &signed(&issuer, 1, "k0")).await, "CREDENTIAL_INVALID");
    assert_eq!(issuer.asked(), 1, "a bad signature is no reason to ask");

    issuer.answer(Some(json!({ "keys": [public(1)] })));
    assert_eq!(refused(&hub, &signed(&issuer, 1, "k1")).await, "", "the new key");
    assert_eq!(refused(&hub, &signed(&issuer, 0, "k0")).await, "CREDENTIAL_INVALID", "the old key is gone");

    let (start, before) = (Instant::now(), issuer.asked());
    for n in 0..50 {
        assert_eq!(refused(&hub, &signed(&issuer, 1, &format!("made-up-{n}"))).await, "CREDENTIAL_INVALID");
    }
    let most = 1 + start.elapsed().as_secs() / 10;
    let asked = issuer.asked() - before;
    assert!(u64::from(asked) <= most, "asked {asked} times in {:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_issuer_is_away_the_keys_stay() {
    let folder = Folder::new();
    let issuer = Issuer::start(Some(json!({ "keys": [public(0)] }))).await;
    let hub = issuer.hub(&folder, 1_000).await;
    let good = signed(&issuer, 0, "k0");
    assert_eq!(refused(&hub, &good).await, "");
    let too_large = json!({ "keys": [public(1)], "more": "x".repeat(2 * 1024 * 1024) });
    for bad in [None, Some(json!({})), Some(json!({ "keys": [] })), Some(too_large)] {
        issuer.answer(bad);
        let before = issuer.asked();
        until("the hub has asked again", async || issuer.asked() >= before + 2).await;
        assert_eq!(refused(&hub, &good).await, "");
        assert_eq!(refused(&hub, &signed(&issuer, 1, "k1")).await, "CREDENTIAL_INVALID");
    }
    issuer.answer(Some(json!({ "keys": [public(0), public(1)] })));
    let new = signed(&issuer, 1, "k1");
    until("the new keys are there", async || refused(&hub, &new).await.is_empty()).await;
    assert_eq!(refused(&hub, &good).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_starts_without_its_issuer_and_waits_for_it() {
    let folder = Folder::new();
    let issuer = Issuer::start(None).await;
    let hub = issuer.hub(&folder, 1_000).await;
    let good = signed(&issuer, 0, "k0");
    assert_eq!(refused(&hub, &good).await, "CREDENTIAL_INVALID");
    issuer.answer(Some(json!({ "keys": [public(0)] })));
    until("the keys are there", async || refused(&hub, &good).await.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_fetched_from_the_address_that_was_set_and_from_no_other() {
    let folder = Folder::new();
    let issuer = Issuer::start(Some(json!({ "keys": [public(0)] }))).await;
    let hub = Guarded::start(&folder, |config| {
        config.auth.jwt_key_file = std::path::PathBuf::new();
        config.auth.jwks_url = format!("{}/moved", issuer.address());
        config.auth.jwt_issuer = issuer.address();
    })
    .await;
    assert_eq!(refused(&hub, &signed(&issuer, 0, "k0")).await, "CREDENTIAL_INVALID");
    assert_eq!(issuer.asked(), 0, "no redirect is followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_published_counts_for_nothing_and_neither_does_another_issuer() {
    let folder = Folder::new();
    let secret = json!({ "kty": "oct", "k": URL_SAFE_NO_PAD.encode([b'x'; 32]), "kid": "s" });
    let issuer = Issuer::start(Some(json!({ "keys": [public(0), secret] }))).await;
    let hub = issuer.hub(&folder, 3_600_000).await;
    let mut claims = claims("alice", &["reader"], 3600);
    claims["iss"] = json!(issuer.address());
    let header = Header { kid: Some("s".into()), ..Header::default() };
    let forged = encode(&header, &claims, &EncodingKey::from_secret(&[b'x'; 32])).expect("a token");
    assert_eq!(refused(&hub, &forged).await, "CREDENTIAL_INVALID");
    // The public key as a secret, by its name.
    let header = Header { kid: Some("k0".into()), ..Header::default() };
    let confused = encode(&header, &claims, &EncodingKey::from_secret(&bytes(KEYS[0].1))).expect("a token");
    assert_eq!(refused(&hub, &confused).await, "CREDENTIAL_INVALID");
    let other = Issuer::start(None).await;
    assert_eq!(refused(&hub, &signed(&other, 0, "k0")).await, "CREDENTIAL_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_replaced_counts_and_a_bad_one_does_not() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let old = token("alice", &["reader"]);
    assert_eq!(refused(&hub, &old).await, "");
    let key = folder.path().join("key");
    std::fs::write(&key, "too short").expect("written");
    crate::harness::pause(Duration::from_secs(3)).await;
    assert_eq!(refused(&hub, &old).await, "", "a bad file changes nothing");
    let new = "n".repeat(32);
    std::fs::write(&key, &new).expect("written");
    let new = EncodingKey::from_secret(new.as_bytes());
    let new = encode(&Header::default(), &claims("alice", &["reader"], 3600), &new).expect("a token");
    until("the new key counts", async || refused(&hub, &new).await.is_empty()).await;
    assert_eq!(refused(&hub, &old).await, "CREDENTIAL_INVALID");
}
