//! Members that come back after their connection was cut: what they say they hold, what is still theirs, and what is not.

use super::world::{STREAM, World};
use crate::{
    error::ErrorKind,
    machine::{hands::Lost, verdict::Verdict},
    proto::v1::{AckOutcome, SessionResponse, session_response::Frame},
    spec::{Live, Start, Stream},
};

/// A world in which the hub waits for members, with one that has taken so many events.
fn world_with(count: u32) -> (World, i64, Vec<(i64, u64)>) {
    let mut world = World::new(|_| {});
    world.hub.keeps = true;
    let id = world.subscribe(Stream::named(STREAM).group("g").from(Start::Earliest).window(count + 2));
    for number in 1..=count {
        world.publish("s.x", &number.to_string());
    }
    world.settle();
    let events = take_all(&mut world, id);
    assert_eq!(events.len(), count as usize);
    (world, id, events)
}

/// Everything that comes for the application now.
fn take_all(world: &mut World, id: i64) -> Vec<(i64, u64)> {
    let mut all = Vec::new();
    while let Some((_, events)) = world.take_events(id) {
        all.extend(events);
    }
    all
}

fn settle_and_wait(world: &mut World, id: i64, (sequence, copy): (i64, u64)) -> u64 {
    let ticket = world.machine.ticket();
    assert!(world.machine.table.settle_event(world.now, (id, sequence, copy), Verdict::Ack, Some(ticket)));
    ticket
}

/// Until the hub has answered `subscribe`, and the client has written nothing since.
fn come_back(world: &mut World) {
    world.connect();
    world.client_reads(1);
    world.turn(2);
    world.hub_reads(2);
    world.client_reads(1);
}

/// What the last `subscribe` says that is held; `None` if it does not say.
fn named(world: &World) -> Option<Vec<i64>> {
    let spec = world.hub.subscribes.last().and_then(|subscribe| subscribe.spec.as_ref()).expect("a subscribe");
    spec.reattach.as_ref().map(|reattach| reattach.held_sequences.clone())
}

