//! Two hubs and the way between them: what is live on one reaches the other, once, and what is stored does not go that way.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use switchyard::{
    auth::Caller,
    edge::Opening,
    engine::{Boxed, Embedded, Engine, Options},
    event::{Draft, Event, EventIds, Payload},
    hub::{Exchange, Hub, Kind, Publish, Setup, Streams},
    model::{Filter, StreamName, StreamSettings, SubscriptionSpec},
    outbox::{Batch, Taken},
    session::{NoRequests, Outlet},
    tasks::Tasks,
};
use tokio::sync::{Mutex, mpsc};

use crate::harness::{Folder, soon, until};

/// One hub's end of the way to one other.
#[derive(Debug)]
struct End {
    sent: AtomicUsize,
    to: mpsc::Sender<Vec<Event>>,
    from: Mutex<mpsc::Receiver<Vec<Event>>>,
}

impl End {
    fn pair() -> [Arc<Self>; 2] {
        let ((to_b, from_a), (to_a, from_b)) = (mpsc::channel(64), mpsc::channel(64));
        [(to_b, from_b), (to_a, from_a)]
            .map(|(to, from)| Arc::new(Self { sent: AtomicUsize::default(), to, from: Mutex::new(from) }))
    }
}

impl Exchange for End {
    fn send(&self, events: &[Event]) {
        self.sent.fetch_add(events.len(), SeqCst);
        self.to.try_send(events.to_vec()).expect("room");
    }

    fn hear(&self) -> Boxed<'_, Option<Vec<Event>>> {
        Box::pin(async { self.from.lock().await.recv().await })
    }
}

/// A hub that hears the other.
fn hub(exchange: &Arc<End>, streams: Option<Streams>) -> Arc<Hub> {
    let exchange: Arc<dyn Exchange> = Arc::<End>::clone(exchange);
    let hub = Arc::new(Hub::new(Setup { exchange: Some(exchange), streams, ..Setup::default() }));
    let hears = Arc::clone(&hub);
    tokio::spawn(async move { hears.hear_others().await });
    hub
}

/// A live subscription to everything.
struct Reader {
    outlet: Outlet,
    events: Vec<String>,
}

impl Reader {
    async fn new(hub: &Arc<Hub>) -> Self {
        let (mut session, _) = Opening::new(hub, None, None)
            .and_then(|opening| opening.open(Kind::One, Caller::nobody("test", None)))
            .expect("open");
        let filter = Filter::parse(b">").expect("a filter");
        session.subscribe_once(&SubscriptionSpec::live(vec![filter])).await.expect("subscribed");
        let outlet = session.outlet();
        tokio::spawn(session.run(NoRequests));
        Self { outlet, events: Vec::new() }
    }

    /// The topics of everything up to an event of this one.
    async fn up_to(&mut self, topic: &str) -> &[String] {
        while self.events.last().is_none_or(|last| last != topic) {
            let mut batch = Batch::default();
            let taken = soon("events", poll_fn(|context| self.outlet.poll_take(context, &mut batch))).await;
            assert!(matches!(taken, Taken::Batch), "{taken:?}");
            self.events.extend(batch.events.iter().map(|event| event.topic().to_string()));
        }
        &self.events
    }
}

/// Publishes an event on each topic together; gives how many subscriptions of this hub each went to.
async fn publish(hub: &Arc<Hub>, topics: &[&str]) -> Vec<u64> {
    let mut ids = EventIds::new(&hub.unique_name());
    let build =
        |topic: &&str| Draft { topic, payload: Payload::Text("text"), ..Draft::default() }.build(4_096, &mut ids);
    let events = topics.iter().map(build).collect();
    let publish = Publish { events, precondition: None, memory: None, quiet: false };
    let results = hub.publish(&Caller::nobody("test", None), publish, &Tasks::default()).await.expect("published");
    results.into_iter().map(|result| result.expect("accepted").matched).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_event_reaches_subscriptions_on_every_hub_and_is_not_echoed() {
    let ends = End::pair();
    let [a, b] = [hub(&ends[0], None), hub(&ends[1], None)];
    let (mut on_a, mut on_b) = (Reader::new(&a).await, Reader::new(&b).await);
    assert_eq!(publish(&a, &["a.1", "a.2"]).await, [1, 1], "those on this hub are counted");
    assert_eq!(publish(&a, &["a.3"]).await, [1]);
    assert_eq!(on_b.up_to("a.3").await, ["a.1", "a.2", "a.3"]);
    assert_eq!([&ends[0], &ends[1]].map(|end| end.sent.load(SeqCst)), [3, 0], "what is heard is not sent");
    publish(&b, &["b.last"]).await;
    assert_eq!(on_a.up_to("b.last").await, ["a.1", "a.2", "a.3", "b.last"], "each came once");
    publish(&a, &["a.last"]).await;
    assert_eq!(on_b.up_to("a.last").await, ["a.1", "a.2", "a.3", "b.last", "a.last"]);
    assert_eq!([&ends[0], &ends[1]].map(|end| end.sent.load(SeqCst)), [4, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stream_stores_is_not_sent_to_other_hubs() {
    let (folder, tasks, ends) = (Folder::new(), Tasks::default(), End::pair());
    let (options, nothing) = (Options::default(), (Arc::default(), Arc::default()));
    let engine = Embedded::open(folder.path(), &options, &tasks, &nothing.0, &nothing.1);
    let engine: Arc<dyn Engine> = Arc::new(engine.expect("a new store"));
    let filter = Filter::parse(b"kept").expect("a filter");
    let settings = StreamSettings::new(StreamName::parse("s").expect("a name"), vec![filter]);
    engine.create_stream(settings).await.expect("made");
    let a = hub(&ends[0], Some(Streams { engine: Arc::clone(&engine), tasks }));
    let mut on_b = Reader::new(&hub(&ends[1], None)).await;
    publish(&a, &["kept"]).await;
    publish(&a, &["kept", "live", "kept"]).await;
    publish(&a, &["last"]).await;
    assert_eq!(on_b.up_to("last").await, ["live", "last"]);
    let stream = engine.stream("s").expect("the stream");
    until("all is stored", async || stream.bounds().latest == 3).await;
    engine.close().await.expect("closed");
}
