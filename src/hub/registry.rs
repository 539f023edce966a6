//! The open sessions of the hub: who they are and since when, how they stand, and whether more may come. What a session
//! does is not known here.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    marks::Marks,
    quota::{Account, SessionUse},
};
use crate::{
    auth::Caller,
    cut::Cut,
    model::{CommandError, End, Labels, Peer},
    outbox::{Counts, Outbox, SubscriptionStatus, Taker},
    router::OutboxId,
    tasks::Turn,
};

/// What kind of call a session serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A `Session` call: many subscriptions.
    Many,
    /// A `Subscribe` call: one subscription, and the call ends as it ends.
    One,
}

/// One session that is open.
#[derive(Debug)]
pub struct OpenSession {
    pub(crate) number: u64,
    pub(crate) id: Arc<str>,
    kind: Kind,
    peer: Option<Peer>,
    pub(super) principal: Arc<str>,
    pub(crate) account: Arc<Account>,
    _counted: SessionUse,
    opened: SystemTime,
    client_name: OnceLock<Arc<str>>,
    labels: OnceLock<Labels>,
    /// How many events its client published.
    published: AtomicU64,
    /// Events sent and published.
    marks: Mutex<Marks<2>>,
    pub(super) outbox: Arc<Outbox>,
    /// By which the router knows the outbox.
    outbox_id: OnceLock<OutboxId>,
}

/// How many events go over one session.
#[derive(Debug, Clone, Copy)]
pub struct Traffic {
    /// Sent to its client since it was opened.
    pub sent: u64,
    /// Published by its client since then, with those that were refused.
    pub published: u64,
    /// Sent in a second, over the last seconds.
    pub sent_per_second: f64,
    /// Published in a second, likewise.
    pub published_per_second: f64,
}

impl OpenSession {
    /// `now` is what the marks of its traffic go by.
    pub(super) fn new(
        (number, id, kind): (u64, Arc<str>, Kind),
        caller: &Caller,
        (account, counted): (Arc<Account>, SessionUse),
        outbox: Arc<Outbox>,
        now: Duration,
    ) -> Self {
        Self {
            number,
            id,
            kind,
            peer: caller.peer(),
            principal: Arc::clone(caller.principal().id()),
            account,
            _counted: counted,
            opened: SystemTime::now(),
            client_name: OnceLock::new(),
            labels: OnceLock::new(),
            published: AtomicU64::new(0),
            marks: Mutex::new(Marks::begin(now)),
            outbox,
            outbox_id: OnceLock::new(),
        }
    }

    /// Its name, unique among all sessions of all hubs.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The kind of its call.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who its client is; empty on a hub that does not ask.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Where its client is.
    pub fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// When it was opened.
    pub fn opened(&self) -> SystemTime {
        self.opened
    }

    /// The name its client gave itself.
    pub fn client_name(&self) -> Option<&Arc<str>> {
        self.client_name.get()
    }

    /// The first name counts: it is given once, in the first command.
    pub(crate) fn set_client_name(&self, name: &str) {
        self.client_name.get_or_init(|| name.into());
    }

    /// The labels its client gave it.
    pub fn labels(&self) -> Option<&Labels> {
        self.labels.get()
    }

    /// They are given once, in the first command, and memory is held for them.
    pub(crate) fn set_labels(&self, labels: Labels) {
        self.labels.get_or_init(|| labels);
    }

    /// The router knows its outbox by this.
    pub(crate) fn set_outbox_id(&self, id: OutboxId) {
        self.outbox_id.get_or_init(|| id);
    }

    /// By which the router knows its outbox, once it does.
    pub(super) fn outbox_id(&self) -> Option<OutboxId> {
        self.outbox_id.get().copied()
    }

    /// Its client publishes so many events.
    pub(crate) fn note_publish(&self, events: usize) {
        self.published.fetch_add(events as u64, Relaxed);
    }

    /// How many events go over it. `now` is as in the marks.
    pub fn traffic(&self, now: Duration) -> Traffic {
        let counted = self.counted();
        let [sent_per_second, published_per_second] = self.marks.lock().rates(now, counted);
        let [sent, published] = counted;
        Traffic { sent, published, sent_per_second, published_per_second }
    }

    /// Takes note of how many events went over it by now.
    pub(super) fn mark(&self, now: Duration) {
        let counted = self.counted();
        self.marks.lock().look(now, counted);
    }

    fn counted(&self) -> [u64; 2] {
        [self.outbox.sent_events(), self.published.load(Relaxed)]
    }

