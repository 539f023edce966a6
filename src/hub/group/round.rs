//! One round of handing out: which members take part in it, and which events each of them gets.

use super::{ready::Ready, seats::Seats};
use crate::{
    groups::{Delivery, GroupState, MemberId},
    outbox::Room,
};

/// This many members take part in one round,
const MEMBERS_AT_ONCE: usize = 64;
/// this many events are handed out in it,
const EVENTS_AT_ONCE: usize = 512;
/// and of those at most this many that have to be read again; each may be large.
const FETCHED_AT_ONCE: usize = 16;

/// What one member gets.
pub(super) struct Portion {
    pub(super) member: MemberId,
    events: usize,
    /// The room for it when the round began,
    pub(super) bytes: usize,
    /// and what is left of that, as far as is known when it is dealt.
    bytes_left: usize,
    pub(super) deliveries: Vec<Delivery>,
}

/// What all get that take part, in the order of their turns.
pub(super) struct Round(Vec<Portion>);

impl Round {
    /// With the members whose turn it is and that have room.
    pub(super) fn begin(seats: &mut Seats, state: &GroupState, now: u64) -> Self {
        let mut portions = Vec::new();
        while portions.len() < MEMBERS_AT_ONCE
            && let Some(member) = seats.next()
        {
            let Some(seat) = seats.get(member) else { continue };
            match seat.outbox.room(seat.key) {
                Some(room) if room.bytes == 0 => seats.starve(member, now),
                Some(room) if room.events > 0 && state.room(member) > 0 => {
                    let Room { events, bytes, .. } = room;
                    let events = events.min(state.room(member));
                    portions.push(Portion { member, events, bytes, bytes_left: bytes, deliveries: Vec::new() });
                }
                // It, or the group, says so when it has room again, or it is gone.
                _ => {}
            }
        }
        Self(portions)
    }

    /// Deals events out, one to each in turn. Tells which of them have to be read again.
    pub(super) fn deal(&mut self, state: &mut GroupState, ready: &Ready, now: u64) -> Vec<u64> {
        let mut again = Vec::new();
        let mut dealt = 0;
        let mut going = true;
        while going {
            going = false;
            for portion in self.0.iter_mut().filter(|portion| portion.events > 0 && portion.bytes_left > 0) {
                if dealt == EVENTS_AT_ONCE || again.len() == FETCHED_AT_ONCE {
                    return again;
                }
                let Some(delivery) = state.next(portion.member, now) else { return again };
                match ready.get(delivery.sequence) {
                    Some(event) => portion.bytes_left = portion.bytes_left.saturating_sub(event.encoded_len()),
                    None => again.push(delivery.sequence),
                }
                portion.events -= 1;
                portion.deliveries.push(delivery);
                dealt += 1;
                going = true;
            }
        }
        again
    }

    /// Nobody gets anything: what was dealt goes back, and those who take part are next again.
    pub(super) fn abandon(self, state: &mut GroupState, seats: &mut Seats) {
        for Portion { member, deliveries, .. } in self.0 {
            for delivery in deliveries {
                state.unsend(member, delivery.sequence);
            }
            seats.put_first(member);
        }
    }

    /// What each gets, the last first: one that gets nothing is put before the others again.
    pub(super) fn into_portions(self) -> impl Iterator<Item = Portion> {
        self.0.into_iter().rev()
    }
}
