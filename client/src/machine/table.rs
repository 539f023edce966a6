//! All subscriptions of one client. A session opens what is in here; there is no other list. Pure.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{
    credit::Size,
    hands::{Hands, Lost},
    home::Home,
    incoming::Incoming,
    news::{Moment, News},
    requests::Requests,
    subscription::Subscription,
    verdict::Verdict,
    wire::Delivered,
};
use crate::{
    error::Error,
    item::Opened,
    proto::v1::{Acknowledged, Ended, Gap, Progress, Subscribed, session_request::Command},
    spec::Spec,
};

/// One client has at most this many subscriptions, as the session of a hub has.
pub(crate) const MOST_SUBSCRIPTIONS: usize = 1_000_000;

/// The subscriptions, by the id that each has for as long as it lives.
#[derive(Debug)]
pub(crate) struct Table {
    all: HashMap<i64, Subscription>,
    next_id: i64,
    /// Those that may have something to write, in turn.
    list: VecDeque<i64>,
    /// When something is to be done for which.
    timers: BTreeSet<(Moment, i64)>,
    /// There is a session.
    is_up: bool,
    /// It is to end: members get no more credit.
    is_quiet: bool,
    random: fastrand::Rng,
}

/// What is in the hands of a client, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) subscriptions: usize,
    pub(crate) held: Size,
    pub(crate) unanswered: usize,
    pub(crate) full_windows: u64,
}

impl Table {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            all: HashMap::new(),
            next_id: 1,
            list: VecDeque::new(),
            timers: BTreeSet::new(),
            is_up: false,
            is_quiet: false,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Adds a subscription, which goes on behind `token` if there is one.
    pub(crate) fn add(&mut self, spec: Spec, token: Option<String>) -> Result<i64, Error> {
        if self.all.len() >= MOST_SUBSCRIPTIONS {
            return Err(Error::invalid("subscriptions", format!("are at the limit of {MOST_SUBSCRIPTIONS}")));
        }
        let id = self.next_id;
        self.next_id += 1;
        self.all.insert(id, Subscription::new(id, spec, token, self.random.u64(..)));
        self.touch(id, Moment::ZERO);
        Ok(id)
    }

    // Sessions.

