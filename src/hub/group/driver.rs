//! The task of one group: what it turns to next, and what it is told.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    active::Active,
    command::{Command, Departure},
    in_use::{InUse, Mailbox},
    life::Life,
    saves::Saved,
    status::Board,
};
use crate::{groups::MemberId, hub::first, tasks::Turn};

/// For this long a member whose transport is lost may come back for what it was sent.
const REATTACH_WINDOW_MS: u64 = 10_000;
/// This many commands are applied before the group goes on.
const COMMANDS_AT_ONCE: usize = 256;

/// The task of one group.
#[derive(Debug)]
pub(super) struct Driver {
    in_use: Arc<InUse>,
    life: Life,
    mailbox: Arc<Mailbox>,
    commands: mpsc::Receiver<Command>,
    /// Members that are gone, to be seen off once so many commands were applied: all that they had sent.
    leaving: Vec<(MemberId, Departure)>,
    owed: usize,
    visible: watch::Receiver<u64>,
    /// The stream is gone.
    closed: bool,
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
        in_use: Arc<InUse>,
        life: Life,
        visible: watch::Receiver<u64>,
        (mailbox, commands): (Arc<Mailbox>, mpsc::Receiver<Command>),
    ) -> Self {
        Self { in_use, life, mailbox, commands, leaving: Vec::new(), owed: 0, visible, closed: false }
    }

    /// Does what the group needs until nobody needs it.
    pub(super) async fn run(mut self) {
        loop {
            let more = match &mut self.life.active {
                Some(active) => active.step().await,
                None => false,
            };
            self.life.end_if_over();
            let idle = self.life.active.as_ref().is_none_or(Active::is_idle);
            if !more
                && idle
                && self.leaving.is_empty()
                && self.in_use.retire(&self.life.key, &self.commands, self.life.tally())
            {
                return;
            }
            self.show();
            match self.next(more).await {
                Next::Saved(saved) => {
                    if let Some(active) = &mut self.life.active {
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
                    if let (false, Some(active)) = (open, &mut self.life.active) {
                        active.source.close();
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
        let Some(active) = &self.life.active else {
            *board = None;
            return;
        };
        let (in_hands, tally, stored) = (active.in_hands(), self.life.tally(), active.saves.state().clone());
        match &mut *board {
            Some(board) if board.settings == *active.state.settings() => {
                (board.in_hands, board.tally, board.stored) = (in_hands, tally, stored);
            }
            _ => *board = Some(Board { settings: active.state.settings().clone(), in_hands, tally, stored }),
        }
    }

    async fn next(&mut self, more: bool) -> Next {
        let due = self.life.active.as_ref().and_then(Active::due).map(|due| self.life.clock.at(due));
        let takes = self.takes_commands();
        let under_way = self.life.active.as_mut().and_then(|active| active.saves.under_way());
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
        self.life.active.as_ref().is_none_or(|active| active.saves.has_room())
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
        let Some(active) = &mut self.life.active else { return };
        let now = active.now();
        for (member, how) in gone {
            let may_return = active.seats.vacate(member);
            match how {
                Departure::Left => active.state.leave(member),
                Departure::Lost if may_return => active.state.detach(member, REATTACH_WINDOW_MS, now),
                Departure::Lost => active.state.die(member, now),
            }
        }
        if self.in_use.is_closing() {
            active.seats.absent().into_iter().for_each(|member| active.state.leave(member));
        }
        active.seats.forget_absent(&active.state);
    }

    async fn apply(&mut self, command: Command) {
        self.owed = self.owed.saturating_sub(1);
        Turn::default().spend(command.steps()).await;
        match command {
            Command::Join { newcomer, answer } => {
                let joined = self.life.join(*newcomer).await;
                // Whoever asked may be gone, here and below; one that is says so as a member does.
                answer.send(joined).ok();
            }
            Command::Handed { member, sent, dropped, hungry } => {
                if let Some(active) = &mut self.life.active {
                    active.handed(member, &sent, &dropped, hungry);
                }
            }
            Command::Acknowledge { member, speaker, sequences, up_to, outcome } => match &mut self.life.active {
                Some(active) => active.acknowledge(member, speaker, &sequences, up_to, &outcome),
                // The group was deleted while it wrote this.
                None => speaker.refuse(&sequences, up_to),
            },
            Command::Settle(done) => {
                if let Some(active) = &mut self.life.active {
                    active.when_stored(move |_| done.send(()).unwrap_or_default());
                }
            }
            Command::Create { settings, start, answer } => {
                let created = self.life.create(settings, &start).await;
                answer.send(created).ok();
            }
            Command::GroupStatus { as_of, answer } => {
                let base = self.life.base;
                match self.life.active().await {
                    Ok(active) => active.status(base, as_of, answer).await,
                    Err(error) => _ = answer.send(Err(error)),
                }
            }
            Command::View(view) => match self.life.active().await {
                Ok(active) => view.show(active),
                Err(error) => view.refuse(error),
            },
            Command::Update { change, answer } => {
                let updated = self.life.update(change).await;
                answer.send(updated).ok();
            }
            Command::Seek { to, answer } => match self.life.active().await {
                Ok(active) => active.seek(&to, answer).await,
                Err(error) => drop(answer.send(Err(error))),
            },
            Command::Delete(answer) => {
                let deleted = self.life.delete().await;
                answer.send(deleted).ok();
            }
            Command::Bury(answer) => {
                let buried = self.life.bury().await;
                answer.send(buried).ok();
            }
            Command::Redrive { letters, events, answer } => {
                let redriven = match self.life.active().await {
                    Ok(active) => active.redrive(&letters, events).await,
                    Err(error) => Err(error),
                };
                answer.send(redriven).ok();
            }
        }
        self.life.end_if_over();
    }
}

impl Active {
    /// Does some of what there is to do; true when there is more.
    async fn step(&mut self) -> bool {
        let now = self.now();
        self.state.tick(now);
        self.seats.look_again(now);
        self.source.look_again(now);
        self.seats.forget_absent(&self.state);
        self.end_settled();
        self.start_save().await;
        let removed = self.look_for_removed().await;
        let read = self.read_ahead().await;
        let handed = self.hand_out().await;
        !self.source.is_over() && (removed || read || handed)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.in_use.forget(&self.life.key, &self.mailbox);
        self.life.abandon();
    }
}
