//! Subscriptions from streams, and live ones, over several sessions.

use std::time::Duration;

use tonic::Code;

use super::world::{STREAM, World, status};
use crate::{
    error::ErrorKind,
    item::{Gap, GapReason},
    machine::incoming::Incoming,
    proto::v1::{self, EndReason, Ended, RetryAdvice, SessionResponse, session_response::Frame},
    spec::{Live, Start, Stream},
};

/// Takes everything there is: sequences, and gaps as their reasons.
fn take_all(world: &mut World, id: i64) -> (Vec<i64>, Vec<GapReason>) {
    let (mut sequences, mut gaps) = (Vec::new(), Vec::new());
    while let Some(incoming) = world.machine.table.take(world.now, id) {
        match incoming {
            Incoming::Events { events, .. } => {
                sequences.extend(events.iter().map(crate::received::ReceivedRef::sequence));
            }
            Incoming::Gap(gap) => gaps.push(gap.reason),
            Incoming::CaughtUp => {}
        }
    }
    (sequences, gaps)
}

fn ended(world: &mut World, id: i64, code: Code, reason: EndReason, delay: Option<Duration>) {
    world.hub.forget(id);
    let name = reason.as_str_name().trim_start_matches("END_REASON_");
    let told = Ended {
        subscription_id: id,
        status: Some(if code == Code::Ok { tonic_types::pb::Status::default() } else { status(code, name, delay) }),
        reason: reason.into(),
        resume_token: String::new(),
        retry: Some(RetryAdvice { retry: delay.is_some(), delay: delay.and_then(|delay| delay.try_into().ok()) }),
    };
    world.hub.out.push_back(SessionResponse { request_id: 0, frame: Some(Frame::Ended(told)) });
    world.client_reads(usize::MAX);
}

fn publish(world: &mut World, ids: std::ops::RangeInclusive<u32>) {
    for id in ids {
        world.publish("s.x", &id.to_string());
    }
}

#[test]
fn a_session_goes_on_behind_what_has_come_and_the_next_run_behind_what_is_done() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Stream::named(STREAM).from(Start::Earliest));
    publish(&mut world, 1..=3);
    world.settle();
    let (batch, events) = world.take_events(id).expect("events");
    assert_eq!(events.len(), 3);
    assert_eq!(world.machine.table.done(id), None, "nothing is done");
    world.cut();
    publish(&mut world, 4..=6);
    world.settle();
    assert_eq!(take_all(&mut world, id).0, [4, 5, 6], "1 to 3 are in hand, and do not come again");
    world.machine.table.finish_batch(world.now, id, batch);
    assert_eq!(world.machine.table.done(id).as_deref(), Some("3"), "4 to 6 are not done");
}

#[test]
fn a_subscription_of_what_is_new_misses_nothing_that_comes_while_it_is_away() {
    let mut world = World::new(|_| {});
    publish(&mut world, 1..=2);
    world.settle();
    let id = world.subscribe(Stream::named(STREAM));
    world.connect();
    world.turn(usize::MAX);
    world.hub_reads(usize::MAX);
    // It is open, and no token has come.
    world.client_reads(usize::MAX);
    assert!(world.machine.table.is_open(id));
    world.cut();
    for n in 3..=4 {
        // By somebody else.
        let event = v1::Event { topic: "s.x".into(), id: n.to_string(), ..v1::Event::default() };
        world.hub.log.push(event);
    }
    world.settle();
    assert_eq!(take_all(&mut world, id), (vec![3, 4], vec![]));
}

#[test]
fn what_is_taken_makes_room_and_what_is_not_stops_the_hub() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Stream::named(STREAM).from(Start::Earliest).window(4));
    publish(&mut world, 1..=20);
    world.settle();
    assert_eq!(world.machine.table.totals().held.events, 4);
    assert!(world.machine.table.totals().full_windows > 0);
    let mut all = Vec::new();
    while let Some((_, events)) = world.take_events(id) {
        all.extend(events.iter().map(|(sequence, _)| *sequence));
        assert!(world.machine.table.totals().held.events <= 4);
        world.settle();
    }
    assert_eq!(all, (1..=20).collect::<Vec<_>>());
    assert_eq!(world.machine.table.totals().held.events, 0);
}

#[test]
fn a_live_subscription_hears_of_what_it_may_have_missed_in_its_place() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Live::to(["x"]));
    world.connect();
    world.cut();
    world.settle();
    assert_eq!(take_all(&mut world, id).1, [], "it had not begun");
    let event = v1::ReceivedEvent::default();
    let events = v1::Events { subscription_id: id, events: vec![event], ..Default::default() };
    world.hub.out.push_back(SessionResponse { request_id: 0, frame: Some(Frame::Events(events)) });
    world.client_reads(9);
    for _ in 0..3 {
        // However often it fails to come back, it is one gap.
        world.cut();
        world.connect();
    }
    world.settle();
    assert!(matches!(world.machine.table.take(world.now, id), Some(Incoming::Events { .. })));
    let expected = Gap { count: None, from: None, to: None, reason: GapReason::Away };
    assert!(matches!(world.machine.table.take(world.now, id), Some(Incoming::Gap(gap)) if gap == expected));
    assert!(world.machine.table.take(world.now, id).is_none());
}