    /// A session begins: all of it is to be opened.
    pub(crate) fn session_begins(&mut self, now: Moment) {
        self.is_up = true;
        self.is_quiet = false;
        let mut ids: Vec<i64> = self.all.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.touch(id, now);
        }
    }

    /// The session is lost. True if what members hold is found by its name from now on; otherwise it is by the name of the
    /// session before.
    pub(crate) fn session_lost(&mut self, now: Moment, news: &mut VecDeque<News>) -> bool {
        let members = self.all.values().filter(|one| one.hands.is_some() && !one.is_over());
        let is_home = Home::is_here(members.map(|one| &one.home));
        self.is_up = false;
        self.list.clear();
        self.timers.clear();
        for one in self.all.values_mut() {
            one.is_listed = false;
            one.session_lost(now, news);
        }
        self.all.retain(|_, one| !one.is_forgotten());
        let ids: Vec<i64> = self.all.keys().copied().collect();
        for id in ids {
            self.touch(id, now);
        }
        is_home
    }

    /// The session is to end: members take nothing new.
    pub(crate) fn be_quiet(&mut self) {
        self.is_quiet = true;
    }

    /// No member has anything in hand, or waits for an answer.
    pub(crate) fn is_quiet(&self) -> bool {
        self.all.values().all(Subscription::is_quiet)
    }

    /// Members leave the session, to come back in the next one. False as soon as they have.
    pub(crate) fn members_leave(&mut self, now: Moment, news: &mut VecDeque<News>) -> bool {
        let members: Vec<i64> =
            self.all.values().filter(|one| one.hands.is_some() && one.is_in_session()).map(Subscription::id).collect();
        for id in &members {
            self.with(*id, now, |one| one.leave(true, news));
        }
        !members.is_empty()
    }

    // What is written.

    /// Something may be to be written.
    pub(crate) fn has_writes(&self) -> bool {
        self.is_up && !self.list.is_empty()
    }

    /// The next command, and the id of its request.
    pub(crate) fn write(&mut self, now: Moment, requests: &mut Requests) -> Option<(i64, Command)> {
        if !self.is_up {
            return None;
        }
        while let Some(id) = self.list.pop_front() {
            let Some(one) = self.all.get_mut(&id) else { continue };
            one.is_listed = false;
            if let Some(written) = one.write(now, requests, self.is_quiet) {
                // In turn: one with much to say does not keep the others waiting.
                self.touch(id, now);
                return Some(written);
            }
        }
        None
    }

    /// When something is to be done although nothing comes.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(crate) fn tick(&mut self, now: Moment) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, id));
            self.with(id, now, |one| one.tick(now));
        }
    }

    // What comes.

    pub(crate) fn subscribed(&mut self, now: Moment, subscribed: &Subscribed, news: &mut VecDeque<News>) {
        let id = subscribed.subscription_id;
        self.with(id, now, |one| one.subscribed(now, subscribed, news));
        self.settle(id, now, news);
    }

    pub(crate) fn events(&mut self, now: Moment, delivered: Delivered, news: &mut VecDeque<News>) {
        self.with(delivered.subscription_id, now, |one| one.events(delivered, news));
    }

    pub(crate) fn progress(&mut self, now: Moment, progress: &Progress, news: &mut VecDeque<News>) {
        self.with(progress.subscription_id, now, |one| one.progress(progress, news));
    }

    pub(crate) fn gap(&mut self, now: Moment, gap: &Gap, news: &mut VecDeque<News>) {
        self.with(gap.subscription_id, now, |one| one.hear_gap(gap, news));
    }

    /// The hub has ended a subscription. `place` is the hub, and `renews` is true where a fresh token may help.
    pub(crate) fn ended(
        &mut self,
        now: Moment,
        ended: Ended,
        (place, renews): (&str, bool),
        news: &mut VecDeque<News>,
    ) {
        let id = ended.subscription_id;
        self.with(id, now, |one| one.ended(now, ended, place, renews, news));
        self.forget_if_over(id);
    }

    pub(crate) fn acknowledged(
        &mut self,
        now: Moment,
        request: i64,
        acknowledged: Acknowledged,
        news: &mut VecDeque<News>,
    ) {
        let id = acknowledged.subscription_id;
        self.with(id, now, |one| {
            if let Some(hands) = &mut one.hands {
                hands.answered(now, request, acknowledged.results, news);
            }
        });
        self.settle(id, now, news);
    }

    /// A command of a subscription was refused as a whole: its `subscribe`, or what it said of events.
    pub(crate) fn acknowledge_refused(
        &mut self,
        now: Moment,
        (id, request): (i64, i64),
        error: &Error,
        news: &mut VecDeque<News>,
    ) {
        self.with(id, now, |one| {
            if let Some(hands) = &mut one.hands {
                hands.refused(now, request, error, news);
            }
        });
        self.settle(id, now, news);
    }

    pub(crate) fn subscribe_refused(
        &mut self,
        now: Moment,
        (id, place): (i64, &str),
        error: Error,
        news: &mut VecDeque<News>,
    ) {
        self.with(id, now, |one| one.refused(error, place, news));
        self.forget_if_over(id);
    }

    /// Some words were answered: somebody may wait for that, or it may have been the last of a subscription that nobody reads.
    fn settle(&mut self, id: i64, now: Moment, news: &mut VecDeque<News>) {
        news.push_back(News::Subscription(id));
        self.leave_if_dropped(id, now, news);
    }

    // What the application does.

    pub(crate) fn take(&mut self, now: Moment, id: i64) -> Option<Incoming> {
        self.with(id, now, Subscription::take)?
    }

    pub(crate) fn take_end(&mut self, id: i64) -> Option<Result<(), Error>> {
        self.all.get_mut(&id).map_or(Some(Ok(())), Subscription::take_end)
    }

    /// An event is settled. False when it is no longer in hand.
    pub(crate) fn settle_event(
        &mut self,
        now: Moment,
        (id, sequence, copy): (i64, i64, u64),
        verdict: Verdict,
        ticket: Option<u64>,
    ) -> bool {
        let settled = self.with(id, now, |one| {
            let size = one.hands.as_mut()?.settle(sequence, copy, verdict, ticket)?;
            one.returned(size);
            Some(())
        });
        settled.flatten().is_some()
    }

    /// Events are dropped, and nothing was said of them: their sequences and copies.
    pub(crate) fn let_go(
        &mut self,
        now: Moment,
        id: i64,
        hands: impl Iterator<Item = (i64, u64)>,
        news: &mut VecDeque<News>,
    ) {
        self.with(id, now, |one| {
            for (sequence, copy) in hands {
                if let Some(size) = one.hands.as_mut().and_then(|hands| hands.let_go(sequence, copy)) {
                    one.returned(size);
                }
            }
        });
        self.leave_if_dropped(id, now, news);
    }

    pub(crate) fn extend(
        &mut self,
        now: Moment,
        (id, sequence, copy): (i64, i64, u64),
        time: Option<std::time::Duration>,
    ) {
        self.with(id, now, |one| {
            if let Some(hands) = &mut one.hands {
                hands.extend(sequence, copy, time);
            }
        });
    }

    pub(crate) fn finish_batch(&mut self, now: Moment, id: i64, batch: u64) {
        self.with(id, now, |one| one.finish_batch(batch));
    }

    pub(crate) fn drop_batch(&mut self, now: Moment, id: i64, batch: u64, news: &mut VecDeque<News>) {
        self.with(id, now, |one| one.drop_batch(batch));
        self.leave_if_dropped(id, now, news);
    }

    /// Nobody reads a subscription any more. It ends when nobody has anything of it.
    pub(crate) fn abandon(&mut self, now: Moment, id: i64, news: &mut VecDeque<News>) {
        self.with(id, now, Subscription::abandon);
        self.leave_if_dropped(id, now, news);
    }

    fn leave_if_dropped(&mut self, id: i64, now: Moment, news: &mut VecDeque<News>) {
        if self.all.get(&id).is_some_and(|one| one.is_dropped() && !one.is_in_use()) {
            self.with(id, now, |one| one.leave(false, news));
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: i64) {
        if self.all.get(&id).is_some_and(Subscription::is_forgotten) {
            self.all.remove(&id);
        }
    }

    // Closing.

    /// Nothing more is given to the application.
    pub(crate) fn hush(&mut self, now: Moment) {
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            self.with(id, now, Subscription::hush);
        }
    }

    /// Takes out of the hands of the application what it has of groups: it goes back when its subscription ends.
    pub(crate) fn release(&mut self, now: Moment) {
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            self.with(id, now, Subscription::release);
        }
    }

    /// Ends, in order, all subscriptions of which nobody has anything. False when all are over.
    pub(crate) fn leave(&mut self, now: Moment, news: &mut VecDeque<News>) -> bool {
        let mut are_left = false;
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            self.with(id, now, |one| {
                if !one.is_in_use() {
                    one.leave(false, news);
                }
                are_left |= !one.is_over();
            });
        }
        are_left
    }

    /// Ends everything here: with an error, or because the client is over.
    pub(crate) fn fail(&mut self, error: Option<&Error>, news: &mut VecDeque<News>) {
        self.is_up = false;
        for one in self.all.values_mut() {
            one.fail(error, news);
        }
    }

    // What others ask.

    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals { subscriptions: self.all.len(), ..Totals::default() };
        for one in self.all.values() {
            totals.held.add(one.held());
            totals.unanswered += one.hands.as_ref().map_or(0, Hands::unanswered);
            totals.full_windows += one.full_windows;
        }
        totals
    }

    /// How many events or batches the application has, and how many words are not answered.
    pub(crate) fn left(&self) -> (usize, usize) {
        let unanswered = |one: &Subscription| one.hands.as_ref().map_or(0, Hands::unanswered);
        self.all.values().fold((0, 0), |(has, waits), one| (has + one.with_application(), waits + unanswered(one)))
    }

    pub(crate) fn opened(&self, id: i64) -> Option<Opened> {
        self.all.get(&id)?.opened()
    }

    pub(crate) fn is_open(&self, id: i64) -> bool {
        self.all.get(&id).is_some_and(Subscription::is_open)
    }

    pub(crate) fn lag(&self, id: i64) -> (bool, i64) {
        self.all.get(&id).map_or((false, 0), Subscription::lag)
    }

    pub(crate) fn done(&self, id: i64) -> Option<String> {
        self.all.get(&id)?.done().map(str::to_owned)
    }

    pub(crate) fn is_over(&self, id: i64) -> bool {
        self.all.get(&id).is_none_or(Subscription::is_over)
    }

    pub(crate) fn name(&self, id: i64) -> String {
        self.all.get(&id).map(Subscription::name).unwrap_or_default()
    }

    /// A mark behind all that was said of events of a subscription so far.
    pub(crate) fn mark(&self, id: i64) -> u64 {
        self.all.get(&id).and_then(|one| one.hands.as_ref()).map_or(0, Hands::mark)
    }

    /// The leases that were lost, once everything before a mark is answered.
    pub(crate) fn settled(&mut self, id: i64, mark: u64) -> Option<Lost> {
        match self.all.get_mut(&id).and_then(|one| one.hands.as_mut()) {
            Some(hands) => hands.is_settled(mark).then(|| hands.take_lost()),
            None => Some(Lost::default()),
        }
    }

    /// Does something with a subscription, after which it may have something to write or to wait for.
    fn with<T>(&mut self, id: i64, now: Moment, act: impl FnOnce(&mut Subscription) -> T) -> Option<T> {
        let done = act(self.all.get_mut(&id)?);
        self.touch(id, now);
        Some(done)
    }

    fn touch(&mut self, id: i64, now: Moment) {
        let Some(one) = self.all.get_mut(&id) else { return };
        if self.is_up && one.has_writes() && !std::mem::replace(&mut one.is_listed, true) {
            self.list.push_back(id);
        }
        // A timer that is too early does no harm.
        if let Some(at) = one.due(now) {
            self.timers.insert((at, id));
        }
    }
}
