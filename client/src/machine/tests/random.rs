//! Anything in any order, with cuts anywhere: what must hold at the end, and all the way.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::world::{STREAM, World, pairs};
use crate::{
    machine::{incoming::Incoming, verdict::Verdict},
    spec::{Start, Stream},
};

const WINDOW: u32 = 5;

#[derive(Debug, Clone)]
enum Step {
    Plan,
    Write(usize),
    HubReads(usize),
    HubSends,
    ClientReads(usize),
    /// The hub waits for the member to come back, or for nobody.
    Cut {
        keeps: bool,
    },
    Pass(u64),
    Publish,
    /// The application takes what there is of one of both subscriptions,
    Take(bool),
    /// and says something of an event of the group.
    Say(Say),
}

#[derive(Debug, Clone, Copy)]
enum Say {
    Ack,
    Nack,
    Extend,
    /// Nothing, and drops it.
    Nothing,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Plan),
        4 => (1..5_usize).prop_map(Step::Write),
        4 => (1..5_usize).prop_map(Step::HubReads),
        3 => Just(Step::HubSends),
        4 => (1..5_usize).prop_map(Step::ClientReads),
        1 => prop::bool::weighted(0.7).prop_map(|keeps| Step::Cut { keeps }),
        2 => (0..500_u64).prop_map(Step::Pass),
        4 => Just(Step::Publish),
        3 => any::<bool>().prop_map(Step::Take),
        3 => say().prop_map(Step::Say),
    ]
}

fn say() -> impl Strategy<Value = Say> {
    prop_oneof![6 => Just(Say::Ack), 1 => Just(Say::Nack), 1 => Just(Say::Extend), 1 => Just(Say::Nothing)]
}

/// The application.
struct Application {
    reader: i64,
    member: i64,
    /// What came for the reader.
    read: Vec<i64>,
    /// What the member has.
    held: Vec<(i64, u64)>,
    /// How often each event of the group was given to the application, after it had said that it was done.
    done: BTreeMap<i64, u32>,
    dropped: usize,
    published: Vec<u64>,
}

impl Application {
    fn take(&mut self, world: &mut World, of_reader: bool) {
        let id = if of_reader { self.reader } else { self.member };
        match world.machine.table.take(world.now, id) {
            Some(Incoming::Events { events, copies, batch, .. }) => {
                if of_reader {
                    self.read.extend(events.iter().map(crate::received::ReceivedRef::sequence));
                    world.machine.table.finish_batch(world.now, id, batch);
                } else {
                    for (sequence, copy) in pairs(&events, &copies) {
                        assert!(!self.done.contains_key(&sequence), "it was done, and comes again");
                        assert!(self.held.iter().all(|(held, _)| *held != sequence), "it is in hand");
                        self.held.push((sequence, copy));
                    }
                }
                let mut news = std::mem::take(&mut world.machine.news);
                world.machine.table.drop_batch(world.now, id, batch, &mut news);
                world.machine.news.extend(news);
            }
            Some(Incoming::Gap(gap)) => panic!("nothing is lost to a stream: {gap:?}"),
            Some(Incoming::CaughtUp) | None => {}
        }
    }

    fn say(&mut self, world: &mut World, say: Say) {
        if self.held.is_empty() {
            return;
        }
        let at = self.held.len() / 2;
        let event = self.held[at];
        match say {
            Say::Extend => {
                return world.machine.table.extend(world.now, (self.member, event.0, event.1), None);
            }
            Say::Nothing => {
                self.dropped += 1;
                let mut news = std::mem::take(&mut world.machine.news);
                world.machine.table.let_go(world.now, self.member, [event].into_iter(), &mut news);
                world.machine.news.extend(news);
            }
            Say::Nack => {
                let verdict = Verdict::Nack { delay: None, reason: "no paper".into() };
                assert!(world.settle_event(self.member, event, verdict));
            }
            Say::Ack => {
                assert!(world.settle_event(self.member, event, Verdict::Ack));
                *self.done.entry(event.0).or_default() += 1;
            }
        }
        self.held.swap_remove(at);
    }

    /// Everything that it has is done.
    fn finish(&mut self, world: &mut World) {
        while !self.held.is_empty() {
            self.say(world, Say::Ack);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_lost_nothing_is_done_twice_and_order_is_kept(steps in prop::collection::vec(step(), 1..300)) {
        let mut world = World::new(|_| {});
        let reader = world.subscribe(Stream::named(STREAM).from(Start::Earliest).window(WINDOW));
        let member = world.subscribe(Stream::named(STREAM).group("g").from(Start::Earliest).window(WINDOW));
        let mut application = Application {
            reader,
            member,
            read: Vec::new(),
            held: Vec::new(),
            done: BTreeMap::new(),
            dropped: 0,
            published: Vec::new(),
        };
        for step in steps {
            match step {
                Step::Plan if !world.is_connected => world.plan(),
                Step::Write(frames) => world.turn(frames),
                Step::HubReads(commands) => world.hub_reads(commands),
                Step::HubSends => world.hub.send(),
                Step::ClientReads(frames) => world.client_reads(frames),
                Step::Cut { keeps } if world.is_connected => {
                    world.hub.keeps = keeps;
                    world.cut();
                }
                Step::Plan | Step::Cut { .. } => {}
                Step::Pass(millis) => world.pass(Duration::from_millis(millis)),
                Step::Publish => {
                    let id = (application.published.len() + 1).to_string();
                    application.published.push(world.publish("s.x", &id));
                }
                Step::Take(of_reader) => application.take(&mut world, of_reader),
                Step::Say(say) => application.say(&mut world, say),
            }
            let held = world.machine.table.totals().held.events;
            prop_assert!(held <= 2 * i64::from(WINDOW), "{held} events are held");
        }
        // Then everything works for a while; and leases of what was dropped run out only with their session.
        let count = application.published.len();
        for cuts in [false, true] {
            if cuts && world.is_connected {
                world.cut();
            }
            for _ in 0..count + 3 {
                world.settle_at_once();
                for of_reader in [true, false].repeat(10) {
                    application.take(&mut world, of_reader);
                }
                application.finish(&mut world);
                if application.read.len() == count && world.hub.done.len() + application.dropped >= count {
                    break;
                }
            }
        }
        for _ in 0..count + 3 {
            if world.hub.done.len() == count {
                break;
            }
            world.settle_at_once();
            // If the hub had nothing to keep under the session that the client names, and what it sent in the next one was lost
            // before anything was read, only time brings that again.
            world.hub.forget_absent();
            application.take(&mut world, false);
            application.finish(&mut world);
        }
        let stored: Vec<String> = world.hub.log.iter().map(|event| event.id.clone()).collect();
        prop_assert_eq!(stored, (1..=count).map(|id| id.to_string()).collect::<Vec<_>>(), "once, and in order");
        for (at, ticket) in application.published.iter().enumerate() {
            let results = world.results.get(ticket).expect("an answer");
            let sequence = results[0].as_ref().expect("published").sequence();
            prop_assert_eq!(sequence, Some(at as i64 + 1));
        }
        prop_assert_eq!(&application.read, &(1..=count as i64).collect::<Vec<_>>());
        prop_assert_eq!(world.hub.done.len(), count, "all of it is done");
        prop_assert!(world.hub.leases.sequences().is_empty(), "nothing waits for a member that does not come back");
        prop_assert!(application.done.values().all(|times| *times == 1));
    }
}
