//! Sessions whose credential or policy changes while they run: only what is no longer allowed ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use switchyard::proto::v1::{
    self, Ended, SubscriptionSpec, session_request::Command as Wire, session_response::Frame,
    stream_service_client::StreamServiceClient,
};
use tonic::{Code, Request};

use crate::{
    auth_harness::{Guarded, POLICY, bear, token, token_for},
    harness::{
        Folder, Session, channel, client, event, metric, pause, publish, reason, reason_of_call, soon, spec, texts,
        until,
    },
};

async fn authenticate(session: &Session, token: String) {
    session.send(0, Wire::Authenticate(v1::Authenticate { token })).await;
}

/// Reads until a subscription ends; what comes before that, but for events and heartbeats, is a failure.
async fn until_ended(session: &mut Session) -> Ended {
    loop {
        match session.frame().await.frame {
            Some(Frame::Ended(ended)) => return ended,
            Some(Frame::Events(_) | Frame::Heartbeat(_) | Frame::Progress(_) | Frame::CredentialExpiring(_)) => {}
            other => panic!("not an end: {other:?}"),
        }
    }
}

fn why(ended: &Ended) -> (i64, String) {
    (ended.subscription_id, reason(ended.status.as_ref().expect("a status")))
}

/// The reason for which a publish of one event over the session is refused; empty when it is not.
async fn refused(session: &mut Session, topic: &str) -> String {
    session.send(9, Wire::Publish(publish(vec![event(topic, "x")]))).await;
    loop {
        match session.frame().await.frame {
            Some(Frame::Published(response)) => {
                return response.results[0].status.as_ref().map(reason).unwrap_or_default();
            }
            Some(Frame::Events(_) | Frame::Heartbeat(_) | Frame::CredentialExpiring(_)) => {}
            other => panic!("not published: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_mid_session_and_is_renewed_costs_nothing() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.auth.expiry_grace_ms = 6_000).await;
    let life = Duration::from_secs(10);
    let mut session = hub.open(&token_for("bob", &["reader"], life)).await;
    let Some(Frame::Welcome(welcome)) = session.frame().await.frame else { panic!("not a welcome") };
    let expiry = SystemTime::try_from(welcome.credential_expiry.expect("an expiry")).expect("a time");
    session.subscribe(1, spec(&["open.>"])).await;
    let Some(Frame::CredentialExpiring(warning)) = session.frame().await.frame else { panic!("not a warning") };
    assert_eq!(SystemTime::try_from(warning.deadline.expect("a deadline")), Ok(expiry));
    let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    assert!(left < life.mul_f64(0.21), "too early: {left:?} left");

    authenticate(&session, token("bob", &["reader"])).await;
    // Past the end of the first token, and of what is granted beyond it.
    pause(expiry.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(8)).await;
    hub.publish("root", "open.a", "still here").await;
    assert_eq!(texts(&session.events().await), ["still here"]);
    assert_eq!(refused(&mut session, "open.b").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_and_is_not_renewed_ends_subscriptions_and_publishes_but_not_the_session() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.auth.expiry_grace_ms = 0).await;
    let short = token_for("bob", &["reader"], Duration::from_secs(8));
    let mut session = hub.session(&short).await;
    session.subscribe(1, spec(&["open.>"])).await;
    assert_eq!(why(&until_ended(&mut session).await), (1, "CREDENTIAL_EXPIRED".into()));
    assert_eq!(refused(&mut session, "open.a").await, "CREDENTIAL_EXPIRED");
    session.send(1, Wire::Subscribe(v1::Subscribe { subscription_id: 2, spec: Some(spec(&["open.>"])) })).await;
    assert_eq!(why(&until_ended(&mut session).await), (2, "CREDENTIAL_EXPIRED".into()));
    session.send(4, Wire::Authenticate(v1::Authenticate { token: short })).await;
    assert_eq!(reason(&session.error().await.1), "CREDENTIAL_EXPIRED");
    authenticate(&session, token("bob", &["reader"])).await;
    assert_eq!(refused(&mut session, "open.a").await, "");
    session.subscribe(1, spec(&["open.>"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_fewer_rights_only_the_forbidden_subscription_ends() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let mut session = hub.session(&token("bob", &["reader", "other"])).await;
    session.subscribe(1, spec(&["open.>"])).await;
    session.subscribe(2, spec(&["other.>"])).await;
    session.subscribe(3, spec(&["other.a", "open.b"])).await;
    // What is of somebody else, or of nobody, changes nothing.
    for bad in [token("mallory", &["admin"]), "a.b.c".to_owned()] {
        session.send(4, Wire::Authenticate(v1::Authenticate { token: bad })).await;
        assert_eq!(reason(&session.error().await.1), "CREDENTIAL_INVALID");
    }
    authenticate(&session, token("bob", &["reader"])).await;
    let mut ends = vec![why(&until_ended(&mut session).await), why(&until_ended(&mut session).await)];
    ends.sort();
    assert_eq!(ends, [(2, "PERMISSION_REVOKED".into()), (3, "PERMISSION_REVOKED".into())]);
    hub.publish("root", "other.a", "not for you").await;
    hub.publish("root", "open.a", "for you").await;
    let events = session.events().await;
    assert_eq!((events.subscription_id, texts(&events)), (1, vec!["for you".to_owned()]));
    // With more rights again, what ended can be opened again.
    authenticate(&session, token("bob", &["reader", "other"])).await;
    session.subscribe(2, spec(&["other.>"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_is_limited_in_size() {
    use switchyard::model::limits::MAX_CREDENTIAL_BYTES;
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let mut session = hub.session(&token("bob", &["reader"])).await;
    for (bytes, expected) in [
        (MAX_CREDENTIAL_BYTES, "CREDENTIAL_INVALID"),
        (MAX_CREDENTIAL_BYTES + 1, "MALFORMED_COMMAND"),
        (0, "MALFORMED_COMMAND"),
    ] {
        session.send(4, Wire::Authenticate(v1::Authenticate { token: "x".repeat(bytes) })).await;
        assert_eq!(reason(&session.error().await.1), expected, "{bytes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_are_judged_again_as_they_were_changed() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let mut session = hub.session(&token("bob", &["reader", "other"])).await;
    session.subscribe(1, spec(&["other.>"])).await;
    session.subscribe(2, spec(&["open.>"])).await;
    for (subscription_id, filter) in [(1, "open.a"), (2, "other.a")] {
        let update = v1::Update { subscription_id, filters: vec![filter.into()], ..Default::default() };
        session.send(3, Wire::Update(update)).await;
        assert!(matches!(session.frame().await.frame, Some(Frame::Subscribed(_))));
    }
    authenticate(&session, token("bob", &["reader"])).await;
    assert_eq!(why(&until_ended(&mut session).await), (2, "PERMISSION_REVOKED".into()));
    hub.publish("root", "open.a", "for you").await;
    assert_eq!(texts(&session.events().await), ["for you"]);
}

const MOST_SESSIONS: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_swapped_under_load_drops_no_session_and_counts_at_once() {
    let folder = Folder::new();
    let hub = Arc::new(Guarded::start(&folder, |_| {}).await);
    let mut sessions = Vec::new();
    for n in 0..MOST_SESSIONS {
        let mut session = hub.session(&token(&format!("c{n}"), &["reader", "other"])).await;
        session.subscribe(1, spec(&["open.>"])).await;
        session.subscribe(2, spec(&["other.>"])).await;
        sessions.push(session);
    }
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = {
        let (hub, stop, sent) = (Arc::clone(&hub), Arc::clone(&stop), Arc::clone(&sent));
        tokio::spawn(async move {
            let mut publisher = hub.session(&token("root", &["admin"])).await;
            while !stop.load(Ordering::Relaxed) {
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let results = publisher.publish(vec![event("open.a", number.to_string())]).await;
                assert!(results.results[0].status.is_none(), "{results:?}");
            }
        })
    };
    until("events are flowing", async || sent.load(Ordering::Relaxed) > 50).await;
    hub.set_policy(&format!("{}\n[roles.late.allow]\nsubscribe = ['late.>']", POLICY.replace("other.>", "another.>")));
    let readers = sessions.into_iter().map(|mut session| async move {
        let (mut next, mut ended) = (None, false);
        let mut after = 0;
        // Some events after the end show that the rest goes on.
        while after < 20 {
            match session.frame().await.frame {
                Some(Frame::Events(events)) => {
                    for text in texts(&events) {
                        let number: u64 = text.parse().expect("a number");
                        assert!(next.is_none_or(|next| next == number), "{number} instead of {next:?}");
                        next = Some(number + 1);
                        after += u32::from(ended);
                    }
                }
                Some(Frame::Ended(end)) => {
                    assert_eq!(why(&end), (2, "PERMISSION_REVOKED".to_owned()));
                    ended = true;
                }
                Some(Frame::Heartbeat(_)) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
        session
    });
    let readers: tokio::task::JoinSet<Session> = readers.collect();
    let sessions = soon("the ends of all", readers.join_all()).await;
    assert_eq!(metric(&hub.server, "switchyard_sessions_closed_total").await, 0);
    assert_eq!(sessions.len(), MOST_SESSIONS);
    stop.store(true, Ordering::Relaxed);
    load.await.expect("the load went well");
    // New sessions, and old ones, have the new rights.
    let mut late = hub.session(&token("d", &["late"])).await;
    late.subscribe(1, spec(&["late.a"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_policy_is_refused_and_the_old_one_stays() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let mut session = hub.session(&token("bob", &["reader", "late"])).await;
    hub.set_policy("[roles.reader]\nallow.everything = true");
    // The next good one shows that the bad one was looked at before it, or not at all.
    pause(Duration::from_secs(3)).await;
    assert_eq!(refused(&mut session, "open.a").await, "");
    hub.set_policy(&format!("{POLICY}\n[roles.late.allow]\npublish = ['late.>']"));
    until("the new policy counts", async || refused(&mut session, "late.a").await.is_empty()).await;
    hub.set_policy("");
    until("nothing is allowed", async || refused(&mut session, "open.a").await == "TOPIC_DENIED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribe_call_ends_with_the_reason() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| config.auth.expiry_grace_ms = 0).await;
    let mut client = client(hub.server.address).await;
    let open = async |client: &mut v1::hub_service_client::HubServiceClient<_>, token: String| {
        let mut request = Request::new(v1::SubscribeRequest { spec: Some(spec(&["open.>"])) });
        bear(&mut request, &token);
        client.subscribe(request).await.expect("open").into_inner()
    };
    let mut expiring = open(&mut client, token_for("bob", &["reader"], Duration::from_secs(8))).await;
    let mut revoked = open(&mut client, token("bob", &["reader"])).await;
    let end = async |frames: &mut tonic::Streaming<v1::SubscribeResponse>| loop {
        match soon("a frame", frames.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => return (status.code(), reason_of_call(&status)),
        }
    };
    assert_eq!(end(&mut expiring).await, (Code::Unauthenticated, "CREDENTIAL_EXPIRED".into()));
    hub.set_policy("");
    assert_eq!(end(&mut revoked).await, (Code::PermissionDenied, "PERMISSION_REVOKED".into()));
}

/// A stream `vault` of `vault.>`.
async fn with_stream(hub: &Guarded) {
    let stream = v1::Stream { name: "vault".into(), filters: vec!["vault.>".into()], ..Default::default() };
    let mut request = Request::new(v1::CreateStreamRequest { stream: Some(stream) });
    bear(&mut request, &token("root", &["admin"]));
    StreamServiceClient::new(channel(hub.server.address).await).create_stream(request).await.expect("created");
}

fn of_vault(filters: &[&str]) -> SubscriptionSpec {
    let start = v1::start_position::Position::Preset(v1::StartPreset::Earliest.into());
    let start = Some(v1::StartPosition { position: Some(start) });
    SubscriptionSpec { stream: "vault".into(), start, ..spec(filters) }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_stream_ends_its_readers_and_a_member_gives_back_what_it_has() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    with_stream(&hub).await;
    let member = SubscriptionSpec { group: "team".into(), ack_mode: v1::AckMode::Explicit.into(), ..of_vault(&[]) };
    let mut bob = hub.session(&token("bob", &["reader", "works-vault"])).await;
    bob.subscribe(2, member.clone()).await;
    bob.subscribe(3, spec(&["open.>"])).await;
    // Last: it tells its progress at once.
    bob.subscribe(1, of_vault(&[])).await;
    hub.publish("root", "vault.a", "work").await;
    until("both have it", async || metric(&hub.server, "switchyard_events_out_total").await >= 2).await;

    authenticate(&bob, token("bob", &["reader"])).await;
    let mut ends = vec![why(&until_ended(&mut bob).await), why(&until_ended(&mut bob).await)];
    ends.sort();
    assert_eq!(ends, [(1, "PERMISSION_REVOKED".into()), (2, "PERMISSION_REVOKED".into())]);
    // Nobody has acknowledged it: another member gets it, and bob may not.
    let mut carol = hub.session(&token("carol", &["works-vault"])).await;
    carol.subscribe(1, member).await;
    assert_eq!(texts(&carol.events().await), ["work"]);
    let acknowledge = v1::Acknowledge { subscription_id: 2, sequences: vec![1], ..Default::default() };
    bob.send(7, Wire::Acknowledge(acknowledge)).await;
    assert_eq!(reason(&bob.error().await.1), "SUBSCRIPTION_NOT_FOUND");
    hub.publish("root", "open.a", "still here").await;
    assert_eq!(texts(&bob.events().await), ["still here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_more_topics_shows_them_to_nobody_who_may_not_read_them() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    with_stream(&hub).await;
    let mut bob = hub.session(&token("bob", &["reads-vault"])).await;
    bob.subscribe(1, of_vault(&[])).await;
    let stream =
        v1::Stream { name: "vault".into(), filters: vec!["vault.>".into(), "cellar.>".into()], ..Default::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["filters".into()] });
    let mut request = Request::new(v1::UpdateStreamRequest { stream: Some(stream), update_mask });
    bear(&mut request, &token("root", &["admin"]));
    StreamServiceClient::new(channel(hub.server.address).await).update_stream(request).await.expect("updated");
    hub.publish("root", "cellar.a", "not for you").await;
    hub.publish("root", "vault.a", "for you").await;
    loop {
        match bob.frame().await.frame {
            Some(Frame::Events(events)) => break assert_eq!(texts(&events), ["for you"]),
            Some(Frame::Progress(_) | Frame::Heartbeat(_)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    // Who comes now may not read all of it, and may read a part.
    let mut late = hub.session(&token("bob", &["reads-vault"])).await;
    late.send(1, Wire::Subscribe(v1::Subscribe { subscription_id: 1, spec: Some(of_vault(&[])) })).await;
    assert_eq!(why(&until_ended(&mut late).await), (1, "TOPIC_DENIED".into()));
    late.subscribe(1, of_vault(&["vault.>"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_token_that_is_taken_away_takes_its_rights_with_it() {
    let folder = Folder::new();
    let tokens = folder.path().join("tokens.toml");
    std::fs::write(&tokens, "[tokens.dev]\ntoken = 'a-static-token-of-dev'\nroles = ['reader']").expect("written");
    let hub = Guarded::start(&folder, |config| config.auth.token_file.clone_from(&tokens)).await;
    let mut dev = hub.session("a-static-token-of-dev").await;
    dev.subscribe(1, spec(&["open.>"])).await;
    assert_eq!(refused(&mut dev, "open.a").await, "");
    std::fs::write(&tokens, "").expect("written");
    assert_eq!(why(&until_ended(&mut dev).await), (1, "PERMISSION_REVOKED".into()));
    assert_eq!(refused(&mut dev, "open.a").await, "TOPIC_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_policy_does_not_hold_back_a_token_that_is_taken_away() {
    let folder = Folder::new();
    let tokens = folder.path().join("tokens.toml");
    std::fs::write(&tokens, "[tokens.dev]\ntoken = 'a-static-token-of-dev'\nroles = ['reader']").expect("written");
    let hub = Guarded::start(&folder, |config| config.auth.token_file.clone_from(&tokens)).await;
    let mut dev = hub.session("a-static-token-of-dev").await;
    let mut bob = hub.session(&token("bob", &["reader"])).await;
    dev.subscribe(1, spec(&["open.>"])).await;
    hub.set_policy("[roles.reader");
    std::fs::write(&tokens, "").expect("written");
    assert_eq!(why(&until_ended(&mut dev).await), (1, "PERMISSION_REVOKED".into()));
    assert_eq!(refused(&mut bob, "open.a").await, "", "the policy from before is in force");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_gives_up_only_to_a_stream_that_its_manager_manages_too() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |config| {
        let policy = format!(
            "{}\n[roles.groups.allow]\nstreams = ['*']\nsubscribe = ['>']\nmanage = ['groups', 'streams:lost']",
            crate::auth_harness::POLICY
        );
        std::fs::write(&config.auth.policy_file, policy).expect("written");
    })
    .await;
    with_stream(&hub).await;
    for name in ["lost", "audit"] {
        let stream = v1::Stream { name: name.into(), filters: vec![format!("{name}.>")], ..Default::default() };
        let mut request = Request::new(v1::CreateStreamRequest { stream: Some(stream) });
        bear(&mut request, &token("root", &["admin"]));
        StreamServiceClient::new(channel(hub.server.address).await).create_stream(request).await.expect("created");
    }
    let mut groups = v1::group_service_client::GroupServiceClient::new(channel(hub.server.address).await);
    let group = |to: &str| v1::Group {
        stream: "vault".into(),
        name: "g".into(),
        dead_letter_stream: to.into(),
        ..Default::default()
    };
    for (to, expected) in [("audit", "ACTION_DENIED"), ("nowhere", "ACTION_DENIED"), ("lost", "")] {
        let mut request = Request::new(v1::CreateGroupRequest { group: Some(group(to)), start: None });
        bear(&mut request, &token("greta", &["groups"]));
        let created = groups.create_group(request).await;
        assert_eq!(created.err().map(|status| reason_of_call(&status)).unwrap_or_default(), expected, "{to}");
    }
    let update_mask = Some(prost_types::FieldMask { paths: vec!["dead_letter_stream".into()] });
    let mut request = Request::new(v1::UpdateGroupRequest { group: Some(group("audit")), update_mask });
    bear(&mut request, &token("greta", &["groups"]));
    let refused = groups.update_group(request).await.expect_err("refused");
    assert_eq!(reason_of_call(&refused), "ACTION_DENIED");
}
