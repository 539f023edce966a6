//! One turn of one subscription: how much it is sent. Pure.
//!
//! A deficit round robin: each turn adds a quantum of bytes to what a subscription is owed, and it may send as long as it
//! is owed anything. An event larger than the quantum is paid for by missed turns.

use super::Backlog;
use crate::{
    event::Event,
    model::{Position, limits},
    outbox::{
        attention::SubscriptionKey,
        frame::{Batch, Item},
    },
};

/// What one turn adds to what a subscription is owed, in bytes.
const QUANTUM_BYTES: i32 = 16 * 1024;

impl Backlog {
    /// Sends what one subscription may in its turn: how many bytes of events. `None` for one that has nothing to send.
    pub(in crate::outbox) fn send(&mut self, key: SubscriptionKey, batch: &mut Batch) -> Option<usize> {
        let Some(subscriber) = self.subscribers.live(key) else {
            self.round.was_gone();
            return None;
        };
        subscriber.ready = false;
        if !subscriber.sendable() {
            return None;
        }
        batch.items.extend(subscriber.take_gaps().map(Item::Reply));
        subscriber.deficit = subscriber.deficit.saturating_add(QUANTUM_BYTES);
        let (first, mut sent) = (batch.events.len(), 0);
        self.with_queue(key.slot, |subscriber, pool, hasher| {
            let most = u64::from(subscriber.max_batch).min(subscriber.events_left);
            while subscriber.deficit > 0 && subscriber.credit.may_send() && (batch.events.len() - first) as u64 != most
            {
                let Some(bytes) = subscriber.next_bytes(pool) else { break };
                if sent > 0 && sent + bytes > limits::MAX_BATCH_BYTES {
                    break;
                }
                let Some(event) = subscriber.pop(pool, hasher) else { break };
                sent += bytes;
                subscriber.credit.spend(bytes);
                subscriber.deficit = subscriber.deficit.saturating_sub(i32::try_from(bytes).unwrap_or(i32::MAX));
                batch.events.push(event);
            }
        });
        let subscriber = self.subscribers.at_mut(key.slot)?;
        let events = &batch.events[first..];
        if let Some(last) = events.last() {
            if subscriber.member().is_some() {
                self.attention.sent.push((key, events.iter().map(Event::sequence).collect()));
            }
            let position =
                subscriber.stored().map(|stored| Position { sequence: last.sequence(), ..stored.position() });
            batch.items.push(Item::Events { subscription_id: subscriber.id, count: events.len(), position });
        }
        batch.items.extend(subscriber.take_news().map(Item::Reply));
        subscriber.events_left -= events.len() as u64;
        Some(sent)
    }

    /// Gives a subscription its place in the next round.
    pub(in crate::outbox) fn end_turn(&mut self, slot: u32) {
        let Some(subscriber) = self.subscribers.at_mut(slot) else { return };
        // Debts are kept and savings are not: neither a pause nor a lack of credit is worth a longer turn.
        let most = if subscriber.sendable() { QUANTUM_BYTES } else { 0 };
        subscriber.deficit = subscriber.deficit.min(most);
        self.make_ready(slot);
    }
}
