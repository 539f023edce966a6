//! The fair writer: what is sent next. Frames that are not events go first, then the subscriptions that have events and
//! credit, in turn; those that can get no more end. Pure.

use super::{Queues, Turn};
use crate::{
    model::End,
    outbox::frame::{Batch, Item},
};

/// A batch ends once it has this many bytes of events.
const BATCH_BYTES: usize = 32 * 1024;
/// A batch ends once it has this many frames.
const BATCH_ITEMS: usize = 1024;
/// After the last command this many subscriptions are looked at in one turn.
const SWEEP_AT_ONCE: usize = 256;

impl Queues {
    /// Fills a batch with what is sent next.
    pub(in crate::outbox) fn fill(&mut self, batch: &mut Batch) -> Turn {
        let mut bytes = 0;
        while batch.items.len() < BATCH_ITEMS && bytes < BATCH_BYTES {
            if let Some((reply, cost)) = self.replies.pop() {
                bytes += cost;
                batch.items.push(Item::Reply(reply));
            } else if self.ending.is_some() {
                // Behind all answers: nothing bears the id of a subscription that has ended.
                if !self.may_finish() || !self.end_next(batch) {
                    break;
                }
            } else if self.is_sweeping() {
                self.sweep(batch);
            } else if let Some(key) = self.backlog.round.pop() {
                if let Some(sent) = self.backlog.send(key, batch) {
                    bytes += sent;
                    self.after_turn(key.slot, batch);
                }
            } else {
                break;
            }
        }
        if !batch.items.is_empty() {
            Turn::Some
        } else if let Some(end) = &self.ending {
            if self.may_finish() { Turn::Finished(end.clone()) } else { Turn::Idle }
        } else if self.no_more_commands && self.backlog.subscribers.is_empty() {
            Turn::Finished(self.outcome.clone())
        } else {
            Turn::Idle
        }
    }

    /// Ends a subscription that has had all it may get, or gives it its place in the next round.
    fn after_turn(&mut self, slot: u32, batch: &mut Batch) {
        let Some(subscriber) = self.backlog.subscribers.at(slot) else { return };
        let end = if subscriber.events_left == 0 && (self.no_more_commands || subscriber.ends_when_sent()) {
            End::LimitReached
        } else if self.no_more_commands && !subscriber.credit.may_send() {
            End::CreditExhausted
        } else {
            return self.backlog.end_turn(slot);
        };
        // Straight into the batch, behind the last events; nothing that waits is a loss to one that got all it asked.
        let ended = self.remove(slot, 0, end);
        batch.items.extend(ended.map(Item::Reply));
    }

    /// Sends the end of one subscription of a session that is ending; false when none is left.
    fn end_next(&mut self, batch: &mut Batch) -> bool {
        while self.told < self.backlog.subscribers.end_of_slots() {
            let slot = self.told as u32;
            self.told += 1;
            let Some(subscriber) = self.backlog.subscribers.at_mut(slot) else { continue };
            batch.items.extend(subscriber.take_gaps().map(Item::Reply));
            let end = self.ending.clone().unwrap_or(End::Complete);
            let ended = self.remove(slot, 0, end);
            batch.items.extend(ended.map(Item::Reply));
            return true;
        }
        false
    }

    /// Ends the subscriptions among the next slots that can get no more: without credit, or with all they wanted.
    fn sweep(&mut self, batch: &mut Batch) {
        let end = (self.swept + SWEEP_AT_ONCE).min(self.backlog.subscribers.end_of_slots());
        for slot in std::mem::replace(&mut self.swept, end)..end {
            let slot = slot as u32;
            let Some(subscriber) = self.backlog.subscribers.at_mut(slot) else { continue };
            let end = if subscriber.events_left == 0 { End::LimitReached } else { End::CreditExhausted };
            if subscriber.open && (subscriber.events_left == 0 || !subscriber.credit.may_send()) {
                batch.items.extend(subscriber.take_gaps().map(Item::Reply));
                let ended = self.remove(slot, 0, end);
                batch.items.extend(ended.map(Item::Reply));
            }
        }
    }
}
