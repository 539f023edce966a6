//! What a caller may ask about the hub and about itself: GetHub, WhoAmI, Check.

use std::time::{Duration, SystemTime};

use switchyard::{
    model::Alternatives,
    proto::v1::{
        AccessAction, CheckRequest, CheckResponse, EndReason, GetHubRequest, Hub, HubFeature, WhoAmIRequest,
        WhoAmIResponse, access_service_client::AccessServiceClient, session_response::Frame,
    },
};
use tonic::{Code, Request, Status};

use crate::{
    auth_harness::{Guarded, POLICY, bear, token, token_for},
    harness::{
        Folder, Session, channel, client, event, http_get, hub_with, publish, reason_of_call, soon, spec, until,
    },
    stored::{create, hub_on, stream},
};

fn bearing<T>(token: Option<&str>, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        bear(&mut request, token);
    }
    request
}

async fn who_am_i(address: std::net::SocketAddr, token: Option<&str>) -> WhoAmIResponse {
    let mut client = AccessServiceClient::new(channel(address).await);
    client.who_am_i(bearing(token, WhoAmIRequest {})).await.expect("known").into_inner()
}

async fn ask(
    address: std::net::SocketAddr,
    token: Option<&str>,
    question: CheckRequest,
) -> Result<CheckResponse, Status> {
    let mut client = AccessServiceClient::new(channel(address).await);
    Ok(client.check(bearing(token, question)).await?.into_inner())
}

async fn get_hub(address: std::net::SocketAddr, token: Option<&str>) -> Hub {
    let response = client(address).await.get_hub(bearing(token, GetHubRequest {})).await.expect("shown");
    response.into_inner().hub.expect("a hub")
}

fn about(action: AccessAction) -> CheckRequest {
    CheckRequest { action: action.into(), ..CheckRequest::default() }
}

fn filters(filters: &[&str]) -> Vec<String> {
    filters.iter().map(|filter| (*filter).to_owned()).collect()
}

#[tokio::test]
async fn a_hub_shows_what_it_is_and_what_goes_on_in_it() {
    let folder = Folder::new();
    let hub = hub_with(|config| {
        config.data_dir = folder.path().into();
        config.node = "hub-7".into();
        config.sessions.heartbeat_interval_ms = 60_000;
        config.sessions.alternatives = Alternatives::parse("http://hub-8:1").expect("addresses");
    })
    .await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut session = Session::open_raw(&mut client(hub.address).await).await;
    let Some(Frame::Welcome(welcome)) = session.frame().await.frame else { panic!("no welcome") };
    session.subscribe(1, spec(&["a"])).await;
    session.subscribe(2, spec(&["b"])).await;
    session.publish(vec![event("a", "1"), event("a", "2"), event("c", "3")]).await;
    session.collect(&[(1, 2)].into()).await;

    let shown = get_hub(hub.address, None).await;
    assert_eq!((shown.node.as_str(), shown.version.as_str()), ("hub-7", env!("CARGO_PKG_VERSION")));
    assert_eq!((shown.limits, shown.heartbeat_interval), (welcome.limits, welcome.heartbeat_interval));
    assert_eq!(shown.features().collect::<Vec<_>>(), [HubFeature::Streams]);
    assert_eq!(shown.alternatives, ["http://hub-8:1"]);
    let uptime = Duration::try_from(shown.uptime.expect("an uptime")).expect("a duration");
    assert!(uptime > Duration::ZERO && uptime < Duration::from_secs(600), "{uptime:?}");
    let traffic = shown.traffic.expect("traffic: everybody may manage sessions");
    assert_eq!((traffic.sessions, traffic.subscriptions, traffic.streams), (1, 2, 1));
    assert_eq!((traffic.events_in, traffic.events_out), (3, 2));
    assert!(traffic.event_bytes_in > traffic.event_bytes_out && traffic.event_bytes_out > 0, "{traffic:?}");
    assert!(traffic.events_in_per_second > traffic.events_out_per_second, "{traffic:?}");
    assert!(traffic.event_bytes_out_per_second > traffic.events_out_per_second, "{traffic:?}");
    let again = get_hub(hub.address, None).await;
    assert!(Duration::try_from(again.uptime.expect("an uptime")).expect("a duration") > uptime);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_on_in_a_hub_is_for_those_who_manage_sessions() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let (root, bob) = (token("root", &["admin"]), token("bob", &["reader"]));
    let shown = get_hub(hub.server.address, Some(&root)).await;
    assert_eq!(shown.features().collect::<Vec<_>>(), [HubFeature::Streams, HubFeature::Authentication]);
    assert!(shown.traffic.is_some());
    let shown = get_hub(hub.server.address, Some(&bob)).await;
    assert!(shown.traffic.is_none() && shown.limits.is_some(), "{shown:?}");
    let none = client(hub.server.address).await.get_hub(GetHubRequest {}).await.expect_err("no credential");
    assert_eq!(reason_of_call(&none), "CREDENTIAL_MISSING");
}

