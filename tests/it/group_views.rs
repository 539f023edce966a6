//! What a hub shows of a group at work: its members, what they have, the events that are not done, and how many became dead
//! letters.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use switchyard::{
    model::limits::MAX_FAILURE_BYTES,
    proto::v1::{
        AckOutcome, CreateGroupRequest, CreateStreamRequest, Group, GroupMember, Hello, ListMembersRequest,
        ListUnackedRequest, Stream, Subscribe, UnackedEvent, UnackedState, group_service_client::GroupServiceClient,
        session_request::Command as Wire, session_response::Frame,
    },
};
use tonic::{Code, Request, transport::Channel};

use crate::{
    auth_harness::{Guarded, POLICY, bear, token},
    harness::{Folder, Session, channel, event, publish, reason_of_call, until},
    stored::{stream, streams},
    workplace::{Member, Place, member, preset},
};

fn ask_members() -> ListMembersRequest {
    ListMembersRequest { stream: "jobs".into(), group: "g".into(), ..ListMembersRequest::default() }
}

fn ask_unacked() -> ListUnackedRequest {
    ListUnackedRequest { stream: "jobs".into(), group: "g".into(), ..ListUnackedRequest::default() }
}

async fn members(groups: &mut GroupServiceClient<Channel>) -> Vec<GroupMember> {
    groups.list_members(ask_members()).await.expect("listed").into_inner().members
}

async fn unacked(groups: &mut GroupServiceClient<Channel>) -> Vec<UnackedEvent> {
    groups.list_unacked(ask_unacked()).await.expect("listed").into_inner().events
}

/// A member whose session has a name, and that had another session before, or none.
async fn named(place: &Place, name: &str, before: &str) -> Member {
    let mut session = Session::open(place.server.address).await;
    let (client_name, previous_session_id) = (name.to_owned(), before.to_owned());
    session.send(0, Wire::Hello(Hello { client_name, previous_session_id, ..Hello::default() })).await;
    session.subscribe(1, member()).await;
    Member { session, waiting: VecDeque::new(), gaps: Vec::new(), request: 100 }
}

/// How long it is until then.
fn left(until: Option<prost_types::Timestamp>) -> Duration {
    let until = SystemTime::try_from(until.expect("a time")).expect("a time");
    until.duration_since(SystemTime::now()).unwrap_or_default()
}

#[tokio::test]
async fn members_are_listed_with_who_they_are_and_what_they_have() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    assert_eq!(members(&mut place.groups).await, []);
    let mut worker = named(&place, "worker", "").await;
    place.publish(&["1", "2", "3"]).await;
    worker.texts(3).await;
    let other = place.member().await;
    let mut groups = place.groups.clone();
    until("it has three events", async || members(&mut groups).await[0].unacked == 3).await;
    let shown = members(&mut groups).await;
    assert_eq!(shown.len(), 2, "{shown:?}");
    let [first, second] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((first.client_name.as_str(), first.session_id.as_str()), ("worker", worker.session.id.as_str()));
    assert_eq!((first.subscription_id, first.principal.as_str(), first.waiting), (1, "", 0));
    assert!(first.connected && first.reattach_deadline.is_none(), "{first:?}");
    let lease = left(first.first_lease_deadline);
    assert!(lease <= Duration::from_secs(30) && lease > Duration::from_secs(10), "{lease:?}");
    assert_eq!((second.client_name.as_str(), second.session_id.as_str()), ("", other.session.id.as_str()));
    assert_eq!((second.unacked, second.first_lease_deadline), (0, None));
    other.leave().await;
    until("the other is gone", async || members(&mut groups).await.len() == 1).await;
}

