//! Members of groups whose connection breaks: what was on its way comes again at once when they are back, what they have in
//! their hands stays theirs, and no attempt is lost to a bad network.

use std::{collections::VecDeque, net::SocketAddr};

use switchyard::proto::v1::{
    AckMode, AddCredit, Hello, Reattach, SessionRequest, Subscribe, Subscribed, SubscriptionSpec,
    session_request::Command as Wire, session_response::Frame,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    harness::{Folder, Session, client, credit, field, reason, spec, until},
    relay::Relay,
    workplace::{Member, Place, member, ms},
};

/// Longer than any test.
const NEVER_MS: i64 = 600_000;

/// A group in which nothing comes again by time, and one failure of an event is its end.
async fn strict(folder: &Folder) -> Place {
    let mut place = Place::new(folder).await;
    place
        .group(|group| {
            group.ack_deadline = Some(ms(NEVER_MS));
            group.backoff = vec![ms(NEVER_MS)];
            group.max_attempts = Some(1);
        })
        .await;
    place
}

fn hello(name: &str, before: &str) -> Wire {
    let (client_name, previous_session_id) = (name.to_owned(), before.to_owned());
    Wire::Hello(Hello { client_name, previous_session_id, ..Hello::default() })
}

fn subscribe(spec: SubscriptionSpec) -> Wire {
    Wire::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) })
}

/// A client with a name that had another session before, or none; and what it is told when it is a member.
async fn joined(address: SocketAddr, name: &str, before: &str, spec: SubscriptionSpec) -> (Member, Subscribed) {
    let mut session = Session::open(address).await;
    session.send(0, hello(name, before)).await;
    session.send(1, subscribe(spec)).await;
    match session.frame().await.frame {
        Some(Frame::Subscribed(told)) => {
            (Member { session, waiting: VecDeque::new(), gaps: Vec::new(), request: 100 }, told)
        }
        other => panic!("not subscribed: {other:?}"),
    }
}

fn worth(events: i64) -> SubscriptionSpec {
    SubscriptionSpec { credit: credit(events, 0), ..member() }
}

/// What one asks for that comes back with these in its hands.
fn holding(held: &[i64], events: i64) -> SubscriptionSpec {
    SubscriptionSpec { reattach: Some(Reattach { held_sequences: held.to_vec() }), ..worth(events) }
}

async fn grant(member: &Member, events: i64) {
    member.session.send(0, Wire::Credit(AddCredit { subscription_id: 1, credit: credit(events, 0) })).await;
}

async fn until_nobody_is_there(place: &mut Place) {
    until("it is gone", async || place.state().await.members == 0).await;
}

/// Sequence, attempt, and whether it may have come before.
async fn seen(member: &mut Member) -> (i64, i32, bool) {
    let event = member.event().await;
    assert_eq!(event.last_failure, "");
    (event.sequence, event.attempt, event.redelivered)
}

#[tokio::test]
async fn what_was_on_its_way_comes_again_at_once_and_three_bad_networks_in_a_row_burn_no_attempt() {
    let folder = Folder::new();
    let mut place = strict(&folder).await;
    place.publish(&["event-1", "event-2", "event-3", "event-4"]).await;
    let mut relay = Relay::start(place.server.address).await;
    let (mut worker, told) = joined(relay.address, "worker", "", worth(1)).await;
    assert_eq!((told.reattached, told.lost_sequences), (false, vec![]));
    assert_eq!(seen(&mut worker).await, (1, 1, false));
    for _ in 0..3 {
        relay.swallow();
        grant(&worker, 3).await;
        until("the others are written", async || relay.has_swallowed("event-4")).await;
        relay.cut();
        until_nobody_is_there(&mut place).await;
        relay = Relay::start(place.server.address).await;
        let (back, told) = joined(relay.address, "worker", &worker.session.id, holding(&[1], 0)).await;
        assert_eq!((told.reattached, told.lost_sequences), (true, vec![]));
        worker = back;
    }
    grant(&worker, 10).await;
    // No lease ends and nothing is tried again in the time of this test: they come because it is back.
    for sequence in 2..=4 {
        assert_eq!(seen(&mut worker).await, (sequence, 1, true));
    }
    worker.ack(&[1, 2, 3, 4]).await;
    let state = place.state().await;
    assert_eq!((state.cursor, state.unacked, state.dropped, state.expired), (4, 0, 0, 0));
    place.publish(&["event-5"]).await;
    assert_eq!(seen(&mut worker).await, (5, 1, false), "what it held came to nobody");
}

