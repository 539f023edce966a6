//! Values at their limits and one past them, wherever they come in: times, durations, and definitions as large as they may
//! be.

use prost::Message;
use prost_types::{Duration as WireDuration, FieldMask, Timestamp};
use switchyard::{
    proto::v1::{
        AckOutcome, Acknowledge, CreateGroupRequest, CreateStreamRequest, Event, Group, Hello,
        RedriveDeadLettersRequest, SeekGroupRequest, StartPosition, Stream, SubscribeRequest, UpdateGroupRequest,
        UpdateStreamRequest, group_service_client::GroupServiceClient, session_request::Command as Wire,
        start_position::Position,
    },
    server::Server,
};
use tonic::{Code, Status};

use crate::{
    harness::{Folder, Session, channel, client, event, field, publish, reason, soon},
    stored::{create, from, hub_on, refused, stream, streams},
    witness::{check_status, status_of},
};

const MALFORMED: (Code, &str) = (Code::InvalidArgument, "MALFORMED_COMMAND");
/// As gRPC itself has it for messages that are too large.
const TOO_LARGE: (Code, &str) = (Code::ResourceExhausted, "EVENT_TOO_LARGE");

/// Durations that protobuf does not allow.
const NO_DURATIONS: [(i64, i32); 5] = [(315_576_000_001, 0), (i64::MAX, 0), (0, 1_000_000_000), (1, -1), (0, i32::MIN)];
/// Times that protobuf does not allow.
const NO_TIMES: [(i64, i32); 5] =
    [(-62_135_596_801, 0), (253_402_300_800, 0), (1 << 62, 0), (0, 2_000_000_000), (0, -1)];

async fn groups(hub: &Server) -> GroupServiceClient<tonic::transport::Channel> {
    GroupServiceClient::new(channel(hub.address).await)
}

/// A call was refused with this code and reason, and for this field.
fn check<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>, (code, reason): (Code, &str), field: &str) {
    let status = answer.expect_err(what);
    check_status(what, &status_of(&status), (code, reason, field));
}

/// A hub with the stream `s` and the group `g` on it.
async fn place(folder: &Folder) -> Server {
    let hub = hub_on(folder).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let group = Group { stream: "s".into(), name: "g".into(), ..Group::default() };
    groups(&hub).await.create_group(CreateGroupRequest { group: Some(group), start: None }).await.expect("created");
    hub
}

#[tokio::test]
async fn durations_that_are_none_are_refused_wherever_they_come_in() {
    let folder = Folder::new();
    let hub = place(&folder).await;
    let (mut streams, mut groups) = (streams(hub.address).await, groups(&hub).await);
    let mut session = Session::open(hub.address).await;
    for (seconds, nanos) in NO_DURATIONS {
        let bad = Some(WireDuration { seconds, nanos });
        let what = format!("{seconds} {nanos}");
        for (name, wanted) in [
            ("max_age", Stream { max_age: bad, ..stream("t", &["t"]) }),
            ("dedupe_window", Stream { dedupe_window: bad, ..stream("t", &["t"]) }),
        ] {
            let made = streams.create_stream(CreateStreamRequest { stream: Some(wanted.clone()) }).await;
            check(&what, made, MALFORMED, &format!("stream.{name}"));
            let update_mask = Some(FieldMask { paths: vec![name.into()] });
            let wanted = Stream { name: "s".into(), ..wanted };
            let changed = streams.update_stream(UpdateStreamRequest { stream: Some(wanted), update_mask }).await;
            check(&what, changed, MALFORMED, &format!("stream.{name}"));
        }
        for (name, wanted) in [
            ("ack_deadline", Group { ack_deadline: bad, ..Group::default() }),
            ("backoff", Group { backoff: bad.into_iter().collect(), ..Group::default() }),
        ] {
            let group = Some(Group { stream: "s".into(), name: "new".into(), ..wanted.clone() });
            let made = groups.create_group(CreateGroupRequest { group, start: None }).await;
            check(&what, made, MALFORMED, &format!("group.{name}"));
            let group = Some(Group { stream: "s".into(), name: "g".into(), ..wanted });
            let update_mask = Some(FieldMask { paths: vec![name.into()] });
            let changed = groups.update_group(UpdateGroupRequest { group, update_mask }).await;
            check(&what, changed, MALFORMED, &format!("group.{name}"));
        }
        let hello = Wire::Hello(Hello { heartbeat_interval: bad, ..Hello::default() });
        let outcome = AckOutcome::Nack.into();
        let nack =
            Acknowledge { subscription_id: 1, sequences: vec![1], outcome, delay: bad, ..Acknowledge::default() };
        for (command, field) in [(hello, "hello.heartbeat_interval"), (Wire::Acknowledge(nack), "acknowledge.delay")] {
            session.send(1, command).await;
            let (_, status) = session.error().await;
            check_status(&what, &status, (MALFORMED.0, MALFORMED.1, field));
        }
        let published = session.publish(vec![Event { ttl: bad, ..event("s.a", "x") }]).await;
        let status = published.results[0].status.as_ref().expect("refused");
        check_status(&what, status, (MALFORMED.0, MALFORMED.1, "events[0].ttl"));
    }
}

