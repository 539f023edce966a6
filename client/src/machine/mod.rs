//! The state machine of a client: what it does about every frame, every call and every passing of time. Pure.
//!
//! One value owns the whole state: the session, the table of subscriptions, the queue of publishes. Frames, calls and the
//! time go in; frames and news come out. It knows no clock, no socket and no runtime: those are its driver's
//! (`driver.rs`), and its handles reach it under one lock (`shared.rs`). After a lost session the state of the next one is
//! made from the table, never mended.

pub(crate) mod addresses;
mod closing;
pub(crate) mod credit;
mod frames;
pub(crate) mod hands;
mod hello;
mod home;
pub(crate) mod incoming;
mod losses;
pub(crate) mod news;
mod phase;
mod place;
pub(crate) mod publishes;
pub(crate) mod refresh;
mod requests;
pub(crate) mod subscription;
pub(crate) mod table;
pub(crate) mod verdict;
pub(crate) mod wire;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tonic::Code;

pub(crate) use self::phase::{Loss, Plan, Turn};
use self::{
    addresses::Addresses,
    hello::Introduction,
    losses::Losses,
    news::{Moment, News},
    phase::{Closing, Draining, Phase},
    publishes::{Amount, NewPublish, Publishes},
    refresh::{Fresh, Refresh},
    requests::Requests,
    table::Table,
};
use crate::{
    backoff::Backoff,
    error::{Error, ErrorKind},
    proto::v1::{Authenticate, Hello, session_request::Command},
    spec::Spec,
    state::{Left, State, Stats, Status},
};

/// How long to wait before the next attempt to open a session: at first,
const SHORTEST_WAIT: Duration = Duration::from_millis(100);
/// in the end,
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// and where the hub is short of something.
const LONGEST_WAIT_WHEN_EXHAUSTED: Duration = Duration::from_secs(30);
/// A session that was up for this long has worked: the next wait is short again.
const WORKED_AFTER: Duration = Duration::from_secs(10);
/// How long opening a session may take, from the first byte to `welcome`.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A session in which nothing comes for two heartbeat intervals and this long is lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that looks later than this did not run, as in a machine that slept.
const ASLEEP: Duration = Duration::from_secs(1);
/// How often it is checked whether a session that is to end has anything left to do. It takes a look at every subscription.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// When a client comes back, and when it does not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Returns {
    /// Although an operator has ended its session.
    pub(crate) when_terminated: bool,
    /// Not if no address leads to a session at first,
    pub(crate) fails_fast: bool,
    /// and not when its session is lost.
    pub(crate) is_for_once: bool,
}

/// What a client is made of.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) labels: HashMap<String, String>,
    pub(crate) heartbeat: Duration,
    pub(crate) addresses: Vec<String>,
    /// TLS is set: addresses that do not say are of hubs with TLS.
    pub(crate) has_tls: bool,
    pub(crate) has_source: bool,
    pub(crate) returns: Returns,
    /// What may wait to be published.
    pub(crate) most: Amount,
    pub(crate) seed: u64,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Machine {
    introduction: Introduction,
    returns: Returns,
    phase: Phase,
    status: Status,
    addresses: Addresses,
    pub(crate) table: Table,
    publishes: Publishes,
    requests: Requests,
    refresh: Refresh,
    backoff: Backoff,
    /// Counts the attempts to open a session: names each.
    session: u64,
    /// To be written first. It names the session before.
    hello: Option<Hello>,
    last_frame: Moment,
    draining: Option<Draining>,
    closing: Option<Closing>,
    /// When it is checked next whether a session that is to end has anything left to do.
    check_at: Moment,
    /// When the driver comes back by itself, at the latest.
    back_at: Moment,
    pub(crate) news: VecDeque<News>,
    sessions: u64,
    losses: Losses,
    tickets: u64,
    left: Left,
}

