//! Takes frames apart: bytes as they come from a client in, parts of messages and control frames out. Pure.
//!
//! It keeps nothing but the head of a frame that is not complete and the payload of a control frame that is not: parts of
//! messages are handed on as they come, without their masks. Whether a client keeps to the protocol is decided here, and
//! as early as it can be known.

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;

use super::{
    frame::{Breach, Head, Kind, MAX_HEAD_BYTES, Opcode, close, unmask},
    text::Utf8,
};

/// A message may have this many frames without a payload.
const MAX_EMPTY_FRAMES: u8 = 16;

/// What came from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// The next bytes of a message.
    Data {
        payload: BytesMut,
        kind: Kind,
        /// So many more may come of this message: what was announced, or all that a message may have if it has more frames.
        ahead: usize,
        /// The message is complete.
        last: bool,
    },
    /// To be answered with the same payload.
    Ping(BytesMut),
    /// The answer to a ping, or no answer to anything.
    Pong,
    /// The client closes, and says why if it wants to. Nothing may come behind it.
    Close(Option<u16>),
}

/// Frames of one client.
#[derive(Debug)]
pub(super) struct Decoder {
    /// `None` for both.
    takes: Option<Kind>,
    limit: usize,
    /// The beginning of a head.
    head: SmallVec<[u8; MAX_HEAD_BYTES]>,
    /// A frame whose payload has not all come, and how much of it has.
    frame: Option<(Head, u64)>,
    message: Option<Message>,
    /// The payload of a control frame, as far as it has come.
    control: BytesMut,
}

/// A message of which a frame has begun.
#[derive(Debug)]
struct Message {
    kind: Kind,
    /// Of the frames that have begun.
    len: usize,
    empty_frames: u8,
    utf8: Utf8,
}

impl Decoder {
    /// Of a client that sends messages of one kind, or of both, with at most `limit` bytes.
    pub(super) fn new(takes: Option<Kind>, limit: usize) -> Self {
        Self { takes, limit, head: SmallVec::new(), frame: None, message: None, control: BytesMut::new() }
    }

    /// True while a frame or a message has begun, and its end has not come.
    pub(super) fn is_amid(&self) -> bool {
        self.frame.is_some() || self.message.is_some() || !self.head.is_empty()
    }

    /// Takes the next part from the front of `piece`; `None` when more has to come first, and then the piece is empty.
    pub(super) fn next(&mut self, piece: &mut BytesMut) -> Result<Option<Part>, Breach> {
        loop {
            let (head, come) = match self.frame {
                Some(frame) => frame,
                None => {
                    let Some(head) = self.next_head(piece)? else { return Ok(None) };
                    self.begin(head)?;
                    (head, 0)
                }
            };
            let left = head.len - come;
            if left > 0 && piece.is_empty() {
                self.frame = Some((head, come));
                return Ok(None);
            }
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            // A message that comes alone keeps the piece to itself.
            let mut payload = if some == piece.len() { std::mem::take(piece) } else { piece.split_to(some) };
            unmask(&mut payload, head.mask, come);
            let left = left - some as u64;
            self.frame = (left > 0).then_some((head, come + some as u64));
            let part = if head.opcode.is_control() {
                self.control(head.opcode, payload, left == 0)?
            } else {
                self.data(head, payload, left as usize)?
            };
            if part.is_some() {
                return Ok(part);
            }
        }
    }

    /// The next head, once it is complete.
    fn next_head(&mut self, piece: &mut BytesMut) -> Result<Option<Head>, Breach> {
        loop {
            let wanted = match self.head[..] {
                [first, second, ..] => Head::bytes(first, second)?,
                _ => 2,
            };
            if self.head.len() == wanted {
                let head = Head::parse(&self.head)?;
                self.head.clear();
                return Ok(Some(head));
            }
            if piece.is_empty() {
                return Ok(None);
            }
            let some = (wanted - self.head.len()).min(piece.len());
            self.head.extend_from_slice(&piece[..some]);
            piece.advance(some);
        }
    }

