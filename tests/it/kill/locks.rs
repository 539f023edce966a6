//! Clients that want a lock while the hub is killed: an event with a ttl, published only while its topic has none.
//!
//! By what they were answered it is known when a lock was held for certain, and by when it was over at the latest. No two
//! are held at a time, and none is refused because of one that is over.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use switchyard::proto::v1::{
    Event, PublishPrecondition, PublishRequest, Stream, hub_service_client::HubServiceClient,
    publish_precondition::Condition,
};
use tokio::{sync::watch, task::JoinSet};
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt;

use super::{Life, Phase, connect, is_lost, still_at_work};
use crate::{
    harness::{PATIENCE, event, pause, reason_of_call, soon},
    stored::{all, create, store, stream},
    workplace::ms,
};

const LOCKS: &str = "locks";
const TTL: Duration = Duration::from_millis(250);
/// By so much the clocks of hub and clients may differ, and a hub may look at its own late.
const TOLERANCE: Duration = Duration::from_millis(60);
/// Is not to be pushed out by locks that are over, though the stream has no more room than for it and one of them.
const KEPT: &str = "lock.kept";

/// What became of one attempt to take the lock.
enum Answer {
    /// Stored with this sequence: between `sent` and `answered`.
    Taken { sequence: i64, sent: Instant, answered: Instant },
    /// Refused because of that sequence.
    Refused { holder: i64, sent: Instant },
}

pub(super) struct Locks {
    work: JoinSet<Vec<Answer>>,
}

impl Locks {
    pub(super) async fn start(life: Life, random: &mut fastrand::Rng, phase: &watch::Receiver<Phase>) -> Self {
        create(life.address, Stream { max_events: 2, ..stream(LOCKS, &["lock.>"]) }).await;
        store(life.address, vec![event(KEPT, "kept")]).await;
        let mut work = JoinSet::new();
        for number in 0..2 {
            let (random, phase, answers) = (random.fork(), phase.clone(), Vec::new());
            work.spawn(Locker { number, random, phase, attempts: 0, answers }.work());
        }
        Self { work }
    }

    pub(super) fn check_work(&mut self) {
        still_at_work(&mut self.work);
    }

    /// Waits until everybody had the lock once more, and checks all answers.
    pub(super) async fn finish(mut self, life: Life) {
        let mut answers = Vec::new();
        while let Some(ended) = soon("the lock", self.work.join_next()).await {
            answers.extend(ended.expect("a client"));
        }
        check(&answers);
        let kept = all(life.address, LOCKS).await;
        let topic = kept.first().and_then(|first| first.event.as_ref()).map(|event| event.topic.as_str());
        assert_eq!(topic, Some(KEPT), "locks that are over pushed it out");
    }
}

fn check(answers: &[Answer]) {
    let mut locks: Vec<(i64, Instant, Instant)> = answers.iter().filter_map(Answer::taken).collect();
    locks.sort_unstable();
    for (one, two) in locks.iter().zip(&locks[1..]) {
        assert_ne!(one.0, two.0, "two have the same lock");
        let over = one.1 + TTL.saturating_sub(TOLERANCE);
        let early = over.saturating_duration_since(two.2);
        assert!(early.is_zero(), "{} was held {early:?} longer when {} was given", one.0, two.0);
    }
    let over: HashMap<i64, Instant> =
        locks.iter().map(|(sequence, _, answered)| (*sequence, *answered + TTL + TOLERANCE)).collect();
    let mut refused = 0;
    for answer in answers {
        if let Answer::Refused { holder, sent } = answer {
            let late = sent.saturating_duration_since(over[holder]);
            assert!(late.is_zero(), "refused because of {holder}, which was over for {late:?}");
            refused += 1;
        }
    }
    println!("{} locks, {refused} times refused", locks.len());
}

impl Answer {
    fn taken(&self) -> Option<(i64, Instant, Instant)> {
        match *self {
            Self::Taken { sequence, sent, answered } => Some((sequence, sent, answered)),
            Self::Refused { .. } => None,
        }
    }
}

/// Takes the lock again and again.
struct Locker {
    number: usize,
    random: fastrand::Rng,
    phase: watch::Receiver<Phase>,
    attempts: usize,
    answers: Vec<Answer>,
}

impl Locker {
    async fn work(mut self) -> Vec<Answer> {
        let mut client = None;
        while matches!(*self.phase.borrow(), Phase::Work(_)) {
            pause(Duration::from_millis(self.random.u64(5..60))).await;
            self.take(&mut client).await;
        }
        let begun = Instant::now();
        while !self.take(&mut client).await {
            assert!(begun.elapsed() < PATIENCE, "the lock is never free");
            pause(Duration::from_millis(self.random.u64(5..60))).await;
        }
        self.answers
    }

    /// True when it has the lock. What one hub did not answer is sent to the next.
    async fn take(&mut self, client: &mut Option<HubServiceClient<Channel>>) -> bool {
        self.attempts += 1;
        let (id, source) = (self.attempts.to_string(), format!("locker-{}", self.number));
        let ttl = Some(ms(TTL.as_millis() as i64));
        let event = Event { id, source, ttl, ..event("lock.leader", "") };
        let precondition = Some(PublishPrecondition { condition: Some(Condition::LastTopicSequence(0)) });
        let request = PublishRequest { events: vec![event], precondition };
        let first = Instant::now();
        loop {
            let address = self.phase.borrow().address();
            if client.is_none()
                && let Some(address) = address
            {
                *client = connect(address).await;
            }
            let Some(hub) = client else {
                pause(Duration::from_millis(2)).await;
                continue;
            };
            let again = Instant::now();
            match soon("an answer", hub.publish(request.clone())).await {
                Ok(response) => {
                    let result = &response.get_ref().results[0];
                    assert!(result.status.is_none(), "{result:?}");
                    // A repetition: it was an earlier attempt that was stored.
                    let (sequence, sent) = (result.sequence, if result.duplicate { first } else { again });
                    self.answers.push(Answer::Taken { sequence, sent, answered: Instant::now() });
                    return true;
                }
                Err(status) if status.code() == Code::Aborted => {
                    assert_eq!(reason_of_call(&status), "SEQUENCE_MISMATCH");
                    let info = status.get_details_error_info().expect("details");
                    let holder = info.metadata["actual"].parse().expect("a sequence");
                    self.answers.push(Answer::Refused { holder, sent: again });
                    return false;
                }
                Err(status) => {
                    assert!(is_lost(&status), "{status:?}");
                    *client = None;
                }
            }
        }
    }
}
