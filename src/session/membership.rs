//! The subscriptions of one session that are members of groups on streams: what their groups are told of them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Session;
use crate::{
    engine::EventStream,
    groups::{MemberId, Outcome},
    hub::{Departure, GroupCommand as Command, Handle, Identity, Newcomer, Speaker},
    model::{AckMode, CommandError, Group, OnGap, StreamError, StreamSpec, SubscriptionSpec},
    outbox::{Attention, SubscriptionKey},
};

/// All of one session.
pub(super) type Memberships = HashMap<SubscriptionKey, Membership>;

/// One member. Its group hears when it is dropped.
#[derive(Debug)]
pub(super) struct Membership {
    handle: Handle,
    member: MemberId,
    ack_mode: AckMode,
    how: Departure,
}

impl Membership {
    fn leave(mut self) {
        self.how = Departure::Left;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.handle.depart(self.member, self.how);
    }
}

impl Session {
    /// Opens a subscription that is a member of a group; the group answers with `subscribed`. Its id comes back.
    pub(super) async fn open_member(
        &mut self,
        request_id: i64,
        id: i64,
        spec: &SubscriptionSpec,
        (stream, from, group): (&Arc<dyn EventStream>, &StreamSpec, &Group),
    ) -> Result<i64, CommandError> {
        let groups = self.hub.groups().ok_or(StreamError::None)?;
        let (key, id) = self.outbox.reserve(id, spec)?;
        let handle = groups.handle(stream, group);
        let identity = |session: &Arc<str>| Identity {
            principal: Arc::clone(self.caller.principal().id()),
            session: Arc::clone(session),
            subscription_id: id,
        };
        let member = groups.next_member();
        // From here on its group hears when it goes, also if whoever asked for it does not wait until it is one.
        let membership = Membership { handle, member, ack_mode: from.ack_mode, how: Departure::Lost };
        let newcomer = Box::new(Newcomer {
            member,
            outbox: Arc::clone(&self.outbox),
            key,
            request_id,
            identity: identity(&self.entry.id),
            previous: self.before.as_ref().map(identity),
            may_return: self.entry.client_name().is_some(),
            filters: spec.filters.as_slice().into(),
            start: from.start.clone(),
            ack_mode: from.ack_mode,
            automatic_credit: spec.credit.is_none(),
            ends_with_gap: from.on_gap == OnGap::Fail,
            max_events: spec.max_events,
        });
        match membership.handle.ask(|answer| Command::Join { newcomer, answer }).await {
            Ok(()) => {
                self.memberships.get_or_insert_default().insert(key, membership);
                Ok(id)
            }
            Err(error) => {
                self.outbox.release(key);
                Err(error.into())
            }
        }
    }

    /// True for a member of a group on a stream.
    pub(super) fn is_member(&self, key: SubscriptionKey) -> bool {
        self.memberships.as_ref().is_some_and(|members| members.contains_key(&key))
    }

    /// Tells a group what became of events; it answers once that is stored.
    pub(super) async fn acknowledge(
        &mut self,
        request_id: i64,
        id: i64,
        (sequences, up_to): (Vec<u64>, Option<u64>),
        outcome: Outcome,
    ) -> Result<(), CommandError> {
        let (key, _) = self.outbox.find(id)?;
        // What was sent before this came must be known before it.
        let attention = self.outbox.take_attention();
        self.note(attention).await;
        let members = self.memberships.as_deref();
        match members.and_then(|members| members.get(&key)).filter(|member| member.ack_mode != AckMode::None) {
            // It ended while its client wrote this.
            None if self.outbox.find(id).is_err() => Err(CommandError::SubscriptionNotFound { id }),
            None => Err(CommandError::Unsupported {
                field: "subscription_id",
                needs: "a subscription that acknowledges; this one does not",
            }),
            Some(member) if up_to.is_some() && member.ack_mode != AckMode::Cumulative => {
                Err(CommandError::Unsupported { field: "up_to", needs: "a subscription with ACK_MODE_CUMULATIVE" })
            }
            Some(Membership { handle, member, .. }) => {
                let outbox = Arc::clone(&self.outbox);
                let speaker = Speaker { outbox, key, subscription_id: id, request_id };
                let command = Command::Acknowledge { member: *member, speaker, sequences, up_to, outcome };
                if handle.send(command).await { Ok(()) } else { Err(StreamError::Unavailable.into()) }
            }
        }
    }

    /// Waits until every acknowledgement of a member is answered: nothing may bear its id once it has ended.
    pub(super) async fn settle(&mut self, key: SubscriptionKey) {
        if let Some(membership) = self.memberships.as_ref().and_then(|members| members.get(&key)) {
            // Without an answer the group is no more, and nothing comes either.
            membership.handle.begin(Command::Settle).await.await.ok();
        }
    }

    /// The same for all: they wait together.
    async fn settle_all(&mut self) {
        let mut waiting = Vec::new();
        for membership in self.memberships.iter().flat_map(|members| members.values()) {
            waiting.push(membership.handle.begin(Command::Settle).await);
        }
        for settled in waiting {
            settled.await.ok();
        }
    }

    /// Has subscriptions from streams looked after: by their groups, or by the feeds of this session.
    pub(super) async fn note(&mut self, attention: Attention) {
        let Attention { hungry, gone, sent, dropped, closed } = attention;
        self.forget(closed).await;
        let Some(members) = &mut self.memberships else {
            if let Some(feeds) = &mut self.feeds {
                feeds.note(hungry, gone).await;
            }
            return;
        };
        let (hungry_members, hungry): (HashSet<_>, Vec<_>) = {
            let (of_groups, others): (Vec<_>, Vec<_>) = hungry.into_iter().partition(|key| members.contains_key(key));
            (of_groups.into_iter().collect(), others)
        };
        let mut news: HashMap<SubscriptionKey, (Vec<u64>, Vec<u64>)> = HashMap::new();
        for (key, sequences) in sent {
            news.entry(key).or_default().0.extend(sequences);
        }
        for (key, sequences) in dropped {
            news.entry(key).or_default().1.extend(sequences);
        }
        for key in &hungry_members {
            news.entry(*key).or_default();
        }
        for (key, (sent, dropped)) in news {
            let Some(Membership { handle, member, .. }) = members.get(&key) else { continue };
            let (member, hungry) = (*member, hungry_members.contains(&key));
            handle.send(Command::Handed { member, sent, dropped, hungry }).await;
        }
        let mut others = Vec::new();
        for key in gone {
            match members.remove(&key) {
                Some(membership) => membership.leave(),
                None => others.push(key),
            }
        }
        if let Some(feeds) = &mut self.feeds {
            feeds.note(hungry, others).await;
        }
    }

    /// The session is over, and its members go.
    pub(super) async fn leave_groups(&mut self) {
        if self.memberships.is_none() {
            return;
        }
        let attention = self.outbox.take_attention();
        self.note(attention).await;
        let in_order = self.outbox.is_draining();
        if in_order {
            // What was acknowledged is answered while there are subscriptions to answer for.
            self.settle_all().await;
        }
        for (_, membership) in self.memberships.take().into_iter().flat_map(|members| *members) {
            if in_order {
                membership.leave();
            }
        }
    }
}