#[tokio::test]
async fn the_hub_need_not_know_yet_that_the_old_connection_is_lost() {
    let folder = Folder::new();
    let mut place = strict(&folder).await;
    place.publish(&["event-1", "event-2"]).await;
    let relay = Relay::start(place.server.address).await;
    let (mut old, _) = joined(relay.address, "", "", worth(1)).await;
    assert_eq!(seen(&mut old).await, (1, 1, false));
    relay.swallow();
    grant(&old, 1).await;
    until("the second is written", async || relay.has_swallowed("event-2")).await;
    let (mut back, told) = joined(place.server.address, "", &old.session.id, holding(&[1], 9)).await;
    assert_eq!((told.reattached, told.lost_sequences), (true, vec![]));
    let event = back.event().await;
    assert_eq!((event.sequence, event.attempt), (2, 1));
    back.ack(&[1, 2]).await;
    let state = place.state().await;
    assert_eq!((state.cursor, state.members), (2, 1));
}

#[tokio::test]
async fn a_client_that_is_cut_again_before_it_reads_anything_names_the_same_session_once_more() {
    let folder = Folder::new();
    let mut place = strict(&folder).await;
    place.publish(&["event-1", "event-2"]).await;
    let (mut worker, _) = joined(place.server.address, "worker", "", worth(1)).await;
    assert_eq!(seen(&mut worker).await, (1, 1, false));
    let first = worker.session.id.clone();
    drop(worker);
    until_nobody_is_there(&mut place).await;
    for _ in 0..3 {
        let relay = Relay::start(place.server.address).await;
        relay.swallow();
        let (commands, receiver) = mpsc::channel(64);
        for command in [hello("worker", &first), subscribe(holding(&[1], 5))] {
            commands.send(SessionRequest { request_id: 1, command: Some(command) }).await.expect("room");
        }
        let mut deaf = client(relay.address).await;
        tokio::select! {
            _ = deaf.session(ReceiverStream::new(receiver)) => panic!("nothing can come back"),
            () = until("it is sent the second", async || relay.has_swallowed("event-2")) => {}
        }
        relay.cut();
        until_nobody_is_there(&mut place).await;
    }
    let (mut back, told) = joined(place.server.address, "worker", &first, holding(&[1], 5)).await;
    assert!(told.reattached);
    assert_eq!(seen(&mut back).await, (2, 1, true));
    back.ack(&[1, 2]).await;
    assert_eq!(place.state().await.cursor, 2);
}

#[tokio::test]
async fn one_that_is_not_waited_for_any_longer_learns_what_it_has_lost() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_attempts = Some(1)).await;
    place.publish(&["a"]).await;
    let (mut lost, _) = joined(place.server.address, "worker", "", worth(1)).await;
    assert_eq!(seen(&mut lost).await, (1, 1, false));
    let mut other = place.member().await;
    let before = lost.session.id.clone();
    drop(lost);
    // Once the hub has waited long enough.
    assert_eq!(seen(&mut other).await, (1, 1, true), "a lost connection is no failure");
    let (mut back, told) = joined(place.server.address, "worker", &before, holding(&[1], 1)).await;
    assert_eq!((told.reattached, told.lost_sequences), (false, vec![1]));
    assert_eq!(back.say(&[1], |_| {}).await, [(1, "LEASE_EXPIRED".to_owned())]);
    other.ack(&[1]).await;
    let (_, told) = joined(place.server.address, "worker", &before, holding(&[1], 1)).await;
    assert_eq!((told.reattached, told.lost_sequences), (false, vec![]), "what is done may be acknowledged once more");
    back.ack(&[1]).await;
}

#[tokio::test]
async fn one_without_a_name_is_not_waited_for_and_burns_no_attempt_either() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place.group(|group| group.max_attempts = Some(1)).await;
    place.publish(&["a"]).await;
    let mut before = String::new();
    for loss in 0..=3 {
        let (mut nameless, told) = joined(place.server.address, "", &before, holding(&[], 1)).await;
        assert_eq!(seen(&mut nameless).await, (1, 1, loss > 0));
        assert!(!told.reattached);
        before.clone_from(&nameless.session.id);
        if loss == 3 {
            nameless.ack(&[1]).await;
        }
        drop(nameless);
        until_nobody_is_there(&mut place).await;
    }
    let state = place.state().await;
    assert_eq!((state.cursor, state.dropped), (1, 0));
}

#[tokio::test]
async fn an_event_that_ends_its_members_again_and_again_is_a_dead_letter_in_the_end() {
    let folder = Folder::new();
    let mut place = Place::new(&folder).await;
    place
        .group(|group| {
            group.max_attempts = Some(2);
            group.dead_letter_stream = "lost".into();
        })
        .await;
    place.publish(&["poison"]).await;
    let mut came = Vec::new();
    for _ in 0..5 {
        let mut doomed = place.member().await;
        let event = doomed.event().await;
        came.push((event.attempt, event.redelivered));
    }
    assert_eq!(came, [(1, false), (1, true), (1, true), (1, true), (2, true)]);
    let letters = place.until_letters(1).await;
    let told = (letters[0].origin_sequence, letters[0].attempts, letters[0].reason.as_str());
    assert_eq!(told, (1, 2, "the member it was delivered to was lost"));
}

