//! Where messages end: frames of WebSocket, chunks of HTTP/1.1, messages of an event stream, lines of NATS. Pure.

use anyhow::{Context, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use memchr::{memchr, memmem};
use switchyard::bench::Check;

/// In the first byte of a frame: it is the last of its message.
const FIN: u8 = 0x80;
/// In the second byte: it is masked.
const MASKED: u8 = 0x80;
/// In its place of the length: that is in the next two bytes, or in the next eight.
const IN_TWO_BYTES: u8 = 0x7e;
const IN_EIGHT_BYTES: u8 = 0x7f;
/// Opcodes.
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xA;
/// Before and behind the payload of an event in JSON.
const DATA: &[u8] = b"\"data\":\"";
const QUOTE: u8 = b'"';

/// The head of a frame of a server: its opcode, its bytes, and those of its payload. `None` when it is not whole.
pub(super) fn frame_head(come: &[u8]) -> Option<(u8, usize, usize)> {
    let (&[first, second], rest) = come.split_first_chunk::<2>()?;
    let (head, len) = match second {
        IN_TWO_BYTES => (4, u64::from(u16::from_be_bytes(*rest.first_chunk()?))),
        IN_EIGHT_BYTES => (10, u64::from_be_bytes(*rest.first_chunk()?)),
        len => (2, u64::from(len)),
    };
    Some((first & 0x0f, head, usize::try_from(len).ok()?))
}

/// A frame of a client. Its mask is zero, which changes nothing.
pub(super) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![FIN | opcode];
    match u16::try_from(payload.len()) {
        Ok(len) if len < 126 => out.push(MASKED | len as u8),
        Ok(len) => {
            out.push(MASKED | IN_TWO_BYTES);
            out.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            out.push(MASKED | IN_EIGHT_BYTES);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// The head of a chunk, with the end of the one before: its bytes, and those of the chunk. `None` when it is not whole.
pub(super) fn chunk_head(come: &[u8]) -> anyhow::Result<Option<(usize, usize)>> {
    let line = come.strip_prefix(b"\r\n").unwrap_or(come);
    let Some(end) = memchr(b'\n', line) else { return Ok(None) };
    let digits = std::str::from_utf8(&line[..end])?.trim_end();
    let len = usize::from_str_radix(digits, 16).with_context(|| format!("{digits:?} begins no chunk"))?;
    ensure!(len > 0, "the event stream ended");
    Ok(Some((come.len() - line.len() + end + 1, len)))
}

/// The bytes of the next message of an event stream, with the empty line behind it. `None` when it is not whole.
pub(super) fn event_message(come: &[u8]) -> Option<usize> {
    let mut end = 0;
    loop {
        end += memchr(b'\n', &come[end..])? + 1;
        if *come.get(end)? == b'\n' {
            return Some(end + 1);
        }
    }
}

/// The bytes of the next thing that a NATS server says, with its payload. `None` when it is not whole.
pub(super) fn nats_message(come: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = memchr(b'\n', come) else { return Ok(None) };
    let line = end + 1;
    if !come.starts_with(b"MSG ") {
        return Ok(Some(line));
    }
    let head = come[..end].strip_suffix(b"\r").context("a line of NATS has no end")?;
    let digits = head.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let mut len = 0;
    for digit in digits {
        ensure!(digit.is_ascii_digit() && len < 1 << 30, "a message of NATS has no length");
        len = len * 10 + usize::from(digit - b'0');
    }
    let whole = line + len + 2;
    Ok((come.len() >= whole).then_some(whole))
}

/// The payload of a message of NATS. `None` when it is none.
pub(super) fn nats_payload(message: &[u8]) -> Option<&[u8]> {
    if !message.starts_with(b"MSG ") {
        return None;
    }
    let line = memchr(b'\n', message)? + 1;
    message.get(line..message.len().checked_sub(2)?)
}

/// Shows the payloads of events in JSON, in order. `None` when there are none.
pub(super) fn json_payloads(json: &[u8], room: &mut Vec<u8>, check: &mut impl Check) -> Option<()> {
    let mut rest = json.get(memmem::find(json, DATA)? + DATA.len()..)?;
    loop {
        let end = memchr(QUOTE, rest)?;
        room.resize(end, 0);
        let len = STANDARD.decode_slice(&rest[..end], room).ok()?;
        check.check(&room[..len]);
        match memmem::find(&rest[end..], DATA) {
            Some(next) => rest = &rest[end + next + DATA.len()..],
            None => return Some(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Seen(Vec<Vec<u8>>);

    impl Check for Seen {
        fn check(&mut self, payload: &[u8]) {
            self.0.push(payload.to_vec());
        }
    }

    #[test]
    fn frames_are_cut_at_every_length() {
        for len in [0, 125, 126, 65_535, 65_536] {
            let mut bytes = frame(BINARY, &vec![7; len]);
            // As a server would: without the mask.
            let mask = bytes.len() - len - 4;
            bytes.drain(mask..mask + 4);
            bytes[1] &= !MASKED;
            let (opcode, head, payload) = frame_head(&bytes).expect("a head");
            assert_eq!((opcode, head + payload, payload), (BINARY, bytes.len(), len));
            assert!(frame_head(&bytes[..head - 1]).is_none());
        }
    }

    #[test]
    fn chunks_and_messages_are_cut_once_they_are_whole() {
        assert_eq!(chunk_head(b"\r\n1f\r\nabc").expect("good"), Some((6, 31)));
        assert_eq!(chunk_head(b"1f\r").expect("good"), None);
        assert!(chunk_head(b"0\r\n").is_err() && chunk_head(b"x\r\n").is_err());
        assert_eq!(event_message(b"id: 1\ndata: {}\n\n:\n\n"), Some(16));
        assert_eq!((event_message(b"data: {}\n"), event_message(b"data")), (None, None));
        let come = b"MSG bench.fan 1 5\r\nab\ncd\r\nPING\r\n";
        assert_eq!(nats_message(come).expect("good"), Some(26));
        assert_eq!(nats_payload(&come[..26]), Some(&b"ab\ncd"[..]));
        assert_eq!(nats_message(&come[26..]).expect("good"), Some(6));
        assert_eq!(nats_message(&come[..25]).expect("good"), None);
        assert!(nats_message(b"MSG a 1 x\r\n").is_err());
    }

    #[test]
    fn every_payload_in_json_is_seen() {
        let (mut seen, mut room) = (Seen(Vec::new()), Vec::new());
        let json = br#"{"events":[{"event":{"data":"b25l"}},{"event":{"topic":"x","data":"MjI="},"n":1}]}"#;
        assert_eq!(json_payloads(json, &mut room, &mut seen), Some(()));
        assert_eq!(seen.0, [&b"one"[..], b"22"]);
        assert_eq!(json_payloads(b"{\"heartbeat\":{}}", &mut room, &mut seen), None);
    }
}
