//! Publishing: every event once, in order, with the right answer.

use std::time::Duration;

use tonic::Code;

use super::world::{FORBIDDEN, World, encoded, status};
use crate::{
    error::ErrorKind,
    machine::{
        news::Moment,
        publishes::{Amount, Care, NewPublish},
    },
    outcome::Published,
    proto::v1::{PublishPrecondition, publish_precondition::Condition},
    state::State,
};

fn until(new: &mut NewPublish, moment: Moment) {
    new.care = Care::Until { deadline: moment, retry_live: false };
}

fn retries(new: &mut NewPublish, retry_live: bool) {
    new.care = Care::Until { deadline: Duration::from_secs(3600), retry_live };
}

fn sequence(world: &World, ticket: u64) -> i64 {
    let results = world.results.get(&ticket).expect("an answer");
    results[0].as_ref().expect("published").sequence().expect("stored")
}

fn kind(world: &World, ticket: u64) -> (ErrorKind, String) {
    let error = world.results.get(&ticket).expect("an answer")[0].as_ref().expect_err("not published");
    (error.kind(), error.reason().to_owned())
}

fn ids(world: &World) -> Vec<&str> {
    world.hub.log.iter().map(|event| event.id.as_str()).collect()
}

#[test]
fn calls_that_wait_go_together_and_each_gets_its_answer() {
    let mut world = World::new(|_| {});
    let tickets: Vec<u64> = (1..=700).map(|n| world.publish("s.x", &n.to_string())).collect();
    let live = world.publish("live", "l");
    world.connect();
    world.client_reads(1);
    world.turn(usize::MAX);
    world.settle();
    for (at, ticket) in tickets.iter().enumerate() {
        assert_eq!(sequence(&world, *ticket), at as i64 + 1);
    }
    assert!(matches!(world.results[&live][0], Ok(Published::Live { matched: 1 })));
    assert_eq!(world.machine.stats(world.now).queued_publishes, 0);
}

#[test]
fn what_was_written_and_not_answered_is_stored_once_wherever_the_connection_broke() {
    // Written and never read; read and stored, but the answer lost.
    for is_read in [false, true] {
        let mut world = World::new(|_| {});
        world.connect();
        world.client_reads(1);
        let first = world.publish("s.x", "1");
        world.turn(9);
        if is_read {
            world.hub_reads(9);
            assert_eq!(ids(&world), ["1"]);
        }
        world.cut();
        let second = world.publish("s.x", "2");
        world.settle();
        assert_eq!(ids(&world), ["1", "2"], "in order");
        assert_eq!((sequence(&world, first), sequence(&world, second)), (1, 2));
        assert_eq!(world.results[&first][0].as_ref().expect("published").is_duplicate(), is_read);
    }
}

#[test]
fn an_event_that_no_stream_keeps_is_not_written_twice_unless_asked_to() {
    for retry_live in [false, true] {
        let mut world = World::new(|_| {});
        world.connect();
        world.client_reads(1);
        let ticket = world.publish_with("live.x", "1", |new| retries(new, retry_live));
        let other = world.publish("live.y", "2");
        world.turn(1);
        world.turn(1);
        world.hub_reads(9);
        world.cut();
        world.settle();
        let delivered = world.hub.live.iter().filter(|event| event.id == "1").count();
        if retry_live {
            assert_eq!(delivered, 2);
            assert!(matches!(world.results[&ticket][0], Ok(Published::Live { .. })));
        } else {
            assert_eq!(delivered, 1);
            assert_eq!(kind(&world, ticket), (ErrorKind::Unknown, "NO_STREAM".into()));
        }
        assert_eq!(kind(&world, other), (ErrorKind::Unknown, "NO_STREAM".into()));
    }
}

#[test]
fn a_call_of_several_events_is_mended_event_by_event() {
    let mut world = World::new(|_| {});
    world.connect();
    world.client_reads(1);
    let events = encoded(&[("s.x", "1"), ("live", "2"), ("s.y", "3")]);
    let ticket = world.publish_with("s.x", "0", |new| new.events = events);
    world.turn(9);
    world.cut();
    world.settle();
    let results = &world.results[&ticket];
    assert!(results[0].is_ok() && results[2].is_ok());
    assert_eq!(results[1].as_ref().expect_err("nobody knows").kind(), ErrorKind::Unknown);
    assert_eq!(ids(&world), ["1", "3"]);
    assert!(world.hub.live.is_empty(), "it was never read, and is not written again");
}