impl Machine {
    pub(crate) fn new(setup: Setup) -> Self {
        let mut random = fastrand::Rng::with_seed(setup.seed);
        let mut seed = || random.u64(..);
        Self {
            introduction: Introduction::new(setup.name, setup.labels, setup.heartbeat),
            returns: setup.returns,
            phase: Phase::Idle,
            status: Status::idle(),
            addresses: Addresses::new(setup.addresses, setup.has_tls, seed()),
            table: Table::new(seed()),
            publishes: Publishes::new(setup.most, setup.has_source, seed()),
            requests: Requests::default(),
            refresh: Refresh::new(setup.has_source, seed()),
            backoff: Backoff::new(SHORTEST_WAIT, LONGEST_WAIT).with_seed(seed()),
            session: 0,
            hello: None,
            last_frame: Moment::ZERO,
            draining: None,
            closing: None,
            check_at: Moment::ZERO,
            back_at: Moment::ZERO,
            news: VecDeque::new(),
            sessions: 0,
            losses: Losses::default(),
            tickets: 0,
            left: Left::default(),
        }
    }

    // Where there is no session.

    /// Somebody drives it from now on. Only one may.
    pub(crate) fn drive(&mut self) -> Result<(), Error> {
        match self.phase {
            Phase::Idle => self.phase = Phase::Waiting(Moment::ZERO),
            Phase::Over(_) => {}
            _ => return Err(Error::invalid("run", "is called while the client runs")),
        }
        Ok(())
    }

    /// What the driver does now.
    pub(crate) fn plan(&mut self, now: Moment) -> Plan {
        self.tick(now);
        self.close_without_session(now);
        match &self.phase {
            Phase::Over(result) => return Plan::Stop(result.clone()),
            Phase::Waiting(until) if *until > now => {
                let closing = self.closing.as_ref().map(|closing| closing.until);
                let due = [Some(*until), closing, self.publishes.due(now)].into_iter().flatten().min();
                return Plan::Rest(due.unwrap_or(*until));
            }
            _ => {}
        }
        self.phase = Phase::Opening;
        self.session += 1;
        self.status.attempt += 1;
        self.status.address = self.addresses.current().to_owned();
        self.enter(State::Connecting, self.status.reason.clone());
        Plan::Open(self.status.address.clone())
    }

    /// What the driver does while it connects: it comes back at this time at the latest, or stops when that is over.
    pub(crate) fn opening(&mut self, now: Moment) -> Option<Moment> {
        self.tick(now);
        self.close_without_session(now);
        if matches!(self.phase, Phase::Over(_)) {
            return None;
        }
        let closing = self.closing.as_ref().map(|closing| closing.until);
        Some([closing, self.publishes.due(now)].into_iter().flatten().min().unwrap_or(Moment::MAX))
    }

    /// The driver has a call to the hub, with a token that is good for this long, if that is known. Of the time for opening a
    /// session it took so much.
    pub(crate) fn connected(&mut self, now: Moment, life: Option<Duration>, took: Duration) {
        self.phase = Phase::Greeting;
        self.hello = Some(self.introduction.hello());
        self.last_frame = now.saturating_sub(took);
        self.refresh.session_begins(now, self.session, life);
    }

    /// There is no session, or none any longer.
    pub(crate) fn lost(&mut self, now: Moment, loss: Loss) {
        let since = match self.phase {
            Phase::Over(_) => return,
            Phase::Up { since } => Some(since),
            _ => None,
        };
        let has_worked = since.is_some_and(|since| now.saturating_sub(since) >= WORKED_AFTER);
        if has_worked {
            self.backoff.reset();
        }
        let error = self.reason(loss);
        self.losses.count(&error);
        if since.is_some() {
            if self.table.session_lost(now, &mut self.news) {
                self.introduction.comes_from(&self.status.session_id);
            }
            self.publishes.session_lost(&mut self.news);
        }
        self.requests.clear();
        self.refresh.session_lost();
        let told = self.draining.take().and_then(|draining| draining.delay).or(error.retry_after());
        if self.closing.as_ref().is_some_and(Closing::is_half_closed) {
            return self.finish();
        }
        if self.is_fatal(&error) {
            return self.fail(error);
        }
        self.addresses.next();
        let longest = if error.code() == Code::ResourceExhausted { LONGEST_WAIT_WHEN_EXHAUSTED } else { LONGEST_WAIT };
        let wait = match told {
            // Unless sessions end as soon as they begin.
            Some(told) if has_worked => told,
            Some(told) => told.max(self.backoff.next_up_to(longest)),
            None => self.backoff.next_up_to(longest),
        };
        self.phase = Phase::Waiting(now + wait);
        self.enter(State::Waiting, Some(error));
    }

