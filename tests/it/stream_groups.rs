//! Groups on streams: work is shared, acknowledged, tried again, given up and given back.

use switchyard::proto::v1::{
    AckMode, AckOutcome, Acknowledge, AddCredit, CreateGroupRequest, DeleteGroupRequest, DeleteStreamRequest,
    EndReason, Group, ListDeadLettersRequest, ListGroupsRequest, PurgeDeadLettersRequest, RedriveDeadLettersRequest,
    SeekGroupRequest, StartPosition, StartPreset, Subscribe, SubscribeRequest, SubscriptionSpec, Unsubscribe, Update,
    UpdateGroupRequest, session_request::Command as Wire, start_position::Position,
};

use crate::{
    harness::{Folder, credit, field, reason, reason_of_call, soon, until},
    workplace::{Place, member, ms, preset, text},
};

#[tokio::test]
async fn members_share_the_events_and_what_is_acknowledged_is_done() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let half = || place.member_with(|spec| spec.credit = credit(100, 0));
    let (mut one, mut other) = (half().await, half().await);
    let texts: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    place.publish(&texts).await;
    let mut got = Vec::new();
    for _ in 0..100 {
        for member in [&mut one, &mut other] {
            let event = member.event().await;
            assert_eq!((event.attempt, event.last_failure.as_str(), event.stream.as_str()), (1, "", "jobs"));
            member.ack(&[event.sequence]).await;
            got.push(event.sequence);
        }
    }
    got.sort_unstable();
    assert_eq!(got, (1..=200).collect::<Vec<_>>(), "each once");
    let state = place.state().await;
    assert_eq!((state.members, state.cursor, state.pending, state.unacked), (2, 200, 0, 0));
    assert_eq!(state.oldest_unacked_time, None);
    // Saying it again does no harm; what was never given to a member is not its to acknowledge.
    one.ack(&[got[0], got[0]]).await;
    place.publish(&["more"]).await;
    one.session.send(7, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(1, 0) })).await;
    let (holder, stranger) = (&mut one, &mut other);
    let event = holder.event().await;
    assert_eq!(
        stranger.say(&[event.sequence, 4711], |_| {}).await,
        [(event.sequence, "LEASE_EXPIRED".to_owned()), (4711, "LEASE_EXPIRED".to_owned())]
    );
    one.ack(&[event.sequence]).await;
}

#[tokio::test]
async fn a_cumulative_acknowledgement_stands_for_all_that_was_sent_before() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a", "b", "c", "d"]).await;
    let mut member = place.member_with(|spec| spec.set_ack_mode(AckMode::Cumulative)).await;
    assert_eq!(member.texts(4).await, ["a", "b", "c", "d"]);
    assert_eq!(member.say(&[], |told| told.up_to = 3).await, []);
    let state = place.state().await;
    assert_eq!((state.cursor, state.unacked), (3, 1));
    assert!(state.oldest_unacked_time.is_some());
    member.ack(&[4]).await;
    assert_eq!(place.state().await.cursor, 4);
}

#[tokio::test]
async fn a_nack_holds_back_its_key_and_no_other() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish_keyed(&[("a1", "a"), ("a2", "a"), ("b1", "b"), ("none", "")]).await;
    let mut member = place.member().await;
    assert_eq!(member.texts(3).await, ["a1", "b1", "none"]);
    member.nack(1, 200, "not now").await;
    member.ack(&[3, 4]).await;
    let again = member.event().await;
    assert_eq!((text(&again), again.attempt, again.last_failure.as_str()), ("a1".to_owned(), 2, "not now"));
    assert_eq!((again.sequence, again.stream.as_str()), (1, "jobs"));
    member.ack(&[1]).await;
    assert_eq!(member.texts(1).await, ["a2"]);
}

