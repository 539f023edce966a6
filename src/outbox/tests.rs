//! The pure core against a model: never over credit, order kept, nothing lost without a word, nobody starved.

mod feeding;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    num::NonZeroU32,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use smallvec::SmallVec;

use super::{
    Allowances, Budget, Cost, Desk, Outbox, Taken, Taker, Tick,
    attention::SubscriptionKey,
    frame::{Accepted, Batch, Frame, Gap, GapReason, Item, Reply, SessionLimits},
    queues::{Offer, Queues, Turn},
    route::Route,
};
use crate::{
    cut::{Cut, Farewell},
    event::{Event, Span, Spans},
    model::{Alternatives, End, Filter, Grant, Overflow, SubscriptionSpec},
};

const LIMITS: SessionLimits = SessionLimits {
    max_event_bytes: 1 << 20,
    max_subscriptions: 8,
    max_filter_tokens: 100,
    queue_events: 10,
    queue_bytes: 4_000,
};
/// More than the model ever queues.
const ENOUGH: usize = usize::MAX;

/// An event of about `bytes` on a topic, with a number to know it by.
fn event(number: u64, topic: usize, bytes: usize) -> Event {
    let topic = format!("t{topic}");
    let mut encoded = topic.clone().into_bytes();
    encoded.extend_from_slice(&number.to_be_bytes());
    encoded.resize(encoded.len().max(bytes), 0);
    let spans = Spans { topic: Span { start: 0, len: topic.len() as u16 }, ..Spans::default() };
    Event::new(encoded.into(), spans, 0).expect("a topic")
}

fn number(event: &Event) -> u64 {
    let at = event.topic().as_bytes().len();
    u64::from_be_bytes(event.encoded()[at..at + 8].try_into().expect("eight bytes"))
}

fn spec(credit: Option<Grant>, overflow: Overflow) -> SubscriptionSpec {
    let filters = vec![Filter::parse(b">").expect("a filter")];
    SubscriptionSpec { stream: None, filters, group: None, credit, overflow, max_events: None, max_batch: 10_000 }
}

fn cost(spec: &SubscriptionSpec) -> Cost {
    Cost::of(&spec.filters, false, false)
}

fn route() -> Route {
    Route { nodes: SmallVec::new(), group: 0, tokens: NonZeroU32::MIN }
}

fn open(queues: &mut Queues, id: i64, spec: &SubscriptionSpec) -> SubscriptionKey {
    let (key, _) = queues.reserve(id, spec, cost(spec)).expect("room");
    assert_eq!(queues.open(key, route(), 0), Ok(None));
    key
}

/// What the writer takes in one turn: per subscription the numbers, and all the rest.
fn take(queues: &mut Queues) -> (Turn, Vec<(i64, Vec<u64>)>, Vec<Frame>) {
    let mut batch = Batch::default();
    let turn = queues.fill(&mut batch);
    let mut events = batch.events.iter();
    let (mut delivered, mut frames) = (Vec::new(), Vec::new());
    for item in batch.items {
        match item {
            Item::Reply(reply) => frames.push(reply.frame),
            Item::Events { subscription_id, count, .. } => {
                let numbers: Vec<u64> = events.by_ref().take(count).map(number).collect();
                assert_eq!(numbers.len(), count);
                delivered.push((subscription_id, numbers));
            }
        }
    }
    assert_eq!(events.count(), 0, "every event belongs to an item");
    (turn, delivered, frames)
}

/// One subscription as the rules have it.
#[derive(Debug)]
struct Model {
    key: SubscriptionKey,
    granted: Option<Grant>,
    sent_events: i64,
    sent_bytes: i64,
    waiting: VecDeque<(u64, usize)>,
    /// Dropped and not yet told.
    dropped: u64,
}

impl Model {
    fn may_send(&self) -> bool {
        let Some(granted) = self.granted else { return true };
        let events = granted.events == 0 || self.sent_events < granted.events;
        let bytes = granted.bytes == 0 || self.sent_bytes < granted.bytes;
        granted != Grant::default() && events && bytes
    }

