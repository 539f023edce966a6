//! What comes to pages: WebSocket, for the hub and for NATS, and event streams.
//!
//! Publishers are those of every other load, so that nothing but the way to subscribers differs. Subscribers are as bare as
//! can be, that the load is not what is measured: `wire` reads a connection and has what comes cut into messages, `cut` knows
//! where they end, and `subscriber` what is in them. `idle` counts memory.

mod cut;
pub(crate) mod idle;
mod subscriber;
mod wire;

use std::{fs, net::SocketAddr};

use anyhow::{Context, bail};
use switchyard::bench::{HubSide, Plan, Side};

use crate::{
    child::Server,
    contender::{Contender, Ground, Run, WITHOUT_STREAMS, hub, load},
    nats::NatsSide,
};
use subscriber::{Door, Subscriber};

/// How the hub and NATS are told to listen for the web.
const HUB_LISTEN: [&str; 2] = ["--set", "web.listen=127.0.0.1:0"];
const NATS_LISTEN: &str = "websocket {\n  listen: \"127.0.0.1:-1\"\n  no_tls: true\n}\n";

/// What is compared: a server, and the way from it to its subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// The hub over gRPC.
    Grpc,
    /// The hub over WebSocket, in protobuf.
    WebSocket,
    /// The same in JSON.
    Json,
    /// Event streams of the hub over HTTP/1.1.
    Events,
    /// NATS over WebSocket.
    NatsWebSocket,
}

impl Way {
    pub(crate) fn contender(self) -> Contender {
        if self == Self::NatsWebSocket { Contender::Nats } else { Contender::Hub }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "hub over gRPC",
            Self::WebSocket => "hub over WebSocket",
            Self::Json => "hub over WebSocket in JSON",
            Self::Events => "event streams of the hub",
            Self::NatsWebSocket => "nats over WebSocket",
        }
    }
}

/// Puts a load on a fresh server. Any fault is an error.
pub(crate) async fn measure(ground: &Ground, way: Way, plan: &Plan) -> anyhow::Result<Run> {
    let server = start(ground, way.contender()).await?;
    let side = match way {
        Way::Grpc => return load(&hub(&server), &server, plan).await,
        Way::WebSocket => hub_side(&server, Door::WebSocket),
        Way::Json => hub_side(&server, Door::Json),
        Way::Events => hub_side(&server, Door::Events),
        Way::NatsWebSocket => {
            let publishes = NatsSide { address: server.address };
            return load(&Web { publishes, door: Door::Nats, at: server.web_address()? }, &server, plan).await;
        }
    };
    load(&side?, &server, plan).await
}

/// Starts a server that listens for the web.
async fn start(ground: &Ground, contender: Contender) -> anyhow::Result<Server> {
    match contender {
        Contender::Hub => {
            let more = [WITHOUT_STREAMS, HUB_LISTEN].concat();
            ground.launch(contender, &more, Some("\"web_address\":\"")).await
        }
        Contender::Nats => {
            fs::create_dir_all(&ground.logs).with_context(|| format!("cannot make {}", ground.logs.display()))?;
            let path = ground.logs.join("nats-websocket.conf");
            fs::write(&path, NATS_LISTEN).with_context(|| format!("cannot write {}", path.display()))?;
            let more = ["--config", &path.display().to_string()];
            ground.launch(contender, &more, Some("Listening for websocket clients on ws://")).await
        }
        Contender::Roofline => bail!("bare tonic does not speak to pages"),
    }
}

fn hub_side(server: &Server, door: Door) -> anyhow::Result<Web<HubSide>> {
    Ok(Web { publishes: hub(server), door, at: server.web_address()? })
}

/// A side whose subscribers come through a door for the web.
#[derive(Debug)]
struct Web<P> {
    publishes: P,
    door: Door,
    at: SocketAddr,
}

impl<P: Side> Side for Web<P> {
    type Publisher = P::Publisher;
    type Subscriber = Subscriber;

    async fn publisher(&self) -> anyhow::Result<P::Publisher> {
        self.publishes.publisher().await
    }

    async fn subscriber(&self, filters: &[String]) -> anyhow::Result<Subscriber> {
        let [filter] = filters else { bail!("a subscriber of the web has one filter") };
        Subscriber::connect(self.at, self.door, filter).await
    }
}