#[tokio::test]
async fn what_is_not_acknowledged_in_time_comes_again_and_the_late_word_does_not_count() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place
        .group(|group| {
            group.ack_deadline = Some(ms(1_000));
            group.backoff = vec![ms(20), ms(60_000)];
        })
        .await;
    place.publish(&["a", "b"]).await;
    let mut member = place.member().await;
    assert_eq!(member.texts(2).await, ["a", "b"]);
    member.ack(&[2]).await;
    let again = member.event().await;
    assert_eq!((again.sequence, again.attempt), (1, 2));
    assert!(again.last_failure.contains("in time"), "{}", again.last_failure);
    until("the first lease is over", async || place.state().await.expired >= 1).await;
    // The lease of the second attempt ends too, and only that sequence is late.
    until("the second lease is over", async || place.state().await.expired >= 2).await;
    assert_eq!(member.say(&[2, 1], |_| {}).await, [(1, "LEASE_EXPIRED".to_owned())]);
}

#[tokio::test]
async fn a_lease_that_is_extended_goes_on() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.ack_deadline = Some(ms(1_500))).await;
    place.publish(&["long", "short"]).await;
    let mut member = place.member().await;
    assert_eq!(member.texts(2).await, ["long", "short"]);
    let extend = |told: &mut Acknowledge| {
        told.set_outcome(AckOutcome::Extend);
        told.delay = Some(ms(60_000));
    };
    assert_eq!(member.say(&[1], extend).await, []);
    let again = member.event().await;
    assert_eq!((text(&again), again.attempt), ("short".to_owned(), 2), "only the other one is over");
    member.ack(&[1]).await;
}

#[tokio::test]
async fn what_is_rejected_or_failed_too_often_is_a_dead_letter_and_can_be_given_back() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place
        .group(|group| {
            group.max_attempts = Some(2);
            group.dead_letter_stream = "lost".into();
        })
        .await;
    place.publish_keyed(&[("bad", "k"), ("next", "k"), ("worse", "")]).await;
    let mut member = place.member().await;
    assert_eq!(member.texts(2).await, ["bad", "worse"]);
    let reject = |told: &mut Acknowledge| {
        told.set_outcome(AckOutcome::Reject);
        told.reason = "no such customer".into();
    };
    assert_eq!(member.say(&[1], reject).await, []);
    assert_eq!(member.texts(1).await, ["next"], "the key goes on");
    member.nack(3, 0, "first").await;
    assert_eq!(member.event().await.attempt, 2);
    member.nack(3, 0, "second").await;
    let letters = place.until_letters(2).await;
    let told: Vec<_> = letters
        .iter()
        .map(|letter| (letter.sequence, letter.origin_sequence, letter.attempts, letter.reason.as_str()))
        .collect();
    assert_eq!(told, [(1, 1, 1, "no such customer"), (2, 3, 2, "second")]);
    let kept = letters[1].event.as_ref().and_then(|received| received.event.as_ref()).expect("the event");
    assert_eq!((kept.topic.as_str(), kept.attributes["deadlettergroup"].as_str()), ("jobs.a", "g"));
    assert_eq!(kept.attributes["deadletterstream"], "jobs");
    assert!(letters[1].time.is_some());
    member.ack(&[2]).await;
    assert_eq!(place.state().await.cursor, 3);

    let request = RedriveDeadLettersRequest { stream: "jobs".into(), group: "g".into(), sequences: vec![1, 7] };
    let response = place.groups.redrive_dead_letters(request).await.expect("redriven").into_inner();
    assert_eq!((response.redriven, response.lost), (1, 0));
    let again = member.event().await;
    assert_eq!((text(&again), again.attempt, again.sequence), ("bad".to_owned(), 1, 1));
    member.ack(&[1]).await;
    assert_eq!(place.until_letters(1).await[0].sequence, 2);
    let request = PurgeDeadLettersRequest { stream: "jobs".into(), group: "g".into(), sequences: vec![] };
    assert_eq!(place.groups.purge_dead_letters(request).await.expect("purged").into_inner().purged, 1);
    place.until_letters(0).await;
}

