//! The room as a whole: callers known by what they show, and what a reload changes.

use std::{path::PathBuf, time::Duration};

use super::*;
use crate::model::{Filter, Topic};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// Files of one hub, which go with the test.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchyard-auth-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        let home = Self(path);
        home.write("key", KEY);
        home.write("tokens", "[tokens.dev]\ntoken = 'a-static-token-of-dev'\nroles = ['writer']");
        home.write(
            "policy",
            "[roles.writer]\nallow.publish = ['a.>']\n[roles.all]\nidentities = ['*']\nallow.subscribe = ['b']",
        );
        home
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("written");
    }

    fn options(&self) -> Options {
        Options {
            enabled: true,
            policy_file: self.0.join("policy"),
            jwt_key_file: self.0.join("key"),
            token_file: self.0.join("tokens"),
            ..Options::default()
        }
    }

    async fn open(&self) -> Arc<Auth> {
        let opened = Auth::open(&self.options(), &Tasks::default(), &Arc::default()).await;
        opened.expect("opened").expect("enabled")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn token(roles: &[&str], life: Duration) -> String {
    let mint = Mint {
        name: "alice".into(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        audience: "switchyard".into(),
        issuer: String::new(),
        life,
    };
    mint.sign(KEY, SystemTime::now()).expect("a token")
}

async fn caller(auth: &Arc<Auth>, header: Option<&str>) -> Result<Caller, Denial> {
    auth.authenticate("test", Shown { header: header.map(str::as_bytes), ..Shown::default() }).await
}

fn may_publish(caller: &Caller, topic: &str) -> bool {
    caller.may(&Action::Publish(Topic::parse(topic.as_bytes()).expect("a topic")))
}

#[tokio::test]
async fn callers_are_known_by_what_they_show() {
    let home = Home::new("known");
    let auth = home.open().await;
    let hour = Duration::from_secs(3600);
    let dev = caller(&auth, Some("Bearer a-static-token-of-dev")).await.expect("known");
    assert_eq!(dev.principal().to_string(), "token:dev");
    assert!(may_publish(&dev, "a.b") && !may_publish(&dev, "b"));
    // Twice: the second time from memory.
    let header = format!("bearer {}", token(&["writer"], hour));
    for _ in 0..2 {
        let alice = caller(&auth, Some(&header)).await.expect("known");
        assert_eq!(alice.principal().to_string(), "jwt:alice");
        assert!(may_publish(&alice, "a.b"));
    }
    assert_eq!(caller(&auth, None).await.expect_err("refused"), Denial::Missing);
    for bad in ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer a-static-token-of-dex", "Bearer a.b.c"] {
        assert_eq!(caller(&auth, Some(bad)).await.expect_err("refused"), Denial::Invalid, "{bad}");
    }
}

#[tokio::test]
async fn reloading_changes_rights_and_forgets_what_was_remembered() {
    let home = Home::new("reload");
    let auth = home.open().await;
    let mut files = Files::new(&home.options());
    assert!(files.read().changed);
    let mut dev = caller(&auth, Some("Bearer a-static-token-of-dev")).await.expect("known");
    assert!(!dev.refresh());

    home.write("policy", "[roles.writer]\nallow.publish = ['c']");
    assert!(files.read().changed);
    auth.replace(files.contents());
    assert!(may_publish(&dev, "a.b"), "it has the rights it had until it takes on the new ones");
    assert!(dev.refresh() && !may_publish(&dev, "a.b") && may_publish(&dev, "c"));

    // A name without a token has no rights, not even those of everybody.
    home.write("policy", "[roles.all]\nidentities = ['*']\nallow.publish = ['>']");
    home.write("tokens", "");
    assert!(files.read().changed);
    auth.replace(files.contents());
    assert!(dev.refresh() && !may_publish(&dev, "c"));
    assert_eq!(caller(&auth, Some("Bearer a-static-token-of-dev")).await.expect_err("gone"), Denial::Invalid);

    home.write("policy", "[roles.all]\nnonsense = 1");
    assert!(files.read().refused[0].contains("nonsense"));
    assert!(files.read().refused.is_empty(), "a bad file is told once");
}

#[tokio::test]
async fn a_session_is_renewed_only_for_the_same_identity() {
    let home = Home::new("renew");
    let auth = home.open().await;
    let hour = Duration::from_secs(3600);
    let header = format!("Bearer {}", token(&["writer"], hour));
    let mut alice = caller(&auth, Some(&header)).await.expect("known");
    let before = alice.principal().expires();
    alice.renew(&token(&[], 2 * hour)).await.expect("renewed");
    assert!(alice.principal().expires() > before && !may_publish(&alice, "a.b"));
    assert_eq!(alice.renew("a-static-token-of-dev").await, Err(Denial::OtherIdentity));
    assert_eq!(alice.renew("a.b.c").await, Err(Denial::Invalid));
}

#[tokio::test]
async fn a_refused_event_leaves_the_others_alone() {
    let home = Home::new("events");
    let auth = home.open().await;
    let dev = caller(&auth, Some("Bearer a-static-token-of-dev")).await.expect("known");
    let event = |topic: &'static str| {
        let spans = crate::event::Spans {
            topic: crate::event::Span { start: 0, len: topic.len() as u16 },
            ..crate::event::Spans::default()
        };
        Ok(crate::event::Event::new(topic.into(), spans, 0).expect("an event"))
    };
    let mut events = vec![event("a.b"), event("a.b"), event("b"), event("b"), event("a.c")];
    assert_eq!(dev.authorize_events(&mut events).await, Some(Denial::Topic("publish to this topic")));
    assert_eq!(events.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false, false, true]);
    assert_eq!(Caller::nobody("test", None).authorize_events(&mut events[..2]).await, None);
    assert!(events[0].is_ok());
}

#[test]
fn on_a_hub_that_asks_nobody_everything_is_allowed() {
    let nobody = Caller::nobody("test", None);
    assert!(nobody.may(&Action::ManageSessions) && nobody.ends().is_none() && nobody.may_read_every_topic());
    assert!(nobody.authorize(&Action::Subscribe { filters: &[Filter::all()], group: None }).is_ok());
}
