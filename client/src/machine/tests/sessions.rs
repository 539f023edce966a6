//! Sessions: states, waits, addresses, silence, draining, and what is for ever.

use std::time::Duration;

use tonic::{Code, Status};

use super::world::{STREAM, World, status};
use crate::{
    error::{Error, ErrorKind},
    machine::{Loss, Plan},
    proto::v1::{self, SessionResponse, session_response::Frame},
    spec::{Live, Start, Stream},
    state::State,
};

fn failed(code: Code, reason: &str) -> Loss {
    Loss::Failed(Error::of_message(ErrorKind::Lost, &status(code, reason, None)))
}

fn states(world: &World) -> Vec<State> {
    world.states.iter().map(|status| status.state).collect()
}

#[test]
fn every_change_of_state_is_told_with_its_reason() {
    let mut world = World::new(|_| {});
    world.connect();
    world.client_reads(1);
    world.lose(failed(Code::Unavailable, "DRAINING"));
    world.connect();
    world.lose(failed(Code::Internal, ""));
    world.connect();
    world.client_reads(1);
    assert_eq!(
        states(&world),
        [State::Connecting, State::Up, State::Waiting, State::Connecting, State::Waiting, State::Connecting, State::Up]
    );
    let told: Vec<_> = world.states.iter().map(|status| (status.session_id.as_str(), status.attempt)).collect();
    assert_eq!(
        told,
        [
            ("", 1),
            ("session-1", 0),
            ("session-1", 0),
            ("session-1", 1),
            ("session-1", 1),
            ("session-1", 2),
            ("session-3", 0)
        ]
    );
    let reason = world.states[2].reason.as_ref().expect("a reason");
    assert_eq!((reason.reason(), reason.to_string().starts_with("hub: ")), ("DRAINING", true));
    assert!(world.states[6].reason.is_none());
    let stats = world.machine.stats(world.now);
    assert_eq!(stats.sessions, 2);
    assert_eq!(stats.losses.into_iter().collect::<Vec<_>>(), [("DRAINING".into(), 1), ("Internal".into(), 1)]);
}

#[test]
fn waits_grow_to_five_seconds_and_are_short_again_after_a_session_that_worked() {
    let mut world = World::new(|_| {});
    let mut waits = Vec::new();
    for _ in 0..40 {
        world.connect();
        let since = world.now;
        world.lose(failed(Code::Unavailable, ""));
        world.connect();
        waits.push(world.since(since));
        world.lose(failed(Code::Unavailable, ""));
    }
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(5)), "{waits:?}");
    assert!(waits[20..].iter().any(|wait| *wait > Duration::from_secs(3)), "{waits:?}");
    // One that ends too soon changes nothing; one that lasted does.
    for (lasts, most) in [(9, Duration::from_secs(5)), (10, Duration::from_millis(100))] {
        world.connect();
        world.client_reads(1);
        world.pass(Duration::from_secs(lasts));
        let since = world.now;
        world.cut();
        world.connect();
        assert!(world.since(since) <= most, "after {lasts} s: {:?}", world.since(since));
        world.lose(failed(Code::Unavailable, ""));
    }
}

#[test]
fn the_wait_that_the_hub_asks_for_is_kept_and_one_for_what_is_used_up_may_be_longer() {
    let mut world = World::new(|_| {});
    for delay in [Duration::from_secs(7), Duration::from_secs(60)] {
        world.connect();
        let since = world.now;
        let told = status(Code::Unavailable, "DRAINING", Some(delay));
        world.lose(Loss::Failed(Error::of_message(ErrorKind::Lost, &told)));
        world.connect();
        assert_eq!(world.since(since), delay);
    }
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        let since = world.now;
        world.lose(failed(Code::ResourceExhausted, "TOO_MANY_SESSIONS"));
        world.connect();
        longest = longest.max(world.since(since));
    }
    assert!(longest > Duration::from_secs(10) && longest <= Duration::from_secs(30), "{longest:?}");
}