    fn offer(&mut self, number: u64, bytes: usize) {
        self.waiting.push_back((number, bytes));
        let full = |waiting: &VecDeque<(u64, usize)>| {
            waiting.len() > LIMITS.queue_events || waiting.iter().map(|w| w.1).sum::<usize>() > LIMITS.queue_bytes
        };
        while self.waiting.len() > 1 && full(&self.waiting) {
            self.waiting.pop_front();
            self.dropped += 1;
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open { id: i64, credit: Option<(i64, i64)> },
    Close { id: i64 },
    Offer { id: i64, bytes: usize },
    Grant { id: i64, events: i64, bytes: i64 },
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1..6_i64;
    prop_oneof![
        2 => (id.clone(), prop::option::of((0..5_i64, 0..2_000_i64))).prop_map(|(id, credit)| Step::Open { id, credit }),
        1 => id.clone().prop_map(|id| Step::Close { id }),
        12 => (id.clone(), 20..1_500_usize).prop_map(|(id, bytes)| Step::Offer { id, bytes }),
        3 => (id, 0..4_i64, 0..1_000_i64).prop_map(|(id, events, bytes)| Step::Grant { id, events, bytes }),
        4 => Just(Step::Take),
    ]
}

/// Checks one turn of the writer against the model.
fn check_turn(queues: &mut Queues, models: &mut BTreeMap<i64, Model>, sizes: &HashMap<u64, usize>) -> Turn {
    let (turn, delivered, frames) = take(queues);
    for frame in frames {
        if let Frame::Gap { subscription_id, gap: Gap { count, reason, .. } } = frame {
            let model = models.get_mut(&subscription_id).expect("a gap of an open subscription");
            assert_eq!((count, reason), (std::mem::take(&mut model.dropped), GapReason::Overflow));
        }
    }
    for (id, numbers) in delivered {
        let model = models.get_mut(&id).expect("events of an open subscription");
        assert_eq!(model.dropped, 0, "the gap is told before the events behind it");
        for number in numbers {
            assert!(model.may_send(), "over credit");
            assert_eq!(model.waiting.pop_front().map(|w| w.0), Some(number), "order");
            // Each size counts from the first grant that names it.
            let granted = model.granted.unwrap_or_default();
            model.sent_events += i64::from(granted.events > 0);
            model.sent_bytes += if granted.bytes > 0 { sizes[&number] as i64 } else { 0 };
        }
    }
    turn
}

proptest! {
    #[test]
    fn the_writer_keeps_credit_order_and_counts(steps in prop::collection::vec(step(), 1..200)) {
        let mut queues = Queues::new(&LIMITS, false);
        let mut models: BTreeMap<i64, Model> = BTreeMap::new();
        let mut sizes = HashMap::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Open { id, credit } => {
                    let granted = credit.map(|(events, bytes)| Grant { events, bytes });
                    let spec = spec(granted, Overflow::DropOldest);
                    if models.contains_key(&id) {
                        prop_assert!(queues.reserve(id, &spec, cost(&spec)).is_err());
                    } else {
                        let key = open(&mut queues, id, &spec);
                        let waiting = VecDeque::new();
                        models.insert(id, Model { key, granted, sent_events: 0, sent_bytes: 0, waiting, dropped: 0 });
                    }
                }
                Step::Close { id } => {
                    prop_assert_eq!(queues.close(id, 0, End::Unsubscribed).is_ok(), models.remove(&id).is_some());
                }
                Step::Offer { id, bytes } => {
                    let Some(model) = models.get_mut(&id) else { continue };
                    next += 1;
                    let event = event(next, 0, bytes);
                    sizes.insert(next, event.encoded_len());
                    prop_assert_eq!(queues.offer(model.key, &event, ENOUGH), Offer::Taken);
                    model.offer(next, event.encoded_len());
                }
                Step::Grant { id, events, bytes } => {
                    let explicit = models.get(&id).is_some_and(|model| model.granted.is_some());
                    prop_assert_eq!(queues.grant(id, Grant { events, bytes }).is_ok(), explicit);
                    if let Some(granted) = models.get_mut(&id).and_then(|model| model.granted.as_mut()) {
                        granted.events += events;
                        granted.bytes += bytes;
                    }
                }
                Step::Take => {
                    check_turn(&mut queues, &mut models, &sizes);
                }
            }
        }
        while check_turn(&mut queues, &mut models, &sizes) == Turn::Some {}
        for (id, model) in &models {
            prop_assert!(model.waiting.is_empty() || !model.may_send(), "subscription {} is starved", id);
        }
        let left: usize = models.values().flat_map(|model| &model.waiting).map(|w| w.1 + 144).sum();
        prop_assert_eq!(queues.backlog.waiting_bytes(), left);
    }

