//! How fast clients are back after their hub is: one with ten thousand subscriptions, and a thousand clients at once.
//!
//! `make reconnect`, or `cargo bench --bench reconnect -- [SUBSCRIPTIONS] [CLIENTS]`. The hub is ended in order and killed,
//! and started again at once. It prints when all subscriptions were open again, counted from when the hub served, and how
//! many attempts to connect began in each 100 ms from when it was ended.

#[path = "../siege/hub.rs"]
mod hub;
mod restart;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hub::Hub;
use restart::End;
use switchyard::client::{Client, Error, Live, State, Status, Subscription};
use tokio::task::JoinSet;

/// So many subscriptions has each of many clients.
const SUBSCRIPTIONS_EACH: usize = 10;
/// Attempts are counted in pieces of this time.
const PIECE: Duration = Duration::from_millis(100);
/// After this long it is broken, not slow.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> anyhow::Result<()> {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let (subscriptions, clients) =
        (numbers.first().copied().unwrap_or(10_000), numbers.get(1).copied().unwrap_or(1_000));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        for end in [End::InOrder, End::Killed] {
            come_back(end, 1, subscriptions).await?;
            come_back(end, clients, SUBSCRIPTIONS_EACH).await?;
        }
        Ok(())
    })
}

/// When attempts to connect began.
#[derive(Debug, Clone, Default)]
struct Attempts(Arc<Mutex<Vec<Instant>>>);

impl Attempts {
    fn hear(&self, status: &Status) {
        if status.state == State::Connecting {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        }
    }

    /// How many in each piece of time since then, the last without an attempt left out.
    fn since(&self, start: Instant) -> Vec<usize> {
        let mut pieces = Vec::new();
        for attempt in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|attempt| **attempt >= start)
        {
            let piece = (attempt.duration_since(start).as_millis() / PIECE.as_millis()) as usize;
            pieces.resize(pieces.len().max(piece + 1), 0);
            pieces[piece] += 1;
        }
        pieces
    }
}

/// A client that runs, and what it has subscribed to.
struct Subscriber {
    client: Client,
    subscriptions: Vec<Subscription>,
    _running: JoinSet<Result<(), Error>>,
}

impl Subscriber {
    async fn begin(hub: &Hub, number: usize, count: usize, attempts: &Attempts) -> anyhow::Result<Self> {
        let attempts = attempts.clone();
        let client = Client::builder([format!("http://{}", hub.address)])
            .name(format!("reconnect-{number}"))
            .on_state(move |status| attempts.hear(status))
            .connect_lazy()?;
        let mut running = JoinSet::new();
        running.spawn(client.clone().run());
        let mut subscriptions = Vec::with_capacity(count);
        for topic in 0..count {
            subscriptions.push(client.subscribe_soon(Live::to([format!("reconnect.{number}.{topic}")])).await?);
        }
        let mut subscriber = Self { client, subscriptions, _running: running };
        for subscription in &mut subscriber.subscriptions {
            subscription.ready().await?;
        }
        Ok(subscriber)
    }

    /// Waits until everything is open in another session than `before`.
    async fn returned(&self, before: &str) {
        let is_new = |status: &Status| status.state == State::Up && status.session_id != before;
        self.client.states().wait_for(is_new).await.ok();
        for subscription in &self.subscriptions {
            while !subscription.is_open() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Ends a hub that `clients` are at, starts it again, and waits until they have all that they had.
async fn come_back(end: End, clients: usize, subscriptions_each: usize) -> anyhow::Result<()> {
    let mut hub = Hub::start()?;
    let attempts = Attempts::default();
    let mut subscribers = Vec::with_capacity(clients);
    for number in 0..clients {
        subscribers.push(Subscriber::begin(&hub, number, subscriptions_each, &attempts).await?);
    }
    let mut returning = JoinSet::new();
    for subscriber in subscribers {
        let before = subscriber.client.status().session_id;
        returning.spawn(async move {
            subscriber.returned(&before).await;
            (Instant::now(), subscriber)
        });
    }
    let ended = Instant::now();
    let (gone, served);
    (hub, gone, served) = tokio::task::spawn_blocking(move || hub.restarted(end)).await??;
    let all = async {
        let mut back = Vec::new();
        while let Some(returned) = returning.join_next().await {
            back.push(returned?);
        }
        anyhow::Ok(back)
    };
    let back = tokio::time::timeout(PATIENCE, all).await??;
    let mut times: Vec<Duration> = back.iter().map(|(at, _)| at.saturating_duration_since(served)).collect();
    times.sort_unstable();
    println!(
        "{clients} clients with {subscriptions_each} subscriptions each, hub {end}: gone after {} ms, served {} ms after it was \
         ended; all open again {} ms after that (half of the clients after {} ms)",
        gone.duration_since(ended).as_millis(),
        served.duration_since(ended).as_millis(),
        times.last().copied().unwrap_or_default().as_millis(),
        times.get(times.len() / 2).copied().unwrap_or_default().as_millis(),
    );
    println!("  attempts to connect in each {} ms: {:?}", PIECE.as_millis(), attempts.since(ended));
    drop((back, hub));
    Ok(())
}
