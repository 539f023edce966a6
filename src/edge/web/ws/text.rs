//! Whether a text that comes in pieces is UTF-8, known as soon as it can be. Pure.

/// A text of which some has come.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Utf8 {
    /// The beginning of a character whose end has not come.
    begun: [u8; 4],
    len: u8,
}

impl Utf8 {
    /// Takes the next piece. False as soon as the text cannot be UTF-8, whatever comes.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> bool {
        while self.len > 0 {
            let Some((byte, rest)) = piece.split_first() else { return true };
            piece = rest;
            self.begun[usize::from(self.len)] = *byte;
            self.len += 1;
            match std::str::from_utf8(&self.begun[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                // No character has more than four bytes, so that this is the end of it at the latest.
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(piece) else { return true };
        let begun = &piece[error.valid_up_to()..];
        if error.error_len().is_some() {
            return false;
        }
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = begun.len() as u8;
        true
    }

    /// True when no character is incomplete.
    pub(super) fn is_whole(self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of a text, cut after every `size` bytes.
    fn check(text: &[u8], size: usize) -> bool {
        let mut utf8 = Utf8::default();
        text.chunks(size).all(|piece| utf8.take(piece)) && utf8.is_whole()
    }

    #[test]
    fn what_cannot_become_utf8_is_refused_at_once() {
        for (good, bad) in [(&b"\xED"[..], 0xA0), (b"\xF4", 0x90), (b"\xE2\x82", b'a'), (b"\xC2", 0xC2), (b"", 0xFF)] {
            let mut utf8 = Utf8::default();
            assert!(utf8.take(good) && !utf8.take(&[bad]), "{good:x?} {bad:x}");
        }
        let mut utf8 = Utf8::default();
        assert!(utf8.take(b"\xF0\x9F\x98") && !utf8.is_whole() && utf8.take(b"\x80") && utf8.is_whole());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_text_is_cut(text: String, noise: Vec<u8>, size in 1..9_usize) {
            prop_assert!(check(text.as_bytes(), size));
            prop_assert_eq!(check(&noise, size), std::str::from_utf8(&noise).is_ok());
            let mixed = [text.as_bytes(), &noise[..noise.len().min(2)]].concat();
            prop_assert_eq!(check(&mixed, size), std::str::from_utf8(&mixed).is_ok());
        }
    }
}
