//! Clients that show who they are: tokens that are renewed, sources that fail, and tokens that are not accepted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use switchyard::client::{Client, ErrorKind, Item, Live, State, Token};

use super::{Running, answer, next, numbered, texts};
use crate::{
    auth_harness::{Guarded, token, token_for},
    harness::{Folder, pause, soon, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_renewed_in_its_session_before_it_expires() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.auth.expiry_grace_ms = 0).await;
    let server = hub.server.address;
    // With and without knowing when it expires.
    tokio::join!(renews(server, "open.a", true), renews(server, "open.b", false));
}

/// Runs a client whose tokens live for 8 seconds for 18, in one session.
async fn renews(hub: SocketAddr, topic: &'static str, knows_expiry: bool) {
    let given = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&given);
    let source = move || {
        count.fetch_add(1, SeqCst);
        let life = Duration::from_secs(8);
        let token = Token::new(token_for("bob", &["reader"], life));
        let expiry = SystemTime::now() + life;
        std::future::ready(Ok(if knows_expiry { token.expires(expiry) } else { token }))
    };
    let client = Running::start(Client::builder([hub.to_string()]).name("test").token_source(source));
    let mut live = client.subscribe(Live::to([topic])).await.expect("open");
    pause(Duration::from_secs(18)).await;
    answer(client.publish(numbered(topic, 1))).await.expect("still allowed");
    let Item::Events(batch) = next(&mut live).await else { panic!("no events") };
    assert_eq!(texts(&batch), ["1"]);
    let count = given.load(SeqCst);
    assert!((3..=6).contains(&count), "{count} tokens in 18 seconds");
    assert_eq!(client.stats().sessions, 1, "in one session: {:?}", client.reasons());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_fails_is_asked_again_until_it_heals() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let heals = Arc::new(AtomicBool::new(false));
    let healed = Arc::clone(&heals);
    let source = move || {
        let token =
            if healed.load(SeqCst) { Ok(Token::new(token("bob", &["reader"]))) } else { Err("no network".into()) };
        std::future::ready(token)
    };
    let client = Running::start(Client::builder([hub.server.address.to_string()]).token_source(source));
    until("it was tried several times", async || client.reasons().len() > 3).await;
    assert!(client.reasons().iter().all(|reason| reason == "TOKEN_SOURCE"));
    heals.store(true, SeqCst);
    answer(client.publish(numbered("open.a", 1))).await.expect("published");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_fails_a_client_that_can_get_no_other() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    for (builder, reason) in [
        (Client::builder([hub.server.address.to_string()]).token("a.b.c"), "CREDENTIAL_INVALID"),
        (Client::builder([hub.server.address.to_string()]), "CREDENTIAL_MISSING"),
    ] {
        let mut client = Running::start(builder);
        let status = client.until(State::Failed).await;
        assert_eq!(status.reason.expect("a reason").reason(), reason);
        let error = soon("the task", &mut client.task).await.expect("no panic").expect_err("failed");
        assert_eq!(error.reason(), reason);
        let error = client.subscribe(Live::to(["open.>"])).await.expect_err("failed");
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Closed, reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_revoked_ends_one_subscription_and_the_others_go_on() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let roles = |roles: &'static [&'static str]| move || std::future::ready(Ok(Token::new(token("bob", roles))));
    let builder = Client::builder([hub.server.address.to_string()]).token_source(roles(&["reader", "other"]));
    let client = Running::start(builder);
    let mut stays = client.subscribe(Live::to(["open.>"])).await.expect("open");
    let mut goes = client.subscribe(Live::to(["other.>"])).await.expect("open");
    hub.set_policy(&crate::auth_harness::POLICY.replace(r#"subscribe = ["other.>"]"#, "subscribe = []"));
    let error = soon("the end", goes.next()).await.expect("an error").expect_err("an error");
    assert_eq!(error.reason(), "PERMISSION_REVOKED");
    assert!(soon("the end", goes.next()).await.is_none());
    answer(client.publish(numbered("open.a", 1))).await.expect("published");
    let Item::Events(batch) = next(&mut stays).await else { panic!("no events") };
    assert_eq!(texts(&batch), ["1"]);
}