#[tokio::test]
async fn a_member_whose_connection_is_lost_is_listed_until_it_comes_back() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["1"]).await;
    let mut worker = named(&place, "worker", "").await;
    worker.texts(1).await;
    let before = worker.session.id.clone();
    let mut groups = place.groups.clone();
    until("it has the event", async || members(&mut groups).await[0].unacked == 1).await;
    drop(worker);
    until("its connection is lost", async || !members(&mut groups).await[0].connected).await;
    let lost = members(&mut groups).await.remove(0);
    assert_eq!((lost.client_name.as_str(), lost.session_id.as_str(), lost.unacked), ("worker", before.as_str(), 1));
    let waits = left(lost.reattach_deadline);
    assert!(waits <= Duration::from_secs(10), "{waits:?}");
    let back = named(&place, "worker", &before).await;
    let shown = members(&mut groups).await;
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert!(shown[0].connected && shown[0].reattach_deadline.is_none(), "{shown:?}");
    assert_eq!((shown[0].session_id.as_str(), shown[0].unacked), (back.session.id.as_str(), 1));
}

#[tokio::test]
async fn events_that_are_not_done_are_listed_with_where_they_are() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    // Nothing fits into it: what is given up waits.
    let full = Stream { max_bytes: 1, ..stream("full", &["full.>"]) };
    place.streams.create_stream(CreateStreamRequest { stream: Some(full) }).await.expect("created");
    place.group(|group| group.dead_letter_stream = "full".into()).await;
    place.publish(&["1", "2", "3", "4"]).await;
    let mut worker = named(&place, "worker", "").await;
    worker.texts(4).await;
    let why = "w".repeat(MAX_FAILURE_BYTES);
    worker.nack(2, 60_000, &why).await;
    worker.say(&[3], |told| told.set_outcome(AckOutcome::Reject)).await;
    worker.ack(&[4]).await;
    let mut groups = place.groups.clone();
    let shown = unacked(&mut groups).await;
    let [sent, waits, dead] = &shown[..] else { panic!("{shown:?}") };
    assert_eq!((sent.sequence, sent.state(), sent.attempt), (1, UnackedState::Sent, 1));
    let name = sent.member.as_ref().expect("a member");
    assert_eq!((name.client_name.as_str(), name.session_id.as_str()), ("worker", worker.session.id.as_str()));
    let lease = left(sent.lease_deadline);
    assert!(lease <= Duration::from_secs(30) && lease > Duration::from_secs(10), "{lease:?}");
    assert!(sent.next_attempt_time.is_none() && sent.last_failure.is_empty(), "{sent:?}");
    assert_eq!((waits.sequence, waits.state(), waits.attempt), (2, UnackedState::Waiting, 2));
    assert_eq!((&waits.last_failure, waits.member.is_none()), (&why, true));
    let delay = left(waits.next_attempt_time);
    assert!(delay <= Duration::from_secs(60) && delay > Duration::from_secs(30), "{delay:?}");
    assert!(waits.lease_deadline.is_none(), "{waits:?}");
    assert_eq!((dead.sequence, dead.state(), dead.attempt), (3, UnackedState::Burying, 1));
    let state = place.state().await;
    assert_eq!((state.unacked, state.burying, state.dead_letters), (3, 1, 0));
}

#[tokio::test]
async fn an_event_that_is_due_and_that_nobody_takes_is_listed_as_ready() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["1"]).await;
    // It grants no more credit than for the first.
    let mut worker = place.member_with(|spec| spec.credit = crate::harness::credit(1, 0)).await;
    worker.texts(1).await;
    worker.nack(1, 0, "not now").await;
    let mut groups = place.groups.clone();
    until("it is ready", async || {
        let shown = unacked(&mut groups).await;
        shown.len() == 1 && shown[0].state() == UnackedState::Ready
    })
    .await;
    assert_eq!(unacked(&mut groups).await[0].attempt, 2);
}