#[tokio::test]
async fn without_a_stream_for_them_what_is_given_up_is_dropped() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_attempts = Some(1)).await;
    place.publish(&["a"]).await;
    let mut member = place.member().await;
    member.event().await;
    member.nack(1, 0, "no").await;
    let state = place.state().await;
    assert_eq!((state.cursor, state.dropped), (1, 1));
    let request = ListDeadLettersRequest { stream: "jobs".into(), group: "g".into(), ..Default::default() };
    let refused = place.groups.list_dead_letters(request).await.expect_err("no dead-letter stream");
    assert_eq!(reason_of_call(&refused), "CONFIG_MISMATCH");
}

#[tokio::test]
async fn a_group_is_moved_to_any_place() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a", "b"]).await;
    let mut member = place.member().await;
    let mut times = Vec::new();
    for _ in 0..2 {
        times.push(member.event().await.append_time.expect("a time"));
    }
    member.ack(&[1, 2]).await;
    let seek = |position| SeekGroupRequest {
        stream: "jobs".into(),
        name: "g".into(),
        position: Some(StartPosition { position: Some(position) }),
    };
    let moved = place.groups.seek_group(seek(Position::Preset(StartPreset::Earliest.into()))).await;
    assert_eq!(moved.expect("moved").into_inner().group.expect("told").state.expect("a state").cursor, 0);
    assert_eq!(member.texts(2).await, ["a", "b"]);
    place.groups.seek_group(seek(Position::AfterSequence(1))).await.expect("moved");
    assert_eq!(member.texts(1).await, ["b"]);
    place.groups.seek_group(seek(Position::AtTime(times[0]))).await.expect("moved");
    assert_eq!(member.texts(2).await, ["a", "b"]);
    place.groups.seek_group(seek(Position::Preset(StartPreset::New.into()))).await.expect("moved");
    assert_eq!(member.say(&[2], |_| {}).await, [], "what is passed over is done");
    place.publish(&["c"]).await;
    let event = member.event().await;
    assert_eq!((text(&event), event.attempt), ("c".to_owned(), 1));
    for bad in [Position::Preset(StartPreset::LastPerTopic.into()), Position::AfterSequence(99)] {
        let refused = place.groups.seek_group(seek(bad)).await.expect_err("refused");
        assert_eq!(reason_of_call(&refused), "CONFIG_MISMATCH");
    }
    let refused = place.groups.seek_group(SeekGroupRequest { position: None, ..seek(Position::AfterSequence(0)) });
    assert_eq!(reason_of_call(&refused.await.expect_err("refused")), "MALFORMED_COMMAND");
}

#[tokio::test]
async fn what_a_member_leaves_goes_to_another() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a"]).await;
    let mut first = place.member().await;
    first.event().await;
    first.leave().await;
    let mut second = place.member().await;
    let event = second.event().await;
    assert_eq!((event.sequence, event.attempt), (1, 1), "nothing failed");
    drop(second);
    let mut third = place.member().await;
    let event = third.event().await;
    assert_eq!((event.sequence, event.attempt, event.redelivered), (1, 1, true), "a lost transport is no failure");
    third.ack(&[1]).await;
}

#[tokio::test]
async fn what_is_done_stays_done_when_the_hub_starts_again() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    place.publish(&["a", "b", "c", "d"]).await;
    let mut member = place.member().await;
    assert_eq!(member.texts(4).await.len(), 4);
    member.ack(&[1, 3]).await;
    member.nack(4, 0, "broken").await;
    assert_eq!(member.event().await.attempt, 2);
    place.stop().await;
    drop(member);

    let mut place = Place::again(&folder).await;
    assert_eq!(place.state().await.cursor, 1);
    let mut member = place.member().await;
    let mut got = [member.event().await, member.event().await].map(|event| (event.sequence, event.attempt));
    got.sort_unstable();
    assert_eq!(got, [(2, 1), (4, 2)]);
    member.ack(&[2, 4]).await;
    member.leave().await;
    assert_eq!(place.state().await.cursor, 4);
}

