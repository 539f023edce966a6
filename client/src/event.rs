//! Events to publish: how they are made, and how they are encoded. Pure.
//!
//! An event borrows what it is made of where it can, and is encoded once, straight into the bytes of its frame.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::{
    Message,
    encoding::{encode_varint, encoded_len_varint, message},
};
use prost_types::Timestamp;

use crate::proto::v1::{self, event::Payload};

/// The fields of `Event`.
const ID: u32 = 1;
const TOPIC: u32 = 2;
const KIND: u32 = 3;
const SOURCE: u32 = 4;
const TIME: u32 = 5;
const KEY: u32 = 6;
const CONTENT_TYPE: u32 = 7;
const ATTRIBUTES: u32 = 8;
const TTL: u32 = 9;
const TEXT: u32 = 10;
const DATA: u32 = 11;
/// The fields of a pair of attributes.
const NAME: u32 = 1;
const VALUE: u32 = 2;

/// An event to publish.
///
/// It may borrow its texts and its payload: they are copied once, when it is published.
///
/// ```
/// use switchyard_client::Event;
///
/// let event = Event::new("invoices.eu").text("17 paid").key("c-17").attribute("currency", "EUR");
/// # drop(event);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event<'a> {
    topic: Cow<'a, str>,
    payload: Carried<'a>,
    id: Cow<'a, str>,
    key: Cow<'a, str>,
    /// What most events do not have.
    rest: Option<Box<Rest<'a>>>,
}

/// Bytes as a payload, borrowed or not.
#[derive(Debug, Clone)]
pub struct Data<'a>(Either<'a>);

#[derive(Debug, Clone)]
enum Either<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

#[derive(Debug, Clone, Default, PartialEq)]
enum Carried<'a> {
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    Data(Data<'a>),
    /// Not the payload alone but all of the event, encoded; of the other fields only topic and id are filled in.
    Whole(&'a [u8]),
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Rest<'a> {
    kind: Cow<'a, str>,
    source: Cow<'a, str>,
    time: Option<Timestamp>,
    content_type: Cow<'a, str>,
    attributes: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    ttl: Option<prost_types::Duration>,
}

/// What an event is known again by: its id and its source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Identity<'a> {
    pub(crate) id: &'a [u8],
    pub(crate) source: &'a str,
}

impl<'a> Event<'a> {
    /// One without a payload, for this topic.
    pub fn new(topic: impl Into<Cow<'a, str>>) -> Self {
        Self { topic: topic.into(), ..Self::default() }
    }

    /// One that came, as it is.
    pub(crate) fn whole(topic: &'a str, id: &'a str, encoded: &'a [u8]) -> Self {
        Self { topic: topic.into(), id: id.into(), payload: Carried::Whole(encoded), ..Self::default() }
    }

    /// From now on its fields count, and not what it came as.
    fn open(&mut self) {
        if let Carried::Whole(encoded) = self.payload {
            // It was checked when it came.
            *self = v1::Event::decode(encoded).unwrap_or_default().into();
        }
    }

    /// With a text as its payload.
    #[must_use]
    pub fn text(mut self, text: impl Into<Cow<'a, str>>) -> Self {
        self.open();
        self.payload = Carried::Text(text.into());
        self
    }

    /// With bytes as its payload.
    #[must_use]
    pub fn data(mut self, data: impl Into<Data<'a>>) -> Self {
        self.open();
        self.payload = Carried::Data(data.into());
        self
    }

    /// With a value as its payload, in JSON.
    #[cfg(feature = "json")]
    pub fn json(self, value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        Ok(self.text(serde_json::to_string(value)?).content_type("application/json"))
    }

    /// With an id of its own. Otherwise the client makes one, which the event keeps however often it is sent.
    #[must_use]
    pub fn id(mut self, id: impl Into<Cow<'a, str>>) -> Self {
        self.open();
        self.id = id.into();
        self
    }

    /// From this source, instead of from the name of the client. A stream finds duplicates by topic, source and id.
    #[must_use]
    pub fn source(mut self, source: impl Into<Cow<'a, str>>) -> Self {
        self.rest().source = source.into();
        self
    }

