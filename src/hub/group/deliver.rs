//! Reading ahead, and handing events to members.

use std::collections::HashMap;

use super::{
    active::Active,
    round::{Portion, Round},
};
use crate::{
    engine::{ReadError, ReadLimits},
    event::Event,
    groups::{Delivery, Feed},
};

/// One read ends once it has this many bytes.
const READ_BYTES: usize = 1024 * 1024;

impl Active {
    /// Reads the stream where the group wants to be fed; true when there is more at once.
    pub(super) async fn read_ahead(&mut self) -> bool {
        let now = self.now();
        if self.seats.is_empty() || !self.source.may_read(now) {
            return false;
        }
        let Some(filters) = self.seats.filters().cloned() else { return false };
        let Some(Feed { after, room }) = self.state.feed(self.source.latest()) else { return false };
        let is_again = after < self.state.read_to();
        match self.source.stream.read(after, &filters, ReadLimits { events: room, bytes: READ_BYTES }).await {
            Ok(chunk) => {
                let begins = self.state.begins();
                let events = self.ready.offered(&chunk.events, begins);
                // Nothing moved the group since it said where to read.
                let offered = self.state.offer(after, events, chunk.through, now).is_ok();
                debug_assert!(offered);
                for event in chunk.events.iter().filter(|event| self.state.holds(event.sequence())) {
                    self.ready.keep(event);
                }
                self.ready.forget_up_to(self.state.floor());
                is_again || chunk.through < chunk.latest
            }
            Err(ReadError::Lost { .. }) => {
                self.look_at_front();
                true
            }
            Err(error) => {
                self.source.failed_to_read(&error);
                false
            }
        }
    }

    /// One round: events for members that have room, one each in turn. True when there may be another.
    pub(super) async fn hand_out(&mut self) -> bool {
        let now = self.now();
        self.ease();
        if !self.state.is_ready() || !self.seats.has_turns() || !self.source.may_read(now) {
            return false;
        }
        self.ready.look_for_removals(self.source.stream.removals());
        let mut round = Round::begin(&mut self.seats, &self.state, now);
        let again = round.deal(&mut self.state, &self.ready, now);
        let Some(fetched) = self.source.fetch(again).await else {
            round.abandon(&mut self.state, &mut self.seats);
            return false;
        };
        for portion in round.into_portions() {
            self.deliver(portion, &fetched);
        }
        self.ease();
        self.state.is_ready() && self.seats.has_turns()
    }

    /// Members that may have more events than before have their turn.
    fn ease(&mut self) {
        for member in self.state.take_eased() {
            self.seats.hungry(member);
        }
    }

    /// Puts what a member gets into its queue: as far as there is room for it, which was not known of events that had to be
    /// read again.
    fn deliver(&mut self, portion: Portion, fetched: &HashMap<u64, Event>) {
        let Portion { member, deliveries, bytes: mut bytes_left, .. } = portion;
        let mut events = Vec::with_capacity(deliveries.len());
        let earliest = self.source.stream.bounds().earliest;
        for Delivery { sequence, attempt, last_failure, redelivered } in &deliveries {
            if bytes_left == 0 {
                self.state.unsend(member, *sequence);
                continue;
            }
            let ready = self.ready.take(*sequence).filter(|event| !self.source.is_over_for(event, earliest));
            let Some(event) = ready.or_else(|| fetched.get(sequence).cloned()) else {
                // The stream does not keep it any more.
                self.gone(*sequence);
                continue;
            };
            let event = if *redelivered { event.again(*attempt, last_failure) } else { event };
            bytes_left = bytes_left.saturating_sub(event.encoded_len());
            events.push(event);
        }
        let Some(seat) = self.seats.get(member) else { return };
        if !events.is_empty() && !seat.outbox.hand(seat.key, &events) {
            // It is gone, and its session will say so.
            for event in &events {
                self.state.unsend(member, event.sequence());
            }
            return;
        }
        if deliveries.is_empty() {
            self.seats.put_first(member);
        } else {
            self.seats.hungry(member);
        }
    }
}
