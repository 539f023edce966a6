//! What one subscription asks for, and what it got.

use std::num::ParseIntError;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use switchyard::proto::v1::{
    Event, SessionRequest, Subscribe, SubscriptionSpec, event::Payload, session_request::Command,
};

#[derive(Clone)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    max_events: Option<i64>,
    events: u64,
    sha256: Sha256,
}

impl Subscription {
    /// Reads FILTER or FILTER#N; the latter ends after N events.
    pub(crate) fn parse(argument: &str) -> Result<Self, ParseIntError> {
        let (filter, limit) = match argument.split_once('#') {
            Some((filter, limit)) => (filter, Some(limit.parse()?)),
            None => (argument, None),
        };
        Ok(Self { filter: filter.to_owned(), max_events: limit, events: 0, sha256: Sha256::new() })
    }

    /// The command that opens it; `count` is the limit of those that name none.
    pub(crate) fn command(&self, id: i64, count: i64) -> SessionRequest {
        let spec = SubscriptionSpec {
            filters: vec![self.filter.clone()],
            max_events: self.max_events.unwrap_or(count),
            ..SubscriptionSpec::default()
        };
        let subscribe = Subscribe { subscription_id: id, spec: Some(spec) };
        SessionRequest { request_id: id, command: Some(Command::Subscribe(subscribe)) }
    }

    /// Counts an event into the digest and gives the line that tells of it.
    pub(crate) fn take(&mut self, event: Event) -> String {
        let text = match event.payload {
            Some(Payload::Text(text)) => text,
            Some(Payload::Data(data)) => format!("<{} bytes>", data.len()),
            None => String::new(),
        };
        let line = format!("{} {text}\n", event.topic);
        self.events += 1;
        self.sha256.update(&line);
        line
    }

    /// The line of JSON that --digest prints. A filter the hub accepted needs no escapes.
    pub(crate) fn summary(&self) -> String {
        let sha256 = Bytes::copy_from_slice(&self.sha256.clone().finalize());
        format!(r#"{{"filter": "{}", "events": {}, "sha256": "{sha256:x}"}}"#, self.filter, self.events)
    }
}