    /// Of this type, such as `com.example.invoice.paid`.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Cow<'a, str>>) -> Self {
        self.rest().kind = kind.into();
        self
    }

    /// With an ordering key: a group hands events of one key to its members one after another.
    #[must_use]
    pub fn key(mut self, key: impl Into<Cow<'a, str>>) -> Self {
        self.open();
        self.key = key.into();
        self
    }

    /// With the media type of its payload.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<Cow<'a, str>>) -> Self {
        self.rest().content_type = content_type.into();
        self
    }

    /// With the time at which it happened.
    #[must_use]
    pub fn time(mut self, time: SystemTime) -> Self {
        self.rest().time = Some(time.into());
        self
    }

    /// Kept by its stream for this long. A time that the contract cannot express is no limit.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.rest().ttl = ttl.try_into().ok();
        self
    }

    /// With one more attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) -> Self {
        self.rest().attributes.insert(name.into(), value.into());
        self
    }

    fn rest(&mut self) -> &mut Rest<'a> {
        self.open();
        self.rest.get_or_insert_default()
    }

    /// What a span says of it.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// The value of an attribute.
    #[cfg(feature = "opentelemetry")]
    pub(crate) fn attribute_of(&self, name: &str) -> Option<&str> {
        self.rest.as_ref()?.attributes.get(name).map(AsRef::as_ref)
    }

    /// Lets somebody change its attributes.
    pub(crate) fn change_attributes(&mut self, change: impl FnOnce(&mut HashMap<String, String>)) {
        let attributes = std::mem::take(&mut self.rest().attributes).into_iter();
        let mut changed: HashMap<String, String> =
            attributes.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        change(&mut changed);
        self.rest().attributes = changed.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    }

    /// Whether it is known again by an id of its own.
    pub(crate) fn has_id(&self) -> bool {
        !self.id.is_empty()
    }

    /// What it is known again by, where it is this if it has no id of its own.
    pub(crate) fn known_by<'b>(&'b self, made: Option<Identity<'b>>) -> Identity<'b> {
        let own = Identity { id: self.id.as_bytes(), source: self.rest.as_ref().map_or("", |rest| &rest.source) };
        match made.filter(|_| own.id.is_empty()) {
            None => own,
            Some(made) => {
                Identity { id: made.id, source: if own.source.is_empty() { made.source } else { own.source } }
            }
        }
    }

    /// How many bytes it takes encoded, known by this.
    pub(crate) fn encoded_len(&self, known_by: Identity<'_>) -> usize {
        let payload = match &self.payload {
            Carried::Whole(encoded) => return encoded.len(),
            Carried::Nothing => 0,
            Carried::Text(text) => field_len(text.len()),
            Carried::Data(data) => field_len(data.as_slice().len()),
        };
        let texts = [known_by.id.len(), known_by.source.len(), self.topic.len(), self.key.len()];
        texts.map(text_len).iter().sum::<usize>() + payload + self.rest.as_ref().map_or(0, |rest| rest.encoded_len())
    }

    /// Encodes it, known by this.
    pub(crate) fn encode(&self, known_by: Identity<'_>, out: &mut Vec<u8>) {
        if let Carried::Whole(encoded) = self.payload {
            return out.extend_from_slice(encoded);
        }
        put_text(ID, known_by.id, out);
        put_text(TOPIC, self.topic.as_bytes(), out);
        let rest = self.rest.as_deref();
        if let Some(rest) = rest {
            put_text(KIND, rest.kind.as_bytes(), out);
        }
        put_text(SOURCE, known_by.source.as_bytes(), out);
        if let Some(time) = rest.and_then(|rest| rest.time.as_ref()) {
            message::encode(TIME, time, out);
        }
        put_text(KEY, self.key.as_bytes(), out);
        if let Some(rest) = rest {
            rest.encode_end(out);
        }
        match &self.payload {
            Carried::Nothing | Carried::Whole(_) => {}
            Carried::Text(text) => put(TEXT, text.as_bytes(), out),
            Carried::Data(data) => put(DATA, data.as_slice(), out),
        }
    }
}