#[test]
fn a_hub_that_ends_sessions_at_once_and_asks_for_no_wait_is_not_called_in_a_loop() {
    let mut world = World::new(|_| {});
    let mut waits = Vec::new();
    for _ in 0..40 {
        world.connect();
        world.client_reads(1);
        let since = world.now;
        let told = status(Code::Unavailable, "DRAINING", Some(Duration::from_millis(1)));
        world.lose(Loss::Failed(Error::of_message(ErrorKind::Lost, &told)));
        world.connect();
        waits.push(world.since(since));
        world.client_reads(1);
        world.cut();
    }
    assert!(waits[20..].iter().any(|wait| *wait > Duration::from_secs(3)), "{waits:?}");
    // One that worked is left as soon as the hub says.
    world.connect();
    world.client_reads(1);
    world.pass(Duration::from_secs(10));
    let since = world.now;
    let told = status(Code::Unavailable, "DRAINING", Some(Duration::from_millis(1)));
    world.lose(Loss::Failed(Error::of_message(ErrorKind::Lost, &told)));
    world.connect();
    assert_eq!(world.since(since), Duration::from_millis(1));
}

#[test]
fn each_failure_leads_to_the_next_address() {
    let mut world = World::new(|setup| setup.addresses = (0..3).map(|n| format!("hub-{n}")).collect());
    for _ in 0..6 {
        world.connect();
        world.lose(failed(Code::Unavailable, ""));
    }
    let tried: Vec<&str> = world.opened.iter().map(|(_, address)| address.as_str()).collect();
    let mut round = tried[..3].to_vec();
    round.sort_unstable();
    assert_eq!(round, ["hub-0", "hub-1", "hub-2"]);
    assert_eq!(tried[..3], tried[3..]);
}

#[test]
fn what_trying_again_cannot_mend_fails_the_client_loudly() {
    for (loss, source, fails) in [
        (failed(Code::Unauthenticated, "CREDENTIAL_INVALID"), false, true),
        (failed(Code::Unauthenticated, "CREDENTIAL_INVALID"), true, false),
        (failed(Code::PermissionDenied, "ACTION_DENIED"), true, true),
        (failed(Code::Unimplemented, ""), true, true),
        (failed(Code::Aborted, "SESSION_TERMINATED"), false, true),
        (failed(Code::Internal, "INTERNAL"), false, false),
        (failed(Code::DataLoss, "STORE_CORRUPT"), false, false),
    ] {
        let text = format!("{loss:?}");
        let mut world = World::new(|setup| setup.has_source = source);
        world.connect();
        world.client_reads(1);
        let id = world.subscribe(Live::to(["a"]));
        world.lose(loss);
        let expected = if fails { State::Failed } else { State::Waiting };
        assert_eq!(world.state(), expected, "{text}");
        let told = world.machine.table.take_end(id);
        assert_eq!(matches!(told, Some(Err(_))), fails, "{text}");
        assert_eq!(matches!(world.machine.plan(world.now), Plan::Stop(Err(_))), fails, "{text}");
        if fails {
            assert_eq!(world.machine.check_open().expect_err("over").kind(), ErrorKind::Closed);
            assert!(matches!(world.machine.table.take_end(id), Some(Ok(()))), "an error is told once");
        }
    }
    let mut world = World::new(|setup| setup.returns.when_terminated = true);
    world.connect();
    world.client_reads(1);
    world.connect();
    world.lose(failed(Code::Aborted, "SESSION_TERMINATED"));
    assert_eq!(world.state(), State::Waiting);
}