#[tokio::test]
async fn without_acknowledgements_what_was_sent_is_done() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    let spec = SubscriptionSpec { ack_mode: AckMode::None.into(), start: preset(StartPreset::Earliest), ..member() };
    place.publish(&["a", "b"]).await;
    // The group is made by its first member, and begins where that says.
    let request = SubscribeRequest { spec: Some(spec) };
    let mut frames = place.hub.subscribe(request).await.expect("open").into_inner();
    let mut got = 0;
    while got < 2 {
        let frame = soon("a frame", frames.message()).await.expect("a frame").expect("no end");
        let json = format!("{frame:?}");
        got += json.matches("append_time: Some").count();
    }
    until("both are done", async || place.state().await.cursor == 2).await;
    let request = SubscribeRequest { spec: Some(member()) };
    let refused = place.hub.subscribe(request).await.expect_err("nobody can acknowledge");
    assert_eq!(reason_of_call(&refused), "CONFIG_MISMATCH");
}

#[tokio::test]
async fn a_member_is_sent_no_more_than_its_credit_and_the_group_no_more_than_it_may() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_unacked = 3).await;
    place.publish(&["a", "b", "c", "d", "e"]).await;
    let mut frugal = place.member_with(|spec| spec.credit = credit(1, 0)).await;
    assert_eq!(frugal.texts(1).await, ["a"]);
    let mut other = place.member().await;
    assert_eq!(other.texts(2).await, ["b", "c"]);
    until("three are out", async || place.state().await.unacked == 3).await;
    frugal.ack(&[1]).await;
    assert_eq!(other.texts(1).await, ["d"]);
    other.ack(&[2, 3, 4]).await;
    assert_eq!(other.texts(1).await, ["e"]);
}

#[tokio::test]
async fn members_end_with_their_group_and_with_their_stream() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let mut one = place.member().await;
    let request = DeleteGroupRequest { stream: "jobs".into(), name: "g".into() };
    place.groups.delete_group(request.clone()).await.expect("deleted");
    assert_eq!(one.session.ended().await.reason(), EndReason::GroupNotFound);
    let refused = place.groups.delete_group(request).await.expect_err("gone");
    assert_eq!(reason_of_call(&refused), "GROUP_NOT_FOUND");
    let mut two = place.member().await;
    place.streams.delete_stream(DeleteStreamRequest { name: "jobs".into() }).await.expect("deleted");
    assert_eq!(two.session.ended().await.reason(), EndReason::StreamNotFound);
    let refused = place.groups.list_groups(ListGroupsRequest { stream: "jobs".into(), ..Default::default() }).await;
    assert_eq!(reason_of_call(&refused.expect_err("gone")), "STREAM_NOT_FOUND");
}

#[tokio::test]
async fn a_stream_stays_while_a_group_puts_its_dead_letters_there() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place
        .group(|group| {
            group.max_attempts = Some(1);
            group.dead_letter_stream = "lost".into();
        })
        .await;
    let delete = || DeleteStreamRequest { name: "lost".into() };
    let refused = place.streams.delete_stream(delete()).await.expect_err("it is needed");
    assert_eq!(reason_of_call(&refused), "CONFIG_MISMATCH");
    assert!(refused.message().contains("group g of stream jobs"), "{}", refused.message());
    place.publish_keyed(&[("bad", "k"), ("next", "k")]).await;
    let mut member = place.member().await;
    member.event().await;
    member.nack(1, 0, "no").await;
    assert_eq!(member.texts(1).await, ["next"], "its key goes on");
    place.until_letters(1).await;
    let change = UpdateGroupRequest {
        group: Some(Group { stream: "jobs".into(), name: "g".into(), ..Group::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["dead_letter_stream".into()] }),
    };
    place.groups.update_group(change).await.expect("changed");
    place.streams.delete_stream(delete()).await.expect("deleted");
}

