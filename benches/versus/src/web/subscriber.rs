//! One subscriber behind a door for the web: it says what it wants, and takes apart what comes.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use memchr::memmem;
use prost::Message;
use switchyard::{
    bench::{Check, Receive, opaque},
    proto::v1::{
        SessionRequest, SessionResponse, Subscribe, SubscriptionSpec, session_request::Command, session_response::Frame,
    },
};

use super::{cut, wire::Wire};

/// The way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// WebSocket of the hub, in protobuf.
    WebSocket,
    /// The same in JSON.
    Json,
    /// Event streams of the hub.
    Events,
    /// WebSocket of NATS.
    Nats,
}

/// A subscriber that is subscribed.
#[derive(Debug)]
pub(super) struct Subscriber {
    wire: Wire,
    cutter: Cutter,
}

impl Subscriber {
    /// Connects, and is subscribed when it returns.
    pub(super) async fn connect(at: SocketAddr, door: Door, filter: &str) -> anyhow::Result<Self> {
        let mut wire = connect(at, door, filter).await?;
        match door {
            Door::WebSocket => {
                let spec = SubscriptionSpec { filters: vec![filter.to_owned()], ..SubscriptionSpec::default() };
                let subscribe = Command::Subscribe(Subscribe { subscription_id: 1, spec: Some(spec) });
                let request = SessionRequest { request_id: 1, command: Some(subscribe) };
                wire.send(&cut::frame(cut::BINARY, &request.encode_to_vec())).await?;
            }
            Door::Json => {
                let request = format!(r#"{{"subscribe":{{"subscriptionId":1,"spec":{{"filters":["{filter}"]}}}}}}"#);
                wire.send(&cut::frame(cut::TEXT, request.as_bytes())).await?;
            }
            Door::Events => {}
            Door::Nats => {
                let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {filter} 1\r\nPING\r\n");
                wire.send(&cut::frame(cut::BINARY, hello.as_bytes())).await?;
            }
        }
        let mut subscriber = Self { wire, cutter: Cutter::new(door) };
        subscriber.wait_for(Door::is_subscribed).await?;
        Ok(subscriber)
    }

    /// Connects, does nothing, and is known to the server when it returns.
    pub(super) async fn idle(at: SocketAddr, door: Door) -> anyhow::Result<Self> {
        let mut wire = connect(at, door, "").await?;
        if door == Door::Nats {
            wire.send(&cut::frame(cut::BINARY, b"CONNECT {\"verbose\":false}\r\nPING\r\n")).await?;
        }
        let mut subscriber = Self { wire, cutter: Cutter::new(door) };
        subscriber.wait_for(|door, message| door != Door::Nats || door.is_subscribed(message)).await?;
        Ok(subscriber)
    }

    /// Waits until a message has come that is meant.
    async fn wait_for(&mut self, is_it: impl Fn(Door, &[u8]) -> bool) -> anyhow::Result<()> {
        let Self { wire, cutter } = self;
        let mut found = false;
        wire.first(|come| cutter.find(come, &is_it, &mut found))?;
        while !found {
            wire.read(|come| cutter.find(come, &is_it, &mut found)).await?;
        }
        Ok(())
    }
}

async fn connect(at: SocketAddr, door: Door, filter: &str) -> anyhow::Result<Wire> {
    match door {
        Door::WebSocket => Wire::websocket(at, "/v1/ws", Some("switchyard.v1.proto")).await,
        Door::Json => Wire::websocket(at, "/v1/ws", Some("switchyard.v1.json")).await,
        Door::Events => Wire::events(at, &format!("/v1/events?filter={filter}")).await,
        Door::Nats => Wire::websocket(at, "/", None).await,
    }
}

impl Receive for Subscriber {
    async fn receive(&mut self, check: &mut impl Check) -> anyhow::Result<()> {
        let Self { wire, cutter } = self;
        wire.read(|come| cutter.each(come, |cutter, message| cutter.show(message, check))).await?;
        if !cutter.answer.is_empty() {
            wire.send(&std::mem::take(&mut cutter.answer)).await?;
        }
        Ok(())
    }
}

/// Takes apart what comes.
#[derive(Debug)]
struct Cutter {
    door: Door,
    /// So many bytes of a frame or chunk that has begun were not used.
    left: usize,
    /// What the server wants to hear.
    answer: Vec<u8>,
    /// For a payload that was in base64.
    room: Vec<u8>,
}

impl Cutter {
    fn new(door: Door) -> Self {
        Self { door, left: 0, answer: Vec::new(), room: Vec::new() }
    }

