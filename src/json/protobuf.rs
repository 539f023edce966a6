//! Protobuf as it is on the wire: fields read one after the other, and written. Pure.

use prost::encoding::{decode_varint, encode_varint};

/// What a field has.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Value<'a> {
    #[default]
    None,
    Number(u64),
    Four(u32),
    Eight(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes of a field that has some.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// The next field and its number. `None` for anything that is no field; groups are none.
#[inline]
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let key = u32::try_from(decode_varint(rest).ok()?).ok()?;
    let value = match key & 7 {
        0 => Value::Number(decode_varint(rest).ok()?),
        1 => Value::Eight(eight(rest)?),
        2 => {
            let len = usize::try_from(decode_varint(rest).ok()?).ok()?;
            let (bytes, after) = rest.split_at_checked(len)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        5 => Value::Four(four(rest)?),
        _ => return None,
    };
    Some((key >> 3, value))
}

/// The next value of a packed list, whose values have this wire type.
pub(super) fn next_packed<'a>(rest: &mut &'a [u8], wire_type: u32) -> Option<Value<'a>> {
    match wire_type {
        0 => decode_varint(rest).ok().map(Value::Number),
        1 => eight(rest).map(Value::Eight),
        _ => four(rest).map(Value::Four),
    }
}

fn eight(rest: &mut &[u8]) -> Option<u64> {
    let (value, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*value))
}

fn four(rest: &mut &[u8]) -> Option<u32> {
    let (value, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_le_bytes(*value))
}

/// Puts the key of a field.
#[inline]
pub(super) fn put_key(number: u32, wire_type: u32, out: &mut Vec<u8>) {
    put_varint((number << 3 | wire_type).into(), out);
}

/// Puts a number.
#[inline]
pub(super) fn put_varint(value: u64, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        encode_varint(value, out);
    }
}

/// Begins what has its length before it. What follows is closed by [`close`] with what this returns.
#[inline]
pub(super) fn open(out: &mut Vec<u8>) -> usize {
    // Nearly all that is open is short.
    out.push(0);
    out.len()
}

/// Writes the length of what was opened at `at`.
pub(super) fn close(at: usize, out: &mut Vec<u8>) {
    let len = out.len() - at;
    if let Some(byte) = u8::try_from(len).ok().filter(|len| *len < 0x80) {
        out[at - 1] = byte;
        return;
    }
    let more = prost::encoding::encoded_len_varint(len as u64) - 1;
    out.resize(at + len + more, 0);
    out.copy_within(at..at + len, at + more);
    let mut left = len as u64;
    for byte in &mut out[at - 1..at + more] {
        *byte = left as u8 | 0x80;
        left >>= 7;
    }
    out[at + more - 1] &= 0x7f;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_closed_has_its_length_before_it() {
        for len in [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = b"-".to_vec();
            let at = open(&mut out);
            out.resize(at + len, 7);
            close(at, &mut out);
            let mut rest = &out[1..];
            assert_eq!(decode_varint(&mut rest), Ok(len as u64));
            assert_eq!((rest.len(), rest.iter().all(|byte| *byte == 7)), (len, true), "{len}");
        }
    }

    #[test]
    fn groups_and_broken_fields_are_none() {
        for broken in [&[0x0b, 0x0c][..], &[0x80], &[0x0a, 2, 1], &[0x0d, 1, 2, 3], &[0x09, 1], &[0x08], &[0x0e, 1]] {
            assert!(next(&mut &*broken).is_none(), "{broken:?}");
        }
    }
}
