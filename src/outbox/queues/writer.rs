//! The fair writer: which of the subscriptions that have events and credit is sent how much next. Pure.
//!
//! A deficit round robin: each turn adds a quantum of bytes to what a subscription is owed, and it may send as long as it
//! is owed anything. An event larger than the quantum is paid for by missed turns. Frames that are not events go first.

use super::{
    super::frame::{Batch, Item},
    Queues, SubscriptionKey, Turn, live,
};
use crate::model::{End, Position, limits};

/// What one turn adds to what a subscription is owed, in bytes.
const QUANTUM_BYTES: i32 = 16 * 1024;
/// A batch ends once it has this many bytes of events.
const BATCH_BYTES: usize = 32 * 1024;
/// A batch ends once it has this many frames.
const BATCH_ITEMS: usize = 1024;
/// With no frame waiting there is room kept for this many.
const KEEP_REPLIES: usize = 64;
/// After the last command this many subscriptions are looked at in one turn.
const SWEEP_AT_ONCE: usize = 256;

impl Queues {
    /// Fills a batch with what is sent next.
    pub(in crate::outbox) fn fill(&mut self, batch: &mut Batch) -> Turn {
        let mut bytes = 0;
        while batch.items.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            if let Some(reply) = self.replies.pop_front() {
                let cost = reply.frame.cost();
                self.reply_bytes -= cost;
                bytes += cost;
                batch.items.push(Item::Reply(reply));
                if self.replies.is_empty() {
                    self.replies.shrink_to(KEEP_REPLIES);
                }
            } else if self.ending.is_some() {
                // Behind all answers: nothing bears the id of a subscription that has ended.
                if !self.may_finish() || !self.end_next(batch) {
                    break;
                }
            } else if self.is_sweeping() {
                self.sweep(batch);
            } else if let Some(key) = self.ready.pop_front() {
                bytes += self.serve(key, batch);
            } else {
                break;
            }
        }
        if !batch.items.is_empty() {
            Turn::Some
        } else if let Some(end) = &self.ending {
            if self.may_finish() { Turn::Finished(end.clone()) } else { Turn::Idle }
        } else if self.no_more_commands && self.ids.is_empty() {
            Turn::Finished(self.outcome.clone())
        } else {
            Turn::Idle
        }
    }

    /// One turn of one subscription. Tells how many bytes of events it sent.
    fn serve(&mut self, key: SubscriptionKey, batch: &mut Batch) -> usize {
        let slot = key.slot;
        let Some(subscriber) = live(&mut self.subscribers, key) else {
            self.stale = self.stale.saturating_sub(1);
            return 0;
        };
        subscriber.ready = false;
        if !subscriber.sendable() {
            return 0;
        }
        batch.items.extend(subscriber.take_gaps().map(Item::Reply));
        subscriber.deficit = subscriber.deficit.saturating_add(QUANTUM_BYTES);
        let (first, mut sent) = (batch.events.len(), 0);
        self.with_queue(slot, |subscriber, pool, hasher| {
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
        let count = batch.events.len() - first;
        if count > 0 && self.subscribers[slot as usize].member().is_some() {
            self.note_sent(key, &batch.events[first..]);
        }
        let subscriber = &mut self.subscribers[slot as usize];
        if count > 0 {
            let position = subscriber
                .stored()
                .map(|stored| Position { sequence: batch.events[first + count - 1].sequence(), ..stored.position() });
            batch.items.push(Item::Events { subscription_id: subscriber.id, count, position });
        }
        batch.items.extend(subscriber.take_news().map(Item::Reply));
        if subscriber.events_left != u64::MAX {
            subscriber.events_left -= count as u64;
        }
        self.after_turn(slot, batch);
        sent
    }

    /// Ends a subscription that has had all it may get, or gives it its place in the next round.
    fn after_turn(&mut self, slot: u32, batch: &mut Batch) {
        let subscriber = &mut self.subscribers[slot as usize];
        let end = if subscriber.events_left == 0 && (self.no_more_commands || subscriber.ends_when_sent()) {
            End::LimitReached
        } else if self.no_more_commands && !subscriber.credit.may_send() {
            End::CreditExhausted
        } else {
            // Debts are kept and savings are not: neither a pause nor a lack of credit is worth a longer turn.
            let most = if subscriber.sendable() { QUANTUM_BYTES } else { 0 };
            subscriber.deficit = subscriber.deficit.min(most);
            self.make_ready(slot);
            return;
        };
        // Straight into the batch, behind the last events; nothing that waits is a loss to one that got all it asked.
        if let Some(ended) = self.remove(slot, 0, end) {
            batch.items.push(Item::Reply(ended));
        }
    }

    /// Sends the end of one subscription of a session that is ending; false when none is left.
    fn end_next(&mut self, batch: &mut Batch) -> bool {
        while self.told < self.subscribers.capacity() {
            let slot = self.told;
            self.told += 1;
            let Some(subscriber) = self.subscribers.get_mut(slot) else { continue };
            batch.items.extend(subscriber.take_gaps().map(Item::Reply));
            let end = self.ending.clone().unwrap_or(End::Complete);
            if let Some(ended) = self.remove(slot as u32, 0, end) {
                batch.items.push(Item::Reply(ended));
            }
            return true;
        }
        false
    }

    /// Ends the subscriptions among the next slots that can get no more: without credit, or with all they wanted.
    fn sweep(&mut self, batch: &mut Batch) {
        let end = (self.swept + SWEEP_AT_ONCE).min(self.subscribers.capacity());
        for slot in std::mem::replace(&mut self.swept, end)..end {
            let Some(subscriber) = self.subscribers.get_mut(slot) else { continue };
            let end = if subscriber.events_left == 0 { End::LimitReached } else { End::CreditExhausted };
            if subscriber.open && (subscriber.events_left == 0 || !subscriber.credit.may_send()) {
                batch.items.extend(subscriber.take_gaps().map(Item::Reply));
                let ended = self.remove(slot as u32, 0, end);
                batch.items.extend(ended.map(Item::Reply));
            }
        }
    }
}
