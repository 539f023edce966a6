//! The answer to a poll while it is put together: its events, as the client wants them, and the memory that is held for them.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::ACCEPT};

use crate::{
    edge::web::{cloud_events, media},
    event::Event,
    json::Forms,
    memory::{Client, Held, MemoryFull, Use},
};

/// How the client wants the events of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Those of the contract, and all that there is to say, in one object.
    Contract,
    /// A batch of CloudEvents; all else is in headers.
    CloudEvents,
}

/// The media type of a batch of CloudEvents.
const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";
/// Where the client is to go on from.
const CURSOR: HeaderName = HeaderName::from_static("x-switchyard-cursor");

/// Events of an answer.
#[derive(Debug)]
pub(super) struct Page {
    form: Form,
    forms: Arc<Forms>,
    out: Vec<u8>,
    events: usize,
    /// Of the events as they are stored, in bytes.
    event_bytes: usize,
    most_bytes: usize,
    held: Held,
    /// There was no memory for the first event.
    full: Option<MemoryFull>,
}

impl Form {
    /// The one that a request accepts.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut accepted = accepted.flat_map(|value| value.split(','));
        if accepted.any(|kind| media::essence(kind) == CLOUD_EVENTS) { Self::CloudEvents } else { Self::Contract }
    }

    fn opening(self) -> &'static [u8] {
        match self {
            Self::Contract => b"{\"events\":[",
            Self::CloudEvents => b"[",
        }
    }
}

impl Page {
    /// Without events. It takes no more of them once it has `most_bytes`.
    pub(super) fn new(form: Form, forms: &Arc<Forms>, client: &Arc<Client>, most_bytes: usize) -> Self {
        Self {
            form,
            forms: Arc::clone(forms),
            out: form.opening().to_vec(),
            events: 0,
            event_bytes: 0,
            most_bytes,
            held: client.nothing(Use::Responses),
            full: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// How many events it has, and their bytes as they are stored.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.events, self.event_bytes)
    }

    /// True once it has as many bytes as it may.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= self.most_bytes
    }

    /// Takes in an event; false when there is no room for it. One fits however large it is, unless there is no memory.
    pub(super) fn add(&mut self, event: &Event) -> bool {
        if self.is_full() && !self.is_empty() {
            return false;
        }
        let before = self.out.len();
        self.put(event);
        // At least as much as it says: it grows by doubling.
        match self.held.grow(self.out.capacity().saturating_sub(self.held.bytes())) {
            Ok(()) => {
                self.count(event);
                true
            }
            Err(full) => {
                self.out.truncate(before);
                self.out.shrink_to_fit();
                self.full = self.is_empty().then_some(full);
                false
            }
        }
    }

    /// Takes in an event that cannot be put back: what is there already is held, whether it fits or not.
    pub(super) fn add_taken(&mut self, event: &Event) {
        self.put(event);
        self.held.set(self.out.capacity());
        self.count(event);
    }

    /// Why it is empty though there is something.
    pub(super) fn full(&self) -> Option<MemoryFull> {
        self.full
    }

    fn put(&mut self, event: &Event) {
        if !self.is_empty() {
            self.out.push(b',');
        }
        match self.form {
            Form::Contract => self.forms.put(event, &mut self.out),
            Form::CloudEvents => cloud_events::put_event(event, &mut self.out),
        }
    }

    fn count(&mut self, event: &Event) {
        self.events += 1;
        self.event_bytes += event.encoded_len();
    }