#[test]
fn a_member_names_what_it_has_and_what_it_has_said_and_the_rest_comes_again() {
    let (mut world, id, events) = world_with(4);
    assert_eq!(named(&world), None, "it was nowhere before");
    // 1 is said and heard, 2 is said and not heard, 3 is said while there is no session, 4 is in hand.
    world.publish("s.x", "5");
    world.publish("s.x", "6");
    world.settle();
    assert!(world.settle_event(id, events[0], Verdict::Ack));
    world.turn(9);
    world.hub_reads(9);
    assert!(world.settle_event(id, events[1], Verdict::Ack));
    world.turn(9);
    world.cut();
    let nack = Verdict::Nack { delay: None, reason: "no paper".into() };
    assert!(world.settle_event(id, events[2], nack));
    come_back(&mut world);
    assert_eq!(named(&world), Some(vec![1, 2, 3, 4]));
    world.settle();
    // 5 and 6 came and were not taken, and 3 comes again because of what was said of it.
    let again: Vec<i64> = take_all(&mut world, id).iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(again, [3, 5, 6]);
    assert!(world.settle_event(id, events[3], Verdict::Ack), "it is still in hand");
    world.settle();
    assert_eq!(world.hub.done.iter().copied().collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(world.hub.leases.sequences().into_iter().collect::<Vec<_>>(), [3, 5, 6]);
    let mark = world.machine.table.mark(id);
    assert_eq!(world.machine.table.settled(id, mark), Some(Lost::default()), "no lease was lost");
}

#[test]
fn only_members_that_acknowledge_say_what_they_hold() {
    let mut world = World::new(|_| {});
    world.subscribe(Stream::named(STREAM));
    world.subscribe(Stream::named(STREAM).group("g").done_when_sent());
    world.subscribe(Live::to(["a"]));
    world.settle();
    world.cut();
    world.settle();
    assert_eq!(world.hub.subscribes.len(), 6);
    for subscribe in &world.hub.subscribes {
        assert_eq!(subscribe.spec.as_ref().and_then(|spec| spec.reattach.as_ref()), None);
    }
}

#[test]
fn whoever_waits_hears_of_a_lost_lease_as_soon_as_the_member_is_back_and_of_one_that_is_done_that_it_is() {
    let (mut world, id, events) = world_with(3);
    world.hub.keeps = false;
    let done = settle_and_wait(&mut world, id, events[0]);
    world.turn(9);
    world.hub_reads(9);
    world.cut();
    let lost = settle_and_wait(&mut world, id, events[1]);
    let said = world.hub.told.len();
    come_back(&mut world);
    assert_eq!(world.hub.told.len(), said, "nothing had to be asked");
    let error = world.settled.remove(&lost).expect("an answer").expect_err("the lease is lost");
    assert_eq!((error.kind(), error.reason()), (ErrorKind::LeaseLost, "LEASE_EXPIRED"));
    assert!(!world.settled.contains_key(&done), "the hub is asked, which knows");
    world.settle();
    assert!(world.settled.remove(&done).expect("an answer").is_ok());
    // What was lost in hand is nobody's: it has come again, and what is said of it holds. The other one is to be done again.
    assert_eq!(take_all(&mut world, id).iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [2]);
    assert!(world.settle_event(id, events[2], Verdict::Ack));
    world.settle();
    assert!(world.hub.done.contains(&3));
}

#[test]
fn an_older_hub_that_does_not_say_what_it_kept_is_asked() {
    for keeps in [true, false] {
        let (mut world, id, events) = world_with(2);
        (world.hub.is_old, world.hub.keeps) = (true, keeps);
        world.cut();
        let ticket = settle_and_wait(&mut world, id, events[0]);
        come_back(&mut world);
        assert!(!world.settled.contains_key(&ticket));
        for _ in 0..3 {
            world.turn(9);
            world.hub_reads(9);
            world.client_reads(9);
        }
        assert_eq!(world.settled.remove(&ticket).expect("an answer").is_ok(), keeps);
        assert!(world.settle_event(id, events[1], Verdict::Ack));
        world.settle();
        assert!(world.hub.done.contains(&2));
    }
}

#[test]
fn a_session_that_is_lost_before_its_members_are_back_is_not_the_one_they_come_from() {
    let (mut world, id, events) = world_with(2);
    for _ in 0..3 {
        world.cut();
        world.connect();
        // It is up, and nothing that it writes arrives.
        world.client_reads(1);
        world.turn(9);
        world.hub_reads(1);
    }
    world.cut();
    world.settle();
    let previous: Vec<&str> = world.hub.hellos.iter().map(|hello| hello.previous_session_id.as_str()).collect();
    assert_eq!(previous, ["", "session-1", "session-1", "session-1", "session-1"]);
    let ticket = settle_and_wait(&mut world, id, events[0]);
    assert!(world.settle_event(id, events[1], Verdict::Ack));
    world.settle();
    assert!(world.settled.remove(&ticket).expect("an answer").is_ok(), "its lease was kept over all of them");
    world.cut();
    world.settle();
    assert_eq!(world.hub.hellos.last().expect("a hello").previous_session_id, "session-5");
}

#[test]
fn an_extension_that_was_not_answered_is_asked_for_again_if_the_event_is_still_in_hand() {
    let (mut world, id, events) = world_with(3);
    let by = |seconds| Some(std::time::Duration::from_secs(seconds));
    for (at, time) in [(0, None), (1, by(60)), (2, by(60)), (1, by(90))] {
        let (sequence, copy) = events[at];
        world.machine.table.extend(world.now, (id, sequence, copy), time);
        world.turn(9);
    }
    assert!(world.settle_event(id, events[2], Verdict::Ack));
    world.cut();
    world.hub.told.clear();
    world.settle();
    let extends = world.hub.told.iter().filter(|told| told.outcome() == AckOutcome::Extend);
    let mut extends: Vec<(i64, Option<i64>)> =
        extends.map(|told| (told.sequences[0], told.delay.map(|delay| delay.seconds))).collect();
    extends.sort_unstable();
    assert_eq!(extends, [(1, None), (2, Some(90))], "what was said last holds");
}

#[test]
fn a_nack_that_was_stored_is_not_said_again_although_its_answer_was_lost() {
    let (mut world, id, events) = world_with(1);
    assert!(world.settle_event(id, events[0], Verdict::Nack { delay: None, reason: "no paper".into() }));
    world.turn(9);
    world.hub_reads(9);
    world.hub.send();
    // The event is here again, and the answer is not.
    world.hub.out.retain(|frame| !matches!(frame.frame, Some(Frame::Acknowledged(_))));
    world.client_reads(9);
    world.cut();
    assert_eq!(world.machine.table.totals().unanswered, 0);
    world.settle();
    let again = take_all(&mut world, id);
    assert!(world.settle_event(id, again[0], Verdict::Ack));
    world.settle();
    let nacks = world.hub.told.iter().filter(|told| told.outcome() == AckOutcome::Nack).count();
    assert_eq!((nacks, world.hub.done.len()), (1, 1));
}

#[test]
fn an_event_that_comes_again_while_its_word_is_on_its_way_is_done_by_that_word() {
    let (mut world, id, events) = world_with(1);
    let ticket = settle_and_wait(&mut world, id, events[0]);
    world.turn(9);
    // The lease runs out before the word arrives, and the new one is here before the answer.
    world.hub.leases.take(1);
    world.hub_reads(9);
    world.hub.send();
    let mut out: Vec<SessionResponse> = world.hub.out.drain(..).collect();
    out.reverse();
    world.hub.out.extend(out);
    world.client_reads(9);
    assert!(!world.settled.contains_key(&ticket));
    world.settle();
    assert!(world.settled.remove(&ticket).expect("an answer").is_ok());
    assert_eq!(take_all(&mut world, id), []);
    assert_eq!(world.hub.done.len(), 1);
}

#[test]
fn a_member_that_nobody_reads_leaves_as_soon_as_its_last_word_is_lost() {
    let (mut world, id, events) = world_with(1);
    world.hub.keeps = false;
    world.cut();
    let ticket = settle_and_wait(&mut world, id, events[0]);
    let mut news = std::mem::take(&mut world.machine.news);
    world.machine.table.abandon(world.now, id, &mut news);
    world.machine.news.extend(news);
    world.settle();
    assert!(world.settled.remove(&ticket).expect("an answer").is_err());
    assert_eq!((world.machine.table.totals().subscriptions, world.hub.open_subscriptions()), (0, 0));
}
