//! Frames of WebSocket (RFC 6455) as bytes: their heads, masks, and the codes that close a connection. Pure.

use smallvec::SmallVec;

/// The longest head: two bytes, a length in eight, and a mask.
pub(super) const MAX_HEAD_BYTES: usize = 14;
/// The payload of a frame that controls the connection has this many bytes at most.
pub(super) const MAX_CONTROL_BYTES: usize = 125;
/// The text in a frame that closes has this many bytes at most: its code has two.
const MAX_REASON_BYTES: usize = MAX_CONTROL_BYTES - 2;

/// Lengths up to this are in the second byte of a head. These two values of it say that the length is in the next two or eight.
const LONGEST_SHORT: usize = 125;
const IN_TWO_BYTES: u8 = 126;
const IN_EIGHT_BYTES: u8 = 127;
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opcode {
    /// More of a message.
    Continuation,
    /// A message, or the first part of one.
    Message(Kind),
    Close,
    Ping,
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Message(Kind::Text),
            0x2 => Self::Message(Kind::Binary),
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Message(Kind::Text) => 0x1,
            Self::Message(Kind::Binary) => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// True for a frame that may come between the parts of a message.
    pub(super) fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What a client did that ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Breach {
    /// It is not WebSocket.
    #[error("{0}")]
    Protocol(&'static str),
    /// Text where bytes are expected, or the reverse.
    #[error("a message is {} and must be {}", if *.0 == Kind::Text { "text" } else { "binary" }, if *.0 == Kind::Text { "binary" } else { "text" })]
    Kind(Kind),
    /// A text that is none.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A message above the limit, in bytes.
    #[error("a message is above the limit of {0} bytes")]
    TooLarge(usize),
    /// More of something than anybody needs.
    #[error("{0}")]
    Flood(&'static str),
}

impl Breach {
    /// The code with which the connection is closed.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => close::PROTOCOL,
            Self::Kind(_) => close::UNSUPPORTED,
            Self::NotUtf8 => close::NOT_UTF8,
            Self::TooLarge(_) => close::TOO_LARGE,
            Self::Flood(_) => close::POLICY,
        }
    }
}

/// Codes with which connections are closed.
pub(super) mod close {
    /// In order.
    pub(crate) const NORMAL: u16 = 1000;
    /// The other side goes.
    pub(crate) const AWAY: u16 = 1001;
    /// What came is not WebSocket.
    pub(crate) const PROTOCOL: u16 = 1002;
    /// A message of a kind that is not taken.
    pub(crate) const UNSUPPORTED: u16 = 1003;
    /// A text that is none.
    pub(crate) const NOT_UTF8: u16 = 1007;
    /// The client may not, or does something too often.
    pub(crate) const POLICY: u16 = 1008;
    /// A message above the limit.
    pub(crate) const TOO_LARGE: u16 = 1009;
    /// A fault of the hub.
    pub(crate) const INTERNAL: u16 = 1011;
    /// Not now.
    pub(crate) const TRY_LATER: u16 = 1013;
    /// The first of those that applications choose: this plus the number of a reason of the contract.
    pub(crate) const REASONS: u16 = 4000;

    /// Whether a client may close with it.
    pub(crate) fn is_valid(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What stands before the payload of a frame of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// It is the last of its message.
    pub(super) last: bool,
    pub(super) opcode: Opcode,
    pub(super) mask: [u8; 4],
    /// Of the payload, in bytes.
    pub(super) len: u64,
}

impl Head {
    /// How long the head is that begins with these two bytes, if a frame of a client can begin so.
    pub(super) fn bytes(first: u8, second: u8) -> Result<usize, Breach> {
        let opcode = Opcode::of(first & 0x0f).ok_or(Breach::Protocol("a frame has an unknown opcode"))?;
        if first & RESERVED != 0 {
            return Err(Breach::Protocol("a frame has reserved bits, and no extension was agreed on"));
        }
        if second & MASKED == 0 {
            return Err(Breach::Protocol("a frame of a client is not masked"));
        }
        let len = second & !MASKED;
        if opcode.is_control() && (first & FIN == 0 || len as usize > MAX_CONTROL_BYTES) {
            return Err(Breach::Protocol("a control frame is fragmented or too long"));
        }
        Ok(match len {
            IN_TWO_BYTES => 8,
            IN_EIGHT_BYTES => MAX_HEAD_BYTES,
            _ => 6,
        })
    }

    /// A head that has come as a whole.
    pub(super) fn parse(head: &[u8]) -> Result<Self, Breach> {
        const SHORT: Breach = Breach::Protocol("a frame is not complete");
        let (&[first, second], rest) = head.split_first_chunk::<2>().ok_or(SHORT)?;
        Self::bytes(first, second)?;
        let opcode = Opcode::of(first & 0x0f).ok_or(SHORT)?;
        let (len, rest) = match second & !MASKED {
            IN_TWO_BYTES => rest.split_first_chunk().map(|(len, rest)| (u64::from(u16::from_be_bytes(*len)), rest)),
            IN_EIGHT_BYTES => rest.split_first_chunk().map(|(len, rest)| (u64::from_be_bytes(*len), rest)),
            len => Some((u64::from(len), rest)),
        }
        .ok_or(SHORT)?;
        let mask = *rest.first_chunk::<4>().ok_or(SHORT)?;
        Ok(Self { last: first & FIN != 0, opcode, mask, len })
    }
}

/// What stands before a payload of `len` bytes that the hub sends: a whole message, or a frame that controls.
pub(super) fn head(opcode: Opcode, len: usize) -> SmallVec<[u8; 10]> {
    let mut head = SmallVec::new();
    head.push(FIN | opcode.bits());
    match (u8::try_from(len), u16::try_from(len)) {
        (Ok(short), _) if len <= LONGEST_SHORT => head.push(short),
        (_, Ok(len)) => {
            head.push(IN_TWO_BYTES);
            head.extend_from_slice(&len.to_be_bytes());
        }
        _ => {
            head.push(IN_EIGHT_BYTES);
            head.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    head
}

/// Appends a frame that controls the connection. Of a payload that is too long only the beginning is sent.
pub(super) fn put_control(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(MAX_CONTROL_BYTES)];
    out.extend_from_slice(&head(opcode, payload.len()));
    out.extend_from_slice(payload);
}

/// Appends the frame that closes the connection. `reason` is ASCII, and cut to what fits.
pub(super) fn put_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let Some(code) = code else { return put_control(Opcode::Close, &[], out) };
    let reason = &reason.as_bytes()[..reason.len().min(MAX_REASON_BYTES)];
    out.extend_from_slice(&head(Opcode::Close, 2 + reason.len()));
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason);
}

/// Takes the mask off bytes that stand at `at` of their payload.
pub(super) fn unmask(bytes: &mut [u8], mask: [u8; 4], at: u64) {
    let mut turned = mask;
    turned.rotate_left((at % 4) as usize);
    let [a, b, c, d] = turned;
    let eight = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ eight).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(turned.into_iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_in_one_two_or_eight_bytes() {
        let binary = Opcode::Message(Kind::Binary);
        assert_eq!(head(binary, 0)[..], [0x82, 0]);
        assert_eq!(head(binary, 125)[..], [0x82, 125]);
        assert_eq!(head(binary, 126)[..], [0x82, 126, 0, 126]);
        assert_eq!(head(binary, 65_535)[..], [0x82, 126, 0xff, 0xff]);
        assert_eq!(head(binary, 65_536)[..], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(head(Opcode::Message(Kind::Text), 1)[..], [0x81, 1]);
    }

    #[test]
    fn what_no_client_may_send_is_known_by_its_first_two_bytes() {
        let bad = |first, second| matches!(Head::bytes(first, second), Err(Breach::Protocol(_)));
        assert!(bad(0xC1, 0x80), "a reserved bit");
        assert!(bad(0x83, 0x80) && bad(0x8B, 0x80), "opcodes");
        assert!(bad(0x81, 0x01), "no mask");
        assert!(bad(0x09, 0x80), "a ping in parts");
        assert!(bad(0x89, 0xFE), "126 bytes of it");
        assert_eq!(Head::bytes(0x89, 0xFD), Ok(6), "at the limit");
        assert_eq!(Head::bytes(0x01, 0xFE), Ok(8));
        assert_eq!(Head::bytes(0x00, 0xFF), Ok(14));
    }

    #[test]
    fn clients_close_with_codes_that_mean_something() {
        for code in [1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert!(close::is_valid(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
            assert!(!close::is_valid(code), "{code}");
        }
    }

    #[test]
    fn a_close_is_cut_to_what_fits() {
        let mut out = Vec::new();
        put_close(Some(1001), &"x".repeat(200), &mut out);
        assert_eq!((out.len(), out[1], &out[2..5]), (127, 125, &[0x03, 0xE9, b'x'][..]));
        out.clear();
        put_close(None, "", &mut out);
        assert_eq!(out, [0x88, 0]);
    }

    proptest! {
        #[test]
        fn a_mask_is_taken_off_wherever_the_payload_is_cut(
            payload: Vec<u8>, mask: [u8; 4], cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let simple: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut done, mut at) = (payload.clone(), 0);
            for end in cuts.into_iter().chain([payload.len()]) {
                unmask(&mut done[at..end], mask, at as u64);
                at = end;
            }
            prop_assert_eq!(done, simple);
        }
    }
}
