//! Events that came: as they are in their frame, and how they are read. Pure.
//!
//! A frame is checked once, when it comes, and where its events are is noted; nothing of it is copied. An event that is
//! taken out of its batch gets memory of its own, so that whoever keeps one event does not keep all that came with it.

use std::{fmt, time::SystemTime};

use bytes::Bytes;
use prost::Message;
use prost_types::Timestamp;

use crate::{
    event::Event,
    fields::{Broken, Value},
    index::{
        APPEND_TIME, ATTEMPT, ATTRIBUTES, CONTENT_TYPE, EVENT, Fields, KEY, KIND, LAST_FAILURE, REDELIVERED, SOURCE,
        STREAM, Span, as_text, each, pair,
    },
    proto::v1,
};

/// One event in a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    place: Span,
    /// All bytes that it takes in its frame, with its tag and length: what it costs of the credit.
    pub(crate) cost: u32,
    pub(crate) fields: Fields,
}

/// The events of a frame.
#[derive(Clone, Default)]
pub(crate) struct Entries {
    frame: Bytes,
    pub(crate) all: Vec<Entry>,
}

/// An event that came.
#[derive(Clone)]
pub struct Received {
    bytes: Bytes,
    fields: Fields,
}

/// An event that came, where it is in its batch.
#[derive(Clone, Copy)]
pub struct ReceivedRef<'a> {
    bytes: &'a [u8],
    fields: &'a Fields,
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries").field("count", &self.all.len()).finish_non_exhaustive()
    }
}

impl Entries {
    pub(crate) fn new(frame: Bytes) -> Self {
        Self { frame, all: Vec::new() }
    }

    /// Adds one that is in the frame at this place, and checks it. `cost` is all that it takes there.
    pub(crate) fn add(&mut self, at: usize, len: usize, cost: usize) -> Result<(), Broken> {
        let fields = Fields::read(self.frame.get(at..at + len).ok_or(Broken)?)?;
        self.all.push(Entry { place: Span { at: at as u32, len: len as u32 }, cost: cost as u32, fields });
        Ok(())
    }

    /// Where it is in the frame.
    pub(crate) fn get<'a>(&'a self, entry: &'a Entry) -> ReceivedRef<'a> {
        ReceivedRef { bytes: entry.place.of(&self.frame), fields: &entry.fields }
    }

    /// A copy with memory of its own.
    pub(crate) fn take(&self, entry: &Entry) -> Received {
        self.get(entry).to_owned()
    }

    /// Where all of them are in the frame.
    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = ReceivedRef<'_>> {
        self.all.iter().map(|entry| self.get(entry))
    }
}

impl From<v1::ReceivedEvent> for Received {
    fn from(mut received: v1::ReceivedEvent) -> Self {
        // No hub sends one without.
        received.event.get_or_insert_default();
        let bytes = Bytes::from(received.encode_to_vec());
        // What was encoded here is not broken.
        let fields = Fields::read(&bytes).unwrap_or_default();
        Self { bytes, fields }
    }
}

/// The same event, to publish it again: byte for byte as it came, with the fields that this version of the contract does not
/// have, unless something of it is changed.
impl<'a> From<ReceivedRef<'a>> for Event<'a> {
    fn from(received: ReceivedRef<'a>) -> Self {
        Event::whole(received.topic(), received.id(), received.encoded())
    }
}

impl PartialEq for Received {
    fn eq(&self, other: &Self) -> bool {
        self.to_wire() == other.to_wire()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().describe("Received", f)
    }
}

impl fmt::Debug for ReceivedRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe("ReceivedRef", f)
    }
}

impl<'a> ReceivedRef<'a> {
    /// A copy with memory of its own, to keep.
    #[allow(clippy::wrong_self_convention)] // As of a slice.
    pub fn to_owned(self) -> Received {
        Received { bytes: Bytes::copy_from_slice(self.bytes), fields: *self.fields }
    }

    /// The event as the contract has it.
    #[allow(clippy::wrong_self_convention)] // It makes one, however cheap this is to copy.
    pub fn to_wire(self) -> v1::ReceivedEvent {
        // It was checked when it came.
        let mut received = v1::ReceivedEvent::decode(self.bytes).unwrap_or_default();
        received.event.get_or_insert_default();
        received
    }

