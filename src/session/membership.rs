//! The subscriptions of one session that are members of groups on streams: what their groups are told of them.

use std::collections::{HashMap, HashSet};

use crate::{
    groups::{MemberId, Outcome},
    hub::{Departure, GroupCommand as Command, Handle, Newcomer, Speaker},
    model::{AckMode, CommandError, StreamError},
    outbox::{Attention, SubscriptionKey},
};

/// All of one session.
#[derive(Debug, Default)]
pub(super) struct Memberships(HashMap<SubscriptionKey, Membership>);

/// One member. Its group hears when it is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    handle: Handle,
    member: MemberId,
    ack_mode: AckMode,
    how: Departure,
}

impl Membership {
    /// One that is about to join. From here on its group hears when it goes, also if whoever asked for it does not wait
    /// until it is one.
    pub(super) fn new(handle: Handle, newcomer: &Newcomer) -> Self {
        Self { handle, member: newcomer.member, ack_mode: newcomer.ack_mode, how: Departure::Lost }
    }

    // The futures of these are those of the handle: an async block around each would keep what it sends twice, and an idle
    // session is little more than its task.

    /// Joins the group, which answers the client.
    pub(super) fn join(&self, newcomer: Box<Newcomer>) -> impl Future<Output = Result<(), StreamError>> {
        self.handle.ask(|answer| Command::Join { newcomer, answer })
    }

    /// Sends the group a command; false when it is no more.
    pub(super) fn send(&self, command: Command) -> impl Future<Output = bool> {
        self.handle.send(command)
    }

    /// True for one that says what became of what it was sent.
    pub(super) fn acknowledges(&self) -> bool {
        self.ack_mode != AckMode::None
    }

    /// What tells the group what became of events.
    pub(super) fn acknowledgement(
        &self,
        speaker: Speaker,
        (sequences, up_to): (Vec<u64>, Option<u64>),
        outcome: Outcome,
    ) -> Result<Command, CommandError> {
        if up_to.is_some() && self.ack_mode != AckMode::Cumulative {
            let needs = "a subscription with ACK_MODE_CUMULATIVE";
            return Err(CommandError::Unsupported { field: "up_to", needs });
        }
        Ok(Command::Acknowledge { member: self.member, speaker, sequences, up_to, outcome })
    }

    fn leave(mut self) {
        self.how = Departure::Left;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.handle.depart(self.member, self.how);
    }
}

impl Memberships {
    pub(super) fn add(&mut self, key: SubscriptionKey, membership: Membership) {
        self.0.insert(key, membership);
    }

    pub(super) fn get(&self, key: SubscriptionKey) -> Option<&Membership> {
        self.0.get(&key)
    }

    /// Waits until every acknowledgement of a member is answered: nothing may bear its id once it has ended.
    pub(super) async fn settle(&self, key: SubscriptionKey) {
        if let Some(membership) = self.0.get(&key) {
            // Without an answer the group is no more, and nothing comes either.
            membership.handle.begin(Command::Settle).await.await.ok();
        }
    }

    /// The same for all: they wait together.
    pub(super) async fn settle_all(&self) {
        let mut waiting = Vec::new();
        for membership in self.0.values() {
            waiting.push(membership.handle.begin(Command::Settle).await);
        }
        for settled in waiting {
            settled.await.ok();
        }
    }

    /// Tells groups of their members. What is of other subscriptions stays.
    pub(super) async fn note(&mut self, attention: &mut Attention) {
        let (members, hungry): (Vec<_>, Vec<_>) = attention.hungry.drain(..).partition(|key| self.0.contains_key(key));
        attention.hungry = hungry;
        let hungry: HashSet<_> = members.into_iter().collect();
        let mut news: HashMap<SubscriptionKey, (Vec<u64>, Vec<u64>)> = HashMap::new();
        for (key, sequences) in attention.sent.drain(..) {
            news.entry(key).or_default().0.extend(sequences);
        }
        for (key, sequences) in attention.dropped.drain(..) {
            news.entry(key).or_default().1.extend(sequences);
        }
        for key in &hungry {
            news.entry(*key).or_default();
        }
        for (key, (sent, dropped)) in news {
            let Some(Membership { handle, member, .. }) = self.0.get(&key) else { continue };
            let (member, hungry) = (*member, hungry.contains(&key));
            handle.send(Command::Handed { member, sent, dropped, hungry }).await;
        }
        attention.gone.retain(|key| match self.0.remove(key) {
            Some(membership) => {
                membership.leave();
                false
            }
            None => true,
        });
    }

    /// All of them go: in good order, or because their transport is lost.
    pub(super) fn leave(self, in_order: bool) {
        for membership in self.0.into_values().filter(|_| in_order) {
            membership.leave();
        }
    }
}
