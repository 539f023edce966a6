//! The session's view of an outbox: subscriptions open, change and end as its client commands.

use std::{sync::Arc, time::Duration};

use super::{
    attention::{Attention, Closed, SubscriptionKey},
    cost::Cost,
    filler::Filler,
    frame::{Opened, Reply},
    inlet::Inlet,
    lock::Outbox,
    route::Route,
    stored::Wanted,
};
use crate::model::{CommandError, End, Filter, Grant, SubscriptionSpec, filter_tokens};

/// Applies the commands of one client. The session holds it, and gives the other views to those who need them.
#[derive(Debug)]
pub struct Desk(Arc<Outbox>);

/// What a session has to do besides reading commands.
#[derive(Debug)]
pub enum Call {
    /// It is ending.
    Ending,
    /// Subscriptions from streams want to be looked after.
    Attention(Attention),
    /// Commands may be read again.
    Room,
}

impl Desk {
    /// Of an outbox whose session it is.
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self(outbox)
    }

    /// For the router.
    pub fn inlet(&self) -> Inlet {
        Inlet::new(Arc::clone(&self.0))
    }

    /// For those who read streams for it.
    pub fn filler(&self) -> Filler {
        Filler::new(Arc::clone(&self.0))
    }

    /// Queues a frame that is not events.
    pub fn reply(&self, reply: Reply) {
        self.0.with(|state| state.queues.reply(reply));
    }

    /// Makes room for a subscription; nothing is sent for it until [`Self::open`]. An `id` of 0 is chosen here; the id
    /// comes back.
    pub fn reserve(&self, id: i64, spec: &SubscriptionSpec) -> Result<(SubscriptionKey, i64), CommandError> {
        self.0.allowance.take()?;
        let cost = Cost::of(&spec.filters, spec.stream.is_some(), spec.group.is_some());
        let reserved = self.0.with(|state| {
            state.hold_filters(cost.bytes())?;
            state.queues.reserve(id, spec, cost)
        });
        if reserved.is_err() {
            self.0.allowance.give_back(1);
        }
        reserved
    }

    /// Gives back the room of a subscription that was never opened.
    pub fn release(&self, key: SubscriptionKey) {
        self.0.with(|state| state.queues.release(key));
    }

    /// An id that no subscription of this session has.
    pub fn free_id(&self) -> i64 {
        self.0.with(|state| state.queues.backlog.subscribers.free_id())
    }

    /// Opens a reserved subscription, or gives an open one a new route, and tells the client. The old route comes back;
    /// or, if the subscription is gone, the new one as an error. The router is to forget either.
    pub fn open(&self, key: SubscriptionKey, route: Route, request_id: i64) -> Result<Option<Route>, Route> {
        self.0.with(|state| state.queues.open(key, route, request_id))
    }

    /// Opens a reserved subscription from a stream, which is given what is wanted of it, and tells the client; false when it
    /// is gone.
    pub fn open_stored(&self, key: SubscriptionKey, opened: Opened, wanted: Wanted, request_id: i64) -> bool {
        self.0.with(|state| state.queues.open_stored(key, opened, wanted, request_id))
    }

    /// The key of a subscription, and its live group, 0 for none.
    pub fn find(&self, id: i64) -> Result<(SubscriptionKey, u32), CommandError> {
        self.0.read(|state| state.queues.backlog.subscribers.find(id))
    }

    /// How many subscriptions there are.
    pub fn subscriptions(&self) -> usize {
        self.0.subscriptions()
    }

    /// Adds credit to a subscription.
    pub fn grant(&self, id: i64, grant: Grant) -> Result<(), CommandError> {
        self.0.with(|state| state.queues.grant(id, grant))
    }

    /// Makes room for new filters of a subscription beside those that it has, or refuses them. What it is to be called with
    /// in [`Self::end_update`] comes back: the cost as it was, and as it is with the new ones.
    pub fn begin_update(&self, id: i64, new: &[Filter]) -> Result<(Cost, Cost), CommandError> {
        self.0.with(|state| {
            state.queues.backlog.subscribers.check_update(id, filter_tokens(new))?;
            let (old, new) = state.queues.backlog.subscribers.costs_of(id, new)?;
            state.hold_filters(new.bytes().saturating_sub(old.bytes()))?;
            state.queues.backlog.subscribers.set_cost(id, old.max(new));
            Ok((old, new))
        })
    }

    /// A subscription has new filters, or not; it costs so much.
    pub fn end_update(&self, id: i64, cost: Cost) {
        self.0.with(|state| state.queues.backlog.subscribers.set_cost(id, cost));
    }

    /// Tells the client that a subscription from a stream has new filters; false when it is gone.
    pub fn refiltered(&self, key: SubscriptionKey, wanted: Wanted, request_id: i64) -> bool {
        self.0.with(|state| state.queues.refiltered(key, wanted, request_id))
    }

    /// Ends a subscription and tells the client. What comes back is for the router to forget.
    pub fn close(&self, id: i64, request_id: i64, end: End) -> Result<Vec<Closed>, CommandError> {
        self.0.with(|state| state.queues.close(id, request_id, end).map(|()| state.queues.backlog.take_closed()))
    }

    /// Takes memory for the labels of the session, which are given once.
    pub fn hold_labels(&self, bytes: usize) -> Result<(), CommandError> {
        self.0.with(|state| state.hold_labels(bytes))
    }

    /// Sets how often an idle client hears from the hub.
    pub fn set_heartbeat_interval(&self, interval: Duration) {
        self.0.with(|state| state.heartbeat_interval = interval);
    }

    /// Waits until the session has something to do besides reading commands: it is ending, or subscriptions from
    /// streams want to be looked after; or, for one that waits to read, until there is room for answers.
    pub async fn until_call(&self, waits_for_room: bool) -> Call {
        loop {
            let call = self.0.with(|state| {
                let room = state.has_room(self.0.budget.allowed_bytes());
                if state.is_ending() {
                    Some(Call::Ending)
                } else if state.queues.backlog.has_appetite() {
                    Some(Call::Attention(state.queues.backlog.take_attention()))
                } else {
                    (waits_for_room && room).then_some(Call::Room)
                }
            });
            if let Some(call) = call {
                return call;
            }
            self.0.reader.notified().await;
        }
    }

    /// Which subscriptions want to be looked after, for who cannot wait for [`Self::until_call`].
    pub fn take_attention(&self) -> Attention {
        self.0.with(|state| state.queues.backlog.take_attention())
    }

    /// True when the client has read so much of what waits for it that more commands may be read.
    pub fn has_room(&self) -> bool {
        self.0.with(|state| state.has_room(self.0.budget.allowed_bytes()))
    }

    /// The client sends no more commands: subscriptions without credit can never get any, and end, and so do members that
    /// have all they wanted and can say nothing of it.
    pub fn no_more_commands(&self) {
        self.0.with(|state| state.queues.no_more_commands());
    }

    /// True when the session ends because the hub shuts down.
    pub fn is_draining(&self) -> bool {
        self.0.read(|state| state.queues.is_draining())
    }

    /// The session has answered all that it had begun when it was drained: the last of it may go.
    pub fn all_answered(&self) {
        self.0.with(|state| state.queues.all_answered());
    }

    /// Takes routes for the router to forget from a session that is ending; none are left when none come back. `from`
    /// starts at 0 and is kept between calls.
    pub fn take_routes(&self, most: usize, from: &mut usize) -> Vec<Closed> {
        self.0.with(|state| state.queues.backlog.take_routes(most, from))
    }

    /// Waits until the session is over: nothing will be sent any more.
    pub async fn until_over(&self) {
        while !self.0.read(|state| state.over) {
            self.0.reader.notified().await;
        }
    }
}
