//! Events: how they are made, and how they are read. Pure.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use crate::proto::v1::{self, event::Payload};
#[cfg(feature = "opentelemetry")]
use crate::telemetry::w3c;

/// An event to publish.
///
/// ```
/// use switchyard_client::Event;
///
/// let event = Event::new("invoices.eu").text("17 paid").key("c-17").attribute("currency", "EUR");
/// # drop(event);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event(v1::Event);

impl Event {
    /// One without a payload, for this topic.
    pub fn new(topic: impl Into<String>) -> Self {
        Self(v1::Event { topic: topic.into(), ..v1::Event::default() })
    }

    /// With a text as its payload.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.0.payload = Some(Payload::Text(text.into()));
        self
    }

    /// With bytes as its payload.
    #[must_use]
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.0.payload = Some(Payload::Data(data.into()));
        self
    }

    /// With a value as its payload, in JSON.
    #[cfg(feature = "json")]
    pub fn json(self, value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        Ok(self.text(serde_json::to_string(value)?).content_type("application/json"))
    }

    /// With an id of its own. Otherwise the client makes one, which the event keeps however often it is sent.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.0.id = id.into();
        self
    }

    /// From this source, instead of from the name of the client. A stream finds duplicates by topic, source and id.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.0.source = source.into();
        self
    }

    /// Of this type, such as `com.example.invoice.paid`.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.0.r#type = kind.into();
        self
    }

    /// With an ordering key: a group hands events of one key to its members one after another.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.0.key = key.into();
        self
    }

    /// With the media type of its payload.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.0.content_type = content_type.into();
        self
    }

    /// With the time at which it happened.
    #[must_use]
    pub fn time(mut self, time: SystemTime) -> Self {
        self.0.time = Some(time.into());
        self
    }

    /// Kept by its stream for this long. A time that the contract cannot express is no limit.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.0.ttl = ttl.try_into().ok();
        self
    }

    /// With one more attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.attributes.insert(name.into(), value.into());
        self
    }
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        Self(event)
    }
}

impl From<Event> for v1::Event {
    fn from(event: Event) -> Self {
        event.0
    }
}

/// An event that came.
#[derive(Clone, PartialEq)]
pub struct Received(v1::ReceivedEvent);

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Received");
        shown.field("topic", &self.topic()).field("id", &self.id()).field("sequence", &self.sequence());
        shown.finish_non_exhaustive()
    }
}

impl From<v1::ReceivedEvent> for Received {
    fn from(mut received: v1::ReceivedEvent) -> Self {
        // No hub sends one without; with it, nobody who reads has to ask.
        received.event.get_or_insert_default();
        Self(received)
    }
}

impl Received {
    /// The event as the contract has it.
    pub fn wire(&self) -> &v1::ReceivedEvent {
        &self.0
    }

    /// The same, to keep.
    pub fn into_wire(self) -> v1::ReceivedEvent {
        self.0
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        self.event().map_or("", |event| &event.topic)
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.event().map_or("", |event| &event.id)
    }

    /// Its source.
    pub fn source(&self) -> &str {
        self.event().map_or("", |event| &event.source)
    }

    /// Its type.
    pub fn kind(&self) -> &str {
        self.event().map_or("", |event| &event.r#type)
    }

    /// Its ordering key.
    pub fn key(&self) -> &str {
        self.event().map_or("", |event| &event.key)
    }

    /// The media type of its payload.
    pub fn content_type(&self) -> &str {
        self.event().map_or("", |event| &event.content_type)
    }

    /// Its payload, if that is a text.
    pub fn text(&self) -> Option<&str> {
        match self.event()?.payload.as_ref()? {
            Payload::Text(text) => Some(text),
            Payload::Data(_) => None,
        }
    }

    /// The bytes of its payload, whether that is a text or not; none when there is no payload.
    pub fn data(&self) -> &[u8] {
        match self.event().and_then(|event| event.payload.as_ref()) {
            Some(Payload::Text(text)) => text.as_bytes(),
            Some(Payload::Data(data)) => data,
            None => &[],
        }
    }

    /// Its payload as a value in JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.data())
    }

    /// The value of an attribute, such as the `traceparent` of whoever published it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.event()?.attributes.get(name).map(String::as_str)
    }

    /// The context of the span it was published in, for what is done with it: without a span if its attributes name none.
    /// What a worker does runs in a span below that already.
    #[cfg(feature = "opentelemetry")]
    pub fn parent_context(&self) -> opentelemetry::Context {
        use opentelemetry::trace::TraceContextExt;
        let parent = self.attribute(w3c::PARENT).unwrap_or_default();
        let none = opentelemetry::Context::new();
        match w3c::read(parent, self.attribute(w3c::STATE).unwrap_or_default()) {
            Some(parent) => none.with_remote_span_context(parent),
            None => none,
        }
    }

    /// The stream it comes from; empty when it was live.
    pub fn stream(&self) -> &str {
        &self.0.stream
    }

    /// Its sequence in that stream; 0 when it was live.
    pub fn sequence(&self) -> i64 {
        self.0.sequence
    }

    /// When the stream stored it.
    pub fn append_time(&self) -> Option<SystemTime> {
        SystemTime::try_from(self.0.append_time?).ok()
    }

    /// Which attempt of its group this is: higher than 1 only after one that failed. 1 outside of groups.
    pub fn attempt(&self) -> i32 {
        self.0.attempt
    }

    /// Whether the hub knows that a member of its group was sent it before: it may have been worked on.
    pub fn is_redelivered(&self) -> bool {
        self.0.redelivered
    }

    /// Why the last attempt failed.
    pub fn last_failure(&self) -> &str {
        &self.0.last_failure
    }

    fn event(&self) -> Option<&v1::Event> {
        self.0.event.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_an_event_is_in_it() {
        let event = Event::new("a.b").text("x").id("i").source("s").kind("k").key("y").content_type("text/plain");
        let event = event.attribute("n", "v").ttl(Duration::from_secs(3)).time(SystemTime::UNIX_EPOCH);
        let received = Received::from(v1::ReceivedEvent { event: Some(event.into()), ..Default::default() });
        assert_eq!((received.topic(), received.text(), received.id()), ("a.b", Some("x"), "i"));
        assert_eq!((received.source(), received.kind(), received.key()), ("s", "k", "y"));
        assert_eq!((received.attribute("n"), received.attribute("m")), (Some("v"), None));
        assert_eq!(received.data(), b"x");
        let wire = received.into_wire().event.expect("an event");
        assert_eq!(wire.ttl.map(|ttl| ttl.seconds), Some(3));
    }

    #[test]
    fn bytes_are_no_text() {
        let event = Event::new("a").data(vec![1, 2]);
        let received = Received::from(v1::ReceivedEvent { event: Some(event.into()), ..Default::default() });
        assert_eq!((received.text(), received.data()), (None, &[1, 2][..]));
        assert_eq!(Received::from(v1::ReceivedEvent::default()).data(), b"");
    }
}