    /// A frame begins.
    fn begin(&mut self, head: Head) -> Result<(), Breach> {
        let message = match (head.opcode, &mut self.message) {
            (Opcode::Message(kind), None) => {
                if self.takes.is_some_and(|takes| takes != kind) {
                    return Err(Breach::Kind(kind));
                }
                self.message.insert(Message { kind, len: 0, empty_frames: 0, utf8: Utf8::default() })
            }
            (Opcode::Message(_), Some(_)) => {
                return Err(Breach::Protocol("a message begins before the one before it is complete"));
            }
            (Opcode::Continuation, Some(message)) => message,
            (Opcode::Continuation, None) => return Err(Breach::Protocol("a message goes on that has not begun")),
            _ => return Ok(()),
        };
        let room = self.limit - message.len;
        message.len += usize::try_from(head.len).ok().filter(|len| *len <= room).ok_or(Breach::TooLarge(self.limit))?;
        if head.len == 0 && !head.last {
            message.empty_frames += 1;
            if message.empty_frames > MAX_EMPTY_FRAMES {
                return Err(Breach::Flood("a message has more than 16 empty frames"));
            }
        }
        Ok(())
    }

    /// Some of a message, of whose frame so much has not come yet.
    fn data(&mut self, head: Head, payload: BytesMut, ahead: usize) -> Result<Option<Part>, Breach> {
        let Some(message) = &mut self.message else { return Ok(None) };
        let (kind, last) = (message.kind, head.last && ahead == 0);
        let ahead = if head.last { ahead } else { ahead + self.limit - message.len };
        if kind == Kind::Text && !(message.utf8.take(&payload) && (!last || message.utf8.is_whole())) {
            return Err(Breach::NotUtf8);
        }
        if last {
            self.message = None;
        }
        let says_something = last || !payload.is_empty();
        Ok(says_something.then_some(Part::Data { payload, kind, ahead, last }))
    }

    /// Some of a control frame.
    fn control(&mut self, opcode: Opcode, payload: BytesMut, whole: bool) -> Result<Option<Part>, Breach> {
        if !whole || !self.control.is_empty() {
            self.control.extend_from_slice(&payload);
        }
        if !whole {
            return Ok(None);
        }
        let payload = if self.control.is_empty() { payload } else { std::mem::take(&mut self.control) };
        Ok(Some(match opcode {
            Opcode::Ping => Part::Ping(payload),
            Opcode::Close => Part::Close(closing(&payload)?),
            _ => Part::Pong,
        }))
    }
}

