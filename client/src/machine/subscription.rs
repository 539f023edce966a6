//! One subscription, over all the sessions that it lives through: what the hub is asked for, what came, and what is told to
//! whoever reads it. Pure.

use std::{collections::VecDeque, time::Duration};

use super::{
    credit::{Ledger, Size},
    hands::{Hands, lease_lost},
    home::Home,
    incoming::{Incoming, Queue},
    news::{Moment, News},
    place::Place,
    requests::{self, Asked, Requests},
    wire::Delivered,
};
use crate::{
    backoff::Backoff,
    error::{Error, ErrorKind},
    item::{Gap, GapReason, Opened},
    proto::v1::{
        self, AddCredit, Credit, EndReason, Ended, Reattach, StartPosition, Subscribe, Unsubscribe,
        session_request::Command, start_position::Position,
    },
    spec::Spec,
};

/// How long to wait before a subscription is opened again that ended by itself: at first,
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// in the end,
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// and where the hub is short of something.
const LONGEST_WAIT_WHEN_EXHAUSTED: Duration = Duration::from_secs(30);
/// One that was open for this long has worked: the next wait is short again.
const WORKED_AFTER: Duration = Duration::from_secs(10);
/// So many unanswered words, or as many as the window has events, are no reason to stop the hub.
const FREE_WORDS: usize = 1000;

/// Where a subscription is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be opened as soon as there is a session.
    Idle,
    /// The hub is asked.
    Asked,
    /// It is open.
    Open,
    /// It ended, and is to be opened again, not before that time; or, because it ended with its session, with the next.
    Waiting { until: Moment, with_session: bool },
    /// It is to be ended, in order; `returns` in the next session.
    Leaving { is_written: bool, returns: bool },
    /// It is over.
    Over,
}

/// How it ended, until that is told.
#[derive(Debug)]
enum End {
    None,
    /// As it should.
    Complete,
    Failed(Error),
}

/// One subscription.
#[derive(Debug)]
// Each is true or not by itself: none follows from the others.
#[allow(clippy::struct_excessive_bools)]
pub(crate) struct Subscription {
    id: i64,
    spec: Spec,
    pub(super) phase: Phase,
    ledger: Ledger,
    incoming: Queue,
    /// For one that reads a stream by itself.
    place: Option<Place>,
    /// For a member that acknowledges.
    pub(super) hands: Option<Hands>,
    /// Which session such a member comes back to.
    pub(super) home: Home,
    backoff: Backoff,
    open_since: Moment,
    /// From when it was open last.
    opened: Option<Opened>,
    /// Behind which sequence one goes on that began with what is new and has no token yet.
    pinned: Option<i64>,
    is_caught_up: bool,
    lag: i64,
    /// Events until it has all that it wanted.
    left: Option<i64>,
    end: End,
    /// Batches that the application has.
    with_application: usize,
    /// Nothing more is given to the application.
    is_deaf: bool,
    /// Nobody reads it any more.
    is_dropped: bool,
    was_full: bool,
    pub(super) full_windows: u64,
    /// It is in the list of those that may have something to write.
    pub(super) is_listed: bool,
}

impl Subscription {
    pub(super) fn new(id: i64, spec: Spec, token: Option<String>, seed: u64) -> Self {
        let place = spec.has_place().then(|| Place::from(token));
        let hands = spec.acknowledges().then(Hands::default);
        let left = Some(spec.wire.max_events).filter(|most| *most > 0);
        Self {
            id,
            ledger: Ledger::new(spec.window),
            spec,
            phase: Phase::Idle,
            incoming: Queue::default(),
            place,
            hands,
            home: Home::default(),
            backoff: Backoff::new(SHORTEST_WAIT, LONGEST_WAIT).with_seed(seed),
            open_since: Moment::ZERO,
            opened: None,
            pinned: None,
            is_caught_up: false,
            lag: 0,
            left,
            end: End::None,
            with_application: 0,
            is_deaf: false,
            is_dropped: false,
            was_full: false,
            full_windows: 0,
            is_listed: false,
        }
    }

    // What is written.

