//! Reading ahead, and handing events to members.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    time::{Duration, UNIX_EPOCH},
};

use super::driver::Active;
use crate::{
    engine::{MAX_SEQUENCES, ReadError, ReadLimits, StoreError},
    event::Event,
    groups::{Delivery, Feed, MemberId},
    outbox::Room,
};

/// One read ends once it has this many bytes.
const READ_BYTES: usize = 1024 * 1024;
/// Events that were read and not handed out stay in memory up to so many bytes; others are read again when it is their
/// turn.
const READY_BYTES: usize = 4 * 1024 * 1024;
/// So many members take part in one round,
const MEMBERS_AT_ONCE: usize = 64;
/// so many events are handed out in it,
const EVENTS_AT_ONCE: usize = 512;
/// and of those at most so many that have to be read again; each may be large.
const FETCHED_AT_ONCE: usize = 16;
/// After a read that failed, the next is tried this much later.
const RETRY_MS: u64 = 1_000;

/// Events that wait to be handed out.
#[derive(Debug, Default)]
pub(super) struct Ready {
    events: BTreeMap<u64, Event>,
    bytes: usize,
    /// How often something had been taken out of the stream when it was looked at last.
    removals: u64,
    /// After a failure: nothing is read before.
    retry_at: u64,
    hasher: RandomState,
}

impl Ready {
    fn keep(&mut self, event: &Event) {
        let bytes = event.encoded_len();
        if self.bytes + bytes <= READY_BYTES && self.events.insert(event.sequence(), event.clone()).is_none() {
            self.bytes += bytes;
        }
    }

    fn take(&mut self, sequence: u64) -> Option<Event> {
        let event = self.events.remove(&sequence)?;
        self.bytes -= event.encoded_len();
        Some(event)
    }

    fn forget_up_to(&mut self, sequence: u64) {
        while let Some(first) =
            self.events.first_key_value().map(|(first, _)| *first).filter(|first| *first <= sequence)
        {
            self.take(first);
        }
    }

    /// Forgets all of it if some of it may have been taken out of the stream since: what is wanted is read again.
    fn look_for_removals(&mut self, removals: u64) {
        if self.removals != removals {
            self.removals = removals;
            self.clear();
        }
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }

    /// The time is over for which nothing is read.
    pub(super) fn look_again(&mut self, now: u64) {
        if now >= self.retry_at {
            self.retry_at = 0;
        }
    }

    pub(super) fn due(&self) -> Option<u64> {
        (self.retry_at > 0).then_some(self.retry_at)
    }

    /// The hash of an event's ordering key, if it has one.
    pub(super) fn key_of(&self, event: &Event) -> Option<u64> {
        (!event.key().is_empty()).then(|| self.hasher.hash_one(event.key()))
    }
}

/// What one member gets in a round.
struct Turn {
    member: MemberId,
    events: usize,
    /// The room for it when the round began,
    bytes: usize,
    /// and what is left of that, as far as is known when it is dealt.
    bytes_left: usize,
    deliveries: Vec<Delivery>,
}

impl Active {
    /// Reads the stream where the group wants to be fed; true when there is more at once.
    pub(super) async fn read_ahead(&mut self) -> bool {
        let now = self.clock.now();
        if self.seats.is_empty() || self.over.is_some() || self.is_waiting(now) {
            return false;
        }
        let Some(filters) = self.seats.filters().cloned() else { return false };
        let latest = *self.stream.visible().borrow();
        let Some(Feed { after, room }) = self.state.feed(latest) else { return false };
        let is_again = after < self.state.read_to();
        match self.stream.read(after, &filters, ReadLimits { events: room, bytes: READ_BYTES }).await {
            Ok(chunk) => {
                // Most groups begin with whatever comes, and need no look at its time.
                let begins = Some(self.state.begins()).filter(|begins| *begins > 0);
                let begins = begins.map(|begins| UNIX_EPOCH + Duration::from_micros(begins));
                let early = |event: &Event, begins| event.append_time().is_some_and(|time| time < begins);
                let may = |event: &&Event| begins.is_none_or(|begins| !early(event, begins));
                let events = chunk.events.iter().filter(may);
                let keyed = events.map(|event| (event.sequence(), self.ready.key_of(event)));
                // Nothing moved the group since it said where to read.
                let offered = self.state.offer(after, keyed, chunk.through, now).is_ok();
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
                self.failed_to_read(&error);
                false
            }
        }
    }

    /// True until it is time to read again after a failure.
    pub(super) fn is_waiting(&self, now: u64) -> bool {
        now < self.ready.retry_at
    }

    pub(super) fn failed_to_read(&mut self, error: &ReadError) {
        match error {
            ReadError::Closed | ReadError::Store(StoreError::Recovering) => {
                self.over = Some(self.stream.why_closed());
            }
            error => {
                tracing::warn!(stream = %self.key.0, group = self.key.2.as_str(), %error, "cannot read the stream of a group");
                self.ready.retry_at = self.clock.now() + RETRY_MS;
            }
        }
    }

