//! Cuts the bytes of a call into messages: of gRPC, each behind a byte that says whether it is compressed and four bytes of
//! length. Pure.
//!
//! A message that is whole in one chunk stays where it is. One that is not is copied into one piece, once.

use bytes::{Buf, Bytes, BytesMut};

/// What is in front of a message, in bytes.
pub(crate) const PREFIX_BYTES: usize = 5;

/// Why bytes cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutError {
    /// A message is compressed, which nobody asked for.
    Compressed,
    /// A message has this many bytes, which is more than is allowed.
    TooLong(usize),
}

/// The bytes of a call that were not cut yet.
#[derive(Debug)]
pub(crate) struct Cutter {
    longest: usize,
    /// The beginning of a message, prefix and all, and how long that is to become before it is seen again.
    part: BytesMut,
    needed: usize,
    /// What comes behind that.
    chunk: Bytes,
}

impl Cutter {
    /// For messages of at most this many bytes.
    pub(crate) fn new(longest: usize) -> Self {
        Self { longest, part: BytesMut::new(), needed: 0, chunk: Bytes::new() }
    }

    /// More bytes came. Only when [`Self::next`] has none.
    pub(crate) fn add(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty(), "what came before is cut first");
        self.chunk = chunk;
    }

    /// A message has begun and not ended.
    pub(crate) fn is_within(&self) -> bool {
        !(self.part.is_empty() && self.chunk.is_empty())
    }

    /// The next message that is complete.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, CutError> {
        loop {
            if !self.part.is_empty() {
                let more = self.chunk.len().min(self.needed - self.part.len());
                self.part.extend_from_slice(&self.chunk[..more]);
                self.chunk.advance(more);
                if self.part.len() < self.needed {
                    return Ok(None);
                }
                let whole = PREFIX_BYTES + self.len_of(&self.part)?;
                if self.needed == whole {
                    self.needed = 0;
                    return Ok(Some(self.part.split().freeze().split_off(PREFIX_BYTES)));
                }
                self.part.reserve(whole - self.needed);
                self.needed = whole;
                continue;
            }
            if self.chunk.is_empty() {
                return Ok(None);
            }
            self.needed = PREFIX_BYTES;
            if self.chunk.len() >= PREFIX_BYTES {
                self.needed += self.len_of(&self.chunk)?;
                if self.chunk.len() >= self.needed {
                    return Ok(Some(self.chunk.split_to(self.needed).split_off(PREFIX_BYTES)));
                }
            }
            self.part = BytesMut::with_capacity(self.needed);
            self.part.extend_from_slice(&self.chunk);
            self.chunk = Bytes::new();
            return Ok(None);
        }
    }

    /// The length of the message that begins here.
    fn len_of(&self, bytes: &[u8]) -> Result<usize, CutError> {
        match *bytes {
            [0, a, b, c, d, ..] => match u32::from_be_bytes([a, b, c, d]) as usize {
                len if len > self.longest => Err(CutError::TooLong(len)),
                len => Ok(len),
            },
            _ => Err(CutError::Compressed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LONGEST: usize = 300;

    fn encoded(messages: &[Vec<u8>]) -> Vec<u8> {
        let prefixed = messages.iter().map(|message| {
            let len = u32::try_from(message.len()).expect("short").to_be_bytes();
            [&[0][..], &len, message].concat()
        });
        prefixed.collect::<Vec<_>>().concat()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn however_it_comes_in_pieces_the_messages_are_the_same(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..LONGEST), 0..8),
            pieces in prop::collection::vec(1_usize..200, 1..40),
        ) {
            let mut rest = Bytes::from(encoded(&messages));
            let mut cutter = Cutter::new(LONGEST);
            let mut found = Vec::new();
            for piece in pieces.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                cutter.add(rest.split_to(piece.min(rest.len())));
                while let Some(message) = cutter.next().expect("messages") {
                    found.push(message.to_vec());
                }
            }
            prop_assert_eq!(found, messages);
            prop_assert!(!cutter.is_within());
        }
    }

    #[test]
    fn a_message_that_is_whole_stays_where_it_is() {
        let bytes = Bytes::from(encoded(&[vec![1; 10], vec![2; 20]]));
        let mut cutter = Cutter::new(LONGEST);
        cutter.add(bytes.slice(..20));
        let first = cutter.next().expect("good").expect("whole");
        assert_eq!(first.as_ptr(), bytes[PREFIX_BYTES..].as_ptr());
        assert_eq!(cutter.next(), Ok(None));
        assert!(cutter.is_within());
        cutter.add(bytes.slice(20..));
        assert_eq!(cutter.next().expect("good").expect("whole"), vec![2; 20]);
    }

    #[test]
    fn no_more_is_kept_than_a_message_may_have() {
        let cut = |bytes: &[u8]| {
            let mut cutter = Cutter::new(LONGEST);
            cutter.add(Bytes::copy_from_slice(bytes));
            cutter.next()
        };
        assert_eq!(cut(&[0, 0, 0, 1, 44]), Ok(None));
        assert_eq!(cut(&[0, 0, 0, 1, 45]), Err(CutError::TooLong(301)));
        assert_eq!(cut(&[1, 0, 0, 0, 0]), Err(CutError::Compressed));
        let mut cutter = Cutter::new(LONGEST);
        for byte in [0, 0, 0, 1] {
            cutter.add(Bytes::copy_from_slice(&[byte]));
            assert_eq!(cutter.next(), Ok(None));
        }
        cutter.add(Bytes::from_static(&[45]));
        assert_eq!(cutter.next(), Err(CutError::TooLong(301)));
    }
}