    /// Shows every message that is whole. Says how many bytes they have.
    fn each(
        &mut self,
        come: &[u8],
        mut seen: impl FnMut(&mut Self, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let mut rest = come;
        while let Some(message) = self.next(&mut rest)? {
            seen(self, message)?;
        }
        Ok(come.len() - rest.len())
    }

    /// Looks among all messages that are whole for one that is meant. Says how many bytes they have.
    fn find(&mut self, come: &[u8], is_it: &impl Fn(Door, &[u8]) -> bool, found: &mut bool) -> anyhow::Result<usize> {
        self.each(come, |cutter, message| {
            *found |= is_it(cutter.door, message);
            Ok(())
        })
    }

    /// The next message.
    fn next<'a>(&mut self, rest: &mut &'a [u8]) -> anyhow::Result<Option<&'a [u8]>> {
        loop {
            let head = match self.door {
                _ if self.left > 0 => return self.within(rest),
                Door::Events => cut::chunk_head(rest)?,
                Door::WebSocket | Door::Json | Door::Nats => match cut::frame_head(rest) {
                    Some((cut::TEXT | cut::BINARY, head, len)) => Some((head, len)),
                    Some((cut::PING, head, len)) => {
                        let Some(payload) = rest.get(head..head + len) else { return Ok(None) };
                        self.answer.extend_from_slice(&cut::frame(cut::PONG, payload));
                        *rest = &rest[head + len..];
                        continue;
                    }
                    Some((opcode, ..)) => bail!("not expected in a load: a frame with opcode {opcode}"),
                    None => None,
                },
            };
            let Some((head, len)) = head else { return Ok(None) };
            if matches!(self.door, Door::WebSocket | Door::Json) {
                // A frame is a message.
                let Some(message) = rest.get(head..head + len) else { return Ok(None) };
                *rest = &rest[head + len..];
                return Ok(Some(message));
            }
            (*rest, self.left) = (&rest[head..], len);
        }
    }

    /// The next message of a frame or chunk that has several.
    fn within<'a>(&mut self, rest: &mut &'a [u8]) -> anyhow::Result<Option<&'a [u8]>> {
        let come = &rest[..self.left.min(rest.len())];
        let len = if self.door == Door::Events { cut::event_message(come) } else { cut::nats_message(come)? };
        let Some(len) = len else {
            ensure!(come.len() < self.left, "a message does not end with its frame");
            return Ok(None);
        };
        self.left -= len;
        let (message, behind) = rest.split_at(len);
        *rest = behind;
        Ok(Some(message))
    }

    /// Shows the payloads of a message. One that has none has to be one that is expected.
    fn show(&mut self, message: &[u8], check: &mut impl Check) -> anyhow::Result<()> {
        let (seen, expected) = match self.door {
            Door::WebSocket => {
                let seen = opaque::each_in_session(message, check);
                let frame = || SessionResponse::decode(message).ok().and_then(|response| response.frame);
                (seen, seen.is_none() && matches!(frame(), Some(Frame::Heartbeat(_))))
            }
            Door::Json => (cut::json_payloads(message, &mut self.room, check), message.starts_with(b"{\"heartbeat\"")),
            Door::Events => (cut::json_payloads(message, &mut self.room, check), message.starts_with(b":")),
            Door::Nats => {
                let seen = cut::nats_payload(message).map(|payload| check.check(payload));
                if message == b"PING\r\n" {
                    self.answer.extend_from_slice(&cut::frame(cut::BINARY, b"PONG\r\n"));
                }
                (seen, message == b"PING\r\n" || message.starts_with(b"INFO "))
            }
        };
        seen.or(expected.then_some(()))
            .with_context(|| format!("not expected in a load: {}", String::from_utf8_lossy(message)))
    }
}

impl Door {
    /// Whether the server says that what was asked for is there.
    fn is_subscribed(self, message: &[u8]) -> bool {
        match self {
            Self::WebSocket => {
                let frame = SessionResponse::decode(message).ok().and_then(|response| response.frame);
                matches!(frame, Some(Frame::Subscribed(_)))
            }
            Self::Json => {
                message.starts_with(b"{\"subscribed\"") || memmem::find(message, b",\"subscribed\"").is_some()
            }
            Self::Events => message.starts_with(b"event: subscribed\n"),
            Self::Nats => message == b"PONG\r\n",
        }
    }
}
