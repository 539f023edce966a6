//! The task of one group: what it turns to next, and what it is told.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Board, Groups, Key, Mailbox, Tally,
    command::{Command, Departure, Newcomer, Speaker},
    deliver::Ready,
    of_group,
    removed::Removed,
    save::{Saved, Saves},
    seats::Seats,
};
use crate::{
    engine::EventStream,
    groups::{Answer as Judged, GroupState, MemberId, Outcome},
    hub::first,
    model::{AckError, End, GroupSettings, StreamError},
    outbox::Acked,
    tasks::Turn,
};

/// So long a member whose transport is lost may come back for what it was sent.
const REATTACH_WINDOW_MS: u64 = 10_000;
/// So many commands are applied before the group goes on.
const COMMANDS_AT_ONCE: usize = 256;

/// Milliseconds since 1970 that do not go back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    begin: Instant,
    begin_ms: u64,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { begin: Instant::now(), begin_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(super) fn now(self) -> u64 {
        let passed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.begin_ms.saturating_add(passed)
    }

    fn at(self, ms: u64) -> Instant {
        self.begin + Duration::from_millis(ms.saturating_sub(self.begin_ms))
    }
}

/// The task of one group.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) groups: Arc<Groups>,
    key: Key,
    pub(super) stream: Arc<dyn EventStream>,
    mailbox: Arc<Mailbox>,
    commands: mpsc::Receiver<Command>,
    /// Members that are gone, to be seen off once so many commands were applied: all that they had sent.
    leaving: Vec<(MemberId, Departure)>,
    owed: usize,
    visible: watch::Receiver<u64>,
    /// The stream is gone.
    closed: bool,
    pub(super) clock: Clock,
    tally: Tally,
    /// `None` until it is needed, and while the group does not exist.
    pub(super) active: Option<Active>,
}

/// A group that exists.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) key: Key,
    pub(super) stream: Arc<dyn EventStream>,
    pub(super) clock: Clock,
    pub(super) state: GroupState,
    pub(super) seats: Seats,
    pub(super) ready: Ready,
    pub(super) removed: Removed,
    pub(super) saves: Saves,
    /// The state as it was stored last.
    pub(super) stored: Bytes,
    /// The group is no more.
    pub(super) over: Option<StreamError>,
}

/// What the task turns to next.
enum Next {
    Saved(Saved),
    Wake,
    Command(Option<Command>),
    Visible(bool),
    Go,
}

impl Driver {
    pub(super) fn new(
        groups: Arc<Groups>,
        key: Key,
        stream: Arc<dyn EventStream>,
        mailbox: Arc<Mailbox>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let visible = stream.visible();
        let (clock, tally) = (Clock::start(), Tally::default());
        let (leaving, owed) = (Vec::new(), 0);
        Self {
            groups,
            key,
            stream,
            mailbox,
            commands,
            leaving,
            owed,
            visible,
            closed: false,
            clock,
            tally,
            active: None,
        }
    }

    /// Does what the group needs until nobody needs it.
    pub(super) async fn run(mut self, tally: Tally) {
        self.tally = tally;
        loop {
            let more = match &mut self.active {
                Some(active) => active.step().await,
                None => false,
            };
            self.end_if_over();
            let idle = self.active.as_ref().is_none_or(Active::is_idle);
            if !more && idle && self.leaving.is_empty() && self.groups.retire(&self.key, &self.commands, self.tally()) {
                return;
            }
            self.show();
            match self.next(more).await {
                Next::Saved(saved) => {
                    if let Some(active) = &mut self.active {
                        active.saved(saved);
                    }
                }
                Next::Wake => self.see_off().await,
                Next::Command(Some(command)) => {
                    self.apply(command).await;
                    self.apply_waiting(COMMANDS_AT_ONCE).await;
                }
                Next::Command(None) => return,
                Next::Visible(open) => {
                    if let (false, Some(active)) = (open, &mut self.active) {
                        active.over = Some(self.stream.why_closed());
                    }
                    self.closed |= !open;
                }
                Next::Go => {}
            }
            tokio::task::consume_budget().await;
        }
    }

