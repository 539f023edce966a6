//! What members say: what became of the events they were handed, and of those they were sent.

use super::{active::Active, command::Speaker};
use crate::{
    groups::{Answer, MemberId, Outcome},
    model::{AckError, End},
    outbox::Acked,
};

impl Active {
    /// The writer took some of what a member was handed, and some will not be sent.
    pub(super) fn handed(&mut self, member: MemberId, sent: &[u64], dropped: &[u64], hungry: bool) {
        let now = self.now();
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

    /// Applies acknowledgements, to be answered when that is stored.
    pub(super) fn acknowledge(
        &mut self,
        member: MemberId,
        speaker: Speaker,
        sequences: &[u64],
        up_to: Option<u64>,
        outcome: &Outcome,
    ) {
        let now = self.now();
        if self.seats.get(member).is_none() {
            // It was one of a group that was deleted, and this is another of the same name.
            return speaker.refuse(sequences, up_to);
        }
        let count = sequences.len().max(1);
        let mut results: Vec<Acked> = Vec::with_capacity(count);
        for sequence in sequences {
            results.push((*sequence, result(self.state.acknowledge(member, *sequence, outcome, now))));
        }
        if let Some(up_to) = up_to {
            let told = self.state.acknowledge_up_to(member, up_to, outcome, now);
            results.push((up_to, result(told.answer)));
        }
        let revision = self.state.revision();
        self.saves.when_stored(revision, count, move |stored| speaker.tell_stored(results, stored));
    }

    /// Ends the subscriptions of members that were sent all they wanted and hold none of it any more, behind the answers
    /// they wait for.
    pub(super) fn end_settled(&mut self) {
        for (outbox, key) in self.seats.settled(|member| !self.state.has_leases(member)) {
            self.when_stored(move |_| outbox.close_key(key, End::LimitReached));
        }
    }
}

fn result(answer: Answer) -> Result<(), AckError> {
    match answer {
        Answer::Applied | Answer::AlreadyDone => Ok(()),
        Answer::Expired => Err(AckError::Late),
        Answer::NotDelivered => Err(AckError::NotDelivered),
    }
}
