//! The base64 of gRPC-Web's text mode: decoded as it comes, in whatever pieces, and encoded piece by piece. Pure.
//!
//! Whoever writes text may end any piece with padding, so that a body is many base64 texts in a row. Padding is taken
//! wherever a group of four ends.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;

/// Four characters are three bytes.
const GROUP: usize = 4;

/// What has come is no base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body is not base64, or ends within a group of four characters")]
pub(super) struct NotBase64;

/// Decodes a body. Keeps at most three characters between pieces.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    rest: [u8; GROUP],
    len: usize,
}

impl Decoder {
    /// The bytes of all groups that are complete with this piece.
    pub(super) fn decode(&mut self, mut piece: &[u8]) -> Result<Vec<u8>, NotBase64> {
        let mut out = Vec::with_capacity((self.len + piece.len()) / GROUP * 3);
        if self.len > 0 {
            let (more, left) = piece.split_at(piece.len().min(GROUP - self.len));
            self.rest[self.len..self.len + more.len()].copy_from_slice(more);
            self.len += more.len();
            piece = left;
            if self.len < GROUP {
                return Ok(out);
            }
            decode_groups(&self.rest, &mut out)?;
            self.len = 0;
        }
        let (groups, rest) = piece.split_at(piece.len() / GROUP * GROUP);
        decode_groups(groups, &mut out)?;
        self.rest[..rest.len()].copy_from_slice(rest);
        self.len = rest.len();
        Ok(out)
    }

    /// The body has ended.
    pub(super) fn finish(&self) -> Result<(), NotBase64> {
        if self.len == 0 { Ok(()) } else { Err(NotBase64) }
    }
}

/// Decodes whole groups, any of which may be padded.
fn decode_groups(mut groups: &[u8], out: &mut Vec<u8>) -> Result<(), NotBase64> {
    while !groups.is_empty() {
        let padded = groups.iter().position(|character| *character == b'=');
        let (text, rest) = groups.split_at(padded.map_or(groups.len(), |at| (at / GROUP + 1) * GROUP));
        BASE64_STANDARD.decode_vec(text, out).map_err(|_| NotBase64)?;
        groups = rest;
    }
    Ok(())
}

/// A piece of a body as text, which may be followed by others.
pub(super) fn encode(piece: &[u8]) -> Bytes {
    BASE64_STANDARD.encode(piece).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of a text that is cut at these places.
    fn decoded(text: &[u8], cuts: &[usize]) -> Result<Vec<u8>, NotBase64> {
        let (mut decoder, mut out, mut from) = (Decoder::default(), Vec::new(), 0);
        for to in cuts.iter().copied().chain([text.len()]) {
            out.extend(decoder.decode(&text[from..to.max(from)])?);
            from = to.max(from);
        }
        decoder.finish().map(|()| out)
    }

    #[test]
    fn padding_is_taken_wherever_a_group_ends() {
        assert_eq!(decoded(b"YQ==YmM=ZGVm", &[]).as_deref(), Ok(&b"abcdef"[..]));
        assert_eq!(decoded(b"", &[]).as_deref(), Ok(&b""[..]));
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["YQ", "YQ=", "Y===", "=YQ=", "YQ=a", "Y Q=", "YQ==\n", "YQ-_", "YR=="] {
            assert_eq!(decoded(text.as_bytes(), &[]), Err(NotBase64), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_body_is_the_same_however_it_is_encoded_and_cut(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..10),
            places in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let text: Vec<u8> = pieces.iter().flat_map(|piece| encode(piece)).collect();
            let mut cuts: Vec<_> = places.iter().map(|place| place.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            prop_assert_eq!(decoded(&text, &cuts), Ok(pieces.concat()));
        }
    }
}
