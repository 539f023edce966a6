//! Standard input, line by line: each is the payload of an event.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Stdin};

use crate::proto::v1::event::Payload;

/// Lines that are there are taken together, at most this many,
pub(super) const MOST_LINES: usize = 500;
/// or about this many bytes: the last one may be a line of the longest.
pub(super) const MOST_BYTES: usize = 512 * 1024;
/// The longest line, in bytes: no hub can be set to take a larger event.
pub(super) const MAX_LINE_BYTES: usize = 3 * 1024 * 1024;

/// Standard input, in batches of the lines that are there.
pub(super) struct Lines {
    input: BufReader<Stdin>,
    /// A line that has begun; kept when waiting for its end is given up.
    partial: Vec<u8>,
    /// A failure that comes behind the lines before it.
    failure: Option<io::Error>,
}

impl Lines {
    pub(super) fn new() -> Self {
        let input = BufReader::with_capacity(64 * 1024, tokio::io::stdin());
        Self { input, partial: Vec::new(), failure: None }
    }

    /// Waits for one line and takes those behind it that need no waiting. Empty at the end. Cancel-safe: what has been
    /// read of a line is kept.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Payload>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut lines = Vec::new();
        let mut bytes = 0;
        loop {
            // One more shows that a line is too long, the rest of which nobody needs to read.
            let most = (MAX_LINE_BYTES + 1).saturating_sub(self.partial.len());
            (&mut self.input).take(most as u64).read_until(b'\n', &mut self.partial).await?;
            if self.partial.is_empty() {
                return Ok(lines);
            }
            let mut line = std::mem::take(&mut self.partial);
            if line.last() == Some(&b'\n') {
                line.pop();
            } else if line.len() > MAX_LINE_BYTES {
                let told = format!("a line has more than {MAX_LINE_BYTES} bytes, the limit for events of any hub");
                let failure = io::Error::new(io::ErrorKind::InvalidData, told);
                if lines.is_empty() {
                    return Err(failure);
                }
                self.failure = Some(failure);
                return Ok(lines);
            }
            bytes += line.len();
            lines.push(payload(line));
            let more_is_there = self.input.buffer().contains(&b'\n');
            if !more_is_there || lines.len() == MOST_LINES || bytes >= MOST_BYTES {
                return Ok(lines);
            }
        }
    }
}

/// A line as it is: bytes where it is no text.
fn payload(line: Vec<u8>) -> Payload {
    String::from_utf8(line).map_or_else(|error| Payload::Data(error.into_bytes().into()), Payload::Text)
}
