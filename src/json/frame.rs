//! The frame of a session that has events, as JSON. Pure.

use super::{
    escape::{put_long, put_text},
    forms::Forms,
};
use crate::event::Event;

/// Puts a `SessionResponse` (or `SubscribeResponse`) with some events on one line: what `frames` makes of a batch for clients
/// that speak protobuf. `resume_token` is empty for none.
pub fn put_events(subscription_id: i64, events: &[Event], resume_token: &str, forms: &Forms, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"events\":{");
    if subscription_id != 0 {
        out.extend_from_slice(b"\"subscriptionId\":");
        put_long(subscription_id, out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"events\":[");
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        forms.put(event, out);
    }
    out.push(b']');
    if !resume_token.is_empty() {
        out.extend_from_slice(b",\"resumeToken\":");
        put_text(resume_token, out);
    }
    out.extend_from_slice(b"}}");
}