    #[test]
    fn conflation_keeps_the_latest_of_each_topic(
        offers in prop::collection::vec((0..8_usize, 20..300_usize, any::<bool>()), 1..100),
    ) {
        let mut queues = Queues::new(&LIMITS, false);
        let key = open(&mut queues, 1, &spec(None, Overflow::Conflate));
        let mut latest: HashMap<usize, u64> = HashMap::new();
        let (mut offered, mut told) = (0, 0);
        for (topic, bytes, then_take) in offers {
            offered += 1;
            queues.offer(key, &event(offered, topic, bytes), ENOUGH);
            latest.insert(topic, offered);
            if !then_take {
                continue;
            }
            let mut got = Vec::new();
            while let (Turn::Some, delivered, frames) = take(&mut queues) {
                got.extend(delivered.into_iter().flat_map(|(_, numbers)| numbers));
                for frame in frames {
                    if let Frame::Gap { gap: Gap { count, .. }, .. } = frame {
                        told += count;
                    }
                }
            }
            told += got.len() as u64;
            prop_assert_eq!(told, offered, "every event is delivered or told as lost");
            let mut expected: Vec<u64> = latest.drain().map(|(_, number)| number).collect();
            expected.sort_unstable();
            got.sort_unstable();
            prop_assert_eq!(got, expected);
        }
    }
}

#[test]
fn subscriptions_that_all_have_enough_get_the_same_bytes() {
    let limits = SessionLimits { queue_events: 100_000, queue_bytes: 1 << 30, ..LIMITS };
    let mut queues = Queues::new(&limits, false);
    let sizes = [100, 1_000, 10_000, 100_000];
    let keys = sizes.map(|size| open(&mut queues, size, &spec(None, Overflow::DropOldest)));
    for (key, size) in keys.iter().zip(sizes) {
        for n in 0..8_000_000 / size {
            queues.offer(*key, &event(n.cast_unsigned(), 0, size as usize), ENOUGH);
        }
    }
    let mut sent: BTreeMap<i64, i64> = BTreeMap::new();
    for _ in 0..800 {
        for (id, numbers) in take(&mut queues).1 {
            *sent.entry(id).or_default() += id * numbers.len() as i64;
        }
    }
    let (least, most) = (sent.values().min().expect("four"), sent.values().max().expect("four"));
    assert!(*least > 2_000_000, "nobody is done or starved: {sent:?}");
    assert!(most - least <= 2 * (16 * 1024 + 100_000), "within a quantum and an event: {sent:?}");
}

#[test]
fn a_subscription_without_credit_costs_the_others_nothing() {
    let mut queues = Queues::new(&LIMITS, false);
    let blocked = open(&mut queues, 1, &spec(Some(Grant::default()), Overflow::DropOldest));
    let open_one = open(&mut queues, 2, &spec(None, Overflow::DropOldest));
    take(&mut queues);
    for n in 0..1_000 {
        queues.offer(blocked, &event(n, 0, 20), ENOUGH);
        queues.offer(open_one, &event(n, 0, 20), ENOUGH);
        assert_eq!(take(&mut queues).1, [(2, vec![n])]);
    }
    assert_eq!(take(&mut queues).0, Turn::Idle);
}

#[test]
fn the_largest_queue_is_shed_first() {
    let limits = SessionLimits { queue_events: 1_000, queue_bytes: 1 << 20, ..LIMITS };
    let mut queues = Queues::new(&limits, false);
    let small = open(&mut queues, 1, &spec(None, Overflow::DropOldest));
    let large = open(&mut queues, 2, &spec(None, Overflow::DropOldest));
    for n in 0..10 {
        queues.offer(small, &event(n, 0, 100), ENOUGH);
    }
    for n in 0..200 {
        queues.offer(large, &event(n, 0, 1_000), 50_000);
        assert!(queues.backlog.waiting_bytes() <= 50_000);
    }
    let mut lost: HashMap<i64, u64> = HashMap::new();
    loop {
        let (turn, _, frames) = take(&mut queues);
        for frame in frames {
            if let Frame::Gap { subscription_id, gap: Gap { count, .. } } = frame {
                *lost.entry(subscription_id).or_default() += count;
            }
        }
        if turn != Turn::Some {
            break;
        }
    }
    assert!(lost.keys().eq([&2]), "{lost:?}");
}