#[test]
fn a_precondition_is_repeated_as_it_is() {
    let mut world = World::new(|_| {});
    world.connect();
    world.client_reads(1);
    let only_if = |last| Some(PublishPrecondition { condition: Some(Condition::LastSequence(last)) });
    let first = world.publish_with("s.x", "1", |new| new.precondition = only_if(0));
    world.turn(9);
    world.hub_reads(9);
    world.cut();
    world.settle();
    assert!(world.results[&first][0].as_ref().expect("published").is_duplicate());
    let second = world.publish_with("s.x", "2", |new| new.precondition = only_if(0));
    world.settle();
    assert_eq!(kind(&world, second), (ErrorKind::Refused, "SEQUENCE_MISMATCH".into()));
}

#[test]
fn the_deadline_says_whether_it_may_have_been_published() {
    let mut world = World::new(|_| {});
    let deadline = Duration::from_secs(5);
    let unsent = world.publish_with("s.x", "1", |new| until(new, deadline));
    world.pass(deadline);
    assert_eq!(world.machine.opening(world.now), Some(std::time::Duration::MAX));
    world.hear_news();
    assert_eq!(kind(&world, unsent), (ErrorKind::Refused, "DEADLINE_PASSED".into()));

    world.connect();
    world.client_reads(1);
    let now = world.now;
    let sent = world.publish_with("s.x", "2", |new| until(new, now + deadline));
    world.turn(9);
    world.pass(deadline);
    world.turn(9);
    assert_eq!(kind(&world, sent), (ErrorKind::Unknown, "DEADLINE_PASSED".into()));
    // The answer that comes after all is for nobody.
    world.hub_reads(9);
    world.client_reads(9);
    assert_eq!(ids(&world), ["2"]);
    assert_eq!(world.machine.stats(world.now).queued_publishes, 0);

    let now = world.now;
    let lost = world.publish_with("s.x", "3", |new| until(new, now + deadline));
    world.turn(9);
    world.cut();
    world.pass(deadline);
    world.machine.opening(world.now);
    world.hear_news();
    assert_eq!(kind(&world, lost), (ErrorKind::Unknown, "DEADLINE_PASSED".into()));
    world.settle();
    let now = world.now;
    let told = world.publish_with("s.x", "4", |new| until(new, now + deadline));
    world.turn(9);
    world.pass(deadline);
    world.turn(9);
    world.cut();
    world.settle();
    assert_eq!(kind(&world, told), (ErrorKind::Unknown, "DEADLINE_PASSED".into()));
    assert_eq!(ids(&world), ["2"], "what its caller has given up is not published");
}

#[test]
fn the_queue_takes_as_much_as_its_limit_and_no_more() {
    let size = |id: &str| encoded(&[("s.x", id)]).len();
    let mut world = World::new(|setup| setup.most = Amount { events: 3, bytes: 2 * size("1") + size("1") });
    let new = |ids: &[&str]| {
        let events: Vec<(&str, &str)> = ids.iter().map(|id| ("s.x", *id)).collect();
        let care = Care::Until { deadline: Duration::from_secs(3600), retry_live: false };
        NewPublish { events: encoded(&events), precondition: None, care }
    };
    assert!(world.machine.publish(new(&["1", "2"])).expect("open").is_ok());
    assert!(world.machine.publish(new(&["3", "4"])).expect("open").is_err(), "one event too many");
    assert!(world.machine.publish(new(&["33"])).expect("open").is_err(), "one byte too many");
    assert!(world.machine.publish(new(&["3"])).expect("open").is_ok());
    assert!(world.machine.publish(new(&["4"])).expect("open").is_err());
    let never = world.machine.publish(new(&["1", "2", "3", "4"])).expect_err("never fits");
    assert_eq!(never.kind(), ErrorKind::Invalid);
    world.settle();
    assert!(world.machine.publish(new(&["4"])).expect("open").is_ok(), "there is room again");
}

#[test]
fn what_a_hub_cannot_take_now_is_written_again_later_and_in_order() {
    let mut world = World::new(|_| {});
    world.hub.refuses = Some(status(Code::Unavailable, "ENGINE_RECOVERING", Some(Duration::from_secs(1))));
    let tickets = [world.publish("s.x", "1"), world.publish("s.x", "2")];
    world.connect();
    world.client_reads(1);
    for _ in 0..3 {
        world.turn(9);
        world.hub_reads(9);
        world.client_reads(9);
    }
    assert!(world.results.is_empty());
    world.hub.refuses = None;
    let third = world.publish("s.x", "3");
    world.settle();
    assert_eq!(ids(&world), ["1", "2", "3"]);
    assert_eq!((sequence(&world, tickets[1]), sequence(&world, third)), (2, 3));
}

