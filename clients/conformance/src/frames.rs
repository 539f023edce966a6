//! Where the frames of HTTP/2 and of WebSocket begin and end in what a hub sends, and what a hub that goes away puts between
//! them. Pure.

use crate::hub::Listener;

/// A GOAWAY of HTTP/2 without an error, of a peer that has handled no stream: its length, its type, its flags, its stream, the
/// last stream, and the error.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// A close of a WebSocket with the code 1001.
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xe9];
/// The longest header of a frame.
const MAX_HEADER: usize = 10;
/// What ends the answer to the handshake of a WebSocket.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Follows the bytes from a hub, which begin with a frame or with the answer to a handshake.
#[derive(Debug)]
pub struct Frames {
    speaks: Speaks,
    header: [u8; MAX_HEADER],
    /// How much of a header is there,
    has: usize,
    /// or how much of the rest is to come.
    left: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http2,
    /// The answer to the handshake; how much of its end is there.
    Handshake(usize),
    WebSocket,
}

impl Frames {
    pub fn of(listener: Listener) -> Self {
        let speaks = match listener {
            Listener::Grpc => Speaks::Http2,
            Listener::Web => Speaks::Handshake(0),
        };
        Self { speaks, header: [0; MAX_HEADER], has: 0, left: 0 }
    }

    /// Whether the next byte is the first of a frame.
    pub fn is_between(&self) -> bool {
        self.has == 0 && self.left == 0 && !matches!(self.speaks, Speaks::Handshake(_))
    }

    /// What a hub says that goes away, between two frames.
    pub fn goaway(&self) -> &'static [u8] {
        if self.speaks == Speaks::Http2 { &GOAWAY } else { &CLOSE }
    }

    /// Goes on to the end of the current frame, or of the bytes: how many bytes that is.
    pub fn to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let step = self.left.min(bytes.len() - at);
                self.left -= step;
                at += step;
            } else {
                self.take(bytes[at]);
                at += 1;
            }
            if self.is_between() {
                break;
            }
        }
        at
    }

    /// A byte of a header, or of the answer to a handshake.
    fn take(&mut self, byte: u8) {
        if let Speaks::Handshake(has) = self.speaks {
            let has = if byte == END_OF_HEAD[has] { has + 1 } else { usize::from(byte == END_OF_HEAD[0]) };
            self.speaks = if has == END_OF_HEAD.len() { Speaks::WebSocket } else { Speaks::Handshake(has) };
            return;
        }
        self.header[self.has] = byte;
        self.has += 1;
        if let Some(left) = self.rest() {
            (self.left, self.has) = (left, 0);
        }
    }

    /// How long the rest of a frame is, once its header is there.
    fn rest(&self) -> Option<usize> {
        let header = &self.header[..self.has];
        if self.speaks == Speaks::Http2 {
            // Its length, its type, its flags, and its stream.
            let [high, middle, low, _, _, _, _, _, _] = *header else { return None };
            return Some(u32::from_be_bytes([0, high, middle, low]) as usize);
        }
        match *header {
            [_, length @ ..=125] => Some(usize::from(length)),
            [_, 126, high, low] => Some(usize::from(u16::from_be_bytes([high, low]))),
            [_, 127, ref length @ ..] => usize::try_from(u64::from_be_bytes(length.try_into().ok()?)).ok(),
            _ => None,
        }
    }

    /// Goes on behind all of these bytes.
    pub fn advance(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.to_boundary(&bytes[at..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(header: &[u8], length: usize) -> Vec<u8> {
        [header, &vec![0; length]].concat()
    }

    /// Where boundaries are found, however the bytes are cut.
    fn boundaries(listener: Listener, bytes: &[u8]) -> Vec<usize> {
        let mut all: Vec<Vec<usize>> = (1..bytes.len())
            .map(|size| {
                let (mut frames, mut found, mut at) = (Frames::of(listener), Vec::new(), 0);
                for part in bytes.chunks(size) {
                    let mut done = 0;
                    while done < part.len() {
                        done += frames.to_boundary(&part[done..]);
                        if frames.is_between() {
                            found.push(at + done);
                        }
                    }
                    at += part.len();
                }
                found
            })
            .collect();
        all.dedup();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn boundaries_of_http2_are_found() {
        let header = |length| [0, 0, length, 0, 0, 0, 0, 0, 0];
        let frames = [0, 5, 200, 1].map(|length: u8| frame(&header(length), length.into()));
        assert_eq!(boundaries(Listener::Grpc, &frames.concat()), [9, 23, 232, 242]);
    }

    #[test]
    fn boundaries_of_a_websocket_are_found_behind_its_handshake() {
        let head = b"HTTP/1.1 101 Switching\r\nX: \r\r\n\r\n".to_vec();
        let short = frame(&[0x81, 5], 5);
        let medium = frame(&[0x81, 126, 1, 0], 256);
        let long = frame(&[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536);
        let begin = head.len();
        let bytes = [&head[..], &short, &medium, &[0x89, 0]].concat();
        assert_eq!(boundaries(Listener::Web, &bytes), [begin, begin + 7, begin + 267, begin + 269]);
        let mut frames = Frames::of(Listener::Web);
        frames.advance(&[&head[..], &long].concat());
        assert!(frames.is_between());
    }

    #[test]
    fn what_says_that_a_hub_goes_away_is_a_frame() {
        for listener in [Listener::Grpc, Listener::Web] {
            let mut frames = Frames::of(listener);
            frames.advance(if listener == Listener::Web { END_OF_HEAD } else { b"" });
            frames.advance(frames.goaway());
            assert!(frames.is_between());
        }
    }
}
