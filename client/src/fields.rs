//! The fields of a message, one after the other, as they are in its bytes. Pure.

use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_varint, skip_field},
};

/// What is no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// What has its length in front: a text, bytes, or a message.
    Bytes(&'a [u8]),
    Number(u64),
    /// Something of a form that no field of the contract has.
    Other,
}

/// The tag and the value of the next field.
// Most of what is done for an event that comes.
#[allow(clippy::inline_always)]
#[inline(always)]
pub(crate) fn next<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Broken> {
    let key = varint(rest)?;
    let tag = u32::try_from(key >> 3).map_err(|_| Broken)?;
    if tag == 0 {
        return Err(Broken);
    }
    match key & 7 {
        0 => Ok((tag, Value::Number(varint(rest)?))),
        2 => {
            let len = usize::try_from(varint(rest)?).map_err(|_| Broken)?;
            let (value, after) = rest.split_at_checked(len).ok_or(Broken)?;
            *rest = after;
            Ok((tag, Value::Bytes(value)))
        }
        kind => other(kind, tag, rest),
    }
}

#[cold]
fn other<'a>(kind: u64, tag: u32, rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Broken> {
    let kind = WireType::try_from(kind).map_err(|_| Broken)?;
    skip_field(kind, tag, rest, DecodeContext::default()).map_err(|_| Broken)?;
    Ok((tag, Value::Other))
}

#[allow(clippy::inline_always)]
#[inline(always)]
fn varint(rest: &mut &[u8]) -> Result<u64, Broken> {
    match *rest {
        [byte @ 0..0x80, after @ ..] => {
            *rest = after;
            Ok(u64::from(*byte))
        }
        [low, high @ 0..0x80, after @ ..] => {
            *rest = after;
            Ok(u64::from(low & 0x7f) | u64::from(*high) << 7)
        }
        _ => long(rest),
    }
}

#[inline(never)]
fn long(rest: &mut &[u8]) -> Result<u64, Broken> {
    decode_varint(rest).map_err(|_: DecodeError| Broken)
}