/// Why a client closes.
fn closing(payload: &[u8]) -> Result<Option<u16>, Breach> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        let broken = Breach::Protocol("a close has half a code");
        return if payload.is_empty() { Ok(None) } else { Err(broken) };
    };
    let code = u16::from_be_bytes(*code);
    if !close::is_valid(code) {
        return Err(Breach::Protocol("a close has a code that means nothing"));
    }
    std::str::from_utf8(reason).map_err(|_| Breach::NotUtf8)?;
    Ok(Some(code))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1000;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..126 => out.push(0x80 | len as u8),
            len @ 126..65_536 => {
                out.push(0xFE);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                out.push(0xFF);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        out
    }

    /// What a client has said, with messages put together.
    #[derive(Debug, Clone, PartialEq, Eq)]
    enum Said {
        Message(Kind, Vec<u8>),
        Ping(Vec<u8>),
        Pong,
        Close(Option<u16>),
    }

    /// Everything that is said in pieces of a size, and how it ends.
    fn decode_with(mut decoder: Decoder, bytes: &[u8], size: usize) -> (Vec<Said>, Result<bool, Breach>) {
        let (mut said, mut message) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut piece = BytesMut::from(piece);
            loop {
                match decoder.next(&mut piece) {
                    Ok(None) => break,
                    Err(breach) => return (said, Err(breach)),
                    Ok(Some(Part::Data { payload, kind, last, .. })) => {
                        message.extend_from_slice(&payload);
                        if last {
                            said.push(Said::Message(kind, std::mem::take(&mut message)));
                        }
                    }
                    Ok(Some(Part::Ping(payload))) => said.push(Said::Ping(payload.to_vec())),
                    Ok(Some(Part::Pong)) => said.push(Said::Pong),
                    Ok(Some(Part::Close(code))) => said.push(Said::Close(code)),
                }
            }
            assert!(piece.is_empty(), "something was left");
        }
        (said, Ok(decoder.is_amid()))
    }

    fn decode(bytes: &[u8], size: usize) -> (Vec<Said>, Result<bool, Breach>) {
        decode_with(Decoder::new(None, LIMIT), bytes, size)
    }

    fn breach(frames: &[Vec<u8>]) -> Breach {
        let bytes = frames.concat();
        let (_, at_once) = decode(&bytes, usize::MAX);
        assert_eq!(decode(&bytes, 1).1, at_once, "however it comes");
        at_once.expect_err("a breach")
    }

    fn code(frames: &[Vec<u8>]) -> u16 {
        breach(frames).code()
    }

    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

    #[test]
    fn a_message_has_as_many_bytes_as_the_limit_and_not_one_more() {
        let whole = |len: usize| decode(&frame(0x82, &vec![7; len], MASK), 64);
        assert_eq!(whole(LIMIT), (vec![Said::Message(Kind::Binary, vec![7; LIMIT])], Ok(false)));
        assert_eq!(whole(LIMIT + 1), (vec![], Err(Breach::TooLarge(LIMIT))));
        let parts = |last: usize| [frame(0x02, &vec![7; LIMIT - 10], MASK), frame(0x80, &vec![7; last], MASK)];
        assert_eq!(decode(&parts(10).concat(), 7).1, Ok(false));
        assert_eq!(breach(&parts(11)), Breach::TooLarge(LIMIT));
        // The largest length that can be announced.
        let mut huge = frame(0x82, &[], MASK);
        huge.splice(1..2, [0xFF; 9]);
        assert_eq!(breach(&[huge]), Breach::TooLarge(LIMIT));
    }

    #[test]
    fn parts_of_a_message_come_in_order_and_control_frames_between_them() {
        let bytes = [
            frame(0x01, "αβ".as_bytes(), MASK),
            frame(0x89, b"are you there", [1; 4]),
            frame(0x00, b"", MASK),
            frame(0x8A, b"", MASK),
            frame(0x80, b"c", [0; 4]),
            frame(0x88, &[0x03, 0xE8, b'o', b'k'], MASK),
        ];
        let said = vec![
            Said::Ping(b"are you there".to_vec()),
            Said::Pong,
            Said::Message(Kind::Text, "αβc".as_bytes().to_vec()),
            Said::Close(Some(1000)),
        ];
        for size in 1..bytes.concat().len() {
            assert_eq!(decode(&bytes.concat(), size), (said.clone(), Ok(false)), "{size}");
        }
    }

    #[test]
    fn messages_do_not_mix() {
        assert_eq!(code(&[frame(0x80, b"a", MASK)]), close::PROTOCOL);
        assert_eq!(code(&[frame(0x01, b"a", MASK), frame(0x81, b"b", MASK)]), close::PROTOCOL);
        assert_eq!(decode(&frame(0x01, b"a", MASK), 100), (vec![], Ok(true)), "it is not complete");
        assert_eq!(decode(&frame(0x81, b"abc", MASK)[..4], 100), (vec![], Ok(true)), "nor is its head");
    }

    #[test]
    fn a_client_keeps_to_the_kind_it_has_chosen() {
        for (takes, first) in [(Kind::Text, 0x82), (Kind::Binary, 0x81), (Kind::Text, 0x02), (Kind::Binary, 0x01)] {
            let (said, end) = decode_with(Decoder::new(Some(takes), LIMIT), &frame(first, b"a", MASK), 3);
            assert_eq!((said, end.map_err(Breach::code)), (vec![], Err(close::UNSUPPORTED)));
        }
        let (said, _) = decode_with(Decoder::new(Some(Kind::Text), LIMIT), &frame(0x81, b"a", MASK), 3);
        assert_eq!(said, [Said::Message(Kind::Text, b"a".to_vec())]);
    }

    #[test]
    fn a_message_has_sixteen_empty_frames_and_not_one_more() {
        let message = |empty: usize| {
            let more = std::iter::repeat_n(frame(0x00, b"", MASK), empty - 1);
            std::iter::once(frame(0x02, b"", MASK)).chain(more).chain([frame(0x80, b"", MASK)]).collect::<Vec<_>>()
        };
        assert_eq!(decode(&message(16).concat(), 1000), (vec![Said::Message(Kind::Binary, vec![])], Ok(false)));
        assert_eq!(code(&message(17)), close::POLICY);
        // Each message has its own.
        assert_eq!(decode(&[message(16), message(16)].concat().concat(), 1000).1, Ok(false));
    }

    #[test]
    fn a_text_is_utf8_and_what_is_not_is_known_early() {
        let bad = frame(0x81, b"ab\xFFcd", MASK);
        assert_eq!(breach(std::slice::from_ref(&bad)), Breach::NotUtf8);
        assert_eq!(decode(&bad[..9], 100).1, Err(Breach::NotUtf8), "before all of it has come");
        assert_eq!(breach(&[frame(0x81, b"\xE2\x82", MASK)]), Breach::NotUtf8, "it ends amid a character");
        assert_eq!(breach(&[frame(0x01, b"\xE2\x82", MASK), frame(0x80, b"a", MASK)]), Breach::NotUtf8);
        let cut = [frame(0x01, b"\xE2\x82", MASK), frame(0x80, b"\xAC", MASK)];
        assert_eq!(decode(&cut.concat(), 3).0, [Said::Message(Kind::Text, "€".as_bytes().to_vec())]);
        assert_eq!(decode(&frame(0x82, b"\xFF", MASK), 3).1, Ok(false), "bytes are not");
    }

    #[test]
    fn a_close_says_why_or_nothing() {
        assert_eq!(decode(&frame(0x88, b"", MASK), 9).0, [Said::Close(None)]);
        assert_eq!(decode(&frame(0x88, &[0x0F, 0xA0], MASK), 9).0, [Said::Close(Some(4000))]);
        assert_eq!(code(&[frame(0x88, &[0x03], MASK)]), close::PROTOCOL);
        assert_eq!(code(&[frame(0x88, &[0x03, 0xED], MASK)]), close::PROTOCOL, "1005 is never sent");
        assert_eq!(breach(&[frame(0x88, &[0x03, 0xE8, 0xFF], MASK)]), Breach::NotUtf8);
    }

    /// Messages in frames, and what they say.
    fn conversation() -> impl Strategy<Value = (Vec<u8>, Vec<Said>)> {
        let control = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..126).prop_map(|ping| (0x89, ping)),
            proptest::collection::vec(any::<u8>(), 0..126).prop_map(|pong| (0x8A, pong)),
        ];
        let payload = prop_oneof![
            ".{0,80}".prop_map(|text| (Kind::Text, text.into_bytes())),
            proptest::collection::vec(any::<u8>(), 0..LIMIT).prop_map(|bytes| (Kind::Binary, bytes)),
        ];
        let cuts = proptest::collection::vec(any::<prop::sample::Index>(), 0..4);
        let message = (payload, cuts, proptest::collection::vec(control, 0..3), any::<[u8; 4]>());
        proptest::collection::vec(message, 0..6).prop_map(|messages| {
            let (mut bytes, mut said) = (Vec::new(), Vec::new());
            for ((kind, payload), cuts, controls, mask) in messages {
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
                cuts.sort_unstable();
                cuts.push(payload.len());
                let (mut at, mut first) = (0, if kind == Kind::Text { 1 } else { 2 });
                let mut controls = controls.into_iter();
                for (n, end) in cuts.iter().enumerate() {
                    let fin = if n + 1 == cuts.len() { 0x80 } else { 0 };
                    bytes.extend(frame(fin | first, &payload[at..*end], mask));
                    (at, first) = (*end, 0);
                    if fin == 0
                        && let Some((opcode, payload)) = controls.next()
                    {
                        bytes.extend(frame(opcode, &payload, mask));
                        said.push(if opcode == 0x89 { Said::Ping(payload) } else { Said::Pong });
                    }
                }
                said.push(Said::Message(kind, payload));
            }
            (bytes, said)
        })
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_what_comes_is_cut((bytes, said) in conversation(), size in 1..2_000_usize) {
            prop_assert_eq!(decode(&bytes, size), (said, Ok(false)));
        }

        #[test]
        fn noise_ends_the_same_wherever_it_is_cut(bytes: Vec<u8>, size in 1..9_usize) {
            prop_assert_eq!(decode(&bytes, size), decode(&bytes, usize::MAX));
        }

        #[test]
        fn no_more_is_said_to_come_than_may(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut decoder = Decoder::new(None, LIMIT);
            let mut piece = BytesMut::from(&bytes[..]);
            let mut come = 0;
            while let Ok(Some(part)) = decoder.next(&mut piece) {
                if let Part::Data { payload, ahead, last, .. } = part {
                    come += payload.len();
                    prop_assert!(come + ahead <= LIMIT);
                    come = if last { 0 } else { come };
                }
            }
        }
    }
}