#[tokio::test]
async fn on_a_hub_without_authentication_everybody_is_nobody_and_may_do_everything() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let me = who_am_i(hub.address, None).await;
    assert_eq!((me.principal.as_str(), me.authenticated, me.more_roles), ("", false, false));
    assert!(me.roles.is_empty() && me.credential_expiry.is_none(), "{me:?}");
    assert!(me.peer.starts_with("127.0.0.1:"), "{me:?}");
    for question in [
        CheckRequest { topic: "a.b".into(), ..about(AccessAction::Publish) },
        CheckRequest { stream: "s".into(), ..about(AccessAction::ManageStream) },
        about(AccessAction::Backup),
    ] {
        let answer = ask(hub.address, None, question.clone()).await.expect("an answer");
        assert_eq!(answer, CheckResponse { allowed: true, ..CheckResponse::default() }, "{question:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_learns_as_whom_the_hub_knows_it() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let token = token_for("alice", &["reader", "works-vault", "no-such-role"], Duration::from_secs(600));
    let me = who_am_i(hub.server.address, Some(&token)).await;
    assert_eq!((me.principal.as_str(), me.authenticated, me.more_roles), ("jwt:alice", true, false));
    assert_eq!(me.roles, ["reader", "works-vault"], "those that the policy has");
    let expiry = SystemTime::try_from(me.credential_expiry.expect("an expiry")).expect("a time");
    let left = expiry.duration_since(SystemTime::now()).expect("later");
    assert!(left <= Duration::from_secs(600) && left > Duration::from_secs(500), "{left:?}");
    hub.set_policy("[roles.late]\nidentities = [\"jwt:alice\"]\n");
    until("it has another role", async || who_am_i(hub.server.address, Some(&token)).await.roles == ["late"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_roles_are_shown_and_no_more() {
    let folder = Folder::new();
    let write = |config: &mut switchyard::config::Config| {
        let role = |n: usize| format!("[roles.r{n:04}]\nidentities = [\"jwt:many\", \"jwt:few\"]\n");
        let mut policy: String = (0..1_000).map(role).collect();
        policy.push_str("[roles.r1000]\nidentities = [\"jwt:many\"]\n");
        std::fs::write(&config.auth.policy_file, policy).expect("written");
    };
    let hub = Guarded::start(&folder, write).await;
    let few = who_am_i(hub.server.address, Some(&token("few", &[]))).await;
    assert_eq!((few.roles.len(), few.more_roles), (1_000, false));
    let many = who_am_i(hub.server.address, Some(&token("many", &[]))).await;
    assert_eq!((many.roles, many.more_roles), (few.roles, true));
}

/// What alice may and may not do, and for which reason not.
fn questions() -> Vec<(CheckRequest, Option<EndReason>)> {
    use AccessAction as Action;
    let (topic, action) = (Some(EndReason::TopicDenied), Some(EndReason::ActionDenied));
    let of_topic = |topic: &str| CheckRequest { topic: topic.into(), ..about(Action::Publish) };
    let of = |what: Action, stream: &str, group: &str, filtered: &[&str]| CheckRequest {
        stream: stream.into(),
        group: group.into(),
        filters: filters(filtered),
        ..about(what)
    };
    vec![
        (of_topic("open.a"), None),
        (of_topic("vault.a"), topic),
        (of(Action::Subscribe, "", "", &["open.>"]), None),
        (of(Action::Subscribe, "", "", &["open.a", "closed"]), topic),
        (of(Action::Subscribe, "", "live", &["open.a"]), topic),
        (of(Action::Read, "vault", "", &["vault.a"]), None),
        (of(Action::Read, "vault", "team", &["vault.a"]), None),
        (of(Action::Read, "vault", "other", &["vault.a"]), topic),
        (of(Action::Read, "vault", "", &["vault.a", "closed"]), topic),
        (of(Action::Read, "mixed", "", &["vault.a"]), topic),
        // All that its filters match.
        (of(Action::Read, "vault", "", &[]), None),
        (of(Action::Read, "vault", "team", &[]), None),
        (of(Action::Read, "mixed", "", &[]), topic),
        (of(Action::Read, "nowhere", "", &[]), topic),
        (of(Action::SeeStream, "vault", "", &[]), None),
        (of(Action::SeeStream, "nowhere", "", &[]), topic),
        (of(Action::SeeGroup, "vault", "team", &[]), None),
        (of(Action::SeeGroup, "vault", "other", &[]), topic),
        (of(Action::ManageStream, "vault", "", &[]), action),
        (of(Action::ManageStream, "mine", "", &[]), None),
        (of(Action::AddTopics, "", "", &["mine.>"]), None),
        (of(Action::AddTopics, "", "", &["mine.>", "yours"]), action),
        (of(Action::ManageGroup, "mine", "g", &[]), None),
        (of(Action::ManageGroup, "vault", "team", &[]), action),
        (of(Action::ManageDeadLetters, "vault", "team", &[]), action),
        (about(Action::ManageSessions), action),
        (about(Action::Backup), action),
    ]
}

const ALICE: &str = r#"
[roles.alice.allow]
manage = ["streams:mine", "topics:mine.>", "groups:mine/*"]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_learns_what_it_may_do_before_it_does_it() {
    let folder = Folder::new();
    let write = |config: &mut switchyard::config::Config| {
        std::fs::write(&config.auth.policy_file, format!("{POLICY}{ALICE}")).expect("written");
    };
    let hub = Guarded::start(&folder, write).await;
    let address = hub.server.address;
    let root = token("root", &["admin"]);
    for (name, takes) in [("vault", &["vault.>"][..]), ("mixed", &["mixed.>"])] {
        let stream = Some(stream(name, takes));
        let request = bearing(Some(&root), switchyard::proto::v1::CreateStreamRequest { stream });
        crate::stored::streams(address).await.create_stream(request).await.expect("created");
    }
    let alice = token("alice", &["alice", "reader", "works-vault"]);
    for (question, refused) in questions() {
        let answer = ask(address, Some(&alice), question.clone()).await.expect("an answer");
        assert_eq!((answer.allowed, answer.reason()), (refused.is_none(), refused.unwrap_or_default()), "{question:?}");
        assert_eq!(answer.text.is_empty(), answer.allowed, "{answer:?}");
        let named =
            [&question.stream, &question.topic].into_iter().any(|name| !name.is_empty() && answer.text.contains(name));
        assert!(!named, "it names nothing: {answer:?}");
    }
    // A no is no denial: nobody has tried anything.
    assert!(!http_get(hub.server.ops_address, "/metrics").await.contains("switchyard_denied_total{"));
    // The same by doing it.
    let denied = client(address).await.publish(bearing(Some(&alice), publish(vec![event("vault.a", "x")]))).await;
    assert_eq!(reason_of_call(&denied.expect_err("denied")), "TOPIC_DENIED");
    client(address).await.publish(bearing(Some(&alice), publish(vec![event("open.a", "x")]))).await.expect("allowed");
    assert!(http_get(hub.server.ops_address, "/metrics").await.contains("switchyard_denied_total{"));
    // A caller that may read every topic may read a stream that is not there yet.
    let read = |stream: &str| CheckRequest { stream: stream.into(), ..about(AccessAction::Read) };
    assert!(ask(address, Some(&root), read("nowhere")).await.expect("an answer").allowed);
    let member = CheckRequest { group: "g".into(), ..read("nowhere") };
    assert_eq!(ask(address, Some(&root), member).await.expect("an answer").reason(), EndReason::StreamNotFound);
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let many = |count: usize| CheckRequest { filters: vec!["a".into(); count], ..about(AccessAction::Subscribe) };
    let bad = [
        (CheckRequest::default(), "MALFORMED_COMMAND"),
        (CheckRequest { action: 99, ..CheckRequest::default() }, "MALFORMED_COMMAND"),
        (about(AccessAction::Publish), "MALFORMED_COMMAND"),
        (CheckRequest { topic: "a.*".into(), ..about(AccessAction::Publish) }, "MALFORMED_COMMAND"),
        (about(AccessAction::Subscribe), "INVALID_FILTER"),
        (CheckRequest { filters: filters(&["a.>.b"]), ..about(AccessAction::Subscribe) }, "INVALID_FILTER"),
        (CheckRequest { group: "a b".into(), ..many(1) }, "MALFORMED_COMMAND"),
        (many(257), "MALFORMED_COMMAND"),
        (about(AccessAction::Read), "MALFORMED_COMMAND"),
        (CheckRequest { stream: "s".into(), ..about(AccessAction::SeeGroup) }, "MALFORMED_COMMAND"),
    ];
    for (question, reason) in bad {
        let refused = soon("an answer", ask(hub.address, None, question.clone())).await.expect_err("refused");
        assert_eq!(
            (refused.code(), reason_of_call(&refused).as_str()),
            (Code::InvalidArgument, reason),
            "{question:?}"
        );
    }
    assert!(ask(hub.address, None, many(256)).await.expect("an answer").allowed);
}
