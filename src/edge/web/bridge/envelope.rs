//! Envelopes: five bytes before each message, a byte of flags and a length, as gRPC, gRPC-Web and Connect have them alike. Pure.
//!
//! Cuts what a service answers into messages. A message that is whole in one piece is handed on without a copy, which is
//! how services send nearly all. What clients send is cut where its memory is accounted for (`edge/wire/framer.rs`).

use bytes::{Buf, Bytes, BytesMut};

pub(super) use crate::edge::wire::framer::PREFIX_BYTES;

/// The message is compressed.
pub(super) const COMPRESSED: u8 = 0x01;
/// Connect: it is the last, and says how the call ended.
pub(super) const END_OF_STREAM: u8 = 0x02;
/// gRPC-Web: likewise.
pub(super) const TRAILERS: u8 = 0x80;

/// What is before a message of `len` bytes.
pub(super) fn prefix(flags: u8, len: usize) -> [u8; PREFIX_BYTES] {
    // No message that is longer comes in anywhere; one that is announced so is refused for its length.
    let [a, b, c, d] = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
    [flags, a, b, c, d]
}

/// A message with what is before it.
pub(super) fn enveloped(flags: u8, message: &[u8]) -> Bytes {
    [&prefix(flags, message.len())[..], message].concat().into()
}

/// Messages out of pieces.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// What has come of a message that is not complete.
    part: BytesMut,
    /// What has come behind it.
    piece: Bytes,
}

impl Cutter {
    /// Takes the next piece, once [`Self::next`] has none of the one before.
    pub(super) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty());
        self.piece = piece;
    }

    /// The flags and the bytes of the next message that is complete.
    pub(super) fn next(&mut self) -> Option<(u8, Bytes)> {
        if self.part.is_empty()
            && let Some((flags, len)) = parse(&self.piece)
            && self.piece.len() - PREFIX_BYTES >= len
        {
            self.piece.advance(PREFIX_BYTES);
            return Some((flags, self.piece.split_to(len)));
        }
        self.gather(PREFIX_BYTES);
        let (flags, len) = parse(&self.part)?;
        self.gather(PREFIX_BYTES + len);
        if self.part.len() < PREFIX_BYTES + len {
            return None;
        }
        let mut message = std::mem::take(&mut self.part).freeze();
        message.advance(PREFIX_BYTES);
        Some((flags, message))
    }

    /// True when a message has come in part.
    pub(super) fn is_within(&self) -> bool {
        !self.part.is_empty() || !self.piece.is_empty()
    }

    /// Takes from the piece until there are `bytes` of the message.
    fn gather(&mut self, bytes: usize) {
        let some = bytes.saturating_sub(self.part.len()).min(self.piece.len());
        self.part.extend_from_slice(&self.piece.split_to(some));
    }
}

/// The flags and the length of the message that begins here, if that much is there.
fn parse(bytes: &[u8]) -> Option<(u8, usize)> {
    let &[flags, a, b, c, d] = bytes.first_chunk::<PREFIX_BYTES>()?;
    Some((flags, u32::from_be_bytes([a, b, c, d]) as usize))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_that_is_whole_in_a_piece_is_not_copied() {
        let piece = Bytes::from([&enveloped(0, b"first")[..], &enveloped(COMPRESSED, b"second")].concat());
        let mut cutter = Cutter::default();
        cutter.push(piece.clone());
        let (flags, first) = cutter.next().expect("the first");
        assert_eq!((flags, first.as_ptr()), (0, piece[PREFIX_BYTES..].as_ptr()));
        assert_eq!(cutter.next(), Some((COMPRESSED, Bytes::from_static(b"second"))));
        assert!(cutter.next().is_none() && !cutter.is_within());
    }

    #[test]
    fn a_message_without_end_is_noticed() {
        for cut in 1..PREFIX_BYTES + 3 {
            let mut cutter = Cutter::default();
            cutter.push(enveloped(0, b"abc").slice(..cut));
            assert!(cutter.next().is_none() && cutter.is_within(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn messages_are_the_same_however_they_are_cut(
            messages in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20)), 0..10),
            places in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let bytes = Bytes::from(
                messages.iter().flat_map(|(flags, message)| enveloped(*flags, message)).collect::<Vec<_>>(),
            );
            let mut cuts: Vec<_> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut cutter, mut got) = (Cutter::default(), Vec::new());
            for piece in cuts.windows(2) {
                cutter.push(bytes.slice(piece[0]..piece[1]));
                got.extend(std::iter::from_fn(|| cutter.next()).map(|(flags, message)| (flags, message.to_vec())));
            }
            prop_assert!(!cutter.is_within());
            prop_assert_eq!(got, messages);
        }
    }
}