#[test]
fn one_that_is_refused_does_not_take_others_with_it() {
    let mut world = World::new(|_| {});
    world.hub.refuses = Some(status(Code::InvalidArgument, "MALFORMED_COMMAND", None));
    let tickets = [world.publish("s.x", "1"), world.publish("s.x", "2")];
    world.connect();
    world.client_reads(1);
    world.turn(9);
    world.hub_reads(9);
    world.client_reads(9);
    assert!(world.results.is_empty(), "together they were refused: each is tried alone");
    world.turn(1);
    world.hub_reads(9);
    world.hub.refuses = None;
    world.client_reads(9);
    world.settle();
    assert_eq!(kind(&world, tickets[0]), (ErrorKind::Refused, "MALFORMED_COMMAND".into()));
    assert_eq!(sequence(&world, tickets[1]), 1);
}

#[test]
fn an_event_that_no_frame_can_hold_is_refused_here_and_costs_no_session() {
    let mut world = World::new(|_| {});
    let long = "x".repeat(5 << 20);
    let ticket = world.publish_with("s.x", "1", |new| new.events = encoded(&[("s.x", &long)]));
    let other = world.publish("s.x", "2");
    world.settle();
    assert_eq!(kind(&world, ticket), (ErrorKind::Refused, "EVENT_TOO_LARGE".into()));
    assert_eq!(sequence(&world, other), 1);
    assert_eq!((world.hub.sessions, world.state()), (1, State::Up));
}

#[test]
fn what_is_only_sent_is_written_once_in_order_with_everything_else() {
    let mut world = World::new(|_| {});
    world.send(&["s.x", "s.x"]);
    let published = world.publish("s.x", "3");
    world.send(&["s.y"]);
    assert_eq!(world.machine.stats(world.now).queued_publishes, 4, "it waits for a session");
    world.connect();
    world.client_reads(1);
    world.turn(usize::MAX);
    assert_eq!(world.machine.stats(world.now).queued_publishes, 1, "what was written is not held");
    world.cut();
    world.settle();
    assert_eq!(ids(&world), ["3"], "what was under way is lost, and is not written again");
    assert_eq!(sequence(&world, published), 1);
    world.send(&["s.x"]);
    world.settle();
    assert_eq!(ids(&world), ["3", ""]);
    assert_eq!(world.results.len(), 1, "nobody is told of what is only sent");
}

#[test]
fn refusals_of_what_is_only_sent_are_counted_and_told_of_not_too_often() {
    let mut world = World::new(|_| {});
    world.settle();
    world.send(&["s.x", FORBIDDEN, "s.x", FORBIDDEN]);
    world.settle_at_once();
    assert_eq!((ids(&world).len(), &world.refused[..]), (2, &[(2, "PERMISSION_DENIED".to_owned())][..]));
    world.refused.clear();
    world.send(&[FORBIDDEN]);
    world.settle_at_once();
    assert_eq!((world.machine.stats(world.now).refused_sends, world.refused.len()), (3, 0));
    world.hub.refuses = Some(status(Code::ResourceExhausted, "QUOTA_EXCEEDED", None));
    world.pass(Duration::from_secs(1));
    world.send(&["s.x", "s.x"]);
    world.settle_at_once();
    assert_eq!(world.refused, [(4, "QUOTA_EXCEEDED".to_owned())], "what is refused as a whole counts once");
}

#[test]
fn what_is_only_sent_is_cut_to_what_a_frame_can_hold() {
    let mut world = World::new(|_| {});
    world.settle();
    let long = format!("s.{}", "x".repeat(3 << 20));
    let longer = format!("s.{}", "x".repeat(5 << 20));
    world.send(&[&long, &longer, &long, "s.x"]);
    world.settle_at_once();
    let lengths: Vec<usize> = world.hub.log.iter().map(|event| event.topic.len()).collect();
    assert_eq!(lengths, [long.len(), long.len(), 3]);
    assert_eq!(world.refused, [(1, "EVENT_TOO_LARGE".to_owned())]);
    assert_eq!((world.hub.sessions, world.machine.stats(world.now).queued_publishes), (1, 0));
}