#[test]
fn a_session_in_which_nothing_comes_is_lost_after_two_intervals_and_five_seconds() {
    let mut world = World::new(|setup| setup.heartbeat = Duration::from_secs(2));
    world.connect();
    world.client_reads(1);
    let limit = Duration::from_secs(2 * 2 + 5);
    for _ in 0..5 {
        world.pass(limit.saturating_sub(Duration::from_millis(1)));
        world.turn(9);
        assert!(world.is_connected, "it is not time");
        let beat = SessionResponse { request_id: 0, frame: Some(Frame::Heartbeat(v1::Heartbeat::default())) };
        world.hub.out.push_back(beat);
        world.client_reads(1);
    }
    assert_eq!(world.machine.turn(world.now).wake_at, world.now + limit);
    world.pass(limit);
    world.turn(9);
    assert!(!world.is_connected);
    let reason = world.states.last().and_then(|status| status.reason.clone()).expect("a reason");
    assert_eq!((reason.reason(), reason.code()), ("NOTHING_HEARD", Code::Unavailable));
}

#[test]
fn time_in_which_the_client_did_not_run_is_no_silence_of_the_hub() {
    let mut world = World::new(|setup| setup.heartbeat = Duration::from_secs(2));
    world.connect();
    world.client_reads(1);
    // It was stopped for an hour. What has come meanwhile gets a moment to arrive.
    world.pass(Duration::from_secs(3600));
    world.turn(9);
    assert!(world.is_connected);
    assert_eq!(world.machine.turn(world.now).wake_at, world.now + Duration::from_secs(5));
    world.pass(Duration::from_secs(5));
    world.turn(9);
    assert!(!world.is_connected, "nothing has come");
}

#[test]
fn one_that_fails_fast_tries_every_address_once_and_one_for_one_session_does_not_come_back() {
    let mut world = World::new(|setup| {
        setup.addresses = (0..3).map(|n| format!("hub-{n}")).collect();
        setup.returns.fails_fast = true;
    });
    for n in 0..3 {
        assert_ne!(world.state(), State::Failed, "attempt {n}");
        world.connect();
        world.lose(failed(Code::Unavailable, "NOT_CONNECTED"));
    }
    assert_eq!((world.state(), world.opened.len()), (State::Failed, 3));

    for once in [false, true] {
        let mut world = World::new(|setup| {
            setup.returns.fails_fast = true;
            setup.returns.is_for_once = once;
        });
        world.connect();
        world.client_reads(1);
        world.cut();
        assert_eq!(world.state() == State::Failed, once);
    }
}

#[test]
fn a_hub_that_accepts_and_says_nothing_is_left_too() {
    let mut world = World::new(|setup| setup.heartbeat = Duration::from_secs(300));
    world.connect();
    world.hub.out.clear();
    world.pass(Duration::from_millis(9_999));
    world.turn(9);
    assert!(world.is_connected);
    world.pass(Duration::from_millis(1));
    world.turn(9);
    assert!(!world.is_connected);
}

#[test]
fn hello_is_first_and_names_the_session_before() {
    let mut world = World::new(|setup| setup.labels = [("a".to_owned(), "b".to_owned())].into());
    world.subscribe(Live::to(["x"]));
    for _ in 0..3 {
        world.settle();
        world.cut();
    }
    let told: Vec<&str> = world.hub.hellos.iter().map(|hello| hello.previous_session_id.as_str()).collect();
    assert_eq!(told, ["", "session-1", "session-2"]);
    let hello = &world.hub.hellos[0];
    assert_eq!((hello.client_name.as_str(), hello.labels["a"].as_str()), ("test", "b"));
    assert_eq!(hello.heartbeat_interval.map(|interval| interval.seconds), Some(15));
}

fn drain(world: &mut World, delay: Duration) {
    let draining = v1::Draining { deadline: None, reconnect_delay: delay.try_into().ok(), ..v1::Draining::default() };
    world.hub.out.push_back(SessionResponse { request_id: 0, frame: Some(Frame::Draining(draining)) });
    world.client_reads(usize::MAX);
}

