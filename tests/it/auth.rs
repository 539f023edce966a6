//! Who may call what: every call and every command, with every kind of credential that is not one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Buf, BufMut};
use prost::Message;
use prost_types::FileDescriptorSet;
use switchyard::{
    auth::Reflection,
    edge::grpc::{CALLS, Needs},
    proto::v1::{self, SessionRequest, SubscriptionSpec, session_request::Command as Wire, session_response::Frame},
    server::Server,
};
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use crate::{
    auth_harness::{Guarded, bad_credentials, code_of, token},
    harness::{Folder, channel, event, http_get, hub, hub_with, publish, reason, reason_of_call, soon, spec},
};

/// Every message as it is on the wire.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).into()))
    }
}

/// What the first message of a call is, or how it fails before there is one.
async fn call(channel: &Channel, path: &str, message: Vec<u8>, header: Option<&str>) -> Result<Vec<u8>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    soon("a connection", grpc.ready()).await.expect("ready");
    let mut request = Request::new(message);
    if let Some(header) = header {
        request.metadata_mut().insert("authorization", header.parse().expect("a header"));
    }
    let path = path.parse().expect("a path");
    let mut answers = soon("headers", grpc.server_streaming(request, path, Raw)).await?.into_inner();
    soon("an answer", answers.message()).await?.ok_or_else(|| Status::ok("without a message"))
}

