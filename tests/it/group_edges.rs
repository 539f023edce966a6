//! Where groups touch credit, deletion and clients that go away: what one member cannot take is for the others, what the
//! stream does not give any more is given to nobody, and who is gone is no member.

use std::time::Duration;

use switchyard::proto::v1::{
    Acknowledge, AddCredit, Event, GetEventRequest, GetHubRequest, PurgeStreamRequest, SessionResponse,
    SubscribeRequest, get_event_request::Which, hub_service_client::HubServiceClient, session_request::Command as Wire,
    session_response::Frame,
};

use crate::{
    harness::{Folder, channel, credit, event, publish, until},
    workplace::{Place, member, ms, text},
};

#[tokio::test]
async fn what_the_byte_credit_of_a_member_does_not_cover_is_for_the_others() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let texts: Vec<String> = (0..200).map(|n| format!("{n:0900}")).collect();
    place.publish(&texts).await;

    let mut short = place.member_with(|spec| spec.credit = credit(0, 1_500)).await;
    let held: Vec<i64> = vec![short.event().await.sequence, short.event().await.sequence];
    let mut other = place.member().await;
    let mut got = held.clone();
    while got.len() < 200 {
        let event = other.event().await;
        other.ack(&[event.sequence]).await;
        got.push(event.sequence);
    }
    got.sort_unstable();
    assert_eq!(got, (1..=200).collect::<Vec<_>>(), "each once");

    // What comes again has to be read again, and is longer than what is left: one of them overdraws the credit, and no more.
    short.nack(held[0], 0, "again").await;
    short.nack(held[1], 0, "again").await;
    let mut again = vec![other.event().await.sequence, other.event().await.sequence];
    again.sort_unstable();
    assert_eq!(again, held, "the first has no credit left");
}

#[tokio::test]
async fn what_was_read_ahead_is_not_delivered_once_the_stream_does_not_give_it_any_more() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_unacked = 1).await;
    let mut member = place.member().await;
    let brief = Event { ttl: Some(ms(200)), ..event("jobs.a", "brief") };
    let events = vec![event("jobs.a", "first"), brief, event("jobs.a", "second"), event("jobs.secret", "x")];
    place.hub.publish(publish(events)).await.expect("published");
    place.publish(&["last", "purged"]).await;
    let first = member.event().await;
    let brief = GetEventRequest { stream: "jobs".into(), which: Some(Which::Sequence(2)) };
    until("the end of its time", async || place.streams.get_event(brief.clone()).await.is_err()).await;
    member.ack(&[first.sequence]).await;
    let second = member.event().await;
    assert_eq!((text(&first), text(&second)), ("first".to_owned(), "second".to_owned()));

    let purge =
        PurgeStreamRequest { name: "jobs".into(), filter: "jobs.secret".into(), ..PurgeStreamRequest::default() };
    let purged = place.streams.purge_stream(purge).await.expect("purged").into_inner().purged_events;
    assert_eq!(purged, 1);
    member.ack(&[second.sequence]).await;
    let last = member.event().await;
    assert_eq!(text(&last), "last");

    let purge = PurgeStreamRequest { name: "jobs".into(), up_to_sequence: 6, ..PurgeStreamRequest::default() };
    place.streams.purge_stream(purge).await.expect("purged");
    place.publish(&["third"]).await;
    member.ack(&[last.sequence]).await;
    assert_eq!(text(&member.event().await), "third");
    member.ack(&[7]).await;
    assert_eq!(place.state().await.cursor, 7);
}

