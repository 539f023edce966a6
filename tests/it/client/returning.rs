//! Members of groups whose connection breaks and comes back: what was on its way comes again at once, what is in hand stays
//! theirs, and a bad network burns no attempt.

use std::time::{Duration, Instant};

use switchyard::{
    client::{Client, Delivery, ErrorKind, Stream},
    proto::v1::{ListUnackedRequest, UnackedState},
};

use super::{
    Running, all_of, deliveries,
    relay::{Mode, Relay},
};
use crate::{
    harness::{Folder, soon, until},
    verifying::free_address,
    workplace::{Place, ms},
};

/// Longer than any test.
const NEVER_MS: i64 = 600_000;
/// How soon after its client is back an event is to come again.
const SOON: Duration = Duration::from_millis(100);

/// A group in which nothing comes again by time, and one failure of an event is its end; and a client, through a relay.
async fn strict(folder: &Folder) -> (Place, Relay) {
    let mut place = Place::new(folder).await;
    place
        .group(|group| {
            group.ack_deadline = Some(ms(NEVER_MS));
            group.backoff = vec![ms(NEVER_MS)];
            group.max_attempts = Some(1);
        })
        .await;
    let relay = Relay::to(place.server.address).await;
    (place, relay)
}

fn member() -> Stream {
    all_of("jobs").group("g")
}

async fn until_in_hand(client: &Running, events: u64) {
    until("they are here", async || client.stats().events_in_hand == events).await;
}

async fn until_sessions(client: &Running, sessions: u64) {
    until("it is back", async || client.stats().sessions == sessions).await;
}

/// Acknowledges all of these, and expects that all of that is stored, and nothing has failed meanwhile.
async fn all_done(place: &mut Place, events: Vec<Delivery>) {
    let count = events.len() as i64;
    for event in events {
        soon("an answer", event.acked()).await.expect("its lease was kept");
    }
    let state = place.state().await;
    assert_eq!((state.cursor, state.unacked, state.dropped, state.expired), (count, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_on_its_way_comes_again_at_once_and_three_bad_networks_in_a_row_burn_no_attempt() {
    let folder = Folder::new();
    let (mut place, relay) = strict(&folder).await;
    let client = Running::of(relay.address);
    let mut member = client.subscribe(member()).await.expect("open");
    place.publish(&["event-0"]).await;
    let mut held = deliveries(&mut member, 1).await;
    let mut waits: Vec<Duration> = Vec::new();
    // Three, and more on a machine that is too busy to be quick in any of these.
    for round in 1..=10 {
        if round > 3 && waits.iter().any(|wait| *wait < SOON) {
            break;
        }
        relay.set(Mode::SwallowDown);
        let texts = [format!("event-{round}-one"), format!("event-{round}-two")];
        place.publish(&texts).await;
        until("both are sent", async || relay.has_swallowed(&texts[1])).await;
        relay.cut_and_pass();
        let again = deliveries(&mut member, 2).await;
        let now = Instant::now();
        let up = client.ups.lock().expect("no panic").last().copied().expect("it was up");
        waits.push(now.duration_since(up));
        let came: Vec<_> = again
            .iter()
            .map(|event| (event.text().expect("a text"), event.attempt(), event.is_redelivered()))
            .collect();
        assert_eq!(came, [(&*texts[0], 1, true), (&*texts[1], 1, true)]);
        held.extend(again);
    }
    // No lease ends and nothing is tried again in the time of this test, so they came because their client was back.
    assert!(waits.iter().any(|wait| *wait < SOON), "{waits:?}");
    assert_eq!(client.stats().sessions, 1 + waits.len() as u64);
    all_done(&mut place, held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_and_was_not_taken_comes_again_too() {
    let folder = Folder::new();
    let (mut place, relay) = strict(&folder).await;
    place.publish(&["a", "b", "c"]).await;
    let client = Running::of(relay.address);
    let mut member = client.subscribe(member()).await.expect("open");
    for session in 1..=3 {
        until_in_hand(&client, 3).await;
        relay.cut();
        until_sessions(&client, session + 1).await;
    }
    let events = deliveries(&mut member, 3).await;
    let mut came: Vec<_> = events.iter().map(|event| (event.text().expect("a text"), event.attempt())).collect();
    came.sort_unstable();
    assert_eq!(came, [("a", 1), ("b", 1), ("c", 1)]);
    all_done(&mut place, events).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_and_did_not_arrive_is_stored_when_its_client_is_back() {
    let folder = Folder::new();
    let (mut place, relay) = strict(&folder).await;
    place.publish(&["a", "b"]).await;
    let client = Running::of(relay.address);
    let mut member = client.subscribe(member()).await.expect("open");
    let mut events = deliveries(&mut member, 2).await;
    relay.set(Mode::SwallowUp);
    let waiting = tokio::spawn(events.remove(0).acked());
    until("it is said", async || client.stats().unanswered_acknowledgements == 1).await;
    relay.cut_and_pass();
    soon("an answer", waiting).await.expect("no panic").expect("stored");
    let state = place.state().await;
    assert_eq!((state.cursor, state.unacked, state.expired), (1, 1, 0), "the other one is still in hand");
    events.remove(0).ack();
    soon("the answers", member.settled()).await.expect("stored");
    assert_eq!(place.state().await.cursor, 2);
}

/// How many events are with a member.
async fn leased(place: &mut Place) -> usize {
    let request = ListUnackedRequest { stream: "jobs".into(), group: "g".into(), ..Default::default() };
    let shown = place.groups.list_unacked(request).await.expect("told").into_inner();
    shown.events.iter().filter(|event| event.state() == UnackedState::Sent).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_its_hub_does_not_wait_for_learns_what_it_has_lost_and_gets_it_again() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_attempts = Some(1)).await;
    let relay = Relay::at(free_address(), place.server.address).await;
    place.publish(&["a", "b"]).await;
    // Without a name.
    let client = Running::start(Client::builder([relay.address.to_string()]).heartbeat(Duration::from_secs(1)));
    let mut member = client.subscribe(member()).await.expect("open");
    let mut events = deliveries(&mut member, 2).await;
    relay.set(Mode::SwallowUp);
    let waiting = tokio::spawn(events.remove(0).acked());
    until("it is said", async || client.stats().unanswered_acknowledgements == 1).await;
    let address = relay.address;
    drop(relay);
    until("the hub has noticed", async || place.state().await.members == 0).await;
    until("its address is free", async || std::net::TcpListener::bind(address).is_ok()).await;
    let _relay = Relay::at(address, place.server.address).await;
    let error = soon("an answer", waiting).await.expect("no panic").expect_err("the lease is lost");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::LeaseLost, "LEASE_EXPIRED"));
    let again = deliveries(&mut member, 1).await.remove(0);
    assert_eq!((again.text(), again.attempt(), again.is_redelivered()), (Some("a"), 1, true));
    soon("an answer", again.acked()).await.expect("stored");
    // The other one is in hand all the time: what is said of it holds for its new lease.
    until("it is leased again", async || leased(&mut place).await == 1).await;
    soon("an answer", events.remove(0).acked()).await.expect("stored");
    assert_eq!(place.state().await.cursor, 2);
}