    /// The event alone, encoded as it came: all that its publisher put into it.
    pub fn encoded(self) -> &'a [u8] {
        match self.last(EVENT) {
            Some(Value::Bytes(event)) => event,
            _ => &[],
        }
    }

    /// Its topic.
    pub fn topic(self) -> &'a str {
        self.text_at(self.fields.topic)
    }

    /// Its id.
    pub fn id(self) -> &'a str {
        self.text_at(self.fields.id)
    }

    /// Its source.
    pub fn source(self) -> &'a str {
        self.text_in_event(SOURCE)
    }

    /// Its type.
    pub fn kind(self) -> &'a str {
        self.text_in_event(KIND)
    }

    /// Its ordering key.
    pub fn key(self) -> &'a str {
        self.text_in_event(KEY)
    }

    /// The media type of its payload.
    pub fn content_type(self) -> &'a str {
        self.text_in_event(CONTENT_TYPE)
    }

    /// Its payload, if that is a text.
    pub fn text(self) -> Option<&'a str> {
        self.fields.is_text.then(|| self.text_at(self.fields.payload))
    }

    /// The bytes of its payload, whether that is a text or not; none when there is no payload.
    pub fn data(self) -> &'a [u8] {
        self.fields.payload.of(self.bytes)
    }

    /// Its payload as a value in JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.data())
    }

    /// The value of an attribute, such as the `traceparent` of whoever published it.
    pub fn attribute(self, name: &str) -> Option<&'a str> {
        let pairs = self.in_event().filter_map(|field| match field {
            (ATTRIBUTES, Value::Bytes(value)) => pair(value).ok(),
            _ => None,
        });
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).last()
    }

    /// The stream it comes from; empty when it was live.
    pub fn stream(self) -> &'a str {
        as_text(self.last(STREAM))
    }

    /// Its sequence in that stream; 0 when it was live.
    pub fn sequence(self) -> i64 {
        self.fields.sequence
    }

    /// When the stream stored it.
    pub fn append_time(self) -> Option<SystemTime> {
        let Some(Value::Bytes(time)) = self.last(APPEND_TIME) else { return None };
        SystemTime::try_from(Timestamp::decode(time).ok()?).ok()
    }

    /// Which attempt of its group this is: higher than 1 only after one that failed. 1 outside of groups.
    pub fn attempt(self) -> i32 {
        self.number(ATTEMPT) as i32
    }

    /// Whether the hub knows that a member of its group was sent it before: it may have been worked on.
    pub fn is_redelivered(self) -> bool {
        self.number(REDELIVERED) != 0
    }

    /// Why the last attempt failed.
    pub fn last_failure(self) -> &'a str {
        as_text(self.last(LAST_FAILURE))
    }

    fn text_at(self, span: Span) -> &'a str {
        as_text(Some(Value::Bytes(span.of(self.bytes))))
    }

    /// The fields around the event.
    fn around(self) -> impl Iterator<Item = (u32, Value<'a>)> {
        each(self.bytes)
    }

    /// The fields of the event itself.
    fn in_event(self) -> impl Iterator<Item = (u32, Value<'a>)> {
        self.around().flat_map(|field| match field {
            (EVENT, Value::Bytes(event)) => each(event),
            _ => each(&[]),
        })
    }

    /// What counts of a field that is there several times.
    fn last(self, tag: u32) -> Option<Value<'a>> {
        self.around().filter(|field| field.0 == tag).map(|field| field.1).last()
    }

    fn number(self, tag: u32) -> u64 {
        match self.last(tag) {
            Some(Value::Number(number)) => number,
            _ => 0,
        }
    }

    fn text_in_event(self, tag: u32) -> &'a str {
        as_text(self.in_event().filter(|field| field.0 == tag).map(|field| field.1).last())
    }

    fn describe(self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(name);
        shown.field("topic", &self.topic()).field("id", &self.id()).field("sequence", &self.sequence());
        shown.finish_non_exhaustive()
    }
}