    /// What waits for its client, for the one writer that it has.
    pub(crate) fn taker(&self) -> Taker<'_> {
        Taker::new(&self.outbox)
    }

    /// Ends it: every subscription is told, then the stream ends. The first end counts.
    pub(crate) fn end(&self, end: End) {
        self.outbox.end(end);
    }

    /// Its client is gone, or what serves it is.
    pub(crate) fn abandon(&self) {
        self.outbox.abandon();
    }

    /// Its client is away: at most `bytes` may wait for it until it is back.
    pub(crate) fn set_aside(&self, bytes: usize) {
        self.outbox.set_aside(bytes);
    }

    /// Its client is back, on a stream that `cut` ends.
    pub(crate) fn take_up(&self, cut: Option<Arc<Cut>>) {
        self.outbox.take_up(cut, Instant::now());
    }

    /// How many subscriptions it has.
    pub fn subscriptions(&self) -> usize {
        self.outbox.subscriptions()
    }

    /// What waits to be sent to it, overhead included, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.waiting_bytes()
    }

    /// How at most `most` of its subscriptions stand, and where to go on from; `from` is 0 at first.
    pub fn statuses(&self, from: usize, most: usize) -> (Vec<SubscriptionStatus>, Option<usize>) {
        self.outbox.statuses(from, most)
    }
}

/// All sessions that are open.
#[derive(Debug, Default)]
pub(super) struct Registry {
    /// By number, and so by age.
    sessions: Mutex<BTreeMap<u64, Arc<OpenSession>>>,
    /// Wakes whoever waits for the last session to go.
    gone: Notify,
    /// Set once the hub is shutting down: how long its clients may take to go.
    draining: OnceLock<Duration>,
    /// Wakes whoever waits for that.
    drained: Notify,
}

impl Registry {
    /// Takes in a session, unless there are `limit`, or none may come any more.
    pub(super) fn enter(&self, session: &Arc<OpenSession>, limit: usize) -> Result<(), CommandError> {
        let mut sessions = self.sessions.lock();
        // Read under the lock: one that is opened now is seen by the drain, or refused.
        if self.is_draining() {
            return Err(CommandError::Draining);
        }
        if sessions.len() >= limit {
            return Err(CommandError::TooManySessions { whole: "hub", limit });
        }
        sessions.insert(session.number, Arc::clone(session));
        Ok(())
    }

    /// Forgets a session.
    pub(super) fn leave(&self, number: u64) {
        self.sessions.lock().remove(&number);
        self.gone.notify_waiters();
    }

    /// From now on no session is taken in; those there are may take this long to end.
    pub(super) fn drain(&self, spread: Duration) {
        let sessions = self.sessions.lock();
        self.draining.get_or_init(|| spread);
        drop(sessions);
        self.drained.notify_waiters();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Waits until no session is taken in any more, and tells how long those there are may take to end.
    pub(super) async fn until_draining(&self) -> Duration {
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if let Some(spread) = self.draining.get() {
                return *spread;
            }
            drained.await;
        }
    }

    /// Waits until there is no session any more.
    pub(super) async fn until_empty(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.sessions.lock().is_empty() {
                return;
            }
            gone.await;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    pub(super) fn all(&self) -> Vec<Arc<OpenSession>> {
        self.sessions.lock().values().cloned().collect()
    }

    /// At most `most` sessions that were opened after number `after`, the oldest first, and the number of the last one if
    /// there are more.
    pub(super) fn page(&self, after: u64, most: usize) -> (Vec<Arc<OpenSession>>, Option<u64>) {
        let sessions = self.sessions.lock();
        let mut rest = sessions.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, session)| session);
        let page: Vec<Arc<OpenSession>> = rest.by_ref().take(most).cloned().collect();
        let next = rest.next().and(page.last()).map(|session| session.number);
        (page, next)
    }

    /// The session of that id.
    pub(super) fn find(&self, id: &str) -> Result<Arc<OpenSession>, CommandError> {
        // Its number is the end of its name.
        let number = id.rsplit('-').next().and_then(|number| u64::from_str_radix(number, 16).ok());
        let sessions = self.sessions.lock();
        let found = number.and_then(|number| sessions.get(&number)).filter(|session| &*session.id == id);
        found.cloned().ok_or_else(|| CommandError::SessionNotFound { id: id.chars().take(64).collect() })
    }

    /// How many subscriptions all sessions have, and how many of them stand in a way that operators watch.
    pub(super) async fn count_subscriptions(&self) -> (usize, Counts) {
        let (mut subscriptions, mut sum, mut turn) = (0, Counts::default(), Turn::default());
        for session in self.all() {
            subscriptions += session.subscriptions();
            let counts = session.outbox.counts();
            sum.credit_blocked += counts.credit_blocked;
            sum.behind += counts.behind;
            turn.spend(1).await;
        }
        (subscriptions, sum)
    }
}
