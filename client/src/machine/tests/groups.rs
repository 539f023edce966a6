//! Members of groups: what they hold, and what becomes of what they say.

use super::world::{STREAM, World};
use crate::{
    error::ErrorKind,
    machine::{hands::Lost, verdict::Verdict},
    spec::{Start, Stream},
};

fn member(world: &mut World, window: u32) -> i64 {
    world.subscribe(Stream::named(STREAM).group("g").from(Start::Earliest).window(window))
}

fn publish(world: &mut World, count: u32) {
    for id in 1..=count {
        world.publish("s.x", &id.to_string());
    }
    world.settle();
}

/// Everything that comes for the application now.
fn take_all(world: &mut World, id: i64) -> Vec<(i64, u64)> {
    let mut all = Vec::new();
    while let Some((_, events)) = world.take_events(id) {
        all.extend(events);
    }
    all
}

fn sequences(events: &[(i64, u64)]) -> Vec<i64> {
    events.iter().map(|(sequence, _)| *sequence).collect()
}

#[test]
fn no_more_than_the_window_is_held_and_what_is_settled_makes_room() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 12);
    let mut events = take_all(&mut world, id);
    assert_eq!(sequences(&events), [1, 2, 3, 4]);
    world.settle();
    assert_eq!(take_all(&mut world, id), [], "taken is not settled");
    let mut done = 0;
    while let Some(event) = events.pop() {
        assert!(world.settle_event(id, event, Verdict::Ack));
        done += 1;
        world.settle();
        events.extend(take_all(&mut world, id));
        assert!(events.len() <= 4);
    }
    assert_eq!((done, world.hub.done.len()), (12, 12));
}

#[test]
fn an_event_in_hand_does_not_come_again_when_its_lease_was_lost_and_its_word_holds() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 2);
    let events = take_all(&mut world, id);
    world.cut();
    world.settle();
    assert_eq!(take_all(&mut world, id), [], "the hub sent them again, to nobody");
    assert_eq!(world.machine.table.totals().held.events, 2);
    for event in events {
        assert!(world.settle_event(id, event, Verdict::Ack));
    }
    world.settle();
    assert_eq!(world.hub.done.len(), 2);
    assert_eq!(world.machine.table.totals().held.events, 0);
}

#[test]
fn what_was_not_taken_goes_back_with_its_session() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 2);
    world.cut();
    assert_eq!(take_all(&mut world, id), []);
    assert_eq!(world.machine.table.totals().held.events, 0);
    world.settle();
    assert_eq!(sequences(&take_all(&mut world, id)), [1, 2]);
}

#[test]
fn what_was_said_and_not_answered_is_said_again_and_done_once() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 3);
    let events = take_all(&mut world, id);
    // One was said and heard, but the answer is lost; one was said and not heard; one is said while there is no session.
    assert!(world.settle_event(id, events[0], Verdict::Ack));
    world.turn(9);
    world.hub_reads(9);
    assert!(world.settle_event(id, events[1], Verdict::Ack));
    world.turn(9);
    world.cut();
    assert!(world.settle_event(id, events[2], Verdict::Ack));
    world.settle();
    assert_eq!(take_all(&mut world, id), [], "nothing is done twice");
    assert_eq!(world.hub.done.len(), 3);
    assert_eq!(world.machine.table.totals().unanswered, 0);
}

#[test]
fn whoever_waits_hears_that_the_lease_is_lost_and_then_the_event_comes_again() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 1);
    let (sequence, copy) = take_all(&mut world, id)[0];
    world.cut();
    let ticket = world.machine.ticket();
    assert!(world.machine.table.settle_event(world.now, (id, sequence, copy), Verdict::Ack, Some(ticket)));
    world.connect();
    // The acknowledgement is there before the hub sends the event again.
    for _ in 0..4 {
        world.turn(9);
        world.hub_reads(9);
        world.client_reads(9);
    }
    let error = world.settled.remove(&ticket).expect("an answer").expect_err("the lease is lost");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::LeaseLost, "LEASE_EXPIRED"));
    world.settle();
    let again = take_all(&mut world, id);
    assert_eq!(sequences(&again), [1]);
    assert!(!world.settle_event(id, (sequence, copy), Verdict::Ack), "the first copy is nothing any more");
    assert!(world.settle_event(id, again[0], Verdict::Ack));
    world.settle();
    assert_eq!(world.hub.done.len(), 1);
}

