//! The fields of an encoded message, one after the other, as strictly as the strictest of clients reads them.
//!
//! What the hub passes on undecoded is decoded by clients in other languages, some levels deeper than it stood in the
//! publish. They give up at a hundred levels, so that groups of unknown fields, which are the one thing that nests
//! without being known, are no fields here; and some take no key or length of more than five bytes.

use prost::encoding::decode_varint;

/// A key or a length has at most these bytes.
const MOST_HEAD_BYTES: usize = 5;
/// The highest number that a field can have.
const MOST_TAG: u64 = (1 << 29) - 1;

/// What a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Bytes with a length: a text, a message, anything.
    Bytes(&'a [u8]),
    /// A varint.
    Number(u64),
    /// Four or eight bytes.
    Fixed,
}

/// Why something is no field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoField {
    /// It begins or ends a group.
    Group,
    /// It is no protobuf.
    Broken,
}

impl NoField {
    /// In words, behind the name of what has it.
    pub(super) fn problem(self) -> &'static str {
        match self {
            Self::Group => "has a group (wire type 3 or 4), which not every client can decode",
            Self::Broken => "is not a protobuf message",
        }
    }
}

/// Takes the next field, with its number.
#[inline]
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), NoField> {
    // Nearly all fields of events: a key of one byte, and bytes with a length of one or two.
    if let [key @ 8..0x80, ref after @ ..] = **rest
        && key & 7 == 2
    {
        let (len, mut after) = match *after {
            [len @ 0..0x80, ref after @ ..] => (usize::from(len), after),
            [low, high @ 0..0x80, ref after @ ..] => (usize::from(high) << 7 | usize::from(low & 0x7f), after),
            _ => return any(rest),
        };
        let value = take(&mut after, len)?;
        *rest = after;
        return Ok((u32::from(key >> 3), Value::Bytes(value)));
    }
    any(rest)
}

fn any<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), NoField> {
    let key = head(rest)?;
    let tag = key >> 3;
    if tag == 0 || tag > MOST_TAG {
        return Err(NoField::Broken);
    }
    let value = match key & 7 {
        0 => Value::Number(decode_varint(rest).map_err(|_| NoField::Broken)?),
        1 => {
            take(rest, 8)?;
            Value::Fixed
        }
        2 => {
            let len = head(rest)?;
            Value::Bytes(take(rest, usize::try_from(len).map_err(|_| NoField::Broken)?)?)
        }
        3 | 4 => return Err(NoField::Group),
        5 => {
            take(rest, 4)?;
            Value::Fixed
        }
        _ => return Err(NoField::Broken),
    };
    Ok((tag as u32, value))
}

/// Whether a message has nothing but fields.
pub(super) fn check(mut message: &[u8]) -> Result<(), NoField> {
    while !message.is_empty() {
        next(&mut message)?;
    }
    Ok(())
}

/// A key or a length.
fn head(rest: &mut &[u8]) -> Result<u64, NoField> {
    let before = rest.len();
    let value = decode_varint(rest).map_err(|_| NoField::Broken)?;
    if before - rest.len() > MOST_HEAD_BYTES { Err(NoField::Broken) } else { Ok(value) }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], NoField> {
    let (value, after) = rest.split_at_checked(len).ok_or(NoField::Broken)?;
    *rest = after;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, NoField> {
        let mut found = Vec::new();
        while !message.is_empty() {
            found.push(next(&mut message)?);
        }
        Ok(found)
    }

    #[test]
    fn fields_of_every_wire_type_are_told_apart() {
        let message = [&[8, 1][..], &[17, 1, 2, 3, 4, 5, 6, 7, 8], &[26, 2, b'h', b'i'], &[37, 1, 2, 3, 4]].concat();
        let (number, bytes) = (Value::Number(1), Value::Bytes(b"hi"));
        assert_eq!(all(&message), Ok(vec![(1, number), (2, Value::Fixed), (3, bytes), (4, Value::Fixed)]));
        assert_eq!(all(&[0xa3, 6, 0xa4, 6]), Err(NoField::Group));
        for broken in [&[0, 1][..], &[14], &[15], &[8], &[26, 2, b'h'], &[17, 1], &[37, 1], &[8, 0x80]] {
            assert_eq!(all(broken), Err(NoField::Broken), "{broken:?}");
        }
    }

    #[test]
    fn keys_and_lengths_have_five_bytes_at_most() {
        // The same key, and the same length, with zeros in front.
        for head in [&[0x8a, 0x80, 0x80, 0x80, 0x00][..], &[0x8a, 0x80, 0x80, 0x80, 0x80, 0x00]] {
            let expected = if head.len() > MOST_HEAD_BYTES { Err(NoField::Broken) } else { Ok(()) };
            assert_eq!(check(&[head, &[0]].concat()), expected);
            let len: Vec<u8> = head.iter().map(|byte| byte & 0x80).collect();
            assert_eq!(check(&[&[10], &len[..]].concat()), expected);
        }
        assert_eq!(check(&[0xfa, 0xff, 0xff, 0xff, 0x0f, 0]), Ok(()), "the highest number");
        assert_eq!(check(&[0x82, 0x80, 0x80, 0x80, 0x10, 0]), Err(NoField::Broken), "one more");
    }
}