/// The calls of the contract, and those of reflection, which comes with its own.
fn every_call() -> Vec<String> {
    let set = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let set = FileDescriptorSet::decode(&set[..]).expect("descriptors");
    let mut calls = Vec::new();
    for file in &set.file {
        for service in &file.service {
            let name = format!("/{}.{}", file.package(), service.name());
            calls.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
        }
    }
    for version in ["v1", "v1alpha"] {
        calls.push(format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"));
    }
    calls
}

/// The commands of a session.
fn every_command() -> Vec<String> {
    let set = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
    let set = FileDescriptorSet::decode(&set[..]).expect("descriptors");
    let messages = set.file.iter().filter(|file| file.package() == "switchyard.v1").flat_map(|file| &file.message_type);
    let request = messages.clone().find(|message| message.name() == "SessionRequest").expect("SessionRequest");
    let commands = request.field.iter().filter(|field| field.oneof_index.is_some());
    commands.map(|field| field.name().to_owned()).collect()
}

/// What a caller who has a credential and no right gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// An answer, which tells nothing of what there is.
    Answer,
    Refused(&'static str),
}

/// For every call about groups, what [`requests`] has of it.
fn group_requests(name: &str) -> Vec<(&'static str, Vec<u8>, Bare)> {
    let (topic, action) = (Bare::Refused("TOPIC_DENIED"), Bare::Refused("ACTION_DENIED"));
    let group = || v1::Group { stream: name.into(), name: "team".into(), ..Default::default() };
    let (stream_name, team) = (name.to_owned(), "team".to_owned());
    let update_mask = Some(prost_types::FieldMask { paths: vec!["max_unacked".into()] });
    let mut rows = Vec::new();
    let mut row = |path: &'static str, message: Vec<u8>, bare| rows.push((path, message, bare));
    let of = |call: &str| -> &'static str { format!("/switchyard.v1.GroupService/{call}").leak() };
    row(of("CreateGroup"), v1::CreateGroupRequest { group: Some(group()), start: None }.encode_to_vec(), action);
    let get = v1::GetGroupRequest { stream: stream_name.clone(), name: team.clone() };
    row(of("GetGroup"), get.encode_to_vec(), topic);
    let list = v1::ListGroupsRequest { stream: stream_name.clone(), ..Default::default() };
    row(of("ListGroups"), list.encode_to_vec(), Bare::Answer);
    let update = v1::UpdateGroupRequest { group: Some(group()), update_mask };
    row(of("UpdateGroup"), update.encode_to_vec(), action);
    let delete = v1::DeleteGroupRequest { stream: stream_name.clone(), name: team.clone() };
    row(of("DeleteGroup"), delete.encode_to_vec(), action);
    let seek = v1::SeekGroupRequest { stream: stream_name.clone(), name: team.clone(), ..Default::default() };
    row(of("SeekGroup"), seek.encode_to_vec(), action);
    let list = v1::ListDeadLettersRequest { stream: stream_name.clone(), group: team.clone(), ..Default::default() };
    row(of("ListDeadLetters"), list.encode_to_vec(), topic);
    let list = v1::ListMembersRequest { stream: stream_name.clone(), group: team.clone(), ..Default::default() };
    row(of("ListMembers"), list.encode_to_vec(), topic);
    let list = v1::ListUnackedRequest { stream: stream_name.clone(), group: team.clone(), ..Default::default() };
    row(of("ListUnacked"), list.encode_to_vec(), topic);
    let redrive =
        v1::RedriveDeadLettersRequest { stream: stream_name.clone(), group: team.clone(), sequences: vec![1] };
    row(of("RedriveDeadLetters"), redrive.encode_to_vec(), action);
    let purge = v1::PurgeDeadLettersRequest { stream: stream_name, group: team, sequences: vec![1] };
    row(of("PurgeDeadLetters"), purge.encode_to_vec(), action);
    rows
}

/// For every call: a request that names the stream `name`, and what it means to have no right.
fn requests(name: &str) -> BTreeMap<&'static str, (Vec<u8>, Bare)> {
    let (topic, action) = (Bare::Refused("TOPIC_DENIED"), Bare::Refused("ACTION_DENIED"));
    let stream = || v1::Stream { name: name.into(), filters: vec![format!("{name}.>")], ..Default::default() };
    let stream_name = name.to_owned();
    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    let from_stream = SubscriptionSpec { stream: name.into(), ..Default::default() };
    let mut rows = BTreeMap::new();
    let mut row = |path: &'static str, message: Vec<u8>, bare| assert!(rows.insert(path, (message, bare)).is_none());
    for health in ["Check", "List", "Watch"].map(|call| format!("/grpc.health.v1.Health/{call}")) {
        row(health.leak(), Vec::new(), Bare::Answer);
    }
    for version in ["v1", "v1alpha"] {
        // ServerReflectionRequest.list_services
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        row(path.leak(), vec![(7 << 3) | 2, 0], Bare::Answer);
    }
    row("/switchyard.v1.HubService/Session", SessionRequest::default().encode_to_vec(), Bare::Answer);
    let wish = v1::SubscribeRequest { spec: Some(from_stream) };
    row("/switchyard.v1.HubService/Subscribe", wish.encode_to_vec(), topic);
    let events = publish(vec![event(&format!("{name}.secret"), "x")]);
    row("/switchyard.v1.HubService/Publish", events.encode_to_vec(), topic);

    let of = |call: &str| -> &'static str { format!("/switchyard.v1.StreamService/{call}").leak() };
    row(of("CreateStream"), v1::CreateStreamRequest { stream: Some(stream()) }.encode_to_vec(), action);
    row(of("GetStream"), v1::GetStreamRequest { name: stream_name.clone() }.encode_to_vec(), topic);
    row(of("ListStreams"), v1::ListStreamsRequest::default().encode_to_vec(), Bare::Answer);
    let update = v1::UpdateStreamRequest { stream: Some(stream()), update_mask: mask("max_events") };
    row(of("UpdateStream"), update.encode_to_vec(), action);
    row(of("DeleteStream"), v1::DeleteStreamRequest { name: stream_name.clone() }.encode_to_vec(), action);
    let purge = v1::PurgeStreamRequest { name: stream_name.clone(), ..Default::default() };
    row(of("PurgeStream"), purge.encode_to_vec(), action);
    let which = Some(v1::get_event_request::Which::Sequence(1));
    row(of("GetEvent"), v1::GetEventRequest { stream: stream_name.clone(), which }.encode_to_vec(), topic);
    let list = v1::ListEventsRequest { stream: stream_name.clone(), ..Default::default() };
    row(of("ListEvents"), list.encode_to_vec(), topic);
    let list = v1::ListTopicsRequest { stream: stream_name.clone(), ..Default::default() };
    row(of("ListTopics"), list.encode_to_vec(), topic);

    let of = |call: &str| -> &'static str { format!("/switchyard.v1.SessionService/{call}").leak() };
    row(of("ListSessions"), v1::ListSessionsRequest::default().encode_to_vec(), action);
    row(
        of("GetSession"),
        v1::GetSessionRequest { session_id: name.into(), ..Default::default() }.encode_to_vec(),
        action,
    );
    let terminate = v1::TerminateSessionRequest { session_id: name.into(), ..Default::default() };
    row(of("TerminateSession"), terminate.encode_to_vec(), action);

    row("/switchyard.v1.BackupService/Backup", v1::BackupRequest {}.encode_to_vec(), action);

    row("/switchyard.v1.HubService/GetHub", v1::GetHubRequest {}.encode_to_vec(), Bare::Answer);
    row("/switchyard.v1.AccessService/WhoAmI", v1::WhoAmIRequest {}.encode_to_vec(), Bare::Answer);
    let read =
        v1::CheckRequest { action: v1::AccessAction::Read.into(), stream: stream_name.clone(), ..Default::default() };
    row("/switchyard.v1.AccessService/Check", read.encode_to_vec(), Bare::Answer);

    for (path, message, bare) in group_requests(name) {
        row(path, message, bare);
    }
    rows
}