#[test]
fn lost_leases_are_told_to_whoever_asks_and_their_events_come_again() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 2);
    let events = take_all(&mut world, id);
    world.cut();
    for event in events {
        assert!(world.settle_event(id, event, Verdict::Ack));
    }
    let mark = world.machine.table.mark(id);
    assert_eq!(world.machine.table.settled(id, mark), None, "nothing is answered");
    world.connect();
    for _ in 0..4 {
        world.turn(9);
        world.hub_reads(9);
        world.client_reads(9);
    }
    let lost = world.machine.table.settled(id, mark).expect("everything is answered");
    assert_eq!(lost, Lost { sequences: vec![1, 2], count: 2 });
    world.settle();
    assert_eq!(sequences(&take_all(&mut world, id)), [1, 2]);
}

#[test]
fn a_nack_brings_the_event_again_and_one_that_is_moot_is_forgotten() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 1);
    let nack = || Verdict::Nack { delay: None, reason: "no paper".into() };
    let first = take_all(&mut world, id)[0];
    assert!(world.settle_event(id, first, nack()));
    world.settle();
    let second = take_all(&mut world, id)[0];
    assert_ne!(first.1, second.1);
    // The session is lost: the event comes again by itself, and the nack must not hit its new lease.
    world.cut();
    world.connect();
    world.client_reads(1);
    world.turn(9);
    world.hub_reads(9);
    world.hub.send();
    assert!(world.settle_event(id, second, nack()));
    world.client_reads(9);
    let third = take_all(&mut world, id);
    assert_eq!(sequences(&third), [1]);
    assert!(world.settle_event(id, third[0], Verdict::Ack));
    world.settle();
    assert_eq!(world.hub.done.len(), 1);
    assert_eq!(take_all(&mut world, id), []);
    let mark = world.machine.table.mark(id);
    assert_eq!(world.machine.table.settled(id, mark), Some(Lost::default()), "no lease was lost");
}

#[test]
fn an_event_that_is_dropped_makes_room_and_nothing_is_said_of_it() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 1);
    publish(&mut world, 2);
    let (sequence, copy) = take_all(&mut world, id)[0];
    let mut news = std::mem::take(&mut world.machine.news);
    world.machine.table.let_go(world.now, id, [(sequence, copy)].into_iter(), &mut news);
    world.settle();
    assert!(world.hub.done.is_empty());
    assert_eq!(sequences(&take_all(&mut world, id)), [2], "the lease on 1 has to run out first");
}

#[test]
fn words_that_the_hub_cannot_store_now_are_said_again() {
    use crate::proto::v1::{AckResult, Acknowledged, SessionResponse, session_response::Frame};
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 1);
    let event = take_all(&mut world, id)[0];
    assert!(world.settle_event(id, event, Verdict::Ack));
    world.turn(9);
    world.hub_reads(9);
    let answer = world.hub.out.pop_back().expect("an answer");
    let unavailable = super::world::status(tonic::Code::Unavailable, "ENGINE_UNAVAILABLE", None);
    let results = vec![AckResult { sequence: event.0, status: Some(unavailable) }];
    let frame = Frame::Acknowledged(Acknowledged { subscription_id: id, results });
    world.hub.out.push_back(SessionResponse { request_id: answer.request_id, frame: Some(frame) });
    world.client_reads(9);
    assert_eq!(world.machine.table.totals().unanswered, 1);
    assert!(world.machine.table.due().is_some_and(|due| due > world.now));
    world.settle();
    assert_eq!(world.machine.table.totals().unanswered, 0);
}

#[test]
fn leases_are_extended_together_and_only_of_what_is_in_hand() {
    let mut world = World::new(|_| {});
    let id = member(&mut world, 4);
    publish(&mut world, 3);
    let events = take_all(&mut world, id);
    for (sequence, copy) in &events {
        world.machine.table.extend(world.now, (id, *sequence, *copy), None);
    }
    assert!(world.settle_event(id, events[0], Verdict::Ack));
    world.machine.table.extend(world.now, (id, events[0].0, events[0].1), None);
    world.turn(1);
    world.turn(1);
    world.hub_reads(9);
    let answers: Vec<usize> = std::mem::take(&mut world.hub.out)
        .into_iter()
        .filter_map(|frame| match frame.frame {
            Some(crate::proto::v1::session_response::Frame::Acknowledged(told)) => Some(told.results.len()),
            _ => None,
        })
        .collect();
    assert_eq!(answers, [1, 2], "one acknowledgement, then both extensions in one command");
}