    /// Events of these sequences, without those that are not kept; `None` when they cannot be read now.
    pub(super) async fn fetch(&mut self, mut sequences: Vec<u64>) -> Option<HashMap<u64, Event>> {
        sequences.sort_unstable();
        sequences.truncate(MAX_SEQUENCES);
        if sequences.is_empty() {
            return Some(HashMap::new());
        }
        match self.stream.get(sequences).await {
            Ok(chunk) => Some(chunk.events.into_iter().map(|event| (event.sequence(), event)).collect()),
            Err(ReadError::Lost { .. }) => Some(HashMap::new()),
            Err(error) => {
                self.failed_to_read(&error);
                None
            }
        }
    }

    /// One round: events for members that have room, one each in turn. True when there may be another.
    pub(super) async fn hand_out(&mut self) -> bool {
        let now = self.clock.now();
        self.ease();
        if !self.state.is_ready() || !self.seats.has_turns() || self.over.is_some() || self.is_waiting(now) {
            return false;
        }
        self.ready.look_for_removals(self.stream.removals());
        let mut turns = self.turns(now);
        let again = self.deal(&mut turns, now);
        let Some(fetched) = self.fetch(again).await else {
            for Turn { member, deliveries, .. } in turns {
                for delivery in deliveries {
                    self.state.unsend(member, delivery.sequence);
                }
                self.seats.put_first(member);
            }
            return false;
        };
        for turn in turns.into_iter().rev() {
            self.deliver(turn, &fetched);
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

    /// Members that have room, and how much.
    fn turns(&mut self, now: u64) -> Vec<Turn> {
        let mut turns = Vec::new();
        while turns.len() < MEMBERS_AT_ONCE
            && let Some(member) = self.seats.next()
        {
            let Some(seat) = self.seats.get(member) else { continue };
            match seat.outbox.room(seat.key) {
                Some(room) if room.bytes == 0 => self.seats.starve(member, now),
                Some(room) if room.events > 0 && self.state.room(member) > 0 => {
                    let Room { events, bytes, .. } = room;
                    let events = events.min(self.state.room(member));
                    turns.push(Turn { member, events, bytes, bytes_left: bytes, deliveries: Vec::new() });
                }
                // It, or the group, says so when it has room again, or it is gone.
                _ => {}
            }
        }
        turns
    }

    /// Deals events out among members. Tells which of them have to be read again.
    fn deal(&mut self, turns: &mut [Turn], now: u64) -> Vec<u64> {
        let mut again = Vec::new();
        let mut dealt = 0;
        let mut going = true;
        while going {
            going = false;
            for turn in turns.iter_mut().filter(|turn| turn.events > 0 && turn.bytes_left > 0) {
                if dealt == EVENTS_AT_ONCE || again.len() == FETCHED_AT_ONCE {
                    return again;
                }
                let Some(delivery) = self.state.next(turn.member, now) else { return again };
                match self.ready.events.get(&delivery.sequence) {
                    Some(event) => turn.bytes_left = turn.bytes_left.saturating_sub(event.encoded_len()),
                    None => again.push(delivery.sequence),
                }
                turn.events -= 1;
                turn.deliveries.push(delivery);
                dealt += 1;
                going = true;
            }
        }
        again
    }

    /// True for an event that was read ahead and that the stream does not give any more: it was purged, or is past its ttl.
    fn is_over(&self, event: &Event, earliest: u64) -> bool {
        let expired = || {
            let ttl = Duration::from_millis(event.spans().ttl_ms?.get());
            // By the clock that the stream goes by, which is not that of leases.
            Some(self.stream.age(event.append_time()?) >= ttl)
        };
        event.sequence() < earliest || expired().unwrap_or(false)
    }

    /// Puts what a member gets into its queue: as far as there is room for it, which was not known of events that had to be
    /// read again.
    fn deliver(&mut self, turn: Turn, fetched: &HashMap<u64, Event>) {
        let mut events = Vec::with_capacity(turn.deliveries.len());
        let mut bytes_left = turn.bytes;
        let earliest = self.stream.state().earliest;
        for Delivery { sequence, attempt, last_failure } in &turn.deliveries {
            if bytes_left == 0 {
                self.state.unsend(turn.member, *sequence);
                continue;
            }
            let ready = self.ready.take(*sequence).filter(|event| !self.is_over(event, earliest));
            let Some(event) = ready.or_else(|| fetched.get(sequence).cloned()) else {
                // The stream does not keep it any more.
                self.gone(*sequence);
                continue;
            };
            let event = if *attempt > 1 { event.again(*attempt, last_failure) } else { event };
            bytes_left = bytes_left.saturating_sub(event.encoded_len());
            events.push(event);
        }
        let Some(seat) = self.seats.get(turn.member) else { return };
        if !events.is_empty() && !seat.outbox.hand(seat.key, &events) {
            // It is gone, and its session will say so.
            for event in &events {
                self.state.unsend(turn.member, event.sequence());
            }
            return;
        }
        if turn.deliveries.is_empty() {
            self.seats.put_first(turn.member);
        } else {
            self.seats.hungry(turn.member);
        }
    }
}
