//! Proof that nobody else is disturbed: clients that go on being served while another one misbehaves.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use switchyard::{
    proto::v1::{
        Ping, SubscriptionSpec, hub_service_client::HubServiceClient, session_request::Command as Wire,
        session_response::Frame,
    },
    server::Server,
};
use tokio::task::JoinSet;
use tonic::{Code, transport::Channel};
use tonic_types::pb;

use crate::harness::{Session, client, credit, event, field, hub_with, publish, reason, soon, spec, texts, until};

/// How often the witness publishes.
const PACE: Duration = Duration::from_millis(5);

/// A healthy client on a connection of its own: it publishes to itself, and every event must come, in order and once.
pub struct Witness {
    served: Arc<AtomicU64>,
    task: JoinSet<()>,
}

impl Witness {
    /// Begins to watch.
    pub async fn open(address: SocketAddr) -> Self {
        Self::of(client(address).await).await
    }

    /// The same on a connection that there is.
    pub async fn of(mut client: HubServiceClient<Channel>) -> Self {
        let mut session = Session::open_on(&mut client).await;
        session.subscribe(1, spec(&["witness"])).await;
        let served = Arc::new(AtomicU64::new(0));
        let mut task = JoinSet::new();
        task.spawn(watch(client, session, Arc::clone(&served)));
        let mut witness = Self { served, task };
        witness.is_served().await;
        witness
    }

    /// Waits until it was served anew, twice: once may have been on its way.
    pub async fn is_served(&mut self) {
        let wanted = self.served.load(Relaxed) + 2;
        until("the witness is served", async || {
            assert!(self.task.try_join_next().is_none(), "the witness was disturbed");
            self.served.load(Relaxed) >= wanted
        })
        .await;
    }
}

async fn watch(mut client: HubServiceClient<Channel>, mut session: Session, served: Arc<AtomicU64>) {
    let mut pace = tokio::time::interval(PACE);
    for number in 0_u64.. {
        pace.tick().await;
        let response = soon("a result", client.publish(publish(vec![event("witness", number.to_string())]))).await;
        assert_eq!(response.expect("published").into_inner().results[0].matched, 1);
        let events = loop {
            match session.frame().await.frame {
                Some(Frame::Events(events)) => break events,
                Some(Frame::Heartbeat(_)) => {}
                other => panic!("the witness got {other:?}"),
            }
        };
        assert_eq!(texts(&events), [number.to_string()]);
        served.fetch_add(1, Relaxed);
    }
}

/// A session under test, with one subscription of each kind, beside a witness.
pub struct Bench {
    pub hub: Server,
    pub session: Session,
    pub witness: Witness,
    pub client: HubServiceClient<Channel>,
}

/// The subscription of the bench with automatic credit.
pub const AUTOMATIC: i64 = 1;
/// The subscription of the bench with explicit credit.
pub const EXPLICIT: i64 = 2;

impl Bench {
    /// A hub with default options.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A hub with other options.
    pub async fn with(change: impl FnOnce(&mut switchyard::config::Config)) -> Self {
        let hub = hub_with(change).await;
        let witness = Witness::open(hub.address).await;
        let mut client = client(hub.address).await;
        let mut session = Session::open_on(&mut client).await;
        session.subscribe(AUTOMATIC, spec(&["bench"])).await;
        session.subscribe(EXPLICIT, SubscriptionSpec { credit: credit(1_000_000, 0), ..spec(&["bench"]) }).await;
        Self { hub, session, witness, client }
    }

    /// The session has nothing more to say about what came before, both its subscriptions get events, and so does the
    /// witness.
    pub async fn goes_on(&mut self) {
        ping(&mut self.session).await;
        self.client.publish(publish(vec![event("bench", "on")])).await.expect("published");
        let got = self.session.collect(&[(AUTOMATIC, 1), (EXPLICIT, 1)].into()).await;
        assert!(got.values().all(|texts| texts == &["on"]), "{got:?}");
        self.witness.is_served().await;
    }

    /// A command is answered by an `error`, and only by that.
    pub async fn check_error(&mut self, command: Wire, expected: (Code, &str, &str)) {
        let what = format!("{command:?}").chars().take(200).collect::<String>();
        self.session.send(41, command).await;
        let (request_id, status) = self.session.error().await;
        assert_eq!(request_id, 41, "{what}");
        check_status(&what, &status, expected);
        self.goes_on().await;
    }

    /// A command is answered by the frame that `answers` knows, and only by that.
    pub async fn check_passes(&mut self, command: Wire, answers: impl Fn(&Frame) -> bool) {
        let what = format!("{command:?}").chars().take(200).collect::<String>();
        self.session.send(42, command).await;
        let frame = self.session.frame().await;
        assert_eq!(frame.request_id, 42, "{what}");
        assert!(frame.frame.as_ref().is_some_and(answers), "{what} got {frame:?}");
        self.goes_on().await;
    }
}

/// A status has this code, reason and field.
pub fn check_status(what: &str, status: &pb::Status, expected: (Code, &str, &str)) {
    let got = (Code::from_i32(status.code), reason(status), field(status));
    assert_eq!((got.0, got.1.as_str(), got.2.as_str()), expected, "{what}: {}", status.message);
    assert!(!status.message.is_empty(), "{what}");
}

/// Whatever the hub sends for what came before stands before the pong.
pub async fn ping(session: &mut Session) {
    session.send(3, Wire::Ping(Ping { nonce: "n".into() })).await;
    let frame = session.frame().await;
    assert!(matches!(&frame.frame, Some(Frame::Pong(pong)) if pong.nonce == "n"), "{frame:?}");
}

/// The status of a failed call, as a message.
pub fn status_of(status: &tonic::Status) -> pb::Status {
    let details: pb::Status = prost::Message::decode(status.details()).unwrap_or_default();
    pb::Status { code: i32::from(status.code()), message: status.message().to_owned(), ..details }
}
