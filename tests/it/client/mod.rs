//! The client crate against real hubs: hubs that die, drain, freeze and come back, and connections that break.

mod api;
mod commands;
mod connections;
mod draining;
mod home;
mod positions;
mod publishing;
pub(crate) mod relay;
mod restarts;
mod returning;
mod rules;
mod silence;
mod tokens;
mod workers;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use switchyard::client::{
    Batch, Builder, Client, Delivery, Error, Event, Gap, Item, Published, State, Status, Stream, Subscription,
};
use tokio::task::JoinHandle;

use crate::harness::{soon, until};

/// A client that runs, and is dropped with the test.
struct Running {
    client: Client,
    /// Every state that it was in.
    states: Arc<Mutex<Vec<Status>>>,
    /// When it had a session, each time.
    ups: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<Result<(), Error>>,
}

impl std::ops::Deref for Running {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    fn start(builder: Builder) -> Self {
        let states = Arc::new(Mutex::new(Vec::new()));
        let ups = Arc::new(Mutex::new(Vec::new()));
        let (all, times) = (Arc::clone(&states), Arc::clone(&ups));
        let builder = builder.on_state(move |status| {
            if status.state == State::Up {
                times.lock().expect("no panic").push(Instant::now());
            }
            all.lock().expect("no panic").push(status.clone());
        });
        let client = builder.connect_lazy().expect("good settings");
        let task = tokio::spawn(client.clone().run());
        Self { client, states, ups, task }
    }

    /// A client of one hub.
    fn of(address: SocketAddr) -> Self {
        Self::start(builder(address))
    }

    /// Waits until it is in a state, or was meanwhile.
    async fn until(&self, state: State) -> Status {
        let from = self.states.lock().expect("no panic").len().saturating_sub(1);
        let mut found = None;
        until(&format!("it is {state}"), async || {
            let states = self.states.lock().expect("no panic");
            found = states[from..].iter().find(|status| status.state == state).cloned();
            found.is_some()
        })
        .await;
        found.expect("just found")
    }

    fn states_so_far(&self) -> Vec<State> {
        self.states.lock().expect("no panic").iter().map(|status| status.state).collect()
    }

    /// The reasons of all losses so far.
    fn reasons(&self) -> Vec<String> {
        let states = self.states.lock().expect("no panic");
        let waiting = states.iter().filter(|status| status.state == State::Waiting);
        waiting.filter_map(|status| Some(status.reason.as_ref()?.reason().to_owned())).collect()
    }
}

fn builder(address: SocketAddr) -> Builder {
    Client::builder([address.to_string()]).name("test").heartbeat(Duration::from_secs(1))
}

/// All of a stream.
fn all_of(stream: &str) -> Stream {
    Stream::named(stream).from(switchyard::client::Start::Earliest)
}

/// What the hub says of a publish.
async fn answer<P: IntoFuture>(publish: P) -> P::Output {
    soon("an answer", publish.into_future()).await
}

/// The next thing of a subscription.
async fn next(subscription: &mut Subscription) -> Item {
    soon("what is next", subscription.next()).await.expect("it goes on").expect("no error")
}

/// The next batch; gaps are failures.
async fn next_batch(subscription: &mut Subscription) -> Batch {
    loop {
        match next(subscription).await {
            Item::Events(batch) => return batch,
            Item::CaughtUp => {}
            Item::Gap(gap) => panic!("a gap: {gap:?}"),
        }
    }
}

/// The next events of a member, so many.
async fn deliveries(member: &mut Subscription, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(next_batch(member).await);
    }
    all
}

/// The next gap, and the texts of the events before it.
async fn next_gap(subscription: &mut Subscription) -> (Vec<String>, Gap) {
    let mut before = Vec::new();
    loop {
        match next(subscription).await {
            Item::Events(batch) => before.extend(texts(&batch)),
            Item::Gap(gap) => return (before, gap),
            Item::CaughtUp => {}
        }
    }
}

fn texts(batch: &Batch) -> Vec<String> {
    batch.iter().map(|event| event.text().expect("a text").to_owned()).collect()
}

/// Reads until so many events have come, each batch done: their texts.
async fn read(subscription: &mut Subscription, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = next_batch(subscription).await;
        all.extend(texts(&batch));
        batch.done().await.expect("done");
    }
    all
}

fn numbered(topic: &str, number: usize) -> Event<'_> {
    Event::new(topic).text(number.to_string())
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// Publishes numbered events one behind the other, without waiting for answers; then checks every answer: where it is
/// stored, by number.
async fn publish_numbered(client: &Client, topic: &str, range: std::ops::Range<usize>) -> BTreeMap<usize, i64> {
    let mut under_way = Vec::new();
    for number in range {
        let publish = client.publish(numbered(topic, number)).deadline(Duration::from_secs(60));
        under_way.push((number, soon("room", publish.queued()).await.expect("queued")));
    }
    let mut sequences = BTreeMap::new();
    for (number, publishing) in under_way {
        match soon("an answer", publishing).await {
            Ok(Published::Stored { sequence, .. }) => sequences.insert(number, sequence),
            other => panic!("{number} is not stored: {other:?}"),
        };
    }
    sequences
}
