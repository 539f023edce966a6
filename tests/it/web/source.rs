//! A reader of event streams, as the standard of HTML has it, over plain HTTP/1.1.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::soon;

/// What a page hears: `message` for one without a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    pub event: String,
    pub data: String,
    /// The last id that came so far, this one included.
    pub id: String,
}

impl Heard {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {}", self.data))
    }

    /// The text of an event.
    pub fn text(&self) -> String {
        assert_eq!(self.event, "message", "{self:?}");
        self.json()["event"]["text"].as_str().unwrap_or_default().to_owned()
    }
}

/// An open stream.
pub struct Source {
    socket: BufReader<TcpStream>,
    pub status: u16,
    pub headers: String,
    lines: Vec<u8>,
    /// How much is still to come of a stream that was whole from the start; `None` for one that goes on.
    length: Option<usize>,
    /// The last id that came, also with something that nobody hears.
    pub last_id: String,
    /// What `retry` said last, in milliseconds.
    pub retry: Option<u64>,
    pub comments: usize,
}

impl Source {
    /// Asks for a path, with more headers.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let mut request = format!("GET {path} HTTP/1.1\r\naccept: text/event-stream\r\n");
        if headers.iter().all(|(name, _)| *name != "host") {
            request.extend(["host: ", &address.to_string(), "\r\n"]);
        }
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        socket.write_all(format!("{request}\r\n").as_bytes()).await.expect("sent");
        let (mut socket, mut head) = (BufReader::new(socket), String::new());
        while !head.ends_with("\r\n\r\n") {
            let more = soon("a head", socket.read_line(&mut head)).await.expect("a head");
            assert!(more > 0, "the connection ended: {head}");
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        let (headers, lines, last_id) = (head.to_lowercase(), Vec::new(), String::new());
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        Self { socket, status, headers, lines, length, last_id, retry: None, comments: 0 }
    }

    /// The same where it must be a stream.
    pub async fn stream(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let source = Self::open(address, path, headers).await;
        assert_eq!(source.status, 200, "{path}: {}", source.headers);
        assert!(source.headers.contains("content-type: text/event-stream\r\n"), "{}", source.headers);
        source
    }

    /// What is heard next; `None` when the stream has ended in order.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = self.block().await? {
                return Some(heard);
            }
        }
    }

    /// What the next block has that is heard, if anything; `None` when the stream has ended in order.
    pub async fn block(&mut self) -> Option<Option<Heard>> {
        loop {
            // A comment is a line by itself; all else ends with an empty line.
            let end: &[u8] = if self.lines.starts_with(b":") { b"\n" } else { b"\n\n" };
            if let Some(at) = self.lines.windows(end.len()).position(|bytes| bytes == end) {
                let block: Vec<u8> = self.lines.drain(..at + end.len()).collect();
                return Some(self.hear(std::str::from_utf8(&block).expect("UTF-8")));
            }
            if !soon("more of the stream", self.read_chunk()).await.expect("it ends in order") {
                assert!(self.lines.is_empty(), "half a message");
                return None;
            }
        }
    }

    /// The next that is heard by that name; others are not expected but `welcome`, `subscribed` and `progress`.
    pub async fn named(&mut self, name: &str) -> Heard {
        loop {
            let heard = self.next().await.unwrap_or_else(|| panic!("ended before {name}"));
            if heard.event == name {
                return heard;
            }
            assert!(["welcome", "subscribed", "progress"].contains(&heard.event.as_str()), "not {name}: {heard:?}");
        }
    }

    /// The texts of the next events.
    pub async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            texts.push(self.named("message").await.text());
        }
        texts
    }

    #[cfg(feature = "tools-tests")]
    /// Reads on for a time, in which something comes now and then; false when the stream ends before, in whatever way.
    pub async fn lives(&mut self, time: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < time {
            if !matches!(soon("more of the stream, or its end", self.read_chunk()).await, Ok(true)) {
                return false;
            }
        }
        true
    }

    /// False at the end; an error if that comes out of turn.
    async fn read_chunk(&mut self) -> std::io::Result<bool> {
        if let Some(length) = &mut self.length {
            let length = std::mem::take(length);
            let mut whole = vec![0; length];
            self.socket.read_exact(&mut whole).await?;
            self.lines.extend_from_slice(&whole);
            return Ok(length > 0);
        }
        let mut size = String::new();
        self.socket.read_line(&mut size).await?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        self.socket.read_exact(&mut chunk).await?;
        assert!(chunk.ends_with(b"\r\n"));
        self.lines.extend_from_slice(&chunk[..size]);
        Ok(size > 0)
    }

    fn hear(&mut self, block: &str) -> Option<Heard> {
        let (mut event, mut data) = ("message".to_owned(), None::<String>);
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" => self.comments += 1,
                "id" => value.clone_into(&mut self.last_id),
                "event" => value.clone_into(&mut event),
                "retry" => self.retry = Some(value.parse().expect("milliseconds")),
                "data" => data = Some(data.map_or_else(|| value.to_owned(), |before| format!("{before}\n{value}"))),
                other => panic!("an unknown field {other}"),
            }
        }
        data.map(|data| Heard { event, data, id: self.last_id.clone() })
    }
}
