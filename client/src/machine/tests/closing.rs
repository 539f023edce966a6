//! The end of a client: in order, in time, and with what was left.

use std::time::Duration;

use super::world::{STREAM, World};
use crate::{
    error::ErrorKind,
    machine::{Plan, verdict::Verdict},
    spec::{Live, Start, Stream},
    state::{Drain, Left, State},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Turns until the client half-closes or is over; the hub then ends the session.
fn run_down(world: &mut World) {
    for _ in 0..100 {
        if !world.is_connected {
            if matches!(world.machine.plan(world.now), Plan::Stop(_)) {
                break;
            }
            world.pass(Duration::from_millis(20));
            continue;
        }
        world.turn(99);
        world.hub_reads(99);
        world.client_reads(99);
        if world.is_half_closed {
            world.cut();
        }
        world.pass(Duration::from_millis(20));
    }
    world.hear_news();
}

fn with_an_event_in_hand(world: &mut World) -> (i64, (i64, u64)) {
    let id = world.subscribe(Stream::named(STREAM).group("g").from(Start::Earliest));
    world.publish("s.x", "1");
    world.publish("s.x", "2");
    world.settle();
    let (_, events) = world.take_events(id).expect("events");
    assert!(world.settle_event(id, events[1], Verdict::Ack));
    (id, events[0])
}

#[test]
fn a_drain_waits_for_what_the_application_has_and_flushes_what_it_says() {
    let mut world = World::new(|_| {});
    let (id, event) = with_an_event_in_hand(&mut world);
    let unsent = world.publish("s.x", "3");
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    assert_eq!(world.state(), State::Closing);
    assert_eq!(world.machine.subscribe(Live::to(["x"]).into(), None).expect_err("closed").kind(), ErrorKind::Closed);
    run_down(&mut world);
    assert_eq!(world.state(), State::Closing, "an event is in hand");
    assert!(world.results.contains_key(&unsent), "publishes do not wait for that");
    assert!(world.take_events(id).is_none() && matches!(world.machine.table.take_end(id), Some(Ok(()))));
    assert!(world.settle_event(id, event, Verdict::Ack));
    run_down(&mut world);
    assert_eq!((world.state(), world.machine.left()), (State::Closed, Left::default()));
    assert_eq!(world.hub.done.len(), 2);
}

#[test]
fn a_drain_that_releases_waits_for_no_handler() {
    let mut world = World::new(|_| {});
    let (id, event) = with_an_event_in_hand(&mut world);
    world.machine.drain(world.now, Drain::Release, TIMEOUT);
    assert!(!world.settle_event(id, event, Verdict::Ack), "it is given back");
    run_down(&mut world);
    assert_eq!((world.state(), world.machine.left()), (State::Closed, Left::default()));
    assert_eq!(world.hub.done.len(), 1, "what was said before is stored");
}

#[test]
fn a_drain_ends_in_time_and_says_what_was_left() {
    let mut world = World::new(|_| {});
    let _hand = with_an_event_in_hand(&mut world);
    world.cut();
    world.connect();
    world.client_reads(1);
    let written = world.publish("s.x", "3");
    world.turn(99);
    let unsent = world.publish("s.x", "4");
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    world.pass(TIMEOUT);
    world.turn(0);
    world.hear_news();
    assert_eq!(world.state(), State::Closed);
    let left = Left { events: 1, acknowledgements: 1, unknown_publishes: 1, unsent_publishes: 1 };
    assert_eq!(world.machine.left(), left);
    let kind = |ticket| world.results[&ticket][0].as_ref().expect_err("not answered").kind();
    assert_eq!((kind(written), kind(unsent)), (ErrorKind::Unknown, ErrorKind::Closed));
}

#[test]
fn a_drain_without_a_session_ends_at_once_when_nothing_is_left_and_comes_back_when_something_is() {
    let mut world = World::new(|_| {});
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    assert!(matches!(world.machine.plan(world.now), Plan::Stop(Ok(()))));

    let mut world = World::new(|_| {});
    let ticket = world.publish("s.x", "1");
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    world.connect();
    assert!(world.is_connected, "there is something to flush");
    run_down(&mut world);
    assert!(world.results[&ticket][0].is_ok());
    assert_eq!(world.state(), State::Closed);
}

#[test]
fn a_drain_while_it_waits_or_connects_ends_that() {
    let mut world = World::new(|_| {});
    world.connect();
    world.cut();
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    assert!(matches!(world.machine.plan(world.now), Plan::Stop(Ok(()))));

    let mut world = World::new(|_| {});
    assert!(matches!(world.machine.plan(world.now), Plan::Open(_)));
    assert!(world.machine.opening(world.now).is_some());
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    assert!(world.machine.opening(world.now).is_none());
}

#[test]
fn a_hub_that_does_not_end_the_session_is_not_waited_for() {
    let mut world = World::new(|_| {});
    world.subscribe(Live::to(["x"]));
    world.settle();
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    for _ in 0..100 {
        world.turn(99);
        world.hub_reads(99);
        world.client_reads(99);
        world.pass(Duration::from_millis(20));
    }
    assert!(!world.is_connected);
    assert_eq!(world.state(), State::Closed);
}

#[test]
fn without_a_driver_everybody_is_told() {
    let mut world = World::new(|_| {});
    let ticket = world.publish("s.x", "1");
    let id = world.subscribe(Live::to(["x"]));
    world.machine.abandon();
    world.hear_news();
    assert_eq!(world.state(), State::Closed);
    assert!(world.results.contains_key(&ticket));
    assert!(matches!(world.machine.table.take_end(id), Some(Ok(()))));
}

#[test]
fn a_session_that_is_half_closed_is_not_checked_over_and_over() {
    let mut world = World::new(|_| {});
    world.settle();
    world.machine.drain(world.now, Drain::Finish, TIMEOUT);
    world.turn(99);
    assert!(world.is_half_closed);
    let over_at = world.now + Duration::from_secs(1);
    for _ in 0..3 {
        world.pass(Duration::from_millis(100));
        assert_eq!(world.machine.turn(world.now).wake_at, over_at, "nothing but the hub can do anything");
    }
}