impl Rest<'_> {
    /// Of all but the source.
    fn encoded_len(&self) -> usize {
        let pair =
            |(name, value): (&Cow<'_, str>, &Cow<'_, str>)| field_len(text_len(name.len()) + text_len(value.len()));
        text_len(self.kind.len())
            + text_len(self.content_type.len())
            + self.time.as_ref().map_or(0, |time| message::encoded_len(TIME, time))
            + self.ttl.as_ref().map_or(0, |ttl| message::encoded_len(TTL, ttl))
            + self.attributes.iter().map(pair).sum::<usize>()
    }

    /// From the media type on.
    fn encode_end(&self, out: &mut Vec<u8>) {
        put_text(CONTENT_TYPE, self.content_type.as_bytes(), out);
        for (name, value) in &self.attributes {
            put_head(ATTRIBUTES, text_len(name.len()) + text_len(value.len()), out);
            put_text(NAME, name.as_bytes(), out);
            put_text(VALUE, value.as_bytes(), out);
        }
        if let Some(ttl) = &self.ttl {
            message::encode(TTL, ttl, out);
        }
    }
}

/// How many bytes a field takes, whose tag is one byte.
fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// A text that is empty is not there.
fn text_len(len: usize) -> usize {
    if len == 0 { 0 } else { field_len(len) }
}

fn put_text(tag: u32, text: &[u8], out: &mut Vec<u8>) {
    if !text.is_empty() {
        put(tag, text, out);
    }
}

fn put(tag: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_head(tag, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The tag and the length of what follows.
pub(crate) fn put_head(tag: u32, len: usize, out: &mut Vec<u8>) {
    // Tags below 16, of what has its length in front.
    out.push((tag << 3 | 2) as u8);
    match u8::try_from(len) {
        Ok(short @ 0..0x80) => out.push(short),
        _ => encode_varint(len as u64, out),
    }
}

impl Data<'_> {
    fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Either::Borrowed(bytes) => bytes,
            Either::Owned(bytes) => bytes,
        }
    }
}

impl PartialEq for Data<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl<'a> From<&'a [u8]> for Data<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Either::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Data<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Either::Borrowed(bytes))
    }
}

impl<'a> From<&'a Vec<u8>> for Data<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(Either::Borrowed(bytes))
    }
}

impl<'a> From<&'a Bytes> for Data<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        Self(Either::Borrowed(bytes))
    }
}

impl From<Bytes> for Data<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Either::Owned(bytes))
    }
}

impl From<Vec<u8>> for Data<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Either::Owned(bytes.into()))
    }
}

impl From<v1::Event> for Event<'_> {
    fn from(event: v1::Event) -> Self {
        let attributes = event.attributes.into_iter().map(|(name, value)| (name.into(), value.into()));
        let rest = Rest {
            kind: event.r#type.into(),
            source: event.source.into(),
            time: event.time,
            content_type: event.content_type.into(),
            attributes: attributes.collect(),
            ttl: event.ttl,
        };
        Self {
            topic: event.topic.into(),
            payload: match event.payload {
                None => Carried::Nothing,
                Some(Payload::Text(text)) => Carried::Text(text.into()),
                Some(Payload::Data(data)) => Carried::Data(data.into()),
            },
            id: event.id.into(),
            key: event.key.into(),
            rest: (rest != Rest::default()).then(|| Box::new(rest)),
        }
    }
}

