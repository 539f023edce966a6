//! A hub that asks for credentials, and credentials for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use switchyard::{
    auth::Mint,
    config::Config,
    proto::v1::session_response::Frame,
    server::{self, Server},
};
use tonic::{Code, Request};

use crate::harness::{Folder, Session, client, config, event, publish, reason_of_call, soon};

/// The secret that tokens are signed with.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Who may do what in these tests.
pub const POLICY: &str = r#"
[roles.admin.allow]
publish = [">"]
subscribe = [">"]
streams = ["*"]
groups = ["*"]
manage = ["streams", "groups", "dead_letters", "sessions", "backup"]

[roles.reader.allow]
publish = ["open.>"]
subscribe = ["open.>"]

[roles.other.allow]
subscribe = ["other.>"]

[roles.stream-only.allow]
streams = ["vault"]

[roles.topics-only.allow]
subscribe = ["vault.>"]

[roles.reads-vault.allow]
subscribe = ["vault.>"]
streams = ["vault"]

[roles.reads-secret.allow]
subscribe = ["vault.secret"]
streams = ["vault"]

[roles.works-vault.allow]
subscribe = ["vault.>"]
streams = ["vault"]
groups = ["vault/team"]
"#;

/// A hub that asks for credentials.
pub struct Guarded {
    pub server: Server,
    pub folder: std::path::PathBuf,
}

impl Guarded {
    /// Options of such a hub, whose files are in the folder.
    pub fn config(folder: &Folder) -> Config {
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("policy.toml"), POLICY).expect("written");
        std::fs::write(path("key"), KEY).expect("written");
        let mut config = config();
        config.data_dir = path("data");
        // No heartbeat stands between what is waited for.
        config.sessions.heartbeat_interval_ms = 600_000;
        config.auth.enabled = true;
        config.auth.policy_file = path("policy.toml");
        config.auth.jwt_key_file = path("key");
        config.auth.jwt_leeway_ms = 0;
        config
    }

    pub async fn start(folder: &Folder, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Self::config(folder);
        change(&mut config);
        Self { server: server::start(config).await.expect("a hub starts"), folder: folder.path().to_owned() }
    }

    /// What a caller shows.
    pub fn header(&self, name: &str, roles: &[&str]) -> String {
        format!("Bearer {}", token(name, roles))
    }

    /// Another policy, from now on, or a little later.
    pub fn set_policy(&self, text: &str) {
        // As Kubernetes does it: the file is replaced, not written.
        let new = self.folder.join("policy.new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(new, self.folder.join("policy.toml")).expect("replaced");
    }

    /// A session of the bearer of a token, on a connection of its own.
    pub async fn session(&self, token: &str) -> Session {
        let mut session = self.open(token).await;
        match session.frame().await.frame {
            Some(Frame::Welcome(_)) => session,
            other => panic!("not a welcome: {other:?}"),
        }
    }

    /// The same, of which nothing is read yet.
    pub async fn open(&self, token: &str) -> Session {
        let mut client = client(self.server.address).await;
        let (commands, receiver) = tokio::sync::mpsc::channel(64);
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        bear(&mut request, token);
        let response = soon("headers", client.session(request)).await.expect("a session");
        Session { commands: Some(commands), frames: response.into_inner(), id: String::new() }
    }

    /// Publishes as somebody who may do everything.
    pub async fn publish(&self, name: &str, topic: &str, text: &str) {
        let mut request = Request::new(publish(vec![event(topic, text)]));
        bear(&mut request, &token(name, &["admin"]));
        client(self.server.address).await.publish(request).await.expect("published");
    }
}

/// Puts a token before a call.
pub fn bear<T>(request: &mut Request<T>, token: &str) {
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
}

/// Claims that the hub takes, good for so many seconds.
pub fn claims(name: &str, roles: &[&str], seconds: i64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
    json!({ "sub": name, "aud": "switchyard", "exp": now + seconds, "roles": roles })
}

/// A token that is good for an hour.
pub fn token(name: &str, roles: &[&str]) -> String {
    token_for(name, roles, Duration::from_secs(3600))
}

/// A token that is good for so long.
pub fn token_for(name: &str, roles: &[&str], life: Duration) -> String {
    let mint = Mint {
        name: name.into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        audience: "switchyard".into(),
        issuer: String::new(),
        life,
    };
    mint.sign(KEY, SystemTime::now()).expect("a token")
}

/// What is no credential, as the value of a header, and the reason it is refused for. The tampered one claims to be an
/// administrator.
pub fn bad_credentials(name: &str, roles: &[&str]) -> Vec<(&'static str, Option<String>, &'static str)> {
    let good = token(name, roles);
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let encoded = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let of_key = |key: &str, claims: &Value| {
        let key = jsonwebtoken::EncodingKey::from_secret(key.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).expect("a token")
    };
    let forged = encoded(claims(name, &["admin"], 7200));
    let mut other = claims(name, roles, 3600);
    other["aud"] = json!("another-hub");
    let bearer = |token: String| Some(format!("Bearer {token}"));
    vec![
        ("none", None, "CREDENTIAL_MISSING"),
        ("expired", bearer(of_key(KEY, &claims(name, roles, -3600))), "CREDENTIAL_EXPIRED"),
        ("wrong audience", bearer(of_key(KEY, &other)), "CREDENTIAL_INVALID"),
        ("wrong key", bearer(of_key(&"x".repeat(32), &claims(name, roles, 3600))), "CREDENTIAL_INVALID"),
        ("alg none", bearer(format!("{}.{payload}.", encoded(json!({ "alg": "none" })))), "CREDENTIAL_INVALID"),
        ("tampered", bearer(format!("{header}.{forged}.{signature}")), "CREDENTIAL_INVALID"),
        ("unsigned", bearer(format!("{header}.{payload}.")), "CREDENTIAL_INVALID"),
        ("static token", bearer("no-such-static-token".into()), "CREDENTIAL_INVALID"),
        ("another scheme", Some(format!("Basic {good}")), "CREDENTIAL_INVALID"),
    ]
}

/// The code that goes with a reason.
pub fn code_of(reason: &str) -> Code {
    if reason.starts_with("CREDENTIAL") { Code::Unauthenticated } else { Code::PermissionDenied }
}

/// The reason for which a token is refused; empty when it is not.
pub async fn refused(hub: &Guarded, token: &str) -> String {
    let mut request = Request::new(publish(vec![event("open.a", "x")]));
    bear(&mut request, token);
    let answer = soon("an answer", client(hub.server.address).await.publish(request)).await;
    answer.err().map(|status| reason_of_call(&status)).unwrap_or_default()
}