    /// The whole answer, the memory that is held for it, and its headers. `members` are names with their JSON; the cursor is one
    /// of them, and a text.
    pub(super) fn finish(mut self, cursor: &str, members: &[(&'static str, String)]) -> (Bytes, Held, HeaderMap) {
        let mut headers = HeaderMap::new();
        if let Ok(cursor) = HeaderValue::from_str(cursor) {
            headers.insert(CURSOR, cursor);
        }
        match self.form {
            Form::Contract => {
                let mut rest = format!("],\"cursor\":\"{cursor}\"");
                for (name, json) in members {
                    let _ = write!(rest, ",\"{name}\":{json}");
                }
                rest.push('}');
                self.out.extend_from_slice(rest.as_bytes());
                headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            Form::CloudEvents => {
                self.out.push(b']');
                for (name, json) in members {
                    // JSON has no control characters, and may have others than ASCII.
                    let value = HeaderValue::from_bytes(json.as_bytes());
                    if let (Ok(name), Ok(value)) = (header_name(name).parse::<HeaderName>(), value) {
                        headers.insert(name, value);
                    }
                }
                headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(CLOUD_EVENTS));
            }
        }
        self.held.set(self.out.capacity());
        (self.out.into(), self.held, headers)
    }
}

/// `caughtUp` is the header `x-switchyard-caught-up`.
fn header_name(member: &str) -> String {
    let mut name = "x-switchyard-".to_owned();
    for letter in member.chars() {
        if letter.is_ascii_uppercase() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Draft, EventIds},
        memory::{Memory, NEVER_REFUSED_BYTES, Options},
    };

    fn event(bytes: usize) -> Event {
        let draft =
            Draft { id: "1", topic: "a", payload: crate::event::Payload::Text(&"x".repeat(bytes)), ..Draft::default() };
        draft.build(1 << 20, &mut EventIds::new("t")).expect("an event")
    }

    fn page(form: Form, most_bytes: usize) -> Page {
        Page::new(form, &Arc::default(), &Arc::new(Memory::default()).client(), most_bytes)
    }

    #[test]
    fn an_answer_has_its_events_its_cursor_and_what_else_there_is_to_say() {
        let mut page = page(Form::Contract, 1000);
        assert!(page.is_empty() && page.add(&event(1)) && page.add(&event(2)));
        let (bytes, held, headers) = page.finish("c1.s.1.2", &[("caughtUp", "true".to_owned())]);
        assert!(held.bytes() >= bytes.len());
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!((&json["cursor"], &json["caughtUp"]), (&"c1.s.1.2".into(), &true.into()));
        assert_eq!(json["events"][1]["event"]["text"], "xx");
        assert_eq!(
            (&headers[CURSOR], &headers["content-type"]),
            (&"c1.s.1.2".parse().expect("a value"), &HeaderValue::from_static("application/json"))
        );
    }

    #[test]
    fn a_batch_of_cloud_events_has_all_else_in_headers() {
        let mut page = page(Form::CloudEvents, 1000);
        assert!(page.add(&event(1)));
        let (bytes, _, headers) =
            page.finish("c1.s.1.2", &[("caughtUp", "true".to_owned()), ("gap", "{\"ü\":1}".to_owned())]);
        let json: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!((json.as_array().map(Vec::len), &json[0]["specversion"]), (Some(1), &"1.0".into()));
        assert_eq!(headers["x-switchyard-caught-up"], "true");
        assert_eq!(headers["x-switchyard-gap"].as_bytes(), "{\"ü\":1}".as_bytes());
        assert_eq!(headers["content-type"], CLOUD_EVENTS);
    }

    #[test]
    fn an_answer_is_bounded_but_one_event_fits() {
        let mut page = page(Form::Contract, 1000);
        assert!(page.add(&event(5000)), "however large");
        assert!(!page.add(&event(1)) && page.is_full());
        assert_eq!(page.counts().0, 1);
    }

    #[test]
    fn without_memory_there_is_no_event() {
        let memory = Arc::new(Memory::new(&Options { responses_bytes: NEVER_REFUSED_BYTES, ..Options::default() }));
        let _all = memory.hold(Use::Responses, NEVER_REFUSED_BYTES).expect("all");
        let mut page = Page::new(Form::Contract, &Arc::default(), &memory.client(), usize::MAX);
        assert!(page.add(&event(1000)), "a little always fits");
        assert!(!page.add(&event(NEVER_REFUSED_BYTES)) && page.full().is_none());
        let mut page = Page::new(Form::Contract, &Arc::default(), &memory.client(), usize::MAX);
        assert!(!page.add(&event(NEVER_REFUSED_BYTES)) && page.full().is_some() && page.is_empty());
    }

    #[test]
    fn what_is_accepted_is_what_comes() {
        let form = |accept: &'static str| Form::of(&[(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect());
        for contract in ["*/*", "application/json", "application/cloudevents+json"] {
            assert_eq!(form(contract), Form::Contract, "{contract}");
        }
        for batch in
            ["application/cloudevents-batch+json", "text/html, Application/CloudEvents-Batch+JSON; charset=utf-8"]
        {
            assert_eq!(form(batch), Form::CloudEvents, "{batch}");
        }
    }
}
