//! One client: its commands in, its outbox out.
//!
//! A session is one task that reads commands and applies them, in order, to the router and the session's own outbox;
//! the wire takes from the outbox at its own pace. The room owns the life of a session, from `welcome` to the last
//! route forgotten, and the rules that hold for commands (design 3.1, 3.2, 3.7). It never touches protobuf or a socket.

mod command;
mod hub;
mod options;

use std::{sync::Arc, time::Duration};

use tokio_stream::{Stream, StreamExt};

pub use command::{Command, Request};
pub use hub::{FrameMemory, Hub, Kind};
pub use options::Options;

use crate::{
    model::{CommandError, End, Event, EventError, Filter, Wish, filter_tokens},
    outbox::{Closed, Frame, Outbox, Published, Reply},
    router::{OutboxId, Scratch},
};

/// A client may ask to hear from an idle hub at least this often,
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
/// and at most this often.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(300);
/// When a session is over, its subscriptions are forgotten this many at a time.
const FORGET_AT_ONCE: usize = 1024;

/// The reading half of one session. Dropping it closes the session, so [`Session::run`] is its only use.
#[derive(Debug)]
pub struct Session {
    hub: Arc<Hub>,
    number: u64,
    id: Arc<str>,
    outbox: Arc<Outbox>,
    outbox_id: OutboxId,
    scratch: Scratch,
    first: bool,
}

/// The sending half of one session, for the wire. Dropping it says that the client is gone.
#[derive(Debug)]
pub struct Outlet {
    hub: Arc<Hub>,
    outbox: Arc<Outbox>,
    outbox_id: OutboxId,
}

impl Session {
    fn new(hub: Arc<Hub>, number: u64, id: Arc<str>, outbox: Arc<Outbox>) -> Self {
        let outbox_id = hub.router().join(Arc::clone(&outbox));
        Self { hub, number, id, outbox, outbox_id, scratch: Scratch::default(), first: true }
    }

    /// Names the session in logs and lists.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The sending half. There is one writer, so this is called once.
    pub fn outlet(&self) -> Outlet {
        Outlet { hub: Arc::clone(&self.hub), outbox: Arc::clone(&self.outbox), outbox_id: self.outbox_id }
    }

    /// Opens the subscription of a `Subscribe` call, or says why not.
    pub fn subscribe_once(&mut self, wish: &Wish) -> Result<(), CommandError> {
        self.open(0, 1, wish).map(drop)
    }

    /// Applies commands until the client sends no more, waits for the session to be over, and cleans up after it.
    pub async fn run(mut self, mut requests: impl Stream<Item = Result<Request, CommandError>> + Unpin) {
        loop {
            self.outbox.until_room().await;
            let next = tokio::select! {
                biased;
                () = self.outbox.until_ending() => break,
                next = requests.next() => next,
            };
            match next {
                Some(Ok(request)) => self.apply(request).await,
                // A cancelled call looks the same as one that is half-closed; the outlet tells them apart.
                None => {
                    self.outbox.no_more_commands();
                    break;
                }
                // The stream of commands cannot be read on.
                Some(Err(error)) => {
                    self.outbox.end(End::BrokenFraming(Box::new(error)));
                    break;
                }
            }
            tokio::task::consume_budget().await;
        }
        drop(requests);
        self.outbox.until_ending().await;
        self.clean_up().await;
        self.outbox.until_over().await;
    }

    /// Forgets every route, a few at a time: publishers wait meanwhile, and there may be a million.
    async fn clean_up(&self) {
        let mut from = 0;
        loop {
            let some = self.outbox.take_routes(FORGET_AT_ONCE, &mut from);
            if some.is_empty() {
                break;
            }
            self.forget(&some);
            tokio::task::yield_now().await;
        }
    }

    async fn apply(&mut self, request: Request) {
        let (request_id, place) = (request.request_id, request.place);
        let first = std::mem::replace(&mut self.first, false);
        let done = match request.command {
            Ok(command) => self.command(request_id, first, command).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.hub.metrics().command_refused();
            self.reply(request_id, Frame::Error { place, error: Box::new(error) });
        }
    }

    async fn command(&mut self, request_id: i64, first: bool, command: Command) -> Result<(), CommandError> {
        match command {
            Command::Hello { client_name, heartbeat_interval } => self.hello(first, &client_name, heartbeat_interval),
            Command::Subscribe { subscription_id, wish } => self.subscribe(request_id, subscription_id, wish),
            Command::Update { subscription_id, filters } => self.update(request_id, subscription_id, &filters),
            Command::Unsubscribe { subscription_id } => {
                let closed = self.outbox.close(subscription_id, request_id, End::Unsubscribed)?;
                self.forget(&closed);
                Ok(())
            }
            Command::Credit { subscription_id, grant } => self.outbox.grant(subscription_id, grant),
            Command::Acknowledge { subscription_id } => {
                self.outbox.find(subscription_id)?;
                Err(CommandError::Unsupported {
                    field: "subscription_id",
                    needs: "a subscription with acknowledgements, and this one has none",
                })
            }
            Command::Publish { events } => {
                self.publish(request_id, events).await;
                Ok(())
            }
            Command::Ping { nonce } => {
                self.reply(request_id, Frame::Pong(nonce));
                Ok(())
            }
        }
    }

