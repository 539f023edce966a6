//! A subscription from a stream against its session: whatever is given up while the session reads, nothing is missed,
//! nothing comes twice, and no position is ahead of what was delivered.

use super::*;
use crate::{
    model::{Origin, Position, StreamName},
    outbox::{Filled, Opened, ResumeOutcome, Returned, Wanted},
};

fn stored_event(sequence: u64) -> Event {
    let spans = Spans { topic: Span { start: 0, len: 1 }, ..Spans::default() };
    Event::new(bytes::Bytes::from(vec![b't'; 100]), spans, sequence).expect("a topic")
}

/// What can happen, in any order.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The stream has so many events more, and the session hands them out.
    Publish(u64),
    /// The session asks for room, and begins to read at most so many events.
    Read(usize),
    /// What it read is there.
    Land,
    /// If that was all, it lets the subscription follow.
    Join,
    /// The session looks at what wants to be looked after.
    Note,
    /// Time has passed: the session tells how far it is.
    Progress,
    /// Other filters, which match the same.
    Refilter,
    /// The hub is short of memory.
    Shed(usize),
    /// The client reads.
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..20_u64).prop_map(Step::Publish),
        (1..60_usize).prop_map(Step::Read),
        Just(Step::Land),
        Just(Step::Join),
        Just(Step::Note),
        Just(Step::Progress),
        Just(Step::Refilter),
        (0..2_000_usize).prop_map(Step::Shed),
        Just(Step::Take),
    ]
}

/// The session of one subscription, which does what `session/feed.rs` does, one step at a time.
struct Session {
    queues: Queues,
    key: SubscriptionKey,
    /// The last sequence of the stream.
    latest: u64,
    /// Events behind the first were asked for, up to the second.
    reading: Option<(u64, u64)>,
    /// It has all up to there, and is to follow.
    joining: Option<u64>,
    /// Wants to be read for.
    waiting: bool,
    /// It takes it for one that follows, and has handed out everything up to there.
    following: Option<u64>,
    /// What the client has.
    delivered: u64,
}

impl Session {
    fn new() -> Self {
        let limits = SessionLimits { queue_events: 100, queue_bytes: 1 << 20, ..LIMITS };
        let mut queues = Queues::new(&limits, false);
        let spec = spec(None, Overflow::DropOldest);
        let (key, _) = queues.reserve(1, &spec, cost(&spec)).expect("room");
        let origin = Arc::new(Origin { stream: StreamName::parse("s").expect("a name"), epoch: 1 });
        let opened = Opened {
            position: Position { origin, sequence: 0 },
            earliest: 1,
            latest: 0,
            outcome: ResumeOutcome::Fresh,
            ack_deadline: None,
            returned: Returned::default(),
        };
        assert!(queues.open_stored(key, opened, Wanted::new(Arc::default()), 0));
        Self { queues, key, latest: 0, reading: None, joining: None, waiting: false, following: None, delivered: 0 }
    }

    fn act(&mut self, step: Step) {
        let key = self.key;
        match step {
            Step::Publish(count) => {
                self.latest += count;
                self.hand_out();
            }
            Step::Read(most) => {
                let busy = self.reading.is_some() || self.joining.is_some() || self.following.is_some();
                let wanted = !busy && std::mem::take(&mut self.waiting);
                if let Some(room) = self.queues.backlog.room(key, ENOUGH).filter(|room| wanted && room.events > 0) {
                    let through = (room.after + room.events.min(most) as u64).min(self.latest);
                    self.reading = Some((room.after, through));
                }
            }
            Step::Land => {
                let Some((after, through)) = self.reading.take() else { return };
                let events = (after + 1..=through).map(stored_event).collect();
                match self.queues.backlog.feed(key, after, events, through, self.latest) {
                    Filled::Stale => self.waiting = true,
                    Filled::Taken if through >= self.latest => self.joining = Some(through),
                    Filled::Taken | Filled::Gone => {}
                }
            }
            Step::Join => {
                let Some(through) = self.joining.take() else { return };
                if self.queues.backlog.begin_following(key, through) {
                    self.following = Some(through);
                    self.hand_out();
                }
            }
            // While it reads and joins it does nothing else.
            Step::Note | Step::Refilter if self.reading.is_some() || self.joining.is_some() => {}
            Step::Note => {
                if self.queues.backlog.take_attention().hungry.contains(&key) {
                    self.following = None;
                    self.waiting = true;
                }
            }
            Step::Progress => {
                if let Some(after) = self.following {
                    self.queues.backlog.tell_progress(key, after);
                }
            }
            Step::Refilter => {
                if let Some(after) = self.following.take() {
                    self.queues.backlog.end_following(key, after);
                }
                self.queues.backlog.rewind_key(key);
            }
            Step::Shed(allowed) => self.queues.shed(u32::MAX, allowed),
            Step::Take => drop(self.take()),
        }
    }

    fn hand_out(&mut self) {
        while let Some(after) = self.following.filter(|after| *after < self.latest) {
            let follows = self.queues.backlog.follow(self.key, &stored_event(after + 1), ENOUGH);
            self.following = follows.then_some(after + 1);
        }
    }

    fn take(&mut self) -> Turn {
        let mut batch = Batch::default();
        let turn = self.queues.fill(&mut batch);
        let mut events = batch.events.iter();
        for item in batch.items {
            match item {
                Item::Events { count, position, .. } => {
                    for event in events.by_ref().take(count) {
                        assert_eq!(event.sequence(), self.delivered + 1, "nothing is missed, nothing comes twice");
                        self.delivered += 1;
                    }
                    assert_eq!(position.map(|position| position.sequence), Some(self.delivered));
                }
                Item::Reply(reply) => match reply.frame {
                    Frame::Progress { position, .. } => assert!(position.sequence <= self.delivered, "ahead"),
                    Frame::Ended { position, .. } => {
                        assert_eq!(position.map(|position| position.sequence), Some(self.delivered));
                    }
                    Frame::Subscribed(_) => {}
                    other => panic!("{other:?}"),
                },
            }
        }
        turn
    }
}

proptest! {
    #[test]
    fn a_stream_is_fed_without_gap_or_repeat_whatever_is_given_up(
        steps in prop::collection::vec(step(), 1..200),
        told_late: bool,
    ) {
        let mut session = Session::new();
        for step in &steps {
            session.act(*step);
        }
        if told_late {
            // The session ends before it has noticed what was given up.
            session.queues.end(End::Complete);
            session.act(Step::Progress);
            session.act(Step::Land);
        } else {
            // Nothing is given up any more: everything comes.
            for _ in 0..(session.latest + 10) {
                for step in [Step::Land, Step::Join, Step::Note, Step::Read(60), Step::Land, Step::Join, Step::Take] {
                    session.act(step);
                }
            }
            prop_assert_eq!(session.delivered, session.latest);
            session.queues.end(End::Complete);
        }
        while session.take() == Turn::Some {}
    }
}