    /// Tells how the group stands to those who ask while this waits for the disk.
    fn show(&self) {
        let mut board = self.mailbox.board.lock();
        let Some(active) = &self.active else {
            *board = None;
            return;
        };
        let (in_hands, tally, stored) = (active.in_hands(), self.tally(), active.stored.clone());
        match &mut *board {
            Some(board) if board.settings == *active.state.settings() => {
                (board.in_hands, board.tally, board.stored) = (in_hands, tally, stored);
            }
            _ => *board = Some(Board { settings: active.state.settings().clone(), in_hands, tally, stored }),
        }
    }

    async fn next(&mut self, more: bool) -> Next {
        let due = self.active.as_ref().and_then(Active::due).map(|due| self.clock.at(due));
        let takes = self.takes_commands();
        let under_way = self.active.as_mut().and_then(|active| active.saves.under_way.as_mut());
        tokio::select! {
            biased;
            saved = first(under_way) => Next::Saved(saved),
            () = self.mailbox.wake.notified(), if takes => Next::Wake,
            command = self.commands.recv(), if takes => Next::Command(command),
            changed = self.visible.changed(), if !self.closed => Next::Visible(changed.is_ok()),
            () = std::future::ready(()), if more => Next::Go,
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Next::Go,
        }
    }

    /// False while so many answers wait for the disk that what comes has to wait, too.
    fn takes_commands(&self) -> bool {
        self.active.as_ref().is_none_or(|active| active.saves.has_room())
    }

    async fn apply_waiting(&mut self, most: usize) {
        for _ in 0..most {
            if !self.takes_commands() {
                return;
            }
            let Ok(command) = self.commands.try_recv() else { return };
            self.apply(command).await;
        }
    }

    /// Members that are gone, after all that they sent before.
    async fn see_off(&mut self) {
        if self.leaving.is_empty() {
            self.leaving = std::mem::take(&mut *self.mailbox.departures.lock());
            self.owed = self.commands.len();
        }
        self.apply_waiting(self.owed).await;
        // This turn is not the last for those that have to wait for room, and those that went meanwhile.
        if self.owed > 0 || !self.mailbox.departures.lock().is_empty() {
            self.mailbox.wake.notify_one();
        }
        if self.owed > 0 {
            return;
        }
        let gone = std::mem::take(&mut self.leaving);
        let Some(active) = &mut self.active else { return };
        let now = active.clock.now();
        for (member, how) in gone {
            let may_return = active.seats.vacate(member);
            match how {
                Departure::Left => active.state.leave(member),
                Departure::Lost if may_return => active.state.detach(member, REATTACH_WINDOW_MS, now),
                Departure::Lost => active.state.die(member, now),
            }
        }
        if self.groups.is_closing() {
            active.seats.absent().into_iter().for_each(|member| active.state.leave(member));
        }
        active.forget_absent();
    }

    fn end_if_over(&mut self) {
        let Some(error) = self.active.as_mut().and_then(|active| active.over.take()) else { return };
        self.tally = self.tally();
        if let Some(active) = self.active.take() {
            active.end(&error);
        }
    }

    /// What was counted since the hub started.
    fn tally(&self) -> Tally {
        self.active.as_ref().map_or(self.tally, |active| active.tally(self.tally))
    }

