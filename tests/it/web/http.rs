//! Plain HTTP/1.1, as any script speaks it.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use crate::harness::soon;

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request on a connection of its own. `Host` is the address unless it is among the headers.
pub async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let length = body.len().to_string();
    send(address, method, path, &[headers, &[("content-length", &length)]].concat(), body).await
}

/// The head of a POST, with a length for what then does not come.
pub async fn begin(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    send(address, "POST", path, headers, "").await
}

async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let request = request(address, method, path, &[headers, &[("connection", "close")]].concat());
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    socket.write_all((request + body).as_bytes()).await.expect("sent");
    let mut response = Vec::new();
    soon("a response", socket.read_to_end(&mut response)).await.expect("a response");
    let text = String::from_utf8_lossy(&response);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    read(head, body.to_owned())
}

/// The head of a request. `Host` is the address unless it is among the headers.
fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if headers.iter().all(|(name, _)| *name != "host") {
        request.extend(["host: ", &address.to_string(), "\r\n"]);
    }
    for (name, value) in headers {
        request.extend([name, ": ", value, "\r\n"]);
    }
    request + "\r\n"
}

fn read(head: &str, body: String) -> Answer {
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    Answer { status, headers: headers.collect(), body }
}

/// Requests one after the other, on a connection that is kept.
pub struct Conversation {
    address: SocketAddr,
    socket: BufReader<TcpStream>,
}

impl Conversation {
    pub async fn open(address: SocketAddr) -> Self {
        Self { address, socket: BufReader::new(TcpStream::connect(address).await.expect("a connection")) }
    }

    pub async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let length = body.len().to_string();
        self.begin(method, path, &[headers, &[("content-length", &length)]].concat()).await;
        self.send(body).await;
        self.answer().await
    }

    /// The head of a request whose body comes later.
    pub async fn begin(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        self.send(&request(self.address, method, path, headers)).await;
    }

    pub async fn send(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).await.expect("sent");
    }

    /// The next head, and the body it says there is.
    pub async fn answer(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let more = soon("a head", self.socket.read_line(&mut head)).await.expect("a head");
            assert!(more > 0, "the connection ended: {head:?}");
        }
        let mut answer = read(&head, String::new());
        let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        let mut body = vec![0; length];
        soon("a body", self.socket.read_exact(&mut body)).await.expect("a body");
        answer.body = String::from_utf8(body).expect("UTF-8");
        answer
    }

    /// Whether the hub ends the connection, and says no more.
    pub async fn is_ended(&mut self) -> bool {
        soon("the end", self.socket.read_u8()).await.is_err()
    }
}