impl From<Event<'_>> for v1::Event {
    fn from(mut event: Event<'_>) -> Self {
        event.open();
        let rest = event.rest.map(|rest| *rest).unwrap_or_default();
        let attributes = rest.attributes.into_iter().map(|(name, value)| (name.into_owned(), value.into_owned()));
        Self {
            id: event.id.into_owned(),
            topic: event.topic.into_owned(),
            r#type: rest.kind.into_owned(),
            source: rest.source.into_owned(),
            time: rest.time,
            key: event.key.into_owned(),
            content_type: rest.content_type.into_owned(),
            attributes: attributes.collect(),
            ttl: rest.ttl,
            payload: match event.payload {
                Carried::Nothing | Carried::Whole(_) => None,
                Carried::Text(text) => Some(Payload::Text(text.into_owned())),
                Carried::Data(Data(Either::Owned(bytes))) => Some(Payload::Data(bytes)),
                Carried::Data(Data(Either::Borrowed(bytes))) => Some(Payload::Data(Bytes::copy_from_slice(bytes))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn full() -> Event<'static> {
        let event = Event::new("a.b").text("x").id("i").source("s").kind("k").key("y").content_type("text/plain");
        event.attribute("n", "v").attribute("", "").ttl(Duration::from_secs(3)).time(SystemTime::UNIX_EPOCH)
    }

    /// What is encoded, decoded by prost; its length was known before.
    fn encoded(event: &Event<'_>, identity: Option<Identity<'_>>) -> v1::Event {
        let known_by = event.known_by(identity);
        let mut out = Vec::new();
        event.encode(known_by, &mut out);
        assert_eq!(out.len(), event.encoded_len(known_by));
        v1::Event::decode(&out[..]).expect("an event")
    }

    #[test]
    fn an_event_is_encoded_as_prost_would() {
        let long = "x".repeat(300);
        let events = [
            Event::default(),
            Event::new("a"),
            full(),
            Event::new("a").data(b"\x01\x02").id(&long).attribute(&long, &long),
            Event::new("a").text(""),
            Event::new("a").data(Vec::new()),
        ];
        for event in events {
            let wire = v1::Event::from(event.clone());
            assert_eq!(encoded(&event, None), wire);
            let known_by = event.known_by(None);
            assert_eq!(event.encoded_len(known_by), wire.encoded_len(), "no byte more than prost");
            assert_eq!(Event::from(wire), event, "there and back");
        }
    }

    #[test]
    fn an_event_without_an_id_of_its_own_is_known_by_another() {
        let identity = Some(Identity { id: b"made", source: "client" });
        let known = |event: Event<'_>| {
            let wire = encoded(&event, identity);
            (wire.id, wire.source)
        };
        assert_eq!(known(Event::new("a")), ("made".into(), "client".into()));
        assert_eq!(known(Event::new("a").source("s")), ("made".into(), "s".into()));
        assert_eq!(known(Event::new("a").id("own")), ("own".into(), String::new()));
        assert_eq!(known(Event::new("a").id("own").source("s")), ("own".into(), "s".into()));
    }

    #[test]
    fn bytes_are_the_same_whoever_has_them() {
        let of = |data: Data<'static>| Event::new("a").data(data);
        let same = [b"ab".into(), (&b"ab"[..]).into(), vec![b'a', b'b'].into(), Bytes::from_static(b"ab").into()];
        assert!(same.into_iter().all(|data| of(data) == of(b"ab".into())));
        assert_ne!(of(b"ab".into()), of(b"ac".into()));
        let (list, shared) = (vec![1], Bytes::from_static(b"\x01"));
        assert_eq!(Event::new("a").data(&list), Event::new("a").data(&shared));
    }

    #[test]
    fn a_whole_event_keeps_every_byte_until_something_is_changed() {
        let mut bytes = v1::Event::from(full()).encode_to_vec();
        // A field of a newer contract.
        bytes.extend_from_slice(&[0x7a, 1, b'!']);
        let whole = || Event::whole("a.b", "i", &bytes);
        let event = whole();
        let known_by = event.known_by(None);
        let mut out = Vec::new();
        event.encode(known_by, &mut out);
        assert_eq!(event.encoded_len(known_by), bytes.len());
        assert_eq!(out, bytes);
        assert_eq!(v1::Event::from(whole()), full().into());
        assert_eq!(whole().key("other").kind("k"), full().key("other"));
        assert_eq!(whole().text("other"), full().text("other"));
    }

    #[test]
    fn attributes_can_be_changed() {
        let mut event = full();
        event.change_attributes(|attributes| {
            attributes.remove("");
            attributes.insert("m".into(), "w".into());
        });
        let attributes = v1::Event::from(event).attributes;
        assert_eq!((attributes.len(), attributes["m"].as_str(), attributes["n"].as_str()), (2, "w", "v"));
    }
}
