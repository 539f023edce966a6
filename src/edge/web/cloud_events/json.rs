//! CloudEvents in JSON, one or an array of them: read into events, and written from events. Pure.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::{
    NO_SOURCE, NO_TYPE,
    attributes::{Attributes, Data, MAX_ATTRIBUTES, NoCloudEvent, is_name, is_taken},
};
use crate::{
    edge::web::media::is_json,
    event::{Event, Payload, View, times},
    model::limits::MAX_PUBLISH_EVENTS,
};

/// The event of a CloudEvent in JSON, as its publisher would send it, published to `topic` if one is given.
pub(in crate::edge::web) fn of_json(json: &[u8], topic: Option<&str>) -> Result<Vec<u8>, NoCloudEvent> {
    let members: Members<'_> = serde_json::from_slice(json).map_err(|error| no_json(&error))?;
    event(members, topic)
}

/// The CloudEvents of an array, one after the other.
#[derive(Debug)]
pub(in crate::edge::web) struct Batch<'a> {
    rest: &'a [u8],
    topic: Option<&'a str>,
    count: usize,
    /// What is to come before the next one.
    expects: Expected,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Bracket,
    Comma,
    Nothing,
}

impl<'a> Batch<'a> {
    /// Those of `json`, which are published to `topic` if one is given.
    pub(in crate::edge::web) fn new(json: &'a [u8], topic: Option<&'a str>) -> Self {
        Self { rest: json, topic, count: 0, expects: Expected::Bracket }
    }

    fn byte(&mut self) -> Option<u8> {
        self.rest = self.rest.trim_ascii_start();
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn event(&mut self) -> Result<Vec<u8>, NoCloudEvent> {
        let most = MAX_PUBLISH_EVENTS as usize;
        if self.count == most {
            return Err(NoCloudEvent::at("", format!("has more than {most} events")));
        }
        let index = self.count;
        self.count += 1;
        let mut values = serde_json::Deserializer::from_slice(self.rest).into_iter::<Members<'_>>();
        let event = match values.next() {
            Some(Ok(members)) => event(members, self.topic),
            Some(Err(error)) => Err(no_json(&error)),
            None => Err(NoCloudEvent::at("", "is not whole")),
        };
        self.rest = &self.rest[values.byte_offset().min(self.rest.len())..];
        event.map_err(|wrong| wrong.in_batch(index))
    }
}

impl Iterator for Batch<'_> {
    type Item = Result<Vec<u8>, NoCloudEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        let no_array = |problem: &str| Some(Err(NoCloudEvent::at("", problem)));
        let expects = std::mem::replace(&mut self.expects, Expected::Nothing);
        match (expects, self.byte()) {
            (Expected::Nothing, None) => return None,
            (Expected::Nothing, Some(_)) => {
                self.rest = &[];
                return no_array("has something behind the array");
            }
            (Expected::Bracket, Some(b'[')) if self.rest.trim_ascii_start().first() != Some(&b']') => {}
            (Expected::Bracket, Some(b'[')) => {
                self.byte();
                return self.next();
            }
            (Expected::Comma, Some(b']')) => return self.next(),
            (Expected::Comma, Some(b',')) => {}
            _ => {
                self.rest = &[];
                return no_array("is not a JSON array");
            }
        }
        let event = self.event();
        if event.is_ok() {
            self.expects = Expected::Comma;
        } else {
            self.rest = &[];
        }
        Some(event)
    }
}

/// The members of one object.
#[derive(Debug)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a CloudEvent, which is an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Self::Value = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.len() == MAX_ATTRIBUTES {
                        return Err(de::Error::custom(format!("more than {MAX_ATTRIBUTES} members")));
                    }
                    if members.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom("a member comes twice"));
                    }
                    members.push((name, value));
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Visitor).map(Members)
    }
}

fn event(members: Members<'_>, topic: Option<&str>) -> Result<Vec<u8>, NoCloudEvent> {
    let (mut attributes, mut data, mut data_base64) = (Attributes::default(), None, None);
    for (name, raw) in members.0 {
        match (&*name, raw.get()) {
            // As if it were not there.
            (_, "null") => {}
            ("data", _) => data = Some(raw),
            ("data_base64", _) => data_base64 = Some(raw),
            (_, value) => attributes.set(&name, attribute(&name, value)?)?,
        }
    }
    let data = match (data, data_base64) {
        (None, None) => Data::None,
        (Some(_), Some(_)) => return Err(NoCloudEvent::at("data_base64", "cannot be given together with `data`")),
        (Some(raw), None) => text(raw, &mut attributes)?,
        (None, Some(raw)) => bytes(raw, attributes.is_text)?,
    };
    attributes.event(topic, &data)
}

/// An attribute as a text: as it would be in a header.
fn attribute(name: &str, json: &str) -> Result<String, NoCloudEvent> {
    let digits = json.strip_prefix('-').unwrap_or(json);
    match json.as_bytes().first() {
        Some(b'"') => string(name, json),
        Some(b't' | b'f') => Ok(json.to_owned()),
        Some(b'-' | b'0'..=b'9') if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(json.to_owned()),
        _ => Err(NoCloudEvent::at(name, "is none of text, whole number, true and false")),
    }
}