    fn hello(&self, first: bool, name: &str, heartbeat: Option<Duration>) -> Result<(), CommandError> {
        if !first {
            return Err(CommandError::Field { field: "", problem: "must be the first command".into() });
        }
        if let Some(interval) = heartbeat {
            self.outbox.set_heartbeat_interval(interval.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT));
        }
        tracing::info!(session = %self.id, client = name, "hello");
        Ok(())
    }

    /// Answers with `subscribed` or `ended`; only an id that another subscription has is an error, since `ended` would
    /// speak of that one.
    fn subscribe(&mut self, request_id: i64, id: i64, wish: Result<Wish, CommandError>) -> Result<(), CommandError> {
        if id != 0 && self.outbox.find(id).is_ok() {
            return Err(CommandError::SubscriptionIdInUse { id });
        }
        let opened = wish.and_then(|wish| self.open(request_id, id, &wish));
        if let Err(error) = opened {
            self.hub.metrics().command_refused();
            let subscription_id = if id == 0 { self.outbox.free_id() } else { id };
            self.reply(request_id, Frame::Ended { subscription_id, end: End::Refused(Box::new(error)) });
        }
        Ok(())
    }

    /// Routed first and confirmed second, so that whatever is published after the client has seen `subscribed` reaches
    /// it. What is published in between waits behind that frame.
    fn open(&mut self, request_id: i64, id: i64, wish: &Wish) -> Result<(), CommandError> {
        let (key, _) = self.outbox.reserve(id, wish)?;
        match self.hub.router().subscribe(self.outbox_id, key, &wish.filters, wish.group.as_ref()) {
            Ok(route) => {
                if let Err(route) = self.outbox.open(key, route, request_id) {
                    self.forget(&[Closed { key, route }]);
                }
                Ok(())
            }
            Err(error) => {
                self.outbox.release(key);
                Err(error)
            }
        }
    }

    fn update(&mut self, request_id: i64, id: i64, filters: &[Filter]) -> Result<(), CommandError> {
        let (key, group) = self.outbox.find(id)?;
        self.outbox.check_update(id, filter_tokens(filters))?;
        let new = self.hub.router().resubscribe(self.outbox_id, key, filters, group)?;
        match self.outbox.open(key, new.clone(), request_id) {
            Ok(Some(old)) => self.hub.router().forget_old(self.outbox_id, key, old, &new),
            Ok(None) => {}
            Err(route) => {
                self.forget(&[Closed { key, route }]);
                return Err(CommandError::SubscriptionNotFound { id });
            }
        }
        Ok(())
    }

    async fn publish(&mut self, request_id: i64, events: Vec<Result<Arc<Event>, EventError>>) {
        let (accepted, refused) = split(events);
        self.hub.publish_with(&accepted, &mut self.scratch).await;
        self.hub.metrics().events_refused(refused.len());
        if request_id == 0 && refused.is_empty() {
            return;
        }
        let results = merge(&self.scratch.matched, refused);
        self.reply(request_id, Frame::Published(results));
    }

    fn reply(&self, request_id: i64, frame: Frame) {
        self.outbox.reply(Reply { request_id, frame });
    }

    fn forget(&self, closed: &[Closed]) {
        self.hub.router().forget(self.outbox_id, closed);
    }
}

impl Drop for Session {
    /// Runs after `clean_up`, or instead of it when the process is being torn down or the task has failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outbox.end(End::Internal);
        } else {
            self.outbox.abandon();
        }
        let left = self.outbox.take_routes(usize::MAX, &mut 0);
        self.forget(&left);
        self.hub.router().leave(self.outbox_id);
        self.hub.close(self.number);
        self.hub.metrics().session_closed();
    }
}

impl Outlet {
    /// What waits to be sent.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Forgets the routes of subscriptions that ended while a batch was taken.
    pub fn forget(&self, closed: &[Closed]) {
        self.hub.router().forget(self.outbox_id, closed);
    }

    /// The hub this session is part of.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.outbox.abandon();
    }
}

/// The events that may be published, and for every other its place and what is wrong with it.
pub fn split(events: Vec<Result<Arc<Event>, EventError>>) -> (Vec<Arc<Event>>, Vec<(usize, EventError)>) {
    let mut accepted = Vec::with_capacity(events.len());
    let mut refused = Vec::new();
    for (place, event) in events.into_iter().enumerate() {
        match event {
            Ok(event) => accepted.push(event),
            Err(error) => refused.push((place, error)),
        }
    }
    (accepted, refused)
}

/// One result per event, in the order they came in.
pub fn merge(matched: &[u64], refused: Vec<(usize, EventError)>) -> Vec<Published> {
    let total = matched.len() + refused.len();
    let mut matched = matched.iter().copied();
    let mut refused = refused.into_iter().peekable();
    (0..total)
        .filter_map(|place| match refused.next_if(|(at, _)| *at == place) {
            Some((_, error)) => Some(Err(error)),
            None => matched.next().map(Ok),
        })
        .collect()
}
