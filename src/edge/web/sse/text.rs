//! `text/event-stream`: how its messages are written. Pure.
//!
//! Data is JSON on one line, so that no message is ever split over several `data` fields.

use std::{io::Write as _, time::Duration};

use crate::model::{Cursor, Origin};

/// What all events of one subscription begin with: the field `id` up to the sequence. Empty for live events, which have none.
#[derive(Debug, Default)]
pub(super) struct Head(String);

impl Head {
    /// For events from a stream.
    pub(super) fn of(origin: &Origin) -> Self {
        let mut head = format!("id: {}", Cursor { origin, sequence: 0 });
        head.pop();
        Self(head)
    }

    /// About how many bytes a message has besides its data.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() + 40
    }
}

/// An event, as `onmessage` hears it. What `put` puts is JSON on one line.
pub(super) fn put_event(out: &mut Vec<u8>, head: &Head, sequence: u64, put: impl FnOnce(&mut Vec<u8>)) {
    if !head.0.is_empty() {
        out.extend_from_slice(head.0.as_bytes());
        put_number(out, sequence);
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    put(out);
    out.extend_from_slice(b"\n\n");
}

/// Something else than an event, which is heard by its name. With an id the client goes on from there when it reconnects.
pub(super) fn put_named(out: &mut Vec<u8>, name: &str, id: Option<&str>, json: &[u8]) {
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}

/// A comment, which nobody hears: the connection lives. No empty line is behind it: to some clients, httpx-sse among them, that
/// would be the end of an empty message.
pub(super) fn put_comment(out: &mut Vec<u8>) {
    out.extend_from_slice(b":\n");
}

/// How long the client is to wait before it reconnects, from now on. A field of the message that is put next, for the same reason.
pub(super) fn put_retry(out: &mut Vec<u8>, delay: Duration) {
    out.extend_from_slice(b"retry: ");
    put_number(out, u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    out.push(b'\n');
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    // Writing to memory does not fail.
    write!(out, "{number}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Position, StreamName};

    fn text(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn an_event_of_a_stream_bears_its_cursor_and_a_live_one_none() {
        let origin = Origin { stream: StreamName::parse("orders").expect("a name"), epoch: -5 };
        let stored = text(|out| put_event(out, &Head::of(&origin), u64::MAX, |out| out.extend_from_slice(b"{}")));
        assert_eq!(stored, "id: c1.orders.-5.18446744073709551615\ndata: {}\n\n");
        let id = stored.split([' ', '\n']).nth(1).expect("an id");
        let position = Cursor::parse(id).expect("a cursor");
        assert_eq!(position, Position { origin: origin.into(), sequence: u64::MAX });
        assert_eq!(
            text(|out| put_event(out, &Head::default(), 0, |out| out.extend_from_slice(b"{\"a\":1}"))),
            "data: {\"a\":1}\n\n"
        );
    }

    #[test]
    fn what_is_no_event_has_a_name() {
        assert_eq!(text(|out| put_named(out, "gap", None, b"{}")), "event: gap\ndata: {}\n\n");
        let progress = text(|out| put_named(out, "progress", Some("c1.s.1.2"), b"{}"));
        assert_eq!(progress, "id: c1.s.1.2\nevent: progress\ndata: {}\n\n");
        assert_eq!(text(put_comment), ":\n");
        assert_eq!(text(|out| put_retry(out, Duration::from_millis(2500))), "retry: 2500\n");
        assert_eq!(text(|out| put_retry(out, Duration::MAX)), format!("retry: {}\n", u64::MAX));
    }
}