    async fn apply(&mut self, command: Command) {
        self.owed = self.owed.saturating_sub(1);
        Turn::default().spend(command.steps()).await;
        match command {
            Command::Join { newcomer, answer } => {
                let joined = self.join(*newcomer).await;
                // Whoever asked may be gone, here and below; one that is says so as a member does.
                answer.send(joined).ok();
            }
            Command::Handed { member, sent, dropped, hungry } => {
                if let Some(active) = &mut self.active {
                    active.handed(member, &sent, &dropped, hungry);
                }
            }
            Command::Acknowledge { member, speaker, sequences, up_to, outcome } => match &mut self.active {
                Some(active) => active.acknowledge(member, speaker, &sequences, up_to, &outcome),
                // The group was deleted while it wrote this.
                None => speaker.refuse(&sequences, up_to),
            },
            Command::Settle(done) => {
                if let Some(active) = &mut self.active {
                    active.when_stored(move |_| done.send(()).unwrap_or_default());
                }
            }
            Command::Create { settings, start, answer } => {
                let created = self.create(settings, &start).await;
                answer.send(created).ok();
            }
            Command::GroupStatus { as_of, answer } => {
                let base = self.tally;
                match self.active().await {
                    Ok(active) => active.status(base, as_of, answer).await,
                    Err(error) => _ = answer.send(Err(error)),
                }
            }
            Command::Update { change, answer } => {
                let updated = self.update(change).await;
                answer.send(updated).ok();
            }
            Command::Seek { to, answer } => match self.active().await {
                Ok(active) => active.seek(&to, answer).await,
                Err(error) => drop(answer.send(Err(error))),
            },
            Command::Delete(answer) => {
                let deleted = self.delete().await;
                answer.send(deleted).ok();
            }
            Command::Bury(answer) => {
                let buried = self.bury().await;
                answer.send(buried).ok();
            }
            Command::Redrive { letters, events, answer } => {
                let redriven = match self.active().await {
                    Ok(active) => active.redrive(&letters, events).await,
                    Err(error) => Err(error),
                };
                answer.send(redriven).ok();
            }
        }
        self.end_if_over();
    }

    /// The group, read from the store if it was not yet.
    pub(super) async fn active(&mut self) -> Result<&mut Active, StreamError> {
        if self.active.is_none() {
            self.active = self.load().await?;
        }
        self.active.as_mut().ok_or_else(|| not_found(&self.key))
    }

    async fn bury(&mut self) -> Result<(), StreamError> {
        self.active().await?.bury().await;
        Ok(())
    }

    /// Its stream, the life of that, and its name.
    pub(super) fn active_key(&self) -> Key {
        self.key.clone()
    }

    async fn load(&mut self) -> Result<Option<Active>, StreamError> {
        let (stream, _, group) = &self.key.clone();
        let stored = self.stream.group(group.clone()).await.map_err(|error| of_group(&error, stream, Some(group)))?;
        let Some(stored) = stored else { return Ok(None) };
        let now = self.clock.now();
        let kept = self.stream.state();
        let mut state = if stored.state.is_empty() {
            // One of a stream in memory, which is another now; all it has is new to the group.
            GroupState::new(stored.settings, kept.earliest - 1)
        } else {
            GroupState::restore(stored.settings, &stored.state, now).map_err(|error| {
                StreamError::Corrupt(format!("group {} of stream {stream}: {error}", group.as_str()))
            })?
        };
        if state.floor() > kept.latest {
            // The stream lost its tail, and the group did not.
            state.seek(kept.latest + 1);
        }
        let stored = state.encode(&[]).into();
        Ok(Some(self.active_with(state, stored)))
    }

    /// `stored` is the state as it is stored.
    pub(super) fn active_with(&self, state: GroupState, stored: Bytes) -> Active {
        let saves = Saves::new(state.revision());
        Active {
            key: self.key.clone(),
            stream: Arc::clone(&self.stream),
            clock: self.clock,
            state,
            seats: Seats::default(),
            ready: Ready::default(),
            removed: Removed::default(),
            saves,
            stored,
            over: None,
        }
    }

    async fn join(&mut self, newcomer: Newcomer) -> Result<(), StreamError> {
        match self.active().await.map(drop) {
            Err(StreamError::GroupNotFound { .. }) => {
                self.create(GroupSettings::default(), &newcomer.start).await?;
            }
            known => known?,
        }
        let active = self.active().await?;
        // With other filters than before the group reads anew: what is being stored as dead letters has to be done by then.
        active.finish_save().await;
        active.seat(newcomer)
    }
}

impl Active {
    /// Does some of what there is to do; true when there is more.
    async fn step(&mut self) -> bool {
        let now = self.clock.now();
        self.state.tick(now);
        self.seats.look_again(now);
        self.ready.look_again(now);
        self.forget_absent();
        self.end_settled();
        self.start_save().await;
        let removed = self.look_for_removed().await;
        let read = self.read_ahead().await;
        let handed = self.hand_out().await;
        self.over.is_none() && (removed || read || handed)
    }