#[test]
fn a_hub_that_drains_is_left_when_nothing_is_begun_and_the_next_one_is_tried_after_its_delay() {
    let mut world = World::new(|setup| setup.addresses = vec!["a".into(), "b".into()]);
    let id = world.subscribe(Stream::named(STREAM).group("g").from(Start::Earliest));
    world.publish("s.x", "1");
    world.settle();
    let (_, events) = world.take_events(id).expect("an event");
    drain(&mut world, Duration::from_secs(3));
    assert_eq!(world.state(), State::Draining);
    let unanswered = world.publish("s.x", "2");
    for _ in 0..20 {
        world.pass(Duration::from_millis(20));
        world.turn(9);
    }
    assert!(world.is_connected, "an event is in hand");
    assert!(world.settle_event(id, events[0], crate::machine::verdict::Verdict::Ack));
    for _ in 0..20 {
        world.pass(Duration::from_millis(20));
        world.turn(9);
        world.hub_reads(9);
        world.client_reads(9);
    }
    assert!(!world.is_connected, "nothing is begun any more");
    assert_eq!(world.hub.done.len(), 1);
    assert!(world.results.contains_key(&unanswered), "what was written is answered first");
    let since = world.now;
    assert_eq!(world.states.last().expect("a state").state, State::Waiting);
    world.connect();
    assert!(world.since(since) >= Duration::from_secs(2) && world.since(since) <= Duration::from_secs(3));
    assert_ne!(world.opened[0].1, world.opened[1].1);
    world.settle();
    assert_eq!(world.take_events(id).map(|(_, events)| events[0].0), Some(2));
}

#[test]
fn a_hub_that_drains_is_not_left_while_a_publish_is_unanswered_and_gets_no_new_one() {
    let mut world = World::new(|_| {});
    world.connect();
    world.client_reads(1);
    let first = world.publish("s.x", "1");
    world.turn(9);
    drain(&mut world, Duration::ZERO);
    world.pass(Duration::from_millis(20));
    world.turn(9);
    let second = world.publish("s.x", "2");
    for _ in 0..20 {
        world.pass(Duration::from_millis(20));
        world.turn(9);
    }
    assert!(world.is_connected);
    world.hub_reads(9);
    assert_eq!(world.hub.log.len(), 1);
    world.client_reads(9);
    world.pass(Duration::from_millis(20));
    world.turn(9);
    assert!(!world.is_connected && world.results.contains_key(&first));
    world.settle();
    assert!(world.results.contains_key(&second));
}

#[test]
fn three_drains_in_a_row_are_three_sessions() {
    let mut world = World::new(|_| {});
    let id = world.subscribe(Stream::named(STREAM).from(Start::Earliest));
    for n in 1..=3 {
        world.publish("s.x", &n.to_string());
        world.settle();
        drain(&mut world, Duration::ZERO);
        for _ in 0..5 {
            world.pass(Duration::from_millis(20));
            world.turn(9);
        }
        assert!(!world.is_connected);
        assert_eq!(world.take_events(id).map(|(_, events)| events[0].0), Some(n));
    }
    assert_eq!(world.hub.sessions, 3);
}

#[test]
fn a_token_that_expires_is_replaced_in_its_session() {
    let mut world = World::new(|setup| setup.has_source = true);
    world.connect();
    world.client_reads(1);
    assert_eq!(world.machine.turn(world.now).fetch, None);
    let expiring = Frame::CredentialExpiring(v1::CredentialExpiring::default());
    world.hub.out.push_back(SessionResponse { request_id: 0, frame: Some(expiring) });
    world.client_reads(1);
    let session = world.machine.turn(world.now).fetch.expect("it is time");
    let fresh = |value: &str| Some(crate::machine::refresh::Fresh { value: value.into(), life: None });
    assert!(world.machine.fetched(world.now, session, fresh("two")));
    world.turn(9);
    world.hub_reads(9);
    assert_eq!(world.hub.authenticated, ["two"]);
    // One that comes when its session is over is nobody's.
    world.hub.out.push_back(SessionResponse {
        request_id: 0,
        frame: Some(Frame::CredentialExpiring(v1::CredentialExpiring::default())),
    });
    world.client_reads(1);
    let session = world.machine.turn(world.now).fetch.expect("it is time");
    world.cut();
    world.connect();
    world.client_reads(1);
    assert!(world.machine.fetched(world.now, session, fresh("late")));
    world.turn(9);
    world.hub_reads(9);
    assert_eq!(world.hub.authenticated, ["two"]);
}

