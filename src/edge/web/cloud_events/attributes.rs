//! The attributes of one CloudEvent as they come, one by one, whatever they are written in; and the event that they make. Pure.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, de};

use super::{NO_SOURCE, NO_TYPE, OURS};
use crate::{
    event::{Draft, Payload, times},
    model::limits::MAX_EVENT_ATTRIBUTES,
};

/// A CloudEvent has no more attributes than an event, and those that have fields of their own.
pub(super) const MAX_ATTRIBUTES: usize = MAX_EVENT_ATTRIBUTES + 16;

/// Why something is no CloudEvent that can be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::edge::web) struct NoCloudEvent {
    /// The attribute, with the place of its event in a batch, such as `[3].time`; empty for the whole.
    pub(in crate::edge::web) path: String,
    /// What is wrong, in words.
    pub(in crate::edge::web) problem: String,
}

impl NoCloudEvent {
    pub(super) fn at(path: &str, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }

    /// The same of an event in a batch.
    pub(super) fn in_batch(self, index: usize) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { path: format!("[{index}]{dot}{}", self.path), ..self }
    }
}

/// What a CloudEvent carries.
#[derive(Debug, Default)]
pub(super) enum Data {
    #[default]
    None,
    Text(String),
    Bytes(Vec<u8>),
}

/// The attributes of one CloudEvent.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    has_version: bool,
    id: Option<String>,
    source: Option<String>,
    kind: Option<String>,
    topic: String,
    time: Option<SystemTime>,
    pub(super) content_type: String,
    key: String,
    ttl: Option<Duration>,
    /// Its bytes are a text.
    pub(super) is_text: bool,
    others: Vec<(String, String)>,
}

impl Attributes {
    /// Takes in an attribute, which comes once.
    pub(super) fn set(&mut self, name: &str, value: String) -> Result<(), NoCloudEvent> {
        let wrong = |problem: &str| NoCloudEvent::at(name, problem);
        match name {
            "specversion" if value == "1.0" => self.has_version = true,
            "specversion" => return Err(wrong("must be 1.0")),
            "id" | "source" | "type" if value.is_empty() => return Err(wrong("is empty")),
            "id" => self.id = Some(value),
            "source" => self.source = Some(if value == NO_SOURCE { String::new() } else { value }),
            "type" => self.kind = Some(if value == NO_TYPE { String::new() } else { value }),
            "subject" => self.topic = value,
            "time" => self.time = Some(times::time_of_text(&value).map_err(wrong)?),
            "datacontenttype" => self.content_type = value,
            "partitionkey" => self.key = value,
            name => match name.strip_prefix(OURS) {
                None if is_name(name) => self.others.push((name.to_owned(), value)),
                None => return Err(wrong("is no name of an attribute: those are lower-case letters and digits")),
                Some("ttl") => self.ttl = Some(times::duration_of_text(&value).map_err(wrong)?),
                Some("attributes") => {
                    let Texts(texts) = serde_json::from_str(&value)
                        .map_err(|error| NoCloudEvent::at(name, format!("is not a JSON object of texts: {error}")))?;
                    self.others.extend(texts);
                }
                Some("payload") if value == "text" => self.is_text = true,
                Some("stream" | "sequence" | "appendtime") => {}
                Some(_) => return Err(wrong("is not known")),
            },
        }
        Ok(())
    }

    /// The event, as its publisher would send it. With a topic it is published to that, and keeps its own as an attribute.
    pub(super) fn event(mut self, topic: Option<&str>, data: &Data) -> Result<Vec<u8>, NoCloudEvent> {
        let missing = |name: &str| NoCloudEvent::at(name, "is missing");
        if !self.has_version {
            return Err(missing("specversion"));
        }
        let id = self.id.ok_or_else(|| missing("id"))?;
        let source = self.source.ok_or_else(|| missing("source"))?;
        let kind = self.kind.ok_or_else(|| missing("type"))?;
        if let Some(topic) = topic.filter(|topic| *topic != self.topic) {
            let own = std::mem::replace(&mut self.topic, topic.to_owned());
            if !own.is_empty() {
                self.others.push(("subject".to_owned(), own));
            }
        }
        if self.topic.is_empty() {
            return Err(NoCloudEvent::at("subject", "is missing: it is the topic of the event"));
        }
        let attributes: Vec<(&str, &str)> = self.others.iter().map(|(name, value)| (&**name, &**value)).collect();
        let draft = Draft {
            id: &id,
            topic: &self.topic,
            kind: &kind,
            source: &source,
            time: self.time,
            key: &self.key,
            content_type: &self.content_type,
            attributes: &attributes,
            ttl: self.ttl,
            payload: match data {
                Data::None => Payload::None,
                Data::Text(text) => Payload::Text(text),
                Data::Bytes(bytes) => Payload::Data(bytes),
            },
        };
        Ok(draft.encode())
    }
}

/// True for a name that an attribute of CloudEvents may have.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// True for a name that is taken, by CloudEvents or by us: no attribute of an event can have it there.
pub(super) fn is_taken(name: &str) -> bool {
    const OF_OTHERS: [&str; 9] =
        ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "partitionkey", "data"];
    OF_OTHERS.contains(&name) || name.starts_with(OURS)
}

/// A JSON object of texts, at most as many as an event has attributes.
struct Texts(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Texts;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts: Vec<(String, String)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if texts.len() == MAX_EVENT_ATTRIBUTES {
                        return Err(de::Error::custom(format!("more than {MAX_EVENT_ATTRIBUTES} members")));
                    }
                    if texts.iter().any(|(known, _)| *known == name) {
                        return Err(de::Error::custom("a member comes twice"));
                    }
                    texts.push((name, value));
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