#[tokio::test]
async fn whatever_one_says_that_it_holds_nothing_is_taken_from_others() {
    let folder = Folder::new();
    let mut place = strict(&folder).await;
    place.publish(&["a", "b", "c"]).await;
    let (mut worker, _) = joined(place.server.address, "worker", "", worth(1)).await;
    assert_eq!(worker.event().await.sequence, 1);
    let (mut other, _) = joined(place.server.address, "other", "", worth(1)).await;
    assert_eq!(other.event().await.sequence, 2);
    let before = worker.session.id.clone();
    drop(worker);
    until("it is gone", async || place.state().await.members == 1).await;
    // Another's, what nobody was sent, and what the stream never had; in any order, and some twice.
    let (mut back, told) = joined(place.server.address, "worker", &before, holding(&[99, 3, 1, 2, 1, 99], 0)).await;
    assert_eq!((told.reattached, told.lost_sequences), (true, vec![2, 3, 99]));
    let late = |sequence: i64| (sequence, "LEASE_EXPIRED".to_owned());
    assert_eq!(back.say(&[1, 2, 3, 99], |_| {}).await, [2, 3, 99].map(late));
    other.ack(&[2]).await;
    grant(&back, 1).await;
    assert_eq!(seen(&mut back).await, (3, 1, false));
    // A stranger has nothing to come back to.
    let (_, told) = joined(place.server.address, "worker", "no-such-session", holding(&[3], 0)).await;
    assert_eq!((told.reattached, told.lost_sequences), (false, vec![3]));
    back.ack(&[3]).await;
    assert_eq!(place.state().await.cursor, 3);
}

#[tokio::test]
async fn one_that_does_not_say_what_it_holds_has_all_that_it_was_sent() {
    let folder = Folder::new();
    let mut place = strict(&folder).await;
    place.publish(&["event-1", "event-2", "event-3"]).await;
    let relay = Relay::start(place.server.address).await;
    let (mut worker, _) = joined(relay.address, "worker", "", worth(1)).await;
    assert_eq!(seen(&mut worker).await, (1, 1, false));
    relay.swallow();
    grant(&worker, 1).await;
    until("the second is written", async || relay.has_swallowed("event-2")).await;
    relay.cut();
    until_nobody_is_there(&mut place).await;
    let (mut back, told) = joined(place.server.address, "worker", &worker.session.id, worth(5)).await;
    assert_eq!((told.reattached, told.lost_sequences), (true, vec![]));
    assert_eq!(seen(&mut back).await, (3, 1, false), "nobody knows that the second did not arrive");
    back.ack(&[1, 2, 3]).await;
}

#[tokio::test]
async fn what_one_may_say_that_it_holds() {
    let folder = Folder::new();
    let mut place = strict(&folder).await;
    let address = place.server.address;
    let most: Vec<i64> = (1..=100_000).collect();
    let (_member, told) = joined(address, "", "no-such-session", holding(&most, 0)).await;
    assert_eq!((told.reattached, told.lost_sequences), (false, most));

    let too_many: Vec<i64> = (1..=100_001).collect();
    let malformed = ("MALFORMED_COMMAND", "subscribe.spec.reattach.held_sequences");
    let unsupported = ("CONFIG_MISMATCH", "subscribe.spec.reattach");
    let reattach = Some(Reattach::default());
    let mut session = Session::open(address).await;
    for (wish, refused) in [
        (holding(&too_many, 0), malformed),
        (holding(&[0], 0), malformed),
        (holding(&[-1], 0), malformed),
        (SubscriptionSpec { reattach: reattach.clone(), ..spec(&["jobs.>"]) }, unsupported),
        (SubscriptionSpec { reattach: reattach.clone(), stream: "jobs".into(), ..spec(&[]) }, unsupported),
        (SubscriptionSpec { reattach, ack_mode: AckMode::None.into(), ..member() }, unsupported),
    ] {
        session.send(1, subscribe(wish)).await;
        let status = session.ended().await.status.expect("a status");
        assert_eq!((reason(&status).as_str(), field(&status).as_str()), refused, "{status:?}");
    }
    session.send(1, subscribe(member())).await;
    assert!(matches!(session.frame().await.frame, Some(Frame::Subscribed(_))), "the session goes on");
    assert_eq!(place.state().await.members, 2);
}