    /// When time alone brings something to do.
    fn due(&self) -> Option<u64> {
        let due = [self.state.due(), self.seats.due(), self.ready.due(), self.saves.due(), self.look_due()];
        due.into_iter().flatten().min()
    }

    /// What was counted since the hub started, of which `base` was before.
    pub(super) fn tally(&self, base: Tally) -> Tally {
        let counts = self.state.counts();
        let (expired, dropped) = (base.expired + counts.expired, base.dropped + counts.dropped);
        Tally { expired, dropped, lost: base.lost + self.removed.lost }
    }

    fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.state.counts().members == 0 && self.saves.is_settled(self.state.revision())
    }

    /// Does `then` once all that was done so far is stored, or could not be.
    pub(super) fn when_stored(&mut self, then: impl FnOnce(Result<(), StreamError>) + Send + 'static) {
        self.saves.when_stored(self.state.revision(), 1, then);
    }

    fn handed(&mut self, member: MemberId, sent: &[u64], dropped: &[u64], hungry: bool) {
        let now = self.clock.now();
        let done_when_sent = self.seats.get(member).is_some_and(|seat| !seat.acknowledges);
        for sequence in sent {
            if self.state.sent(member, *sequence, now) && done_when_sent {
                self.state.acknowledge(member, *sequence, &Outcome::Ack, now);
            }
        }
        self.seats.sent(member, sent.len());
        for sequence in dropped {
            self.state.unsend(member, *sequence);
        }
        if hungry {
            self.seats.hungry(member);
        }
    }

    /// Ends the subscriptions of members that were sent all they wanted and hold none of it any more, behind the answers
    /// they wait for.
    fn end_settled(&mut self) {
        for (outbox, key) in self.seats.settled(|member| !self.state.has_leases(member)) {
            self.when_stored(move |_| outbox.close_key(key, End::LimitReached));
        }
    }

    /// Applies acknowledgements, to be answered when that is stored.
    fn acknowledge(
        &mut self,
        member: MemberId,
        speaker: Speaker,
        sequences: &[u64],
        up_to: Option<u64>,
        outcome: &Outcome,
    ) {
        let now = self.clock.now();
        if self.seats.get(member).is_none() {
            // It was one of a group that was deleted, and this is another of the same name.
            return speaker.refuse(sequences, up_to);
        }
        let mut results: Vec<Acked> = Vec::with_capacity(sequences.len().max(1));
        for sequence in sequences {
            results.push((*sequence, result(self.state.acknowledge(member, *sequence, outcome, now))));
        }
        if let Some(up_to) = up_to {
            let told = self.state.acknowledge_up_to(member, up_to, outcome, now);
            results.push((up_to, result(told.answer)));
        }
        let answer = move |stored: Result<(), StreamError>| {
            if let Err(error) = stored {
                results.iter_mut().filter(|(_, result)| result.is_ok()).for_each(|(_, result)| {
                    *result = Err(error.clone().into());
                });
            }
            speaker.tell(results);
        };
        let count = sequences.len().max(1);
        self.saves.when_stored(self.state.revision(), count, answer);
    }

    /// The group is no more: its members are told, and whoever waits.
    fn end(mut self, error: &StreamError) {
        self.saves.fail_all(error);
        self.seats.close(error);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.groups.forget(&self.key, &self.mailbox);
        if let Some(active) = self.active.take() {
            // Only a task that failed has members.
            active.end(&StreamError::Unavailable);
        }
    }
}

fn result(answer: Judged) -> Result<(), AckError> {
    match answer {
        Judged::Applied | Judged::AlreadyDone => Ok(()),
        Judged::Expired => Err(AckError::Late),
        Judged::NotDelivered => Err(AckError::NotDelivered),
    }
}

pub(super) fn not_found(key: &Key) -> StreamError {
    StreamError::GroupNotFound { stream: key.0.clone(), group: key.2.as_str().to_owned() }
}
