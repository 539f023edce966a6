//! What events get on their way out of a client: an id, a source, and what carries a trace.

use std::{collections::HashMap, fmt, sync::Arc};

use crate::{
    event::{Event, Identity},
    ids::Series,
    machine::wire::Encoded,
    shared::Shared,
    telemetry::Sending,
};

/// Adds what carries a trace to the attributes of an event.
pub(crate) type Inject = Arc<dyn Fn(&mut HashMap<String, String>) + Send + Sync>;

/// What all events of a client get.
pub(crate) struct Stamp {
    pub(crate) name: String,
    pub(crate) inject: Option<Inject>,
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stamp").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Stamp {
    /// Encodes events. Those that may be written again get what they are known again by.
    pub(crate) fn encode<'e>(
        &self,
        shared: &Shared,
        events: impl Iterator<Item = Event<'e>>,
        may_come_again: bool,
    ) -> (Encoded, Sending) {
        let mut encoded = Encoded::default();
        let mut ids = may_come_again.then(|| shared.ids());
        let mut add = |event: &Event<'_>, more: usize| {
            let id = ids.as_mut().filter(|_| !event.has_id()).map(Series::next);
            let made = id.as_ref().map(|id| Identity { id, source: &self.name });
            encoded.push(event, made, more);
        };
        if self.inject.is_none() && !shared.telemetry.is_on() {
            let mut events = events;
            while let Some(event) = events.next() {
                add(&event, events.size_hint().0);
            }
            return (encoded, Sending::none());
        }
        let events: Vec<Event<'e>> = events.collect();
        let mut sending = shared.telemetry.send(&events);
        for (more, mut event) in (0..events.len()).rev().zip(events) {
            event.change_attributes(|attributes| {
                if let Some(inject) = &self.inject {
                    inject(attributes);
                }
                sending.inject(attributes);
            });
            add(&event, more);
        }
        (encoded, sending)
    }
}