/// Everything that a refusal says.
fn said(status: &Status) -> String {
    format!("{} {} {:?}", status.message(), String::from_utf8_lossy(status.details()), status.metadata())
}

/// A hub with a stream of the name, with one event, and a group.
pub async fn vault(folder: &Folder) -> Guarded {
    let hub = Guarded::start(folder, |_| {}).await;
    let channel = channel(hub.server.address).await;
    let admin = hub.header("root", &["admin"]);
    let rows = requests("vault");
    for path in ["/switchyard.v1.StreamService/CreateStream", "/switchyard.v1.GroupService/CreateGroup"] {
        call(&channel, path, rows[path].0.clone(), Some(&admin)).await.expect("made");
    }
    call(
        &channel,
        "/switchyard.v1.HubService/Publish",
        rows["/switchyard.v1.HubService/Publish"].0.clone(),
        Some(&admin),
    )
    .await
    .expect("published");
    hub
}

#[test]
fn every_call_has_a_row_of_what_it_needs_and_one_of_this_test() {
    let mut told: Vec<&str> = CALLS.iter().map(|(path, _)| *path).collect();
    let mut contract = every_call();
    let mut tested: Vec<&str> = requests("vault").into_keys().collect();
    told.sort_unstable();
    contract.sort_unstable();
    tested.sort_unstable();
    assert_eq!(told, contract, "src/edge/grpc/access.rs");
    assert_eq!(tested, contract, "tests/it/auth.rs");
    let open = CALLS.iter().filter(|(_, needs)| *needs == Needs::Nothing);
    assert!(open.clone().all(|(path, _)| path.starts_with("/grpc.health.")), "{:?}", open.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_refused_without_a_good_credential() {
    let folder = Folder::new();
    let hub = vault(&folder).await;
    let channel = channel(hub.server.address).await;
    let needs: BTreeMap<_, _> = CALLS.iter().copied().collect();
    for (path, (message, _)) in requests("vault") {
        for (kind, header, expected) in bad_credentials("root", &["admin"]) {
            let answer = call(&channel, path, message.clone(), header.as_deref()).await;
            if needs[path] == Needs::Nothing {
                assert!(answer.is_ok(), "{path} with {kind}: {answer:?}");
                continue;
            }
            let status = answer.expect_err(path);
            assert_eq!(
                (status.code(), reason_of_call(&status).as_str()),
                (code_of(expected), expected),
                "{path}: {kind}"
            );
            let said = said(&status);
            let secret = header.as_deref().and_then(|header| header.split(' ').nth(1)).unwrap_or("vault");
            for leak in ["vault", "root", "admin", "audience", "signature", "key", secret] {
                assert!(!said.contains(leak), "{path} with {kind} tells {leak}: {said}");
            }
        }
    }
    let metrics = http_get(hub.server.ops_address, "/metrics").await;
    assert!(metrics.contains("switchyard_denied_total{reason=\"CREDENTIAL_INVALID\"}"), "{metrics}");
    assert!(!metrics.contains("root") && !metrics.contains("secret"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_a_right_learns_nothing_of_what_there_is() {
    let folder = Folder::new();
    let hub = vault(&folder).await;
    let channel = channel(hub.server.address).await;
    let bare = hub.header("bob", &[]);
    let nowhere = requests("nowhere");
    for (path, (message, expected)) in requests("vault") {
        let answer = call(&channel, path, message, Some(&bare)).await;
        let other = call(&channel, path, nowhere[path].0.clone(), Some(&bare)).await;
        match (expected, answer, other) {
            (Bare::Answer, Ok(answer), Ok(_)) => {
                assert!(!String::from_utf8_lossy(&answer).contains("vault"), "{path} tells of the stream");
            }
            (Bare::Refused(expected), Err(status), Err(other)) => {
                assert_eq!((status.code(), reason_of_call(&status).as_str()), (code_of(expected), expected), "{path}");
                assert!(!said(&status).contains("vault"), "{path}: {}", said(&status));
                assert_eq!(status.message(), other.message(), "{path}: what is there and what is not are told apart");
                assert_eq!(reason_of_call(&status), reason_of_call(&other), "{path}");
            }
            (expected, answer, other) => panic!("{path}: {expected:?} expected: {answer:?}, {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_right_gets_through_every_call() {
    let folder = Folder::new();
    let hub = vault(&folder).await;
    let channel = channel(hub.server.address).await;
    let admin = hub.header("root", &["admin"]);
    for (path, (message, _)) in requests("vault") {
        if path.ends_with("/DeleteStream") || path.ends_with("/DeleteGroup") {
            continue;
        }
        if let Err(status) = call(&channel, path, message, Some(&admin)).await {
            assert!(!matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied), "{path}: {status:?}");
        }
    }
    for path in ["/switchyard.v1.GroupService/DeleteGroup", "/switchyard.v1.StreamService/DeleteStream"] {
        call(&channel, path, requests("vault")[path].0.clone(), Some(&admin)).await.expect(path);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_nobody_knows_are_refused_too() {
    let folder = Folder::new();
    let hub = Guarded::start(&folder, |_| {}).await;
    let channel = channel(hub.server.address).await;
    for path in ["/switchyard.v1.HubService/Nothing", "/nothing.v1.Nothing/Nothing", "/"] {
        let refused = call(&channel, path, Vec::new(), None).await.expect_err(path);
        assert_eq!(reason_of_call(&refused), "CREDENTIAL_MISSING", "{path}");
        let unknown = call(&channel, path, Vec::new(), Some(&hub.header("root", &["admin"]))).await.expect_err(path);
        assert_eq!(unknown.code(), Code::Unimplemented, "{path}");
    }
}

async fn reflects(server: &Server) -> Result<Vec<u8>, Status> {
    let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    call(&channel(server.address).await, path, vec![(7 << 3) | 2, 0], None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_is_a_switch() {
    assert!(reflects(&hub().await).await.is_ok());
    let off = hub_with(|config| config.auth.reflection = Reflection::Off).await;
    assert_eq!(reflects(&off).await.expect_err("off").code(), Code::Unimplemented);
    let folder = Folder::new();
    let open = Guarded::start(&folder, |config| config.auth.reflection = Reflection::Open).await;
    assert!(reflects(&open.server).await.is_ok());
}

/// For every command: one that a caller without that right sends, and what comes back.
fn commands() -> BTreeMap<&'static str, (Wire, &'static str)> {
    let subscribe = v1::Subscribe { subscription_id: 2, spec: Some(spec(&["vault.>"])) };
    let update = v1::Update { subscription_id: 1, filters: vec!["vault.>".into()], ..Default::default() };
    let authenticate = v1::Authenticate { token: token("mallory", &["admin"]) };
    let credit = v1::AddCredit { subscription_id: 2, credit: Some(v1::Credit { events: 1, bytes: 0 }) };
    let acknowledge = v1::Acknowledge { subscription_id: 2, sequences: vec![1], ..Default::default() };
    BTreeMap::from([
        // Not the first command: it has no right that it could lack.
        ("hello", (Wire::Hello(v1::Hello::default()), "MALFORMED_COMMAND")),
        ("subscribe", (Wire::Subscribe(subscribe), "TOPIC_DENIED")),
        ("update", (Wire::Update(update), "TOPIC_DENIED")),
        ("unsubscribe", (Wire::Unsubscribe(v1::Unsubscribe { subscription_id: 2 }), "SUBSCRIPTION_NOT_FOUND")),
        ("credit", (Wire::Credit(credit), "SUBSCRIPTION_NOT_FOUND")),
        ("acknowledge", (Wire::Acknowledge(acknowledge), "SUBSCRIPTION_NOT_FOUND")),
        ("publish", (Wire::Publish(publish(vec![event("vault.secret", "x")])), "TOPIC_DENIED")),
        ("authenticate", (Wire::Authenticate(authenticate), "CREDENTIAL_INVALID")),
        ("ping", (Wire::Ping(v1::Ping { nonce: "n".into() }), "")),
    ])
}

/// The reason that a frame tells, and its text.
fn refusal(frame: Option<Frame>) -> (String, String) {
    let told = |status: &tonic_types::pb::Status| (reason(status), format!("{} {:?}", status.message, status.details));
    match frame {
        Some(Frame::Error(status)) => told(&status),
        Some(Frame::Ended(ended)) => told(&ended.status.expect("a status")),
        Some(Frame::Published(results)) => told(results.results[0].status.as_ref().expect("refused")),
        Some(Frame::Pong(_)) => Default::default(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_is_judged() {
    let mut contract = every_command();
    contract.sort_unstable();
    assert_eq!(commands().into_keys().collect::<Vec<_>>(), contract, "a command without a row");
    let folder = Folder::new();
    let hub = vault(&folder).await;
    let mut session = hub.session(&token("bob", &["reader"])).await;
    session.subscribe(1, spec(&["open.a"])).await;
    for (name, (command, expected)) in commands() {
        session.send(5, command).await;
        let (reason, text) = refusal(session.frame().await.frame);
        assert_eq!(reason, expected, "{name}");
        assert!(!text.contains("vault") && !text.contains("mallory"), "{name}: {text}");
    }
    // None of it did any harm.
    hub.publish("root", "open.a", "still here").await;
    assert_eq!(crate::harness::texts(&session.events().await), ["still here"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_read_needs_its_right() {
    let folder = Folder::new();
    let hub = vault(&folder).await;
    // Of the stream, though not of its topics; of its topics, though not of the stream; of both, though not of the group.
    for (roles, allowed) in [
        ("stream-only", [false; 5]),
        ("topics-only", [true, false, false, false, false]),
        ("reads-vault", [true, true, true, false, false]),
        ("works-vault", [true, true, true, true, false]),
    ] {
        let mut session = hub.session(&token("bob", &[roles])).await;
        let from = |filters: &[&str], group: &str| SubscriptionSpec {
            stream: "vault".into(),
            group: group.into(),
            ..spec(filters)
        };
        let wishes =
            [spec(&["vault.>"]), from(&[], ""), from(&["vault.secret"], ""), from(&[], "team"), from(&[">"], "")];
        for (at, (wish, allowed)) in wishes.into_iter().zip(allowed).enumerate() {
            let subscribe = v1::Subscribe { subscription_id: at as i64 + 1, spec: Some(wish) };
            session.send(1, Wire::Subscribe(subscribe)).await;
            let told = loop {
                match session.frame().await.frame {
                    Some(Frame::Subscribed(_)) => break String::new(),
                    Some(Frame::Ended(ended)) => break reason(&ended.status.expect("a status")),
                    _ => {}
                }
            };
            assert_eq!(told, if allowed { "" } else { "TOPIC_DENIED" }, "{roles}: {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_may_not_read_is_as_if_it_were_not_there() {
    let folder = Folder::new();
    let hub = vault(&folder).await;
    let channel = channel(hub.server.address).await;
    hub.publish("root", "vault.other", "x").await;
    let header = hub.header("bob", &["reads-secret"]);
    let path = "/switchyard.v1.StreamService/GetEvent";
    let get = async |which| {
        let request = v1::GetEventRequest { stream: "vault".into(), which: Some(which) }.encode_to_vec();
        call(&channel, path, request, Some(&header)).await
    };
    assert!(get(v1::get_event_request::Which::Sequence(1)).await.is_ok());
    let (hidden, none) = (
        get(v1::get_event_request::Which::Sequence(2)).await.expect_err("hidden"),
        get(v1::get_event_request::Which::Sequence(3)).await.expect_err("none"),
    );
    assert_eq!((reason_of_call(&hidden), reason_of_call(&none)), ("EVENT_NOT_FOUND".into(), "EVENT_NOT_FOUND".into()));
    let denied = get(v1::get_event_request::Which::LastOfTopic("vault.other".into())).await.expect_err("denied");
    assert_eq!(reason_of_call(&denied), "TOPIC_DENIED");
    let denied = get(v1::get_event_request::Which::LastOfTopic("vault.never".into())).await.expect_err("denied");
    assert_eq!(reason_of_call(&denied), "TOPIC_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_leaves_the_others_of_its_publish_alone_unless_all_or_none_are_wanted() {
    let folder = Folder::new();
    let hub = vault(&folder).await;
    let mut session = hub.session(&token("bob", &["reader"])).await;
    let results = session.publish(vec![event("open.a", "1"), event("vault.secret", "2"), event("open.a", "3")]).await;
    let reasons: Vec<_> =
        results.results.iter().map(|result| result.status.as_ref().map(reason).unwrap_or_default()).collect();
    assert_eq!(reasons, ["", "TOPIC_DENIED", ""]);
    let atomic = v1::PublishRequest {
        events: vec![event("vault.secret", "2")],
        precondition: Some(v1::PublishPrecondition {
            condition: Some(v1::publish_precondition::Condition::LastSequence(0)),
        }),
    };
    session.send(6, Wire::Publish(atomic)).await;
    assert_eq!(refusal(session.frame().await.frame).0, "TOPIC_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_could_not_know_its_callers_does_not_start() {
    let folder = Folder::new();
    let start = async |change: &dyn Fn(&mut switchyard::config::Config)| {
        let mut config = Guarded::config(&folder);
        change(&mut config);
        switchyard::server::start(config).await.expect_err("refused").to_string()
    };
    std::fs::write(folder.path().join("bad.toml"), "[roles.x]\nmay = 1").expect("written");
    let bad = folder.path().join("bad.toml");
    assert!(start(&|config| config.auth.policy_file.clone_from(&bad)).await.contains("auth.policy_file"));
    assert!(start(&|config| config.auth.token_file.clone_from(&bad)).await.contains("auth.token_file"));
    assert!(start(&|config| config.auth.jwt_key_file = "/nowhere/key".into()).await.contains("auth.jwt_key_file"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_at_once_are_told_apart() {
    let folder = Folder::new();
    let hub = Arc::new(Guarded::start(&folder, |_| {}).await);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let hub = Arc::clone(&hub);
        tasks.spawn(async move {
            let roles: &[&str] = if n % 2 == 0 { &["reader"] } else { &[] };
            let mut session = hub.session(&token(&format!("c{n}"), roles)).await;
            let result = session.publish(vec![event("open.a", "x")]).await;
            assert_eq!(result.results[0].status.is_none(), n % 2 == 0, "{n}");
        });
    }
    tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await.expect("in time");
}