#[tokio::test]
async fn dead_letters_are_counted() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.dead_letter_stream = "lost".into()).await;
    place.publish(&["1", "2", "3"]).await;
    let mut worker = place.member().await;
    worker.texts(3).await;
    worker.say(&[1, 2], |told| told.set_outcome(AckOutcome::Reject)).await;
    place.until_letters(2).await;
    let state = place.state().await;
    assert_eq!((state.dead_letters, state.burying, state.unacked), (2, 0, 1));
    // Those that are counted stay counted when nobody uses the group any more.
    worker.ack(&[3]).await;
    worker.leave().await;
    until("nobody is a member", async || place.state().await.members == 0).await;
    assert_eq!(place.state().await.dead_letters, 2);
}

#[tokio::test]
async fn events_that_are_not_done_come_in_pages() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&(1..=25).map(|n| n.to_string()).collect::<Vec<_>>()).await;
    let mut worker = place.member_with(|spec| spec.credit = crate::harness::credit(1_000, 0)).await;
    worker.texts(25).await;
    worker.ack(&[7]).await;
    let mut groups = place.groups.clone();
    until("it has all others", async || members(&mut groups).await[0].unacked == 24).await;
    let (mut pages, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListUnackedRequest { page_size: 12, page_token, ..ask_unacked() };
        let page = groups.list_unacked(request).await.expect("a page").into_inner();
        pages.push(page.events.iter().map(|event| event.sequence).collect::<Vec<_>>());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let rest = |from: i64, to: i64| (from..=to).filter(|sequence| *sequence != 7).collect::<Vec<_>>();
    assert_eq!(pages, [rest(1, 13), rest(14, 25)], "the last one is full, too");
    for bad in [
        ListUnackedRequest { page_size: 1001, ..ask_unacked() },
        ListUnackedRequest { page_size: -1, ..ask_unacked() },
        ListUnackedRequest { page_token: "x".into(), ..ask_unacked() },
        ListUnackedRequest { group: String::new(), ..ask_unacked() },
    ] {
        assert_eq!(groups.list_unacked(bad).await.expect_err("refused").code(), Code::InvalidArgument);
    }
    let far = ListUnackedRequest { page_token: u64::MAX.to_string(), page_size: 1000, ..ask_unacked() };
    assert_eq!(groups.list_unacked(far).await.expect("a page").into_inner().events, []);
}

