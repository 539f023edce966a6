//! A client's session over the simulated network. Every frame goes into the trace, and every frame is checked: each
//! subscribe is answered by one `subscribed` or one `ended`, and after `ended` no frame bears the id.

use std::{collections::HashMap, rc::Rc, time::Duration};

use hyper_util::rt::TokioIo;
use switchyard::proto::v1::{
    Hello, Ping, SessionRequest, SessionResponse, Subscribe, SubscriptionSpec, hub_service_client::HubServiceClient,
    session_request::Command as Wire, session_response::Frame,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Code, Streaming,
    transport::{Channel, Endpoint},
};

use crate::world::{PORT, World};

/// A client gives up what has not happened by then. Less than a hub waits for a client, so that whoever was given up by
/// its hub does not read any more what that sent before.
pub const PATIENCE: Duration = Duration::from_secs(3);

const PING_INTERVAL: Duration = Duration::from_secs(1);

/// A connection to the hub; none when there is no hub, or no way to it.
pub async fn connect() -> Option<Channel> {
    let endpoint = Endpoint::from_static("http://hub")
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1))
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(|_: http::Uri| async {
        turmoil::net::TcpStream::connect(("hub", PORT)).await.map(TokioIo::new)
    });
    timeout(PATIENCE, endpoint.connect_with_connector(connector)).await.ok()?.ok()
}

/// A call that failed with its connection.
pub fn is_lost(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}

/// The hub says that it cannot do it now, whatever was asked: it recovers, or its disk is full.
pub fn is_unavailable(code: i32) -> bool {
    [Code::Unavailable, Code::ResourceExhausted].map(i32::from).contains(&code)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Asked,
    Open,
    Ended,
}

/// What came.
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and its frame is matched with it")]
pub enum Next {
    Frame(i64, Frame),
    /// Nothing, for as long as was asked.
    Idle,
    /// The session is over.
    Lost,
}

pub struct Session {
    who: String,
    world: Rc<World>,
    commands: mpsc::Sender<SessionRequest>,
    frames: Streaming<SessionResponse>,
    pub id: String,
    /// Which hub it is.
    pub life: u64,
    known: HashMap<i64, State>,
    /// When the hub last answered a ping: what it says by itself does not tell that it hears.
    heard: Instant,
    pinged: Instant,
}

impl Session {
    pub async fn open(world: &Rc<World>, who: &str, client_name: &str) -> Option<Self> {
        Self::open_again(world, who, client_name, "").await
    }

    /// For a client that comes back, and says which session it had before.
    pub async fn open_again(world: &Rc<World>, who: &str, client_name: &str, before: &str) -> Option<Self> {
        let mut client = HubServiceClient::new(connect().await?);
        let (commands, receiver) = mpsc::channel(256);
        let heartbeat_interval = Some(prost_types::Duration { seconds: 1, nanos: 0 });
        let (client_name, previous_session_id) = (client_name.to_owned(), before.to_owned());
        let hello = Hello { client_name, previous_session_id, heartbeat_interval, ..Hello::default() };
        commands.send(SessionRequest { request_id: 0, command: Some(Wire::Hello(hello)) }).await.ok()?;
        let frames = timeout(PATIENCE, client.session(ReceiverStream::new(receiver))).await.ok()?.ok()?.into_inner();
        let (known, now) = (HashMap::new(), Instant::now());
        let (who, world) = (who.to_owned(), Rc::clone(world));
        let id = String::new();
        let mut session = Self { who, world, commands, frames, id, life: 0, known, heard: now, pinged: now };
        let Next::Frame(0, Frame::Welcome(welcome)) = session.next(PATIENCE).await else { return None };
        session.id = welcome.session_id;
        session.life = welcome.node.strip_prefix("hub-").and_then(|life| life.parse().ok()).expect("a number");
        Some(session)
    }

    /// Sends a command; false when the session is over.
    pub async fn send(&mut self, request_id: i64, command: Wire) -> bool {
        if let Wire::Subscribe(subscribe) = &command {
            let before = self.known.insert(subscribe.subscription_id, State::Asked);
            assert!(before.is_none_or(|before| before == State::Ended), "{}: a mistake of the test", self.who);
        }
        let request = SessionRequest { request_id, command: Some(command) };
        matches!(timeout(PATIENCE, self.commands.send(request)).await, Ok(Ok(())))
    }

    pub async fn subscribe(&mut self, subscription_id: i64, spec: SubscriptionSpec) -> bool {
        self.send(1, Wire::Subscribe(Subscribe { subscription_id, spec: Some(spec) })).await
    }

    /// The next frame, if it comes within `wait`. A hub that answers no ping is taken for lost.
    pub async fn next(&mut self, wait: Duration) -> Next {
        let until = Instant::now() + wait;
        loop {
            let now = Instant::now();
            if now >= self.heard + PATIENCE {
                return self.lost(&"silence");
            }
            if now >= self.pinged + PING_INTERVAL {
                self.pinged = now;
                if !self.send(0, Wire::Ping(Ping::default())).await {
                    return self.lost(&"deafness");
                }
            }
            let look_again = until.min(self.pinged + PING_INTERVAL).min(self.heard + PATIENCE);
            match timeout_at(look_again, self.frames.next()).await {
                Ok(came) => match self.came(came) {
                    Next::Frame(0, Frame::Pong(_)) => self.heard = Instant::now(),
                    Next::Frame(request_id, frame) => {
                        self.check(&frame);
                        return Next::Frame(request_id, frame);
                    }
                    next => return next,
                },
                Err(_) if Instant::now() >= until => return Next::Idle,
                Err(_) => {}
            }
        }
    }

    fn came(&self, came: Option<Result<SessionResponse, tonic::Status>>) -> Next {
        match came {
            Some(Ok(SessionResponse { request_id, frame: Some(frame) })) => {
                self.world.note(&self.who, &(request_id, &frame));
                Next::Frame(request_id, frame)
            }
            Some(Ok(empty)) => panic!("{}: {empty:?}", self.who),
            Some(Err(status)) => {
                assert!(is_lost(status.code()), "{}: {status:?}", self.who);
                self.lost(&status.code())
            }
            None => self.lost(&"the end"),
        }
    }

    fn lost(&self, how: &impl std::fmt::Debug) -> Next {
        self.world.note(&self.who, &("lost", how));
        Next::Lost
    }

    fn check(&mut self, frame: &Frame) {
        let (id, wanted, then) = match frame {
            Frame::Subscribed(subscribed) => (subscribed.subscription_id, State::Asked, State::Open),
            Frame::Events(events) => (events.subscription_id, State::Open, State::Open),
            Frame::Progress(progress) => (progress.subscription_id, State::Open, State::Open),
            Frame::Gap(gap) => (gap.subscription_id, State::Open, State::Open),
            Frame::Acknowledged(acknowledged) => (acknowledged.subscription_id, State::Open, State::Open),
            Frame::Ended(ended) => {
                let state = self.known.get(&ended.subscription_id).copied();
                let wanted = if state == Some(State::Asked) { State::Asked } else { State::Open };
                (ended.subscription_id, wanted, State::Ended)
            }
            _ => return,
        };
        let before = self.known.insert(id, then);
        assert_eq!(before, Some(wanted), "{}: of subscription {id} came {frame:?}", self.who);
    }

    /// True when every subscribe was answered.
    pub fn is_answered(&self) -> bool {
        self.known.values().all(|state| *state != State::Asked)
    }
}