#[test]
fn a_gap_is_told_even_when_nothing_comes_after_it() {
    let mut queues = Queues::new(&LIMITS, false);
    let key = open(&mut queues, 1, &spec(None, Overflow::DropOldest));
    take(&mut queues);
    queues.offer(key, &event(1, 0, 1_000), 500);
    assert_eq!(queues.backlog.waiting_bytes(), 0, "more than the session may hold");
    assert!(queues.has_work());
    let (turn, delivered, frames) = take(&mut queues);
    assert_eq!((turn, delivered), (Turn::Some, vec![]));
    assert!(matches!(frames[..], [Frame::Gap { gap: Gap { count: 1, .. }, .. }]));
    assert_eq!(take(&mut queues).0, Turn::Idle);
}

#[test]
fn debts_are_kept_and_savings_are_not() {
    let limits = SessionLimits { queue_events: 100_000, queue_bytes: 1 << 30, ..LIMITS };
    let mut queues = Queues::new(&limits, false);
    let large = open(&mut queues, 1, &spec(None, Overflow::DropOldest));
    let small = open(&mut queues, 2, &spec(None, Overflow::DropOldest));
    for n in 0..100_000 {
        queues.offer(small, &event(n, 0, 100), ENOUGH);
    }
    let mut sent = [0_usize; 2];
    // One large event at a time: the queue is empty after each, which must not wipe out what it cost.
    for n in 0..40 {
        queues.offer(large, &event(n, 0, 1_000_000), ENOUGH);
        for (id, numbers) in take(&mut queues).1 {
            sent[id as usize - 1] += numbers.len() * if id == 1 { 1_000_000 } else { 100 };
        }
    }
    assert!(sent[0] <= sent[1] + 2 * 1_000_000, "{sent:?}");
}