#[tokio::test]
async fn a_thousand_members_fit_a_page_and_one_more_does_not() {
    const MEMBERS: i64 = 1_001;
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let mut session = Session::open(place.server.address).await;
    for subscription_id in 1..=MEMBERS {
        session.send(0, Wire::Subscribe(Subscribe { subscription_id, spec: Some(member()) })).await;
        assert!(matches!(session.frame().await.frame, Some(Frame::Subscribed(_))));
    }
    let request = ListMembersRequest { page_size: 1000, ..ask_members() };
    let page = place.groups.list_members(request).await.expect("a page").into_inner();
    let mut seen: HashSet<i64> = page.members.iter().map(|one| one.subscription_id).collect();
    assert_eq!((seen.len(), page.members[0].subscription_id), (1_000, 1), "the first that joined comes first");
    let request = ListMembersRequest { page_size: 1000, page_token: page.next_page_token, ..ask_members() };
    let page = place.groups.list_members(request).await.expect("a page").into_inner();
    seen.extend(page.members.iter().map(|one| one.subscription_id));
    assert_eq!((page.members.len(), page.next_page_token.as_str(), seen.len()), (1, "", MEMBERS as usize));
    let too_large = ListMembersRequest { page_size: 1001, ..ask_members() };
    assert_eq!(place.groups.list_members(too_large).await.expect_err("refused").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn of_a_group_that_nobody_uses_there_is_nothing_to_list_and_one_that_is_not_there_is_not_found() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    let missing = place.groups.list_members(ask_members()).await.expect_err("not there");
    assert_eq!(reason_of_call(&missing), "GROUP_NOT_FOUND");
    let missing = place.groups.list_unacked(ask_unacked()).await.expect_err("not there");
    assert_eq!(reason_of_call(&missing), "GROUP_NOT_FOUND");
    place.group(|_| {}).await;
    assert_eq!(members(&mut place.groups).await, []);
    assert_eq!(unacked(&mut place.groups).await, []);
    let nowhere = ListMembersRequest { stream: "nowhere".into(), ..ask_members() };
    assert_eq!(reason_of_call(&place.groups.list_members(nowhere).await.expect_err("not there")), "STREAM_NOT_FOUND");
}

const ROLES: &str = r#"
[roles.sees.allow]
groups = ["jobs/g"]

[roles.manages.allow]
manage = ["groups:jobs/*"]

[roles.works.allow]
subscribe = ["jobs.>"]
streams = ["jobs"]
groups = ["jobs/g"]
"#;

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    bear(&mut request, token);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn who_a_member_is_and_why_it_failed_is_not_for_everybody() {
    let folder = Folder::new();
    let write = |config: &mut switchyard::config::Config| {
        std::fs::write(&config.auth.policy_file, format!("{POLICY}{ROLES}")).expect("written");
    };
    let hub = Guarded::start(&folder, write).await;
    let address = hub.server.address;
    let root = token("root", &["admin"]);
    let request = CreateStreamRequest { stream: Some(stream("jobs", &["jobs.>"])) };
    streams(address).await.create_stream(bearing(&root, request)).await.expect("created");
    let mut groups = GroupServiceClient::new(channel(address).await);
    let group = Group { stream: "jobs".into(), name: "g".into(), ..Group::default() };
    let start = preset(switchyard::proto::v1::StartPreset::Earliest);
    groups.create_group(bearing(&root, CreateGroupRequest { group: Some(group), start })).await.expect("created");
    let mut hub_client = crate::harness::client(address).await;
    let two = publish(vec![event("jobs.a", "1"), event("jobs.a", "2")]);
    hub_client.publish(bearing(&root, two)).await.expect("published");

    let alice = token("alice", &["works"]);
    let mut session = hub.session(&alice).await;
    session.subscribe(1, member()).await;
    let mut worker = Member { session, waiting: VecDeque::new(), gaps: Vec::new(), request: 100 };
    worker.texts(2).await;
    worker.nack(2, 60_000, "why").await;

    let cases = [
        ("alice", &["works"][..], true, false),
        ("bob", &["sees"], false, false),
        ("bob", &["manages"], false, true),
        ("root", &["admin"], true, true),
    ];
    for (name, roles, sees_names, sees_failures) in cases {
        let token = token(name, roles);
        let shown = groups.list_members(bearing(&token, ask_members())).await.expect("listed").into_inner().members;
        let member = &shown[0];
        assert_eq!(!member.session_id.is_empty(), sees_names, "{roles:?}: {member:?}");
        let principal = if sees_names { "jwt:alice" } else { "" };
        assert_eq!(
            (member.principal.as_str(), member.subscription_id),
            (principal, i64::from(sees_names)),
            "{roles:?}"
        );
        assert!(member.connected && member.unacked == 1, "{roles:?}: {member:?}");
        let shown = groups.list_unacked(bearing(&token, ask_unacked())).await.expect("listed").into_inner().events;
        let [sent, waits] = &shown[..] else { panic!("{shown:?}") };
        let holder = sent.member.as_ref().expect("a member");
        assert_eq!((holder.principal.as_str(), !holder.session_id.is_empty()), (principal, sees_names), "{roles:?}");
        assert_eq!(waits.last_failure == "why", sees_failures, "{roles:?}: {waits:?}");
    }
    for roles in [&["reader"][..], &["reads-vault"]] {
        let token = token("eve", roles);
        let denied = groups.list_members(bearing(&token, ask_members())).await.expect_err("denied");
        assert_eq!(reason_of_call(&denied), "TOPIC_DENIED", "{roles:?}");
        let denied = groups.list_unacked(bearing(&token, ask_unacked())).await.expect_err("denied");
        assert_eq!(reason_of_call(&denied), "TOPIC_DENIED", "{roles:?}");
    }
}
