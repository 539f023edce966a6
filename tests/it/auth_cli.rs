//! Credentials on the command line, and the record that a real hub keeps.

use std::{
    fs::File,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Output, Stdio},
};

use crate::{
    auth_harness::{KEY, POLICY, token},
    authority::{Authority, Secret},
    harness::{Folder, program, until},
};

/// A hub of its own process that asks for credentials, and writes its log into a file.
struct Hub {
    child: Child,
    server: String,
    ops: std::net::SocketAddr,
    log: std::path::PathBuf,
}

impl Hub {
    async fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("policy.toml"), POLICY).expect("written");
        if !folder.join("key").exists() {
            std::fs::write(folder.join("key"), KEY).expect("written");
        }
        let log = folder.join("log");
        let child = program()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--ops-listen",
                "127.0.0.1:0",
                "--web-listen",
                "127.0.0.1:0",
                "--log-format",
                "json",
            ])
            .args(["--set", "auth.enabled=true", "--set", "auth.policy_file=policy.toml"])
            .args(["--set", "auth.jwt_key_file=key", "--data-dir", "data"])
            .current_dir(folder)
            .stderr(File::create(&log).expect("a log"))
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut hub = Self { child, server: String::new(), ops: std::net::SocketAddr::from(([0; 4], 0)), log };
        until("the hub serves", async || hub.lines("serving").len() == 1).await;
        let serving = hub.lines("serving");
        hub.ops = serving[0]["ops_address"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        hub.server = serving[0]["address"].as_str().expect("an address").into();
        hub
    }

    /// The lines of the log with that message.
    fn lines(&self, message: &str) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&self.log).expect("a log");
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Runs a command against it.
    async fn run(&self, args: &[&str], token: Option<&str>) -> Output {
        let mut command = program();
        command.args(args).args(["--server", &self.server]).env_remove("SWITCHYARD_TOKEN");
        if let Some(token) = token {
            command.env("SWITCHYARD_TOKEN", token);
        }
        tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ends")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_on_the_command_line_opens_what_its_roles_allow() {
    let folder = Folder::new();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let new_key = || program().args(["token", "--new-key", &path("key")]).output().expect("it runs");
    assert!(new_key().status.success());
    assert_eq!(std::fs::metadata(path("key")).expect("a key").permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(path("key")).expect("a key");
    assert!(!new_key().status.success(), "a key that is there is kept");
    assert_eq!(std::fs::read_to_string(path("key")).expect("a key"), key);

    let hub = Hub::start(folder.path()).await;
    let made = program()
        .args(["token", "--key", &path("key"), "--sub", "alice", "--role", "reader", "--ttl", "5m"])
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{}", text(&made.stderr));
    let token = text(&made.stdout).trim().to_owned();
    std::fs::write(path("token"), format!("{token}\n")).expect("written");

    let publish = |topic: &'static str| ["pub", topic, "hello"];
    let without = hub.run(&publish("open.a"), None).await;
    assert!(!without.status.success() && text(&without.stderr).contains("CREDENTIAL_MISSING"), "{without:?}");
    assert!(hub.run(&publish("open.a"), Some(&token)).await.status.success());
    let by_flag = hub.run(&["pub", "open.a", "hello", "--token", &token], None).await;
    assert!(by_flag.status.success(), "{by_flag:?}");
    let by_file = hub.run(&["pub", "open.a", "hello", "--token-file", &path("token")], None).await;
    assert!(by_file.status.success(), "{by_file:?}");
    let denied = hub.run(&publish("closed.a"), Some(&token)).await;
    assert!(!denied.status.success() && text(&denied.stderr).contains("TOPIC_DENIED"), "{denied:?}");
    let health = hub.run(&["health"], None).await;
    assert!(health.status.success(), "{health:?}");
    let bad_file = hub.run(&["pub", "open.a", "hello", "--token-file", "/nowhere/token"], None).await;
    assert!(text(&bad_file.stderr).contains("/nowhere/token"), "{bad_file:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn denies_and_management_are_on_record_without_payloads_and_tokens() {
    let folder = Folder::new();
    let hub = Hub::start(folder.path()).await;
    let (bob, root) = (token("bob", &["reader"]), token("root", &["admin"]));
    for _ in 0..15 {
        hub.run(&["pub", "closed.a", "the-payload"], Some(&bob)).await;
    }
    hub.run(&["pub", "closed.a", "the-payload"], Some("no-such-token-anywhere")).await;
    assert!(hub.run(&["stream", "create", "kept", "kept.>"], Some(&root)).await.status.success());
    until("all is on record", async || hub.lines("managed").len() == 1).await;
    // Nobody can switch it off, whatever else is no longer logged.
    let off = crate::harness::http(hub.ops, "PUT", "/log", "off,audit=off").await;
    assert!(off.starts_with("HTTP/1.1 200"), "{off}");
    let before = hub.lines("denied").len();
    hub.run(&["stream", "create", "more", "more.>"], Some(&token("mallory", &["reader"]))).await;
    until("a denial is on record all the same", async || hub.lines("denied").len() > before).await;
    let managed = &hub.lines("managed")[0];
    assert_eq!((&managed["principal"], &managed["verb"]), (&"jwt:root".into(), &"streams".into()), "{managed}");
    assert_eq!((&managed["target"], &managed["name"]), (&"audit".into(), &"kept".into()), "{managed}");
    assert!(managed["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{managed}");

    let denied = hub.lines("denied");
    let of_bob: Vec<_> = denied.iter().filter(|line| line["principal"] == "jwt:bob").collect();
    // Ten in ten seconds: all fifteen only if they took longer than that.
    assert!(!of_bob.is_empty(), "{denied:?}");
    assert_eq!((&of_bob[0]["reason"], &of_bob[0]["target"]), (&"TOPIC_DENIED".into(), &"audit".into()));
    assert_eq!(of_bob[0]["call"], "/switchyard.v1.HubService/Publish");
    assert!(of_bob[0]["why"].as_str().is_some_and(|why| why.contains("closed.a")), "{}", of_bob[0]);
    assert!(denied.iter().any(|line| line["reason"] == "CREDENTIAL_INVALID"), "{denied:?}");

    let log = std::fs::read_to_string(&hub.log).expect("a log");
    for secret in ["the-payload", "no-such-token", KEY, bob.as_str(), root.as_str()] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[test]
fn files_of_secrets_that_others_may_read_or_write_are_told() {
    let folder = Folder::new();
    let told = |key_mode: u32, policy_mode: u32| {
        let file = |option: &str, text: &str, mode: u32| {
            let path = folder.path().join(option);
            std::fs::write(&path, text).expect("written");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
            format!("auth.{option}={}", path.display())
        };
        let (policy, key) = (file("policy_file", POLICY, policy_mode), file("jwt_key_file", KEY, key_mode));
        let log = crate::tls::log_of(&["--set", "auth.enabled=true", "--set", &policy, "--set", &key]);
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let lines = lines.filter(|line| line["message"].as_str().is_some_and(|text| text.starts_with("others may")));
        lines.map(|line| line["option"].as_str().expect("an option").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(0o640, 0o644), [] as [String; 0]);
    assert_eq!(told(0o644, 0o644), ["auth.jwt_key_file"]);
    assert_eq!(told(0o600, 0o666), ["auth.policy_file"]);
}

/// The warnings that a hub logs before it serves, by their first words.
fn warnings(flags: &[&str]) -> Vec<String> {
    let log = crate::tls::log_of(flags);
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let loud = lines.filter(|line| line["level"] == "WARN" && line["message"].as_str().is_some_and(is_of_exposure));
    let told = loud.map(|line| {
        assert!(line["address"].as_str().is_some_and(|address| address.starts_with("0.0.0.0:")), "where: {line}");
        line["message"].as_str().and_then(|message| message.split(':').next()).expect("words").to_owned()
    });
    told.collect()
}

fn is_of_exposure(message: &str) -> bool {
    message.starts_with("WITHOUT ")
}

#[test]
fn a_hub_that_others_can_reach_says_loudly_what_it_does_not_ask_for() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("written");
        format!("auth.{}={}", name, folder.path().join(name).display())
    };
    let (policy, key) = (file("policy_file", POLICY), file("jwt_key_file", KEY));
    let auth = ["--set", "auth.enabled=true", "--set", &policy, "--set", &key];
    let exposed = ["--listen", "0.0.0.0:0"];
    let inside = ["--listen", "127.0.0.1:0"];
    assert_eq!(warnings(&exposed), ["WITHOUT AUTHENTICATION", "WITHOUT TLS"]);
    assert_eq!(warnings(&[&exposed[..], &auth].concat()), ["WITHOUT TLS"]);
    assert_eq!(warnings(&inside), [] as [String; 0]);
    let authority = Authority::new("ours");
    let secret = Secret::new(&authority.server(), "");
    let tls = [("cert_file", "tls.crt"), ("key_file", "tls.key")]
        .map(|(key, name)| format!("tls.{key}={}", secret.path(name).display()));
    let tls = ["--set", &tls[0], "--set", &tls[1]];
    assert_eq!(warnings(&[&exposed[..], &tls].concat()), ["WITHOUT AUTHENTICATION"]);
    assert_eq!(warnings(&[&exposed[..], &tls, &auth].concat()), [] as [String; 0]);
}
