//! A publish that is a call of its own, in whatever it is written: from its events, not decoded, to the encoded results.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::{
    buffer::Message,
    command,
    forms::v1,
    publish::{accept, events_bytes, for_publish, stores},
    requests::DECODED_BYTES_A_STEP,
    results,
    status::{self, Fault},
    waiting::until_fits,
};
use crate::{
    auth::Caller,
    event::EventIds,
    hub::{Hub, Precondition, Publish},
    memory::{Client, Held, MemoryFull, Use},
    model::CommandError,
    tasks::{Tasks, Turn},
};

/// A result is encoded, and its event forgotten, in a part of a step.
const RESULTS_A_STEP: usize = 2;

/// Publishes what one request has.
#[derive(Debug)]
pub(in crate::edge) struct PublishCall<'a> {
    pub(in crate::edge) hub: &'a Arc<Hub>,
    pub(in crate::edge) tasks: &'a Tasks,
    pub(in crate::edge) caller: &'a Caller,
    pub(in crate::edge) client: &'a Arc<Client>,
}

impl PublishCall<'_> {
    /// Publishes an encoded `PublishRequest`. The encoded `PublishResponse` comes back with memory that is held for it, or why
    /// nothing was published.
    pub(in crate::edge) async fn request(&self, message: Message) -> Result<(Bytes, Held), Fault> {
        let Message { bytes, held } = message;
        Turn::default().spend(bytes.len() / DECODED_BYTES_A_STEP).await;
        let request = v1::PublishRequest::decode(bytes).map_err(|error| {
            of_command(&CommandError::Undecodable { problem: format!("the request does not decode: {error}") })
        })?;
        let precondition = command::check_publish(&request).map_err(|error| of_command(&error))?;
        self.checked(request.events, precondition, held).await
    }

    /// The same for events as publishers encode them; `held` is held for what they were read from.
    pub(in crate::edge) async fn events(&self, events: Vec<Bytes>, held: Option<Held>) -> Result<(Bytes, Held), Fault> {
        let request = v1::PublishRequest { events, precondition: None };
        command::check_publish(&request).map_err(|error| of_command(&error))?;
        self.checked(request.events, None, held).await
    }

    async fn checked(
        &self,
        events: Vec<Bytes>,
        precondition: Option<Precondition>,
        mut held: Option<Held>,
    ) -> Result<(Bytes, Held), Fault> {
        // Before anything is published: who is refused may try again.
        let timeout = self.hub.options().frame_timeout();
        let response = until_fits(timeout, |_| self.client.hold(Use::Responses, results::most_bytes(events.len())));
        let mut response = response.await.map_err(no_memory)?;
        let memory = self.memory_for(&events, &mut held).await?;
        let mut ids = EventIds::new(&self.hub.unique_name());
        let max_event_bytes = self.hub.options().max_event_bytes;
        // What the events were decoded from is not needed while they wait.
        let events = accept(events, max_event_bytes, &mut ids).await;
        drop(held);
        let publish = Publish { events, precondition, memory, quiet: false };
        let results = self.hub.publish(self.caller, publish, self.tasks).await.map_err(|error| of_command(&error))?;
        Turn::default().spend(results.len() / RESULTS_A_STEP).await;
        match results.first() {
            Some(Err(error)) if results.iter().all(Result::is_err) => Err(status::of_event(error, 0)),
            _ => {
                let encoded = results::encode(&results);
                response.shrink(response.bytes().saturating_sub(encoded.len()));
                Ok((encoded, response))
            }
        }
    }

    /// Memory for the events of a publish, if any of them is to be stored; waits for it as long as a frame may take.
    async fn memory_for(&self, events: &[Bytes], frame: &mut Option<Held>) -> Result<Option<Held>, Fault> {
        if !self.hub.keeps_streams() {
            return Ok(None);
        }
        let bytes = events_bytes(events);
        let mut ask = |again| for_publish(frame, bytes, self.client, again);
        match ask(false) {
            Ok(memory) => Ok(Some(memory)),
            Err(_) if !stores(self.hub, events) => Ok(None),
            Err(_) => until_fits(self.hub.options().frame_timeout(), |_| ask(true)).await.map(Some).map_err(no_memory),
        }
    }
}

/// The refusal of a call whose fields are at the top of its request.
fn of_command(error: &CommandError) -> Fault {
    status::of_command(error, "")
}

fn no_memory(full: MemoryFull) -> Fault {
    of_command(&CommandError::NoMemory { of: full.of.name() })
}
