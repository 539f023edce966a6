//! How fields are keyed in the encoded form of an event. Pure. The numbers are the contract's, through `field_numbers`.

use prost::encoding::{encode_varint, encoded_len_varint};

use crate::field_numbers::{event, events, nested, number, received_event};

/// `Events.events`.
pub(super) const KEY_ENTRY: u8 = nested(events::EVENTS);
/// `ReceivedEvent.event`.
pub(super) const KEY_EVENT: u8 = nested(received_event::EVENT);
/// `ReceivedEvent.stream`.
pub(super) const KEY_STREAM: u8 = nested(received_event::STREAM);
/// `ReceivedEvent.sequence`.
pub(super) const KEY_SEQUENCE: u8 = number(received_event::SEQUENCE);
/// `ReceivedEvent.append_time`.
pub(super) const KEY_APPEND_TIME: u8 = nested(received_event::APPEND_TIME);
/// `ReceivedEvent.last_failure`.
pub(super) const KEY_LAST_FAILURE: u8 = nested(received_event::LAST_FAILURE);
/// `ReceivedEvent.attempt`.
pub(super) const KEY_ATTEMPT: u8 = number(received_event::ATTEMPT);
/// `ReceivedEvent.redelivered`.
pub(super) const KEY_REDELIVERED: u8 = number(received_event::REDELIVERED);
/// `Event.attributes`, a pair.
pub(super) const KEY_ATTRIBUTE: u8 = nested(event::ATTRIBUTES);
/// The name in a pair.
pub(super) const KEY_PAIR_NAME: u8 = nested(1);
/// The value in a pair.
pub(super) const KEY_PAIR_VALUE: u8 = nested(2);
/// `Event.id`.
pub(super) const KEY_ID: u8 = nested(event::ID);

/// Puts a key and a text at the end of `out`.
pub(super) fn put_bytes(key: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(key);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// The bytes of a varint.
pub(super) fn varint_bytes(value: usize) -> usize {
    encoded_len_varint(value as u64)
}