#[tokio::test]
async fn times_that_are_none_are_refused_wherever_they_come_in() {
    let folder = Folder::new();
    let hub = place(&folder).await;
    let (mut hubs, mut groups) = (client(hub.address).await, groups(&hub).await);
    for (seconds, nanos) in NO_TIMES {
        let bad = Timestamp { seconds, nanos };
        let what = format!("{seconds} {nanos}");
        let at = || Some(StartPosition { position: Some(Position::AtTime(bad)) });
        let ended = refused(hub.address, from("s", at())).await.status.expect("a status");
        check_status(&what, &ended, (MALFORMED.0, MALFORMED.1, "subscribe.spec.start.at_time"));
        let subscribed = soon("an answer", hubs.subscribe(SubscribeRequest { spec: Some(from("s", at())) })).await;
        check(&what, subscribed, MALFORMED, "spec.start.at_time");
        let group = Some(Group { stream: "s".into(), name: "new".into(), ..Group::default() });
        let made = groups.create_group(CreateGroupRequest { group, start: at() }).await;
        check(&what, made, MALFORMED, "start.at_time");
        let seek = SeekGroupRequest { stream: "s".into(), name: "g".into(), position: at() };
        check(&what, groups.seek_group(seek).await, MALFORMED, "position");
        let published = hubs.publish(publish(vec![Event { time: Some(bad), ..event("s.a", "x") }])).await;
        check(&what, published, MALFORMED, "events[0].time");
    }
}

/// So many filters of so many bytes.
fn long_filters(count: usize, bytes: usize) -> Vec<String> {
    (0..count).map(|n| format!("{n:03}.{}", "x".repeat(bytes - 4))).collect()
}

#[tokio::test]
async fn a_stream_as_large_as_streams_may_be_can_be_made_and_changed() {
    let folder = Folder::new();
    let hub = hub_on(&folder).await;
    let mut client = streams(hub.address).await;
    let full = Stream { name: "n".repeat(64), filters: long_filters(256, 256), ..Stream::default() };
    let made = create(hub.address, full.clone()).await;
    assert_eq!(made.filters, full.filters);
    let update = |stream| UpdateStreamRequest {
        stream: Some(stream),
        update_mask: Some(FieldMask { paths: vec!["filters".into()] }),
    };
    client.update_stream(update(full.clone())).await.expect("changed");

    let more = Stream { filters: long_filters(257, 256), ..full.clone() };
    let made = client.create_stream(CreateStreamRequest { stream: Some(more.clone()) }).await;
    check("257 filters", made, MALFORMED, "stream.filters");
    check("257 filters", client.update_stream(update(more)).await, MALFORMED, "stream.filters");
    let longer = Stream { filters: long_filters(256, 257), ..full.clone() };
    let made = client.create_stream(CreateStreamRequest { stream: Some(longer) }).await;
    check("257 bytes", made, (Code::InvalidArgument, "INVALID_FILTER"), "stream.filters[0]");

    // What is larger than any request need be is told apart from what is wrong.
    let of = |filter: usize| CreateStreamRequest { stream: Some(stream("s", &[&"x".repeat(filter)])) };
    let sized = |bytes: usize| of(100_000 + bytes - of(100_000).encoded_len());
    let answer = client.create_stream(sized(128 * 1024)).await;
    check("as large as a request may be", answer, (Code::InvalidArgument, "INVALID_FILTER"), "stream.filters[0]");
    check("one byte more", client.create_stream(sized(128 * 1024 + 1)).await, TOO_LARGE, "");
}

#[tokio::test]
async fn a_request_about_groups_may_name_all_that_it_may_and_no_more() {
    let folder = Folder::new();
    let hub = place(&folder).await;
    let mut groups = groups(&hub).await;
    let redrive = |count: usize| RedriveDeadLettersRequest {
        stream: "s".into(),
        group: "g".into(),
        sequences: vec![i64::MAX; count],
    };
    // As far as the group, which has no dead-letter stream.
    let answer = groups.redrive_dead_letters(redrive(10_000)).await;
    check("10000", answer, (Code::FailedPrecondition, "CONFIG_MISMATCH"), "group");
    let answer = groups.redrive_dead_letters(redrive(60_000)).await;
    assert_eq!(reason(&status_of(&answer.expect_err("refused"))), "EVENT_TOO_LARGE");
    let most = Group { backoff: vec![WireDuration { seconds: 86_400, nanos: 0 }; 32], ..group("most") };
    groups.create_group(CreateGroupRequest { group: Some(most.clone()), start: None }).await.expect("created");
    let more = Group { backoff: vec![WireDuration { seconds: 86_400, nanos: 0 }; 33], ..group("more") };
    let status = groups.create_group(CreateGroupRequest { group: Some(more), start: None }).await.expect_err("refused");
    assert_eq!(field(&status_of(&status)), "group.backoff");
}

fn group(name: &str) -> Group {
    Group { stream: "s".into(), name: name.into(), ..Group::default() }
}

#[tokio::test]
async fn a_bad_name_of_a_stream_is_told_with_its_field() {
    let folder = Folder::new();
    let hub = place(&folder).await;
    let update_mask = Some(FieldMask { paths: vec!["max_age".into()] });
    let request = UpdateStreamRequest { stream: Some(stream("no name", &["s.>"])), update_mask };
    let changed = streams(hub.address).await.update_stream(request).await;
    check("a bad name", changed, MALFORMED, "stream.name");
}