#[tokio::test]
async fn what_comes_again_is_not_held_up_by_what_was_read_ahead() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let texts: Vec<String> = (0..100).map(|n| format!("{n:0900}")).collect();
    place.publish(&texts).await;
    let mut member = place.member_with(|spec| spec.credit = credit(0, 1_500)).await;
    let (first, second) = (member.event().await.sequence, member.event().await.sequence);
    member.nack(first, 0, "again").await;
    member.ack(&[second]).await;
    let mut got = Vec::new();
    while got.len() < 4 && !got.contains(&first) {
        let more = AddCredit { subscription_id: 1, credit: credit(0, 1_500) };
        member.session.send(7, Wire::Credit(more)).await;
        got.push(member.event().await.sequence);
    }
    assert!(got.contains(&first), "{got:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribe_that_is_given_up_at_any_moment_leaves_no_member() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let hub = HubServiceClient::new(channel(place.server.address).await);
    for patience_us in 0..300 {
        let mut spec = member();
        spec.set_ack_mode(switchyard::proto::v1::AckMode::None);
        let mut hub = hub.clone();
        let call = async move { hub.subscribe(SubscribeRequest { spec: Some(spec) }).await.map(drop) };
        // How long it waits is what is tried.
        tokio::time::timeout(Duration::from_micros(patience_us * 5), call).await.ok();
    }
    // The hub has heard of all of them then.
    hub.clone().get_hub(GetHubRequest {}).await.expect("told");
    until("all of them are gone", async || place.state().await.members == 0).await;
    // Nothing was lost by it.
    place.publish(&["a"]).await;
    assert_eq!(place.member().await.texts(1).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drained_member_had_acknowledged_is_answered_before_it_ends() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|_| {}).await;
    let texts: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    place.publish(&texts).await;
    let mut member = place.member_with(|spec| spec.credit = credit(200, 0)).await;
    for sequence in 1..=200 {
        assert_eq!(member.event().await.sequence, sequence);
    }
    for sequence in 1..=200 {
        let told = Acknowledge { subscription_id: 1, sequences: vec![sequence], ..Acknowledge::default() };
        member.session.send(sequence, Wire::Acknowledge(told)).await;
    }
    let mut answered = Vec::new();
    while answered.len() < 5 {
        answered.extend(acknowledged(member.session.frame().await));
    }
    let Place { server, groups, streams, hub } = place;
    let stopping = tokio::spawn(async move {
        drop((groups, streams, hub));
        server.stop(Duration::ZERO).await;
    });
    while let Ok(frame) = member.session.next().await {
        answered.extend(acknowledged(frame));
    }
    stopping.await.expect("stopped");
    assert_eq!(answered, (1..=answered.len() as i64).collect::<Vec<_>>());

    let mut place = Place::again(&folder).await;
    assert_eq!(place.state().await.cursor, answered.len() as i64);
}

/// The sequence whose acknowledgement a frame answers.
fn acknowledged(frame: SessionResponse) -> Option<i64> {
    match frame.frame {
        Some(Frame::Acknowledged(told)) => {
            assert!(told.results.iter().all(|result| result.status.is_none()), "{told:?}");
            Some(frame.request_id)
        }
        Some(Frame::Draining(_) | Frame::Heartbeat(_) | Frame::Ended(_)) => None,
        other => panic!("not an answer: {other:?}"),
    }
}

#[tokio::test]
async fn a_key_without_headway_stops_no_other_however_many_events_wait_behind_it() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_attempts = Some(0)).await;
    place.publish_keyed(&[("first", "hot")]).await;
    let mut member = place.member().await;
    assert_eq!(text(&member.event().await), "first");
    member.nack(1, 600_000, "blocked").await;
    let behind: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    for part in behind.chunks(5_000) {
        place.publish_keyed(&part.iter().map(|text| (text.as_str(), "hot")).collect::<Vec<_>>()).await;
    }
    place.publish_keyed(&[("a", "cold"), ("b", "cool"), ("c", "")]).await;
    let mut others = member.texts(3).await;
    others.sort_unstable();
    assert_eq!(others, ["a", "b", "c"]);
    member.ack(&[20_002, 20_003, 20_004]).await;
    let state = place.state().await;
    assert_eq!((state.blocked, state.pending, state.unacked), (20_000, 20_000, 1));

    // What is put off comes in its order once the key makes headway.
    let purge = PurgeStreamRequest { name: "jobs".into(), up_to_sequence: 19_991, ..Default::default() };
    assert_eq!(place.streams.purge_stream(purge).await.expect("purged").into_inner().purged_events, 19_991);
    for n in 19_990..20_000 {
        let event = member.event().await;
        assert_eq!((event.sequence, text(&event)), (n + 2, n.to_string()));
        member.ack(&[event.sequence]).await;
    }
    let state = place.state().await;
    assert_eq!((state.cursor, state.blocked, state.pending), (20_004, 0, 0));
}
