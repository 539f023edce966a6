//! The fields of an event that came: whether each has its form, where those are that nearly everybody reads, and how the
//! others are found. Pure.

use std::iter;

use crate::fields::{Broken, Value, next};

/// The fields of `ReceivedEvent`.
pub(crate) const EVENT: u32 = 1;
pub(crate) const STREAM: u32 = 2;
pub(crate) const APPEND_TIME: u32 = 4;
pub(crate) const ATTEMPT: u32 = 5;
pub(crate) const LAST_FAILURE: u32 = 6;
pub(crate) const REDELIVERED: u32 = 7;
/// And of `Event`.
pub(crate) const KIND: u32 = 3;
pub(crate) const SOURCE: u32 = 4;
pub(crate) const KEY: u32 = 6;
pub(crate) const CONTENT_TYPE: u32 = 7;
pub(crate) const ATTRIBUTES: u32 = 8;

/// Where something is in the bytes of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) at: u32,
    pub(crate) len: u32,
}

/// Where what nearly everybody reads of an event is, from the beginning of its `ReceivedEvent`. All else is looked for when
/// somebody asks: an event is short, and thousands of these wait at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Fields {
    pub(crate) sequence: i64,
    pub(crate) topic: Span,
    pub(crate) payload: Span,
    pub(crate) id: Span,
    pub(crate) is_text: bool,
}

impl Span {
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.at as usize..(self.at + self.len) as usize).unwrap_or_default()
    }
}

impl Fields {
    /// Checks an event, and notes where its fields are.
    pub(crate) fn read(all: &[u8]) -> Result<Self, Broken> {
        let mut fields = Self::default();
        let mut rest = all;
        while !rest.is_empty() {
            let (tag, value) = next(&mut rest)?;
            match (tag, value) {
                (EVENT, Value::Bytes(event)) => fields.read_event(event, all.len() - rest.len() - event.len())?,
                (STREAM | LAST_FAILURE, Value::Bytes(value)) => drop(text(value)?),
                (3, Value::Number(sequence)) => fields.sequence = sequence.cast_signed(),
                (APPEND_TIME, Value::Bytes(time)) => check_time(time)?,
                (ATTEMPT | REDELIVERED, Value::Number(_)) => {}
                (1..=7, _) => return Err(Broken),
                // Of a newer hub.
                _ => {}
            }
        }
        Ok(fields)
    }

    /// The same of the event within, which is at `base`.
    fn read_event(&mut self, event: &[u8], base: usize) -> Result<(), Broken> {
        let mut rest = event;
        while !rest.is_empty() {
            let (tag, value) = next(&mut rest)?;
            let Value::Bytes(value) = value else {
                if (1..=11).contains(&tag) {
                    return Err(Broken);
                }
                continue;
            };
            match tag {
                1..=4 | 6 | 7 | 10 => drop(text(value)?),
                5 | 9 => check_time(value)?,
                ATTRIBUTES => drop(pair(value)?),
                _ => {}
            }
            // A frame is far smaller than 4 GiB.
            let span = Span { at: (base + event.len() - rest.len() - value.len()) as u32, len: value.len() as u32 };
            match tag {
                1 => self.id = span,
                2 => self.topic = span,
                10 | 11 => (self.payload, self.is_text) = (span, tag == 10),
                _ => {}
            }
        }
        Ok(())
    }
}

pub(crate) fn text(value: &[u8]) -> Result<&str, Broken> {
    std::str::from_utf8(value).map_err(|_| Broken)
}

/// The text of a field that was checked when it came.
pub(crate) fn as_text(value: Option<Value<'_>>) -> &str {
    match value {
        Some(Value::Bytes(value)) => text(value).unwrap_or_default(),
        _ => "",
    }
}

/// Each field of a message.
pub(crate) fn each(mut rest: &[u8]) -> impl Iterator<Item = (u32, Value<'_>)> {
    iter::from_fn(move || next(&mut rest).ok())
}

/// A time, or a length of time.
fn check_time(mut time: &[u8]) -> Result<(), Broken> {
    while !time.is_empty() {
        match next(&mut time)? {
            (1 | 2, Value::Number(_)) | (0 | 3.., _) => {}
            _ => return Err(Broken),
        }
    }
    Ok(())
}

/// The name and the value of an attribute.
pub(crate) fn pair(mut rest: &[u8]) -> Result<(&str, &str), Broken> {
    let (mut name, mut value) = ("", "");
    while !rest.is_empty() {
        match next(&mut rest)? {
            (1, Value::Bytes(found)) => name = text(found)?,
            (2, Value::Bytes(found)) => value = text(found)?,
            (1 | 2, _) => return Err(Broken),
            _ => {}
        }
    }
    Ok((name, value))
}