#[tokio::test]
async fn groups_are_listed_and_changed() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    for name in ["a", "b", "c"] {
        place.group(|group| group.name = name.into()).await;
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListGroupsRequest { stream: String::new(), page_size: 2, page_token };
        let page = place.groups.list_groups(request).await.expect("told").into_inner();
        names.extend(page.groups.into_iter().map(|group| group.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    let change = |path: &str, group: Group| UpdateGroupRequest {
        group: Some(Group { stream: "jobs".into(), name: "a".into(), ..group }),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.into()] }),
    };
    let request = change("max_unacked", Group { max_unacked: 7, max_attempts: Some(9), ..Group::default() });
    let group = place.groups.update_group(request).await.expect("changed").into_inner().group.expect("told");
    assert_eq!((group.max_unacked, group.max_attempts), (7, Some(5)));
    let bad = [
        (change("name", Group::default()), "CONFIG_MISMATCH"),
        (change("max_unacked", Group { max_unacked: 100_001, ..Group::default() }), "MALFORMED_COMMAND"),
        (change("ack_deadline", Group { ack_deadline: Some(ms(99)), ..Group::default() }), "MALFORMED_COMMAND"),
        (
            change("dead_letter_stream", Group { dead_letter_stream: "none".into(), ..Group::default() }),
            "CONFIG_MISMATCH",
        ),
        (
            change("dead_letter_stream", Group { dead_letter_stream: "jobs".into(), ..Group::default() }),
            "CONFIG_MISMATCH",
        ),
    ];
    for (request, expected) in bad {
        let refused = place.groups.update_group(request).await.expect_err(expected);
        assert_eq!(reason_of_call(&refused), expected, "{}", refused.message());
    }
    let twice = Group { stream: "jobs".into(), name: "a".into(), ..Group::default() };
    let refused = place.groups.create_group(CreateGroupRequest { group: Some(twice), start: None }).await;
    assert_eq!(reason_of_call(&refused.expect_err("there is one")), "GROUP_EXISTS");
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let mut one = place.member_with(|spec| spec.filters = vec!["jobs.b".into(), "jobs.a".into()]).await;
    let open = |id: i64, change: &dyn Fn(&mut SubscriptionSpec)| {
        let mut spec = SubscriptionSpec { filters: vec!["jobs.a".into(), "jobs.b".into()], ..member() };
        change(&mut spec);
        Wire::Subscribe(Subscribe { subscription_id: id, spec: Some(spec) })
    };
    one.session.send(2, open(2, &|spec| spec.filters = vec!["jobs.a".into()])).await;
    let ended = one.session.ended().await;
    assert_eq!(ended.reason(), EndReason::ConfigMismatch, "members have the same filters");
    assert_eq!(field(&ended.status.expect("a status")), "subscribe.spec.filters");
    one.session.send(3, open(3, &|spec| spec.start = preset(StartPreset::LastPerTopic))).await;
    assert_eq!(one.session.ended().await.reason(), EndReason::ConfigMismatch);
    let update = Update { subscription_id: 1, filters: vec!["jobs.a".into()], expression: String::new() };
    one.session.send(4, Wire::Update(update)).await;
    assert_eq!(reason(&one.session.error().await.1), "CONFIG_MISMATCH");
    let up_to = Acknowledge { subscription_id: 1, up_to: 1, ..Acknowledge::default() };
    one.session.send(5, Wire::Acknowledge(up_to)).await;
    assert_eq!(reason(&one.session.error().await.1), "CONFIG_MISMATCH");
    one.session
        .subscribe(
            6,
            SubscriptionSpec {
                ack_mode: AckMode::None.into(),
                filters: vec!["jobs.b".into(), "jobs.a".into()],
                ..member()
            },
        )
        .await;
    let silent = Acknowledge { subscription_id: 6, sequences: vec![1], ..Acknowledge::default() };
    one.session.send(7, Wire::Acknowledge(silent)).await;
    assert_eq!(reason(&one.session.error().await.1), "CONFIG_MISMATCH");
    // With others gone, other filters are as good.
    one.session.send(8, Wire::Unsubscribe(Unsubscribe { subscription_id: 6 })).await;
    one.session.ended().await;
    one.leave().await;
    place.publish(&["a"]).await;
    assert_eq!(place.member().await.texts(1).await, ["a"]);
}