    /// The next command of this subscription, if there is one. `is_quiet` is for a session that is to end: its members get
    /// no more credit.
    pub(super) fn write(&mut self, now: Moment, requests: &mut Requests, is_quiet: bool) -> Option<(i64, Command)> {
        if self.phase == Phase::Idle {
            if self.stays_closed(is_quiet) {
                return None;
            }
            let subscribe = self.subscribe();
            self.home.asks();
            self.phase = Phase::Asked;
            return Some((requests.open(Asked::Subscribe(self.id)), Command::Subscribe(subscribe)));
        }
        let is_open = matches!(self.phase, Phase::Open | Phase::Leaving { is_written: false, .. });
        if let Some(hands) = self.hands.as_mut().filter(|_| is_open)
            && let Some(mut acknowledge) = hands.write(now, requests.next())
        {
            acknowledge.subscription_id = self.id;
            return Some((requests.open(Asked::Acknowledge(self.id)), Command::Acknowledge(acknowledge)));
        }
        if let Phase::Leaving { is_written: is_written @ false, .. } = &mut self.phase {
            if self.hands.as_ref().is_some_and(Hands::has_waiting_words) {
                return None;
            }
            *is_written = true;
            let unsubscribe = Unsubscribe { subscription_id: self.id };
            return Some((requests::UNSUBSCRIBE, Command::Unsubscribe(unsubscribe)));
        }
        if self.phase != Phase::Open || self.is_deaf || self.withholds(is_quiet) {
            return None;
        }
        let credit = Some(self.ledger.grant()?);
        self.was_full = false;
        Some((requests::CREDIT, Command::Credit(AddCredit { subscription_id: self.id, credit })))
    }

