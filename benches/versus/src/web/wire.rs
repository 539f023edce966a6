//! A connection of a subscriber: bytes come, are cut, and what is not whole waits for the rest.
//!
//! All of them read into the same memory, which so stays in the cache: with a buffer each, a thousand of them would measure
//! that of the load.

use std::{cell::RefCell, io::ErrorKind, net::SocketAddr};

use anyhow::{Context, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// As much is read at a time; more where a message is larger.
const ROOM_BYTES: usize = 256 * 1024;
/// The head of a response is shorter.
const MOST_HEAD_BYTES: usize = 16 * 1024;
/// The key of every handshake and what answers it, as RFC 6455 has them for an example.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

thread_local! {
    static ROOM: RefCell<Vec<u8>> = RefCell::new(vec![0; ROOM_BYTES]);
}

/// A connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// What has come and was not used.
    rest: Vec<u8>,
}

impl Wire {
    /// Connects and asks for an event stream.
    pub(super) async fn events(at: SocketAddr, path: &str) -> anyhow::Result<Self> {
        let (wire, head) = Self::ask(at, &format!("GET {path} HTTP/1.1\r\nhost: {at}\r\n\r\n")).await?;
        ensure!(head.contains("200 OK") && head.contains("transfer-encoding: chunked"), "no event stream: {head}");
        Ok(wire)
    }

    /// Connects and begins a WebSocket.
    pub(super) async fn websocket(at: SocketAddr, path: &str, protocol: Option<&str>) -> anyhow::Result<Self> {
        let protocol = protocol.map_or_else(String::new, |name| format!("sec-websocket-protocol: {name}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {at}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n{protocol}\r\n"
        );
        let (wire, head) = Self::ask(at, &request).await?;
        ensure!(head.contains("101") && head.contains(ACCEPT), "no WebSocket: {head}");
        Ok(wire)
    }

    /// Sends a request. Gives the head of the response, too.
    async fn ask(at: SocketAddr, request: &str) -> anyhow::Result<(Self, String)> {
        let mut stream = TcpStream::connect(at).await.with_context(|| format!("nobody answers at {at}"))?;
        stream.set_nodelay(true)?;
        stream.write_all(request.as_bytes()).await?;
        let mut come = Vec::new();
        loop {
            if let Some(end) = memchr::memmem::find(&come, b"\r\n\r\n") {
                let rest = come.split_off(end + 4);
                return Ok((Self { stream, rest }, String::from_utf8_lossy(&come).into_owned()));
            }
            ensure!(come.len() < MOST_HEAD_BYTES, "the head of a response has no end");
            ensure!(stream.read_buf(&mut come).await? > 0, "the server hung up");
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Waits for bytes and shows them, those that were not used before first. `cut` says how many it uses.
    pub(super) async fn read(&mut self, mut cut: impl FnMut(&[u8]) -> anyhow::Result<usize>) -> anyhow::Result<()> {
        loop {
            self.stream.readable().await?;
            if ROOM.with_borrow_mut(|room| self.try_read(room, &mut cut))? {
                return Ok(());
            }
        }
    }

    /// False when nothing has come.
    fn try_read(
        &mut self,
        room: &mut Vec<u8>,
        cut: &mut impl FnMut(&[u8]) -> anyhow::Result<usize>,
    ) -> anyhow::Result<bool> {
        let kept = self.rest.len();
        if room.len() < 2 * kept {
            room.resize(4 * kept, 0);
        }
        room[..kept].copy_from_slice(&self.rest);
        let come = match self.stream.try_read(&mut room[kept..]) {
            Ok(0) => bail!("the server hung up"),
            Ok(come) => &room[..kept + come],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let used = cut(come)?;
        self.rest.clear();
        self.rest.extend_from_slice(&come[used..]);
        Ok(true)
    }

    /// Shows what came right behind the head of the response.
    pub(super) fn first(&mut self, mut cut: impl FnMut(&[u8]) -> anyhow::Result<usize>) -> anyhow::Result<()> {
        let used = cut(&self.rest)?;
        self.rest.drain(..used);
        Ok(())
    }
}