fn string(name: &str, json: &str) -> Result<String, NoCloudEvent> {
    serde_json::from_str(json).map_err(|error| NoCloudEvent::at(name, format!("is not a text: {error}")))
}

/// `data`, which is JSON if its media type says so or there is none, and else a text.
fn text(raw: &RawValue, attributes: &mut Attributes) -> Result<Data, NoCloudEvent> {
    let (json, is_string) = (raw.get(), raw.get().starts_with('"'));
    if attributes.content_type.is_empty() && !is_string {
        "application/json".clone_into(&mut attributes.content_type);
    }
    if is_json(&attributes.content_type) {
        return Ok(Data::Text(json.to_owned()));
    }
    if !is_string {
        let problem = "must be a text, since `datacontenttype` is not that of JSON";
        return Err(NoCloudEvent::at("data", problem));
    }
    string("data", json).map(Data::Text)
}

fn bytes(raw: &RawValue, is_text: bool) -> Result<Data, NoCloudEvent> {
    let wrong = |problem: &str| NoCloudEvent::at("data_base64", problem);
    let bytes = STANDARD.decode(string("data_base64", raw.get())?).map_err(|_| wrong("is not base64"))?;
    if is_text {
        String::from_utf8(bytes).map(Data::Text).map_err(|_| wrong("is not UTF-8"))
    } else {
        Ok(Data::Bytes(bytes))
    }
}

fn no_json(error: &serde_json::Error) -> NoCloudEvent {
    NoCloudEvent::at("", format!("is not a CloudEvent in JSON: {error}"))
}

/// Writes an event as a CloudEvent.
pub(in crate::edge::web) fn put_event(event: &Event, out: &mut Vec<u8>) {
    let view = event.view();
    let or = |text, otherwise| if str::is_empty(text) { otherwise } else { text };
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    put(out, "id", view.id);
    put(out, "source", or(view.source, NO_SOURCE));
    put(out, "type", or(view.kind, NO_TYPE));
    put(out, "subject", view.topic);
    if let Some(time) = view.time {
        put(out, "time", &times::text_of_time(time));
    }
    if !view.content_type.is_empty() {
        put(out, "datacontenttype", view.content_type);
    }
    if !view.key.is_empty() {
        put(out, "partitionkey", view.key);
    }
    if let Some(ttl) = view.ttl {
        put(out, "switchyardttl", &times::text_of_duration(ttl));
    }
    put_stored(&view, out);
    put_attributes(&view, out);
    put_data(&view, out);
    out.push(b'}');
}

fn put_stored(view: &View<'_>, out: &mut Vec<u8>) {
    if view.stream.is_empty() {
        return;
    }
    put(out, "switchyardstream", view.stream);
    put(out, "switchyardsequence", &view.sequence.to_string());
    if let Some(time) = view.append_time {
        put(out, "switchyardappendtime", &times::text_of_time(time));
    }
}

fn put_attributes(view: &View<'_>, out: &mut Vec<u8>) {
    let mut attributes: Vec<(&str, &str)> = Vec::new();
    for (name, value) in view.attributes() {
        // The last one counts.
        attributes.retain(|(known, _)| *known != name);
        attributes.push((name, value));
    }
    let (plain, others): (Vec<_>, Vec<_>) =
        attributes.into_iter().partition(|(name, _)| is_name(name) && !is_taken(name));
    for (name, value) in plain {
        put(out, name, value);
    }
    if !others.is_empty() {
        let mut object = Vec::new();
        for (name, value) in others {
            object.push(if object.is_empty() { b'{' } else { b',' });
            put_text(&mut object, name);
            object.push(b':');
            put_text(&mut object, value);
        }
        object.push(b'}');
        put(out, "switchyardattributes", &String::from_utf8_lossy(&object));
    }
}

fn put_data(view: &View<'_>, out: &mut Vec<u8>) {
    let base64 = |bytes: &[u8], out: &mut Vec<u8>| put(out, "data_base64", &STANDARD.encode(bytes));
    match view.payload {
        Payload::None => {}
        Payload::Data(bytes) => base64(bytes, out),
        Payload::Text(text) if !is_json(view.content_type) => put(out, "data", text),
        Payload::Text(text) => match serde_json::from_str::<&RawValue>(text) {
            // White space around it would be lost.
            Ok(raw) if raw.get() != "null" && raw.get().len() == text.len() => {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(raw.get().as_bytes());
            }
            _ => {
                put(out, "switchyardpayload", "text");
                base64(text.as_bytes(), out);
            }
        },
    }
}

/// Another member.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    put_text(out, name);
    out.push(b':');
    put_text(out, value);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    // Writing a text to memory does not fail.
    serde_json::to_writer(out, text).ok();
}
