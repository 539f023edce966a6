//! How subscriptions stand, for operators: two counts that are kept as things change, and a list that is made when asked
//! for. Looking at every subscription of every session at each scrape would hold up those who publish to them.

use super::{
    super::{
        frame::SubscriptionStatus,
        subscriber::{Noted, Subscriber},
    },
    Queues,
};

/// How many subscriptions stand in a way that operators watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Something is there for them, and their clients gave no credit for it.
    pub credit_blocked: usize,
    /// They read a stream and do not have all that it has.
    pub behind: usize,
}

impl Counts {
    fn change(&mut self, noted: Noted, by: isize) {
        let add = |count: &mut usize, is: bool| *count = count.saturating_add_signed(if is { by } else { 0 });
        add(&mut self.credit_blocked, noted.credit_blocked());
        add(&mut self.behind, noted.behind());
    }
}

impl Queues {
    pub(in crate::outbox) fn counts(&self) -> Counts {
        self.counts
    }

    /// Brings the counts up to how a subscription stands now.
    pub(super) fn note(&mut self, slot: u32) {
        let Some(subscriber) = self.subscribers.get_mut(slot as usize) else { return };
        let now = subscriber.stands();
        if subscriber.noted != now {
            let before = std::mem::replace(&mut subscriber.noted, now);
            self.counts.change(before, -1);
            self.counts.change(now, 1);
        }
    }

    /// A subscription counts no more.
    pub(super) fn forget_noted(&mut self, subscriber: &Subscriber) {
        self.counts.change(subscriber.noted, -1);
    }

    /// How at most `most` subscriptions stand from slot `from` on, and where to go on; `None` when there are no more.
    pub(in crate::outbox) fn statuses(&self, from: usize, most: usize) -> (Vec<SubscriptionStatus>, Option<usize>) {
        let mut found = Vec::new();
        // Not through the slab's iterator: it would begin at the first slot each time.
        for slot in from..self.subscribers.capacity() {
            let Some(subscriber) = self.subscribers.get(slot).filter(|subscriber| subscriber.open) else { continue };
            if found.len() == most {
                return (found, Some(slot));
            }
            found.push(subscriber.status());
        }
        (found, None)
    }
}