#[test]
fn what_ended_is_told_once_and_never_heard_of_again() {
    let mut queues = Queues::new(&LIMITS, false);
    let key = open(&mut queues, 1, &spec(None, Overflow::End));
    for n in 0..30 {
        let expected = if n < 10 { Offer::Taken } else { Offer::Gone };
        assert_eq!(queues.offer(key, &event(n, 0, 20), ENOUGH), expected);
    }
    let (_, delivered, frames) = take(&mut queues);
    assert!(delivered.is_empty());
    let told: Vec<String> = frames
        .iter()
        .map(|frame| match frame {
            Frame::Subscribed(_) => "subscribed".into(),
            Frame::Gap { gap: Gap { count, .. }, .. } => format!("gap {count}"),
            Frame::Ended { end, .. } => format!("ended {}", matches!(end, End::SlowConsumer { .. })),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(told, ["subscribed", "gap 11", "ended true"]);
    assert_eq!(queues.backlog.take_closed().len(), 1);
    // The slot is used again; the old key means nothing any more.
    let again = open(&mut queues, 1, &spec(None, Overflow::End));
    assert_eq!(again.slot, key.slot);
    assert_eq!(queues.offer(key, &event(0, 0, 20), ENOUGH), Offer::Gone);
}

#[test]
fn what_was_passed_by_because_enough_waited_is_never_followed_by_later_events() {
    let limits = SessionLimits { queue_events: 100, queue_bytes: 1 << 20, ..LIMITS };
    let mut queues = Queues::new(&limits, false);
    let spec = SubscriptionSpec { max_events: Some(10), ..spec(Some(Grant::default()), Overflow::DropOldest) };
    let key = open(&mut queues, 1, &spec);
    for n in 1..=20 {
        let expected = if n <= 10 { Offer::Taken } else { Offer::Gone };
        assert_eq!(queues.offer(key, &event(n, 0, 2_000), ENOUGH), expected);
    }
    queues.shed(key.slot, 12_000);
    assert_eq!(queues.offer(key, &event(21, 0, 2_000), ENOUGH), Offer::Gone, "others came between");
    queues.grant(1, Grant { events: 100, bytes: 0 }).expect("there");
    let delivered: Vec<u64> = std::iter::from_fn(|| Some(take(&mut queues).1).filter(|some| !some.is_empty()))
        .flatten()
        .flat_map(|(_, numbers)| numbers)
        .collect();
    assert!(delivered.len() < 10 && delivered.last() == Some(&10), "{delivered:?}");
    assert_eq!(take(&mut queues).0, Turn::Idle, "its end was told");
}

#[test]
fn a_session_that_is_drained_ends_when_all_it_had_begun_is_answered() {
    let mut queues = Queues::new(&LIMITS, false);
    open(&mut queues, 1, &spec(None, Overflow::DropOldest));
    queues.end(End::Draining { reconnect_delay: std::time::Duration::ZERO });
    assert!(matches!(take(&mut queues).2[..], [Frame::Subscribed(_)]));
    assert_eq!(take(&mut queues).0, Turn::Idle);
    assert!(!queues.has_work());
    queues.reply(Reply { request_id: 7, frame: Frame::Published(Vec::new()) });
    assert!(queues.has_work());
    assert!(matches!(take(&mut queues).2[..], [Frame::Published(_)]));
    queues.all_answered();
    assert!(queues.has_work());
    assert!(matches!(take(&mut queues).2[..], [Frame::Ended { .. }]));
    assert!(matches!(take(&mut queues).0, Turn::Finished(End::Draining { .. })));
}

/// A session that may hold as little as one that shares a full hub with thousands.
#[test]
fn one_that_waits_to_read_does_not_wake_itself() {
    let budget = Arc::new(Budget::new(1_000, 1 << 30));
    let (unlimited, now) = (Allowances::default(), tokio::time::Instant::now());
    let outbox = Outbox::new(LIMITS, std::time::Duration::from_secs(15), false, budget, unlimited, None, now);
    let outbox = Arc::new(Desk::new(Arc::new(outbox)));
    for n in 0..100 {
        outbox.reply(Reply { request_id: n, frame: Frame::Published(vec![Ok(Accepted::default()); 10]) });
    }
    assert!(!outbox.has_room(), "more waits than it may hold");
    // In a thread: what wakes itself in one poll never comes back from it.
    let (done, polled) = std::sync::mpsc::channel();
    let waiting = Arc::clone(&outbox);
    let thread = std::thread::Builder::new().name("reader".to_owned());
    let poll = move || {
        let mut call = std::pin::pin!(waiting.until_call(true));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        done.send((0..10).all(|_| call.as_mut().poll(&mut context).is_pending())).ok();
    };
    thread.spawn(poll).expect("a thread");
    assert_eq!(polled.recv_timeout(std::time::Duration::from_secs(10)), Ok(true));
}

/// What ends a stream is that of the connection that a session is on, also when it was set aside and is on another one.
#[test]
fn one_that_is_taken_up_is_cut_with_its_new_connection() {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);
    let budget = Arc::new(Budget::new(1 << 20, 1 << 30));
    let (start, wall) = (tokio::time::Instant::now(), std::time::SystemTime::now());
    let farewells = [Arc::new(Farewell::default()), Arc::default()];
    let [old, new] = farewells.each_ref().map(Cut::new);
    let (heartbeat, unlimited) = (PATIENCE * 1_000, Allowances::default());
    let outbox = Outbox::new(LIMITS, heartbeat, false, budget, unlimited, Some(Arc::clone(&old)), start);
    let tick = |now| outbox.tick(now, wall, PATIENCE, &Alternatives::default());
    let is_done = |cut: &Cut| cut.poll_done(&Context::from_waker(Waker::noop())).is_ready();

    farewells[0].say(start + PATIENCE);
    assert_eq!(tick(start), Tick::Nothing, "it is told");
    outbox.set_aside(1 << 20);
    outbox.take_up(Some(Arc::clone(&new)), start + PATIENCE);
    assert_eq!(tick(start + PATIENCE), Tick::Nothing);
    assert!(!outbox.read(super::lock::State::is_ending), "it is on that connection no more");

    outbox.end(End::Complete);
    let mut batch = Batch::default();
    let taken = Taker::new(&outbox).poll_take(&mut Context::from_waker(Waker::noop()), &mut batch);
    assert_eq!(taken, Poll::Ready(Taken::Batch), "its client takes nothing from here on");
    let later = tokio::time::Instant::now() + PATIENCE * 2;
    assert_eq!(tick(later), Tick::Cut { subscriptions: 0 });
    assert_eq!((is_done(&old), is_done(&new)), (false, true));
}
