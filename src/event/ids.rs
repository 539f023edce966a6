//! The ids of events that were published without one. Pure.
//!
//! An id is the name of a session, which no other of any hub has, and a number that the session counts. It tells events
//! apart and dedupes nothing: who wants that gives an id.

/// Makes ids, for one session.
#[derive(Debug)]
pub struct EventIds {
    /// The name of the session and a hyphen.
    prefix: Box<[u8]>,
    last: u64,
}

/// One id.
#[derive(Debug)]
pub(super) struct EventId<'a> {
    prefix: &'a [u8],
    number: Hex,
}

/// A number in hexadecimal.
#[derive(Debug)]
struct Hex {
    digits: [u8; 16],
    from: usize,
}

impl EventIds {
    /// `session` is unique among all sessions of all hubs.
    pub fn new(session: &str) -> Self {
        Self { prefix: format!("{session}-").into_bytes().into(), last: 0 }
    }

    /// An id that was not there before.
    pub(super) fn next(&mut self) -> EventId<'_> {
        self.last += 1;
        EventId { prefix: &self.prefix, number: Hex::of(self.last) }
    }
}

impl EventId<'_> {
    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.prefix.len() + self.number.as_bytes().len()
    }

    /// Puts it at the end of `out`.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix);
        out.extend_from_slice(self.number.as_bytes());
    }
}

impl Hex {
    /// Written by hand: the formatting machinery costs as much as all the rest of an event.
    fn of(mut number: u64) -> Self {
        let mut hex = Self { digits: [b'0'; 16], from: 16 };
        while number > 0 || hex.from == 16 {
            hex.from -= 1;
            hex.digits[hex.from] = b"0123456789abcdef"[(number & 15) as usize];
            number >>= 4;
        }
        hex
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_session_and_a_number_in_hexadecimal() {
        for number in [1, 15, 16, 255, 4096, u64::MAX] {
            let mut ids = EventIds { last: number - 1, ..EventIds::new("s") };
            let (id, mut out) = (ids.next(), Vec::new());
            id.put(&mut out);
            assert_eq!(String::from_utf8(out).as_deref(), Ok(&*format!("s-{number:x}")));
            assert_eq!(id.len(), format!("s-{number:x}").len());
        }
        assert_eq!(Hex::of(0).as_bytes(), b"0");
    }
}