    /// The loss in the words of an error.
    fn reason(&self, loss: Loss) -> Error {
        let own = |code, reason, text: String| Error::new(ErrorKind::Lost, code, reason, text);
        let error = match loss {
            Loss::Failed(error) => error.into_kind(ErrorKind::Lost),
            Loss::Ended => own(Code::Unavailable, "", "the hub ended the session".into()),
            Loss::Silent => {
                let text = format!("nothing came from the hub for {:?}", self.patience());
                own(Code::Unavailable, "NOTHING_HEARD", text)
            }
            Loss::Left => own(Code::Unavailable, "DRAINING", "the hub asked to go elsewhere".into()),
        };
        error.at(&self.status.address)
    }

    /// Whether it would be the same the next time, or there is to be no next time.
    fn is_fatal(&self, error: &Error) -> bool {
        let Returns { when_terminated, fails_fast, is_for_once } = self.returns;
        match (error.code(), self.sessions) {
            (Code::Unauthenticated, _) if !self.refresh.has_source() => true,
            (Code::PermissionDenied | Code::Unimplemented, _) => true,
            (_, 0) if fails_fast => self.session >= self.addresses.count(),
            (_, 0) => false,
            _ => is_for_once || (error.reason() == "SESSION_TERMINATED" && !when_terminated),
        }
    }

    // Where there is a session.

    /// What the driver does now.
    pub(crate) fn turn(&mut self, now: Moment) -> Turn {
        self.tick(now);
        let mut half_closes = false;
        let cut = if self.closing.is_some() {
            let step = self.close_in_session(now);
            half_closes = step.half_closes;
            step.is_over.then_some(Loss::Ended)
        } else {
            self.leave_hub(now).then_some(Loss::Left)
        };
        let (writes, fetch) = (self.has_writes(now), self.refresh.fetch(now));
        self.back_at = self.wake_at(now);
        Turn { cut, writes, fetch, half_closes, wake_at: self.back_at }
    }

    /// After what a handle has done the driver has something to do, earlier than it knows of.
    pub(crate) fn needs_driver(&self, now: Moment) -> bool {
        match self.phase {
            Phase::Up { .. } => self.has_writes(now) || self.wake_at(now) < self.back_at,
            _ => true,
        }
    }

    /// Some time has passed, and no frame is there. Whether the session is lost for that. The time in which this client did
    /// not run itself does not count: frames may have come meanwhile, and are on their way here.
    pub(crate) fn is_silent(&mut self, now: Moment) -> bool {
        let Some(over) = now.checked_sub(self.last_frame + self.patience()) else { return false };
        if over < ASLEEP {
            return true;
        }
        self.last_frame = (now + PATIENCE).saturating_sub(self.patience());
        false
    }

    /// How long nothing may come.
    fn patience(&self) -> Duration {
        match self.phase {
            Phase::Up { .. } => self.introduction.heartbeat() * 2 + PATIENCE,
            _ => OPEN_TIMEOUT,
        }
    }

    fn wake_at(&self, now: Moment) -> Moment {
        let silence = self.last_frame + self.patience();
        // Where nothing is written any more, there is nothing left to check.
        let checks = self.closing.as_ref().map_or(self.draining.is_some(), |closing| !closing.is_half_closed());
        let check = checks.then_some(self.check_at.max(now));
        let closing = self.closing.as_ref().map(Closing::over_at);
        let due = [check, closing, self.refresh.due(), self.table.due(), self.publishes.due(now)];
        due.into_iter().flatten().min().map_or(silence, |due| due.min(silence))
    }

    fn tick(&mut self, now: Moment) {
        self.table.tick(now);
        self.publishes.tick(now, &mut self.news);
    }