#[test]
fn a_thousand_subscriptions_are_opened_again_in_one_session() {
    let mut world = World::new(|_| {});
    let ids: Vec<i64> = (0..1000).map(|_| world.subscribe(Live::to(["x"]))).collect();
    for _ in 0..2 {
        world.connect();
        world.client_reads(1);
        for _ in 0..3 {
            world.turn(usize::MAX);
            world.hub_reads(usize::MAX);
            world.client_reads(usize::MAX);
        }
        assert!(ids.iter().all(|id| world.machine.table.is_open(*id)));
        world.cut();
        assert!(ids.iter().all(|id| !world.machine.table.is_open(*id)));
    }
}

#[test]
fn a_status_of_the_transport_is_a_loss_like_any_other() {
    let mut world = World::new(|_| {});
    world.connect();
    world.client_reads(1);
    world.lose(Loss::Failed(Error::of_status(ErrorKind::Lost, &Status::new(Code::Unknown, "h2 protocol error"))));
    assert_eq!(world.state(), State::Waiting);
}

#[test]
fn addresses_that_hubs_name_are_tried_when_a_session_is_lost() {
    let mut world = World::new(|setup| setup.addresses = vec!["hub-0:1".into()]);
    world.hub.alternatives = vec!["http://hub-1:1".into()];
    world.settle();
    let mut draining = v1::Draining { reconnect_delay: Duration::ZERO.try_into().ok(), ..v1::Draining::default() };
    draining.alternatives = vec!["http://hub-2:1".into(), "http://hub-0:1".into()];
    world.hub.out.push_back(SessionResponse { request_id: 0, frame: Some(Frame::Draining(draining)) });
    world.client_reads(usize::MAX);
    for _ in 0..4 {
        world.lose(failed(Code::Unavailable, ""));
        world.connect();
    }
    let tried: Vec<&str> = world.opened.iter().map(|(_, address)| address.as_str()).collect();
    assert_eq!(tried, ["hub-0:1", "http://hub-1:1", "http://hub-2:1", "hub-0:1", "http://hub-1:1"]);
}

#[test]
fn opening_a_session_and_its_welcome_share_one_time() {
    let mut world = World::new(|_| {});
    assert!(matches!(world.machine.plan(world.now), Plan::Open(_)));
    world.pass(Duration::from_secs(9));
    world.machine.connected(world.now, None, Duration::from_secs(9));
    let over_at = world.now + Duration::from_secs(1);
    assert_eq!(world.machine.turn(world.now).wake_at, over_at);
    assert!(!world.machine.is_silent(over_at.saturating_sub(Duration::from_millis(1))));
    assert!(world.machine.is_silent(over_at));
}

#[test]
fn a_subscription_that_is_refused_when_nobody_wants_it_any_more_is_forgotten() {
    let mut world = World::new(|_| {});
    world.settle();
    let id = world.subscribe(Live::to(["a"]));
    world.turn(9);
    world.hub_reads(9);
    let answer = world.hub.out.pop_back().expect("an answer");
    let refused = Frame::Error(status(Code::InvalidArgument, "MALFORMED_COMMAND", None));
    world.hub.out.push_back(SessionResponse { request_id: answer.request_id, frame: Some(refused) });
    let mut news = std::mem::take(&mut world.machine.news);
    world.machine.table.abandon(world.now, id, &mut news);
    world.client_reads(9);
    assert_eq!(world.machine.table.totals().subscriptions, 0);
}
