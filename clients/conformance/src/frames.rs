//! Where the frames of HTTP/2 begin and end in what a hub sends, and a GOAWAY to put between them. Pure.

/// A frame begins with its length (3 bytes), its type, its flags, and its stream (4 bytes).
const HEADER: usize = 9;
const GOAWAY: u8 = 7;

/// Follows the bytes from a hub, which begin with a frame.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; HEADER],
    /// How much of a header is there,
    has: usize,
    /// or how much of the rest is to come.
    left: usize,
}

impl Frames {
    /// Whether the next byte is the first of a frame.
    pub fn is_between(&self) -> bool {
        self.has == 0 && self.left == 0
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
                self.header[self.has] = bytes[at];
                (self.has, at) = (self.has + 1, at + 1);
                if self.has < HEADER {
                    continue;
                }
                let [high, middle, low, ..] = self.header;
                self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.has = 0;
            }
            if self.is_between() {
                break;
            }
        }
        at
    }

    /// Goes on behind all of these bytes.
    pub fn advance(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            at += self.to_boundary(&bytes[at..]);
        }
    }
}

/// A GOAWAY without an error, of a peer that has handled no stream.
pub fn goaway() -> [u8; HEADER + 8] {
    let mut frame = [0; HEADER + 8];
    frame[2] = 8;
    frame[3] = GOAWAY;
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: u8) -> Vec<u8> {
        let mut frame = vec![0; HEADER + usize::from(length)];
        frame[2] = length;
        frame
    }

    #[test]
    fn boundaries_are_found_however_the_bytes_are_cut() {
        let bytes = [frame(0), frame(5), frame(200), frame(1)].concat();
        let expected = [9, 23, 232, 242];
        for size in 1..bytes.len() {
            let (mut frames, mut found, mut at) = (Frames::default(), Vec::new(), 0);
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
            assert_eq!(found, expected, "in parts of {size}");
        }
    }

    #[test]
    fn a_goaway_is_a_frame() {
        let mut frames = Frames::default();
        frames.advance(&goaway());
        assert!(frames.is_between());
    }
}