impl Received {
    /// The same, borrowed.
    #[allow(clippy::should_implement_trait)] // What it gives is no reference.
    pub fn as_ref(&self) -> ReceivedRef<'_> {
        ReceivedRef { bytes: &self.bytes, fields: &self.fields }
    }

    /// The event as the contract has it.
    pub fn to_wire(&self) -> v1::ReceivedEvent {
        self.as_ref().to_wire()
    }

    /// The event alone, encoded as it came: all that its publisher put into it.
    pub fn encoded(&self) -> &[u8] {
        self.as_ref().encoded()
    }

    /// Its topic.
    pub fn topic(&self) -> &str {
        self.as_ref().topic()
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.as_ref().id()
    }

    /// Its source.
    pub fn source(&self) -> &str {
        self.as_ref().source()
    }

    /// Its type.
    pub fn kind(&self) -> &str {
        self.as_ref().kind()
    }

    /// Its ordering key.
    pub fn key(&self) -> &str {
        self.as_ref().key()
    }

    /// The media type of its payload.
    pub fn content_type(&self) -> &str {
        self.as_ref().content_type()
    }

    /// Its payload, if that is a text.
    pub fn text(&self) -> Option<&str> {
        self.as_ref().text()
    }

    /// The bytes of its payload, whether that is a text or not; none when there is no payload.
    pub fn data(&self) -> &[u8] {
        self.as_ref().data()
    }

    /// The same, to keep: it shares the memory of the event.
    pub fn to_data(&self) -> Bytes {
        let Span { at, len } = self.fields.payload;
        self.bytes.slice(at as usize..(at + len) as usize)
    }

    /// Its payload as a value in JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.as_ref().json()
    }

    /// The value of an attribute, such as the `traceparent` of whoever published it.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.as_ref().attribute(name)
    }

    /// The context of the span it was published in, for what is done with it: without a span if its attributes name none.
    /// What a worker does runs in a span below that already.
    #[cfg(feature = "opentelemetry")]
    pub fn parent_context(&self) -> opentelemetry::Context {
        use opentelemetry::trace::TraceContextExt;

        use crate::telemetry::w3c;
        let parent = self.attribute(w3c::PARENT).unwrap_or_default();
        let none = opentelemetry::Context::new();
        match w3c::read(parent, self.attribute(w3c::STATE).unwrap_or_default()) {
            Some(parent) => none.with_remote_span_context(parent),
            None => none,
        }
    }

    /// The stream it comes from; empty when it was live.
    pub fn stream(&self) -> &str {
        self.as_ref().stream()
    }

    /// Its sequence in that stream; 0 when it was live.
    pub fn sequence(&self) -> i64 {
        self.as_ref().sequence()
    }

    /// When the stream stored it.
    pub fn append_time(&self) -> Option<SystemTime> {
        self.as_ref().append_time()
    }

    /// Which attempt of its group this is: higher than 1 only after one that failed. 1 outside of groups.
    pub fn attempt(&self) -> i32 {
        self.as_ref().attempt()
    }

    /// Whether the hub knows that a member of its group was sent it before: it may have been worked on.
    pub fn is_redelivered(&self) -> bool {
        self.as_ref().is_redelivered()
    }

    /// Why the last attempt failed.
    pub fn last_failure(&self) -> &str {
        self.as_ref().last_failure()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::proto::v1::event::Payload;

    #[test]
    fn what_is_put_into_an_event_is_in_it() {
        let event = Event::new("a.b").text("x").id("i").source("s").kind("k").key("y").content_type("text/plain");
        let event = event.attribute("n", "v").ttl(Duration::from_secs(3)).time(SystemTime::UNIX_EPOCH);
        let append_time = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1500));
        let received = Received::from(v1::ReceivedEvent {
            event: Some(event.into()),
            stream: "stream".into(),
            sequence: 300,
            append_time: append_time.map(Into::into),
            attempt: 2,
            last_failure: "why".into(),
            redelivered: true,
        });
        assert_eq!((received.topic(), received.text(), received.id()), ("a.b", Some("x"), "i"));
        assert_eq!((received.source(), received.kind(), received.key()), ("s", "k", "y"));
        assert_eq!((received.attribute("n"), received.attribute("m")), (Some("v"), None));
        assert_eq!((received.data(), received.to_data()), (&b"x"[..], Bytes::from_static(b"x")));
        assert_eq!((received.content_type(), received.append_time()), ("text/plain", append_time));
        assert_eq!((received.stream(), received.sequence(), received.attempt()), ("stream", 300, 2));
        assert_eq!((received.last_failure(), received.is_redelivered()), ("why", true));
        let wire = received.to_wire().event.expect("an event");
        assert_eq!(wire.ttl.map(|ttl| ttl.seconds), Some(3));
    }

    #[test]
    fn bytes_are_no_text() {
        let event = Event::new("a").data(vec![1, 2]);
        let received = Received::from(v1::ReceivedEvent { event: Some(event.into()), ..Default::default() });
        assert_eq!((received.text(), received.data()), (None, &[1, 2][..]));
        let empty = Received::from(v1::ReceivedEvent::default());
        assert_eq!((empty.data(), empty.to_data(), empty.append_time()), (&b""[..], Bytes::new(), None));
    }

    #[test]
    fn an_event_that_is_taken_out_of_its_frame_does_not_keep_it() {
        let wire = v1::ReceivedEvent { event: Some(Event::new("a").data(b"xy").into()), ..Default::default() };
        let frame = Bytes::from(wire.encode_to_vec());
        let mut events = Entries::new(frame.clone());
        events.add(0, frame.len(), frame.len() + 2).expect("an event");
        assert!(events.add(1, frame.len(), 0).is_err(), "it ends behind the frame");
        let inside = |bytes: &[u8]| frame.as_ptr_range().contains(&bytes.as_ptr());
        let borrowed = events.iter().next().expect("one");
        assert!(inside(borrowed.data()));
        let own = events.take(&events.all[0]);
        assert!(!inside(own.data()));
        assert_eq!((own.data(), own.topic()), (borrowed.data(), borrowed.topic()));
        assert_eq!(own, borrowed.to_owned());
    }

    /// Fields of an event and of what is around it, by chance, some of them many times or of a form that they do not have.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let field = |tags: std::ops::RangeInclusive<u32>, value: BoxedStrategy<Vec<u8>>| {
            (tags, prop_oneof![9 => Just(2_u8), 1 => Just(0_u8), 1 => Just(5_u8)], value)
        };
        let put = |fields: Vec<(u32, u8, Vec<u8>)>| {
            let mut out = Vec::new();
            for (tag, kind, value) in fields {
                prost::encoding::encode_varint(u64::from(tag << 3 | u32::from(kind)), &mut out);
                match kind {
                    0 => prost::encoding::encode_varint(value.len() as u64 * 77, &mut out),
                    5 => out.extend_from_slice(&[1, 2, 3, 4]),
                    _ => {
                        prost::encoding::encode_varint(value.len() as u64, &mut out);
                        out.extend_from_slice(&value);
                    }
                }
            }
            out
        };
        let text = prop_oneof![
            4 => "[a-z]{0,8}".prop_map(String::into_bytes),
            1 => Just(vec![0x08, 0x03]),
            1 => Just(vec![0x0a, 0x01, b'n', 0x12, 0x01, b'v']),
            1 => Just(vec![0xff, 0xfe]),
        ]
        .boxed();
        let event = prop::collection::vec(field(1..=12, text.clone()), 0..6).prop_map(put);
        let value = prop_oneof![2 => text, 3 => event].boxed();
        prop::collection::vec(field(1..=8, value), 0..5).prop_map(put)
    }

    fn expected(wire: &v1::ReceivedEvent) -> (Vec<String>, Vec<u8>, bool) {
        let event = wire.event.clone().unwrap_or_default();
        let texts = [event.topic, event.id, event.source, event.r#type, event.key, event.content_type];
        let is_text = matches!(event.payload, Some(Payload::Text(_)));
        let data = match event.payload {
            Some(Payload::Text(text)) => text.into_bytes(),
            Some(Payload::Data(data)) => data.into(),
            None => Vec::new(),
        };
        ([&texts[..], &[wire.stream.clone(), wire.last_failure.clone()]].concat(), data, is_text)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn an_event_is_what_prost_says_it_is(bytes in message()) {
            let decoded = v1::ReceivedEvent::decode(&bytes[..]);
            let fields = Fields::read(&bytes);
            prop_assert_eq!(fields.is_ok(), decoded.is_ok());
            let (Ok(fields), Ok(wire)) = (fields, decoded) else { return Ok(()) };
            let received = Received { bytes: bytes.into(), fields };
            let texts = [received.topic(), received.id(), received.source(), received.kind(), received.key()];
            let more = [received.content_type(), received.stream(), received.last_failure()];
            let texts: Vec<String> = texts.into_iter().chain(more).map(str::to_owned).collect();
            prop_assert_eq!((texts, received.data().to_vec(), received.text().is_some()), expected(&wire));
            prop_assert_eq!(received.sequence(), wire.sequence);
            prop_assert_eq!(received.attempt(), wire.attempt);
            prop_assert_eq!(received.is_redelivered(), wire.redelivered);
            for (name, value) in wire.event.iter().flat_map(|event| &event.attributes) {
                prop_assert_eq!(received.attribute(name), Some(value.as_str()));
            }
        }
    }
}
