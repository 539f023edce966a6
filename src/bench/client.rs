//! The hub as a side, through the client that applications use. What it publishes is only sent, as other systems do it: a
//! load sees by itself whether anything is lost.

use anyhow::{Context, bail};
use tokio::task::JoinSet;

use super::side::{Check, Outgoing, Publish, Receive, Side};
use crate::client::{Client, Error, Event, Item, Live, Subscription, Target};

/// What a subscriber may have before it has taken it, in events and bytes: so much that it does not limit a load.
const WINDOW_EVENTS: u32 = 65_536;
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A hub at an address.
#[derive(Debug, Clone)]
pub struct ClientSide {
    /// Which one.
    pub target: Target,
}

/// A client that runs as long as this lives.
#[derive(Debug)]
struct Running {
    client: Client,
    _task: JoinSet<Result<(), Error>>,
}

/// A client that publishes.
#[derive(Debug)]
pub struct ClientPublisher(Running);

/// A client with one subscription.
#[derive(Debug)]
pub struct ClientSubscriber {
    subscription: Subscription,
    _running: Running,
}

impl ClientSide {
    fn run(&self) -> anyhow::Result<Running> {
        let none: [&str; 0] = [];
        // A load that went on in another session would measure neither.
        let builder = Client::builder(none).target(&self.target)?.name("switchyard bench").for_one_session();
        let client = builder.connect_lazy()?;
        let mut task = JoinSet::new();
        task.spawn(client.clone().run());
        Ok(Running { client, _task: task })
    }
}

impl Side for ClientSide {
    type Publisher = ClientPublisher;
    type Subscriber = ClientSubscriber;

    async fn publisher(&self) -> anyhow::Result<ClientPublisher> {
        Ok(ClientPublisher(self.run()?))
    }

    async fn subscriber(&self, filters: &[String]) -> anyhow::Result<ClientSubscriber> {
        let running = self.run()?;
        let spec = Live::to(filters).window(WINDOW_EVENTS).window_bytes(WINDOW_BYTES);
        Ok(ClientSubscriber { subscription: running.client.subscribe(spec).await?, _running: running })
    }
}

impl Publish for ClientPublisher {
    async fn publish(&mut self, batch: &mut Vec<Outgoing>) -> anyhow::Result<()> {
        let events = batch.iter().map(|outgoing| Event::new(&*outgoing.topic).data(&outgoing.payload));
        self.0.client.send_all(events).await?;
        batch.clear();
        Ok(())
    }
}

impl Receive for ClientSubscriber {
    async fn receive(&mut self, check: &mut impl Check) -> anyhow::Result<()> {
        match self.subscription.next().await.context("the subscription ended")?? {
            Item::Events(batch) => batch.iter().for_each(|event| check.check(event.data())),
            Item::Gap(gap) => bail!("not expected in a load: {gap:?}"),
            Item::CaughtUp => {}
        }
        Ok(())
    }
}
