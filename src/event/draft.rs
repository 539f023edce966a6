//! An event made of its fields: for edges whose clients do not send protobuf. Pure.

use std::time::{Duration, SystemTime};

use prost::Message;

use super::{Event, EventIds, Payload, keys::put_bytes};
use crate::{field_numbers::event as field, model::EventError};

/// The fields of an event to publish. An empty one is absent.
#[derive(Debug, Clone, Default)]
pub struct Draft<'a> {
    pub id: &'a str,
    pub topic: &'a str,
    /// `type`, which Rust keeps for itself.
    pub kind: &'a str,
    pub source: &'a str,
    pub time: Option<SystemTime>,
    pub key: &'a str,
    pub content_type: &'a str,
    pub attributes: &'a [(&'a str, &'a str)],
    pub ttl: Option<Duration>,
    pub payload: Payload<'a>,
}

impl Draft<'_> {
    /// The event, by the rules for all events: `max_bytes` is for its encoded form.
    pub fn build(&self, max_bytes: usize, ids: &mut EventIds) -> Result<Event, EventError> {
        Event::accept(&self.encode(), max_bytes, ids)
    }

    /// As a publisher would send it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let put = |tag: u32, bytes: &[u8], out: &mut Vec<u8>| put_bytes((tag << 3 | 2) as u8, bytes, out);
        for (tag, text) in [
            (field::ID, self.id),
            (field::TOPIC, self.topic),
            (field::TYPE, self.kind),
            (field::SOURCE, self.source),
            (field::KEY, self.key),
            (field::CONTENT_TYPE, self.content_type),
        ] {
            if !text.is_empty() {
                put(tag, text.as_bytes(), &mut out);
            }
        }
        if let Some(time) = self.time {
            put(field::TIME, &prost_types::Timestamp::from(time).encode_to_vec(), &mut out);
        }
        for (name, value) in self.attributes {
            let mut pair = Vec::new();
            put(1, name.as_bytes(), &mut pair);
            put(2, value.as_bytes(), &mut pair);
            put(field::ATTRIBUTES, &pair, &mut out);
        }
        if let Some(ttl) = self.ttl {
            // Longer than protobuf can say is refused, as it is from any publisher.
            let ttl =
                prost_types::Duration::try_from(ttl).unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 });
            put(field::TTL, &ttl.encode_to_vec(), &mut out);
        }
        match self.payload {
            Payload::None => {}
            Payload::Text(text) => put(field::TEXT, text.as_bytes(), &mut out),
            Payload::Data(data) => put(field::DATA, data, &mut out),
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::event::{GivenUp, Stamp};

    fn full() -> Draft<'static> {
        Draft {
            id: "7",
            topic: "a.b",
            kind: "t",
            source: "/s",
            time: Some(UNIX_EPOCH + Duration::from_millis(1_500)),
            key: "k",
            content_type: "text/plain",
            attributes: &[("n", "v"), ("traceparent", "00-1")],
            ttl: Some(Duration::from_millis(2_500)),
            payload: Payload::Text("h\u{e9}"),
        }
    }

    fn build(draft: &Draft<'_>) -> Event {
        draft.build(1024, &mut EventIds::new("s")).expect("an event")
    }

    #[test]
    fn what_is_built_of_fields_is_viewed_as_them() {
        let (draft, event) = (full(), build(&full()));
        let view = event.view();
        assert_eq!((view.id, view.topic, view.kind, view.source), (draft.id, draft.topic, draft.kind, draft.source));
        assert_eq!((view.key, view.content_type, view.time), (draft.key, draft.content_type, draft.time));
        assert_eq!((view.ttl, view.payload, view.attempt), (draft.ttl, draft.payload, 1));
        assert_eq!(view.attributes().collect::<Vec<_>>(), draft.attributes);
        assert_eq!((view.stream, view.sequence, view.append_time), ("", 0, None));

        let data = Draft { topic: "a", payload: Payload::Data(&[0, 255]), ..Draft::default() };
        let event = build(&data);
        assert_eq!((event.view().payload, event.view().id), (data.payload, "s-1"));
        assert_eq!(build(&Draft { topic: "a", ..Draft::default() }).view().payload, Payload::None);
    }

    #[test]
    fn a_stored_event_and_a_dead_letter_are_viewed_as_what_they_are() {
        let time = UNIX_EPOCH + Duration::from_secs(9);
        let mut out = Vec::new();
        let spans = build(&full()).seal(&Stamp { stream: "orders", sequence: 300, time }, &mut out);
        let stored = Event::new(out.into(), spans, 300).expect("spans inside");
        let again = stored.again(200, "no luck");
        let view = again.view();
        assert_eq!((view.stream, view.sequence, view.append_time), ("orders", 300, Some(time)));
        assert_eq!((view.attempt, view.last_failure, view.topic), (200, "no luck", "a.b"));
        assert_eq!((view.redelivered, stored.view().redelivered), (true, false));

        let given_up = GivenUp { stream: "orders", sequence: 300, group: "g", attempts: 2, reason: "no" };
        let letter = stored.dead_letter(&given_up);
        let found = letter.attributes().find(|(name, _)| *name == "deadletterreason");
        assert_eq!(
            (found, letter.view().payload, letter.append_time()),
            (Some(("deadletterreason", "no")), full().payload, None)
        );
    }

    #[test]
    fn the_rules_are_those_for_all_events() {
        let refused = |draft: &Draft<'_>| draft.build(64, &mut EventIds::new("s")).expect_err("refused").field();
        assert_eq!(refused(&Draft { topic: "a..b", ..Draft::default() }), "topic");
        assert_eq!(refused(&Draft { topic: "a", ttl: Some(Duration::MAX), ..Draft::default() }), "ttl");
        assert_eq!(
            refused(&Draft { topic: "a", attributes: &[("deadlettergroup", "g")], ..Draft::default() }),
            "attributes"
        );
        let large = Draft { topic: "a", payload: Payload::Data(&[0; 64]), ..Draft::default() };
        let error = large.build(64, &mut EventIds::new("s")).expect_err("refused");
        assert_eq!(error, EventError::TooLarge { bytes: large.encode().len(), limit: 64 });
    }
}
