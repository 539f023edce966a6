//! Events as JSON: a `ReceivedEvent` on one line, made of the form that the hub keeps. Pure.

use super::{
    encode::put_message,
    protobuf::{Value, next},
    schema::schema,
};
use crate::event::Event;

/// Puts an event as its subscribers get it.
pub fn put_event(event: &Event, out: &mut Vec<u8>) {
    let mut entry = event.encoded();
    let received = match next(&mut entry) {
        Some((_, Value::Bytes(received))) => received,
        _ => &[],
    };
    let at = out.len();
    let of = schema().find("switchyard.v1.ReceivedEvent");
    if of.is_none_or(|of| put_message(of, received, out).is_err()) {
        // Nothing is an event that is not one.
        out.truncate(at);
        out.extend_from_slice(b"{}");
    }
}