    /// A hub that drains is left as soon as nothing is begun. True when it is time.
    fn leave_hub(&mut self, now: Moment) -> bool {
        if self.draining.is_none() || now < self.check_at {
            return false;
        }
        self.check_at = now + CHECK_INTERVAL;
        let is_quiet = self.table.is_quiet();
        // Publishers do not wait for handlers.
        self.publishes.be_quiet(is_quiet);
        is_quiet && self.publishes.is_quiet() && !self.table.members_leave(now, &mut self.news)
    }

    /// Something is to be written.
    pub(crate) fn has_writes(&self, now: Moment) -> bool {
        match self.phase {
            Phase::Greeting => self.hello.is_some(),
            Phase::Up { .. } => {
                self.hello.is_some()
                    || self.refresh.has_fresh()
                    || self.table.has_writes()
                    || self.publishes.has_writes(now)
            }
            _ => false,
        }
    }

    /// The next frame to write. Commands come before publishes: they are few and small.
    pub(crate) fn write(&mut self, now: Moment) -> Option<Bytes> {
        if let Some(hello) = self.hello.take() {
            return Some(wire::command(requests::HELLO, Command::Hello(hello)));
        }
        if !matches!(self.phase, Phase::Up { .. }) {
            return None;
        }
        if let Some(token) = self.refresh.take() {
            return Some(wire::command(requests::AUTHENTICATE, Command::Authenticate(Authenticate { token })));
        }
        if let Some((request, command)) = self.table.write(now, &mut self.requests) {
            return Some(wire::command(request, command));
        }
        self.publishes.write(now, &mut self.requests, &mut self.news)
    }

    /// The source has given a token for a session, or has failed. False when that cannot be used.
    pub(crate) fn fetched(&mut self, now: Moment, session: u64, token: Option<Fresh>) -> bool {
        self.refresh.fetched(now, session, token)
    }

    // What handles do, besides what they do with the table.

    /// Why nothing new is taken, if so.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match &self.phase {
            Phase::Over(Err(error)) => Err(error.clone().into_kind(ErrorKind::Closed)),
            Phase::Over(Ok(())) => Err(Error::closed()),
            _ if self.closing.is_some() => Err(Error::closed()),
            _ => Ok(()),
        }
    }

    pub(crate) fn subscribe(&mut self, spec: Spec, token: Option<String>) -> Result<i64, Error> {
        self.check_open()?;
        self.table.add(spec, token)
    }

    /// Takes a call into the queue; it comes back when there is no room now.
    pub(crate) fn publish(&mut self, new: NewPublish) -> Result<Result<u64, NewPublish>, Error> {
        self.check_open()?;
        let amount = new.amount();
        if !self.publishes.fits(amount) {
            let problem = format!("are {} of {} bytes, more than the queue ever holds", amount.events, amount.bytes);
            return Err(Error::invalid("events", problem));
        }
        if !self.publishes.has_room(amount) {
            return Ok(Err(new));
        }
        Ok(Ok(self.publishes.add(new)))
    }

    /// A name for an answer that somebody waits for.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    pub(crate) fn stats(&self, now: Moment) -> Stats {
        let totals = self.table.totals();
        let held = |value: i64| u64::try_from(value).unwrap_or(0);
        let is_up = matches!(self.phase, Phase::Up { .. });
        Stats {
            sessions: self.sessions,
            losses: self.losses.all().clone(),
            since_last_frame: is_up.then(|| now.saturating_sub(self.last_frame)),
            subscriptions: totals.subscriptions,
            events_in_hand: held(totals.held.events),
            bytes_in_hand: held(totals.held.bytes),
            unanswered_acknowledgements: totals.unanswered,
            queued_publishes: self.publishes.held().events,
            unanswered_publishes: self.publishes.left().0,
            refused_sends: self.publishes.refusals(),
            full_windows: totals.full_windows,
        }
    }

    fn enter(&mut self, state: State, reason: Option<Error>) {
        // Whoever closes a client wants to see that, whatever its session does meanwhile.
        self.status.state = if self.closing.is_some() && !state.is_over() { State::Closing } else { state };
        self.status.reason = reason;
        self.news.push_back(News::State(self.status.clone()));
    }
}

#[cfg(test)]
mod tests;