#[test]
fn one_that_ends_for_a_while_comes_back_after_its_delay() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Stream::named(STREAM).from(Start::Earliest));
    world.settle();
    ended(&mut world, id, Code::Unavailable, EndReason::EngineUnavailable, Some(Duration::from_secs(3)));
    assert!(!world.machine.table.is_open(id));
    let due = world.machine.table.due().expect("a time");
    assert_eq!(due, world.now + Duration::from_secs(3));
    world.pass(Duration::from_millis(2_999));
    world.turn(9);
    world.hub_reads(9);
    assert!(world.hub.out.is_empty(), "it is not time");
    world.settle();
    assert!(world.machine.table.is_open(id));
    assert!(world.machine.table.take_end(id).is_none());
}

#[test]
fn one_that_ends_at_once_again_and_again_waits_longer_and_longer() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Live::to(["x"]));
    world.settle();
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        ended(&mut world, id, Code::ResourceExhausted, EndReason::SlowConsumer, Some(Duration::ZERO));
        let due = world.machine.table.due().expect("a time");
        longest = longest.max(due.saturating_sub(world.now));
        world.now = due;
        world.turn(9);
        world.hub_reads(9);
        world.client_reads(9);
        assert!(world.machine.table.is_open(id));
    }
    assert!(longest > Duration::from_secs(5) && longest <= Duration::from_secs(30), "{longest:?}");
}

#[test]
fn one_that_ends_for_good_says_why_once_behind_what_came() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Stream::named(STREAM).from(Start::Earliest));
    publish(&mut world, 1..=1);
    world.settle();
    ended(&mut world, id, Code::NotFound, EndReason::StreamNotFound, None);
    assert_eq!(take_all(&mut world, id).0, [1]);
    let error = world.machine.table.take_end(id).expect("over").expect_err("an error");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Ended, "STREAM_NOT_FOUND"));
    assert!(error.to_string().starts_with("stream s at hub: "), "{error}");
    assert!(matches!(world.machine.table.take_end(id), Some(Ok(()))));
    world.cut();
    world.settle();
    assert!(!world.machine.table.is_open(id), "it does not come back");
}

#[test]
fn an_end_that_nobody_asked_for_is_not_taken_for_one_that_was() {
    let mut world = World::new(|_| {});
    let (limited, taken) = (world.subscribe(Live::to(["x"])), world.subscribe(Live::to(["y"])));
    world.settle();
    ended(&mut world, limited, Code::Ok, EndReason::LimitReached, None);
    ended(&mut world, taken, Code::Ok, EndReason::ClientUnsubscribed, None);
    assert!(matches!(world.machine.table.take_end(limited), Some(Ok(()))));
    assert!(matches!(world.machine.table.take_end(taken), Some(Err(_))));
}

#[test]
fn an_expired_credential_ends_a_subscription_only_where_no_other_can_come() {
    for source in [true, false] {
        let mut world = World::new(|setup| setup.has_source = source);
        let id = world.subscribe(Live::to(["x"]));
        world.settle();
        ended(&mut world, id, Code::Unauthenticated, EndReason::CredentialExpired, None);
        world.settle();
        assert_eq!(world.machine.table.is_open(id), source);
    }
}

#[test]
fn a_limit_holds_over_several_sessions() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Stream::named(STREAM).from(Start::Earliest).limit(5));
    publish(&mut world, 1..=2);
    world.settle();
    world.cut();
    publish(&mut world, 3..=9);
    world.connect();
    world.client_reads(1);
    world.turn(usize::MAX);
    world.hub_reads(usize::MAX);
    world.hub.send();
    // The hub counts for itself; this one does not.
    world.client_reads(3);
    assert_eq!(take_all(&mut world, id).0, [1, 2, 3, 4, 5]);
    world.cut();
    assert!(matches!(world.machine.table.take_end(id), Some(Ok(()))), "it has all that it wanted");
}

#[test]
fn one_that_nobody_reads_is_ended_and_forgotten() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Stream::named(STREAM).from(Start::Earliest));
    publish(&mut world, 1..=3);
    world.settle();
    let (batch, _) = world.take_events(id).expect("a batch");
    let mut news = std::mem::take(&mut world.machine.news);
    world.machine.table.abandon(world.now, id, &mut news);
    world.settle();
    assert_eq!(world.machine.table.totals().subscriptions, 1, "a batch is with the application");
    world.machine.table.drop_batch(world.now, id, batch, &mut news);
    world.settle();
    assert_eq!(world.machine.table.totals().subscriptions, 0);
}