    /// It may have something to write. Where it has not, only a change of it makes it have.
    pub(super) fn has_writes(&self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Leaving { is_written: false, .. } => true,
            Phase::Open => self.ledger.is_due() || self.hands.as_ref().is_some_and(Hands::has_writes),
            Phase::Asked | Phase::Waiting { .. } | Phase::Leaving { .. } | Phase::Over => false,
        }
    }

    /// It is not to be opened in this session: a member would only leave again, and one that gives nothing to the application
    /// any more has nothing to say either, unless it is a member.
    fn stays_closed(&self, is_quiet: bool) -> bool {
        if self.hands.is_some() { is_quiet } else { self.is_deaf }
    }

    /// No credit is given now. Words that the hub does not answer must not become ever more.
    fn withholds(&self, is_quiet: bool) -> bool {
        let Some(hands) = &self.hands else { return false };
        is_quiet || hands.unanswered() > FREE_WORDS.max(usize::try_from(self.spec.window.events).unwrap_or(FREE_WORDS))
    }

    /// What opens it in this session. The one place where the table becomes a command.
    fn subscribe(&mut self) -> Subscribe {
        let mut spec = self.spec.wire.clone();
        spec.start = self.start().or(spec.start);
        spec.max_events = self.left.unwrap_or(0);
        spec.credit = Some(if self.is_deaf { Credit::default() } else { self.ledger.begin() });
        // A hub that had it before keeps the leases of exactly these, and sends everything else again at once.
        let hands = self.hands.as_ref().filter(|_| self.home.was_asked());
        spec.reattach = hands.map(|hands| Reattach { held_sequences: hands.held_sequences() });
        Subscribe { subscription_id: self.id, spec: Some(spec) }
    }

    /// Where it goes on, if it has begun.
    fn start(&self) -> Option<StartPosition> {
        let place = self.place.as_ref()?;
        let token = place.reached().map(|token| Position::ResumeToken(token.to_owned()));
        let position = token.or(self.pinned.map(Position::AfterSequence))?;
        Some(StartPosition { position: Some(position) })
    }

    // What comes.

    pub(super) fn subscribed(&mut self, now: Moment, subscribed: &v1::Subscribed, news: &mut VecDeque<News>) {
        self.home.found(subscribed.reattached);
        // What was said of all other events is still to be said: their leases are kept, or they are done already. A hub of an
        // earlier version names none, and says so when it is asked.
        if let Some(hands) = &mut self.hands {
            hands.leases_lost(&subscribed.lost_sequences, news);
        }
        if self.phase != Phase::Asked {
            // It is to be ended, or was updated.
            return;
        }
        self.phase = Phase::Open;
        self.open_since = now;
        let epoch_before = self.opened.as_ref().map(|opened| opened.epoch);
        self.opened = Some(Opened::from(subscribed));
        if let Some(before) = epoch_before {
            let no_token = self.place.as_ref().is_some_and(|place| place.reached().is_none());
            if self.spec.loses_when_away() {
                self.gap(Gap { count: None, from: None, to: None, reason: GapReason::Away });
            } else if no_token && before != subscribed.epoch {
                // With a token the hub would have said so.
                self.gap(Gap { count: None, from: None, to: None, reason: GapReason::Epoch });
            }
        }
        if self.place.as_ref().is_some_and(|place| place.reached().is_none()) && self.spec.starts_new() {
            self.pinned = Some((subscribed.start_sequence - 1).max(0));
        }
    }

    pub(super) fn events(&mut self, delivered: Delivered, news: &mut VecDeque<News>) {
        let Delivered { mut events, resume_token: token, .. } = delivered;
        let mut came = Size::default();
        events.all.iter().for_each(|entry| came.add(Size::one(entry.cost.into())));
        self.ledger.arrived(came);
        // Leases of what comes to a member that leaves are given back as it leaves.
        let refuses = self.is_deaf || (self.hands.is_some() && matches!(self.phase, Phase::Leaving { .. }));
        let (mut size, mut copies) = (came, Vec::new());
        if refuses {
            size = Size::default();
        } else if let Some(hands) = &mut self.hands {
            size = Size::default();
            events.all.retain(|entry| {
                let copy = hands.arrive(entry.fields.sequence, entry.cost.into());
                if copy.is_some() {
                    size.add(Size::one(entry.cost.into()));
                }
                copies.extend(copy);
                copy.is_some()
            });
        }
        self.ledger.returned(came.without(size));
        self.is_caught_up = false;
        if let Some(left) = &mut self.left {
            *left = (*left - size.events).max(0);
        }
        if size.events == 0 {
            return;
        }
        if self.ledger.is_full() && !std::mem::replace(&mut self.was_full, true) {
            self.full_windows += 1;
        }
        let batch = self.place.as_mut().map_or(0, |place| place.arrived(&token));
        self.incoming.push_events((events, copies), batch, token, size);
        news.push_back(News::Subscription(self.id));
    }

    pub(super) fn progress(&mut self, progress: &v1::Progress, news: &mut VecDeque<News>) {
        if let Some(place) = self.place.as_mut().filter(|_| !self.is_deaf) {
            place.passed(&progress.resume_token);
        }
        self.lag = progress.lag;
        if progress.caught_up && !self.is_caught_up && !self.is_deaf {
            self.incoming.push_caught_up();
        }
        self.is_caught_up = progress.caught_up;
        // The place may have moved, which somebody may want to keep.
        news.push_back(News::Subscription(self.id));
    }

    pub(super) fn hear_gap(&mut self, gap: &v1::Gap, news: &mut VecDeque<News>) {
        self.gap(Gap::from(gap));
        news.push_back(News::Subscription(self.id));
    }

    fn gap(&mut self, gap: Gap) {
        if !self.is_deaf {
            self.incoming.push_gap(gap);
        }
    }

    /// The hub has ended it. `renews` is true where a fresh token may help.
    pub(super) fn ended(&mut self, now: Moment, ended: Ended, place: &str, renews: bool, news: &mut VecDeque<News>) {
        let reason = ended.reason();
        let status = ended.status.unwrap_or_default();
        let text = format!("{} at {place}", self.spec);
        let error = Error::of_message(ErrorKind::Ended, &status).at(&text);
        if let Some(place) = self.place.as_mut().filter(|_| !self.is_deaf) {
            place.passed(&ended.resume_token);
        }
        self.forget_untaken(news);
        if self.phase != Phase::Asked {
            self.home.left();
        }
        if now.saturating_sub(self.open_since) >= WORKED_AFTER {
            self.backoff.reset();
        }
        let advice = ended.retry.filter(|advice| advice.retry);
        let expired = matches!(reason, EndReason::CredentialExpired | EndReason::CredentialMissing);
        match self.phase {
            Phase::Leaving { returns: true, .. } => {
                self.phase = Phase::Waiting { until: Moment::MAX, with_session: true };
            }
            Phase::Leaving { .. } | Phase::Over => self.finish(End::Complete, news),
            _ if self.left == Some(0) => self.finish(End::Complete, news),
            _ if status.code == 0 && reason != EndReason::ClientUnsubscribed => self.finish(End::Complete, news),
            _ if advice.is_some() || (renews && expired) => {
                let told = advice.and_then(|advice| advice.delay).and_then(|delay| delay.try_into().ok());
                let told: Duration = told.unwrap_or_default();
                let exhausted = error.code() == tonic::Code::ResourceExhausted;
                let longest = if exhausted { LONGEST_WAIT_WHEN_EXHAUSTED } else { LONGEST_WAIT };
                let until = now + told.max(self.backoff.next_up_to(longest));
                self.phase = Phase::Waiting { until, with_session: reason == EndReason::Draining };
            }
            _ => self.finish(End::Failed(error), news),
        }
    }

    /// The hub refused to open it, in a way that names no subscription.
    pub(super) fn refused(&mut self, error: Error, place: &str, news: &mut VecDeque<News>) {
        let text = format!("{} at {place}", self.spec);
        self.finish(End::Failed(error.into_kind(ErrorKind::Ended).at(&text)), news);
    }

    // What time and sessions bring.

    /// When something is to be done although nothing comes.
    pub(super) fn due(&self, now: Moment) -> Option<Moment> {
        match self.phase {
            Phase::Waiting { until, .. } => Some(until).filter(|until| *until < Moment::MAX),
            Phase::Open | Phase::Leaving { .. } => self.hands.as_ref().and_then(|hands| hands.due(now)),
            _ => None,
        }
    }

    pub(super) fn tick(&mut self, now: Moment) {
        if let Phase::Waiting { until, .. } = self.phase
            && now >= until
        {
            self.phase = Phase::Idle;
        }
    }

    pub(super) fn session_lost(&mut self, now: Moment, news: &mut VecDeque<News>) {
        self.forget_untaken(news);
        if self.is_in_session() {
            self.home.lost();
        }
        if self.phase == Phase::Open && now.saturating_sub(self.open_since) >= WORKED_AFTER {
            self.backoff.reset();
        }
        match self.phase {
            Phase::Asked | Phase::Open if self.left == Some(0) => self.finish(End::Complete, news),
            Phase::Asked | Phase::Open => self.phase = Phase::Idle,
            Phase::Leaving { returns: true, .. } | Phase::Waiting { with_session: true, .. } => {
                self.phase = Phase::Idle;
            }
            Phase::Leaving { .. } => self.finish(End::Complete, news),
            Phase::Idle | Phase::Waiting { .. } | Phase::Over => {}
        }
    }

    /// Events of a group that the application has not taken come again, to whoever is there then.
    fn forget_untaken(&mut self, news: &mut VecDeque<News>) {
        let Some(hands) = &mut self.hands else { return };
        let size = hands.session_lost(news);
        if size.events > 0 {
            self.incoming.forget_events();
            self.ledger.returned(size);
        }
        // Somebody may wait until everything is settled.
        news.push_back(News::Subscription(self.id));
    }

    fn finish(&mut self, end: End, news: &mut VecDeque<News>) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.end = end;
        }
        if let Some(hands) = &mut self.hands {
            hands.give_up(&lease_lost(), news);
        }
        news.push_back(News::Subscription(self.id));
    }

    /// The client has failed for good, or is over.
    pub(super) fn fail(&mut self, error: Option<&Error>, news: &mut VecDeque<News>) {
        if error.is_none() {
            self.hush();
        }
        self.finish(error.map_or(End::Complete, |error| End::Failed(error.clone())), news);
    }

    // What the application does.

    /// The next thing for the application. `None` when there is nothing now, or when it is over.
    pub(super) fn take(&mut self) -> Option<Incoming> {
        if self.is_deaf {
            return None;
        }
        let incoming = self.incoming.pop()?;
        if let Incoming::Events { events, size, .. } = &incoming {
            self.with_application += 1;
            match &mut self.hands {
                Some(hands) => events.all.iter().for_each(|entry| hands.taken(entry.fields.sequence)),
                None => self.ledger.returned(*size),
            }
        }
        Some(incoming)
    }

    /// How it ended, once everything is taken. An error is told once.
    pub(super) fn take_end(&mut self) -> Option<Result<(), Error>> {
        if self.phase != Phase::Over && !self.is_deaf {
            return None;
        }
        match std::mem::replace(&mut self.end, End::Complete) {
            End::Failed(error) if !self.is_dropped => Some(Err(error)),
            _ => Some(Ok(())),
        }
    }

    /// Some of what the application had is out of its hands.
    pub(super) fn returned(&mut self, size: Size) {
        self.ledger.returned(size);
    }

    /// A batch is done.
    pub(super) fn finish_batch(&mut self, batch: u64) {
        if let Some(place) = &mut self.place {
            place.finish(batch);
        }
    }

    /// The application has dropped a batch, whether or not it is done.
    pub(super) fn drop_batch(&mut self, batch: u64) {
        self.with_application = self.with_application.saturating_sub(1);
        if let Some(place) = &mut self.place {
            place.drop_batch(batch);
        }
    }

    /// Gives the application nothing more, and forgets what it has not taken.
    pub(super) fn hush(&mut self) {
        self.is_deaf = true;
        let size = self.incoming.clear();
        self.ledger.returned(size);
        if let Some(hands) = &mut self.hands {
            hands.forget_untaken();
        }
    }

    /// What the application has of it counts as given back.
    pub(super) fn release(&mut self) {
        self.with_application = 0;
        if let Some(hands) = &mut self.hands {
            let size = hands.release();
            self.ledger.returned(size);
        }
    }

    /// Nobody reads it any more.
    pub(super) fn abandon(&mut self) {
        self.is_dropped = true;
        self.hush();
    }

    /// Ends it in order, for good or until the next session. Words that wait are written first.
    pub(super) fn leave(&mut self, returns: bool, news: &mut VecDeque<News>) {
        match self.phase {
            Phase::Asked | Phase::Open => self.phase = Phase::Leaving { is_written: false, returns },
            Phase::Leaving { is_written, .. } => {
                self.phase = Phase::Leaving { is_written, returns: returns && !self.is_deaf };
            }
            Phase::Idle | Phase::Waiting { .. } if !returns => self.finish(End::Complete, news),
            Phase::Idle | Phase::Waiting { .. } | Phase::Over => {}
        }
    }

    // What others ask.

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// The hub knows of it in this session.
    pub(super) fn is_in_session(&self) -> bool {
        matches!(self.phase, Phase::Asked | Phase::Open | Phase::Leaving { .. })
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Nobody reads it, and nobody has anything of it.
    pub(super) fn is_forgotten(&self) -> bool {
        self.is_dropped && self.is_over() && !self.is_in_use()
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.is_dropped
    }

    /// The application has something of it, or waits for an answer.
    pub(super) fn is_in_use(&self) -> bool {
        let hands = self.hands.as_ref().is_some_and(|hands| hands.in_hand() + hands.unanswered() > 0);
        hands || (self.hands.is_none() && self.with_application > 0)
    }

    /// A member has nothing in hand and waits for no answer.
    pub(super) fn is_quiet(&self) -> bool {
        self.hands.as_ref().is_none_or(|hands| hands.in_hand() + hands.unanswered() == 0)
    }

    pub(super) fn opened(&self) -> Option<Opened> {
        self.opened
    }

    pub(super) fn lag(&self) -> (bool, i64) {
        (self.is_caught_up && self.is_open(), self.lag)
    }

    /// Where the next run of the program would go on.
    pub(super) fn done(&self) -> Option<&str> {
        self.place.as_ref()?.done()
    }

    pub(super) fn held(&self) -> Size {
        self.ledger.held()
    }

    pub(super) fn with_application(&self) -> usize {
        self.hands.as_ref().map_or(self.with_application, Hands::in_hand)
    }

    /// What it is and where it is from, in the words of an error.
    pub(super) fn name(&self) -> String {
        self.spec.to_string()
    }
}
