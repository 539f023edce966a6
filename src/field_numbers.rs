//! The numbers of the contract's fields: `event::TOPIC` is that of `Event.topic`. Made of `proto/` by `build.rs`, for code
//! that writes or reads messages by hand. Pure.

// Nobody writes every message by hand.
#![allow(dead_code)]

include!(concat!(env!("OUT_DIR"), "/field_numbers.rs"));

/// The key of a field with a length, in one byte.
pub(crate) const fn nested(field: u32) -> u8 {
    number(field) | 2
}

/// The key of a varint, in one byte.
pub(crate) const fn number(field: u32) -> u8 {
    assert!(field < 16, "its key would have two bytes");
    (field << 3) as u8
}
