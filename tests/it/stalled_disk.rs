//! A disk that does not answer: what is stored waits for it, and whoever only looks does not.

use std::{fmt::Debug, time::Duration};

use switchyard::{
    engine::{MOST_WAITING, Simulated},
    proto::v1::{
        AckMode, CreateGroupRequest, CreateStreamRequest, GetGroupRequest, GetStreamRequest, Group, ListGroupsRequest,
        ListStreamsRequest, SubscriptionSpec, group_service_client::GroupServiceClient, session_response::Frame,
    },
};
use tokio::task::JoinHandle;
use tonic::{Code, Status, transport::Channel};

use crate::{
    full_disk::{hub_on_disk, next},
    harness::{channel, client, event, http_get, publish, reason_of_call, soon, until},
    stored::{Reader, create, from, numbered, store, stream, streams},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_looks_does_not_wait_for_what_is_being_stored() {
    let disk = Simulated::default();
    let hub = hub_on_disk(&disk).await;
    create(hub.address, stream("s", &["s.>"])).await;
    let mut groups: GroupServiceClient<Channel> = GroupServiceClient::new(channel(hub.address).await);
    let in_group =
        |group: &str| SubscriptionSpec { group: group.into(), ack_mode: AckMode::Explicit.into(), ..from("s", None) };
    // One group that is in use, and one that is not.
    drop(Reader::open(hub.address, in_group("idle")).await);
    let mut member = Reader::open(hub.address, in_group("busy")).await;
    store(hub.address, numbered("s.x", 0..3)).await;
    next(&mut member.session, |frame| matches!(frame, Frame::Events(_)).then_some(())).await;
    let get = |group: &str| GetGroupRequest { stream: "s".into(), name: group.into() };
    until("the idle group is nobody's", async || {
        let mut groups = GroupServiceClient::new(channel(hub.address).await);
        let told = groups.get_group(get("idle")).await.expect("told").into_inner();
        told.group.and_then(|group| group.state).is_some_and(|state| state.members == 0)
    })
    .await;

    disk.set_stalled(true);
    let waiting = tokio::spawn({
        let mut client = client(hub.address).await;
        async move { client.publish(publish(vec![event("s.x", "waits")])).await }
    });
    // It takes the group's task with it, too: whoever comes waits for what is being stored.
    let joining = tokio::spawn(Reader::open(hub.address, in_group("new")));
    let look = async {
        for _ in 0..2 {
            let metrics = http_get(hub.ops_address, "/metrics").await;
            assert!(metrics.contains("switchyard_group_lag{") && metrics.contains("group=\"busy\""), "{metrics}");
            let list = ListGroupsRequest::default();
            let list = groups.list_groups(list).await.expect("told").into_inner().groups;
            let names: Vec<_> = list.iter().map(|group| group.name.as_str()).collect();
            assert_eq!(names, ["busy", "idle"]);
            for name in names {
                let told = groups.get_group(get(name)).await.expect("told").into_inner().group.expect("a group");
                let state = told.state.expect("a state");
                assert_eq!((state.cursor, state.pending + state.unacked), (0, 3), "{name}");
            }
            let mut streams = streams(hub.address).await;
            streams.get_stream(GetStreamRequest { name: "s".into() }).await.expect("told");
            streams.list_streams(ListStreamsRequest::default()).await.expect("told");
        }
    };
    soon("the looks", look).await;
    assert!(!waiting.is_finished() && !joining.is_finished());
    disk.set_stalled(false);
    waiting.await.expect("answered").expect("stored");
    drop((joining.await.expect("joined"), member));
    soon("the stop", hub.stop(Duration::ZERO)).await;
}

/// Of so many calls one more is refused than may wait; the others are answered when the disk is.
async fn one_too_many<T: Debug>(disk: &Simulated, most: usize, call: impl Fn(usize) -> JoinHandle<Result<T, Status>>) {
    disk.set_stalled(true);
    let mut calls: Vec<_> = (0..=most).map(call).collect();
    let mut refused = None;
    until("one is refused", async || {
        refused = calls.iter().position(JoinHandle::is_finished);
        refused.is_some()
    })
    .await;
    let refused = calls.swap_remove(refused.expect("one")).await.expect("answered").expect_err("too many");
    assert_eq!((refused.code(), &*reason_of_call(&refused)), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
    disk.set_stalled(false);
    for call in calls {
        call.await.expect("answered").expect("made");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_change_streams_or_groups_are_refused_when_too_many_wait() {
    let disk = Simulated::default();
    let hub = hub_on_disk(&disk).await;
    let address = hub.address;
    let make_stream = |n: usize| {
        tokio::spawn(async move {
            let wanted = stream(&format!("n{n}"), &[&format!("n{n}")]);
            streams(address).await.create_stream(CreateStreamRequest { stream: Some(wanted) }).await
        })
    };
    one_too_many(&disk, MOST_WAITING, make_stream).await;
    create(address, stream("s", &["s"])).await;
    let make_group = |n: usize| {
        tokio::spawn(async move {
            let group = Group { stream: "s".into(), name: format!("n{n}"), ..Group::default() };
            let request = CreateGroupRequest { group: Some(group), start: None };
            GroupServiceClient::new(channel(address).await).create_group(request).await
        })
    };
    one_too_many(&disk, 128, make_group).await;
    soon("the stop", hub.stop(Duration::ZERO)).await;
}
