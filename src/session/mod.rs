//! One client: its commands in, its outbox out.
//!
//! A session is one task that reads commands and applies them, in order, to the router and the session's own outbox;
//! the wire takes from the outbox at its own pace. The room owns the life of a session, from `welcome` to the last
//! route forgotten, and the rules that hold for commands (design 3.1, 3.2, 3.7). It never touches protobuf or a socket.

mod command;
mod early;
mod feed;
mod guard;
mod membership;
mod open;

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio_stream::Stream;

pub use command::{Command, Request, Secret};

use crate::{
    auth::Caller,
    cut::Cut,
    hub::{Hub, Kind, OpenSession, Publish, Publisher, Publishing, Sequenced, first},
    memory::Client,
    model::{AckMode, CommandError, End, Filter, SubscriptionSpec, filter_tokens},
    outbox::{Batch, Call, Closed, Frame, Outbox, Published, Reply},
    router::OutboxId,
    tasks::Turn,
};
use feed::Feeds;
use guard::Guard;
use membership::Memberships;

/// The first half of a publish to streams, with its request id.
type Placing = Pin<Box<dyn Future<Output = (i64, Result<Sequenced, CommandError>)> + Send>>;
/// The second half.
type Storing = Pin<Box<dyn Future<Output = (i64, Vec<Published>)> + Send>>;

/// A client may ask to hear from an idle hub at least this often,
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
/// and at most this often.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(300);
/// So many publishes of one session may wait to be stored; it reads no more commands meanwhile.
const MOST_STORING: usize = 256;
/// When a session is over, its subscriptions are forgotten this many at a time.
const FORGET_AT_ONCE: usize = 1024;

/// The reading half of one session. Dropping it closes the session, so [`Session::run`] is its only use.
pub struct Session {
    hub: Arc<Hub>,
    entry: Arc<OpenSession>,
    outbox: Arc<Outbox>,
    outbox_id: OutboxId,
    /// Made with the first publish.
    publisher: Option<Box<Publisher>>,
    first: bool,
    /// The session that its client had before, and comes back from.
    before: Option<Arc<str>>,
    /// Made with the first subscription that reads a stream.
    feeds: Option<Box<Feeds>>,
    /// Made with the first member of a group on a stream.
    memberships: Option<Box<Memberships>>,
    /// Who it is, and what it may do.
    caller: Caller,
    /// `None` on a hub that asks nobody.
    guard: Option<Box<Guard>>,
    /// A publish whose events have no sequences yet.
    placing: Option<Placing>,
    /// Publishes that wait to be stored, in order.
    storing: VecDeque<Storing>,
}

/// The commands of a client.
pub trait Requests: Stream<Item = Result<Request, CommandError>> + Unpin {
    /// Takes in what has come, while no commands are applied; it comes back as an item later. Flow control bounds it.
    /// Nothing needs to be done where only what is read waits in the transport.
    fn poll_ahead(&mut self, _context: &mut Context<'_>) {}
}

/// Of a call that has none.
#[derive(Debug, Clone, Copy)]
pub struct NoRequests;

impl Stream for NoRequests {
    type Item = Result<Request, CommandError>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(None)
    }
}

impl Requests for NoRequests {}

/// What a session turns to next.
enum Next {
    Call(Call),
    Sequenced((i64, Result<Sequenced, CommandError>)),
    Stored((i64, Vec<Published>)),
    Wake(feed::Wake),
    /// What it may do may be something else.
    Rights(guard::Wake),
    /// Some subscription is to be read for.
    Step,
    Request(Option<Result<Request, CommandError>>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.entry.id).finish_non_exhaustive()
    }
}

/// The sending half of one session, for the wire. Dropping it says that the client is gone.
#[derive(Debug)]
pub struct Outlet {
    hub: Arc<Hub>,
    entry: Arc<OpenSession>,
}

impl Session {
    /// Opens a session of a caller, whose first frame is `welcome`. `cut` ends the stream it is on, and `client` accounts for
    /// what it makes the hub keep.
    pub fn open(
        hub: &Arc<Hub>,
        kind: Kind,
        cut: Option<Arc<Cut>>,
        caller: Caller,
        client: &Arc<Client>,
    ) -> Result<Self, CommandError> {
        let entry = hub.enter(kind, cut, &caller, client)?;
        let outbox = Arc::clone(&entry.outbox);
        let outbox_id = hub.router().join(Arc::clone(&outbox));
        Ok(Self {
            publisher: None,
            hub: Arc::clone(hub),
            entry,
            outbox,
            outbox_id,
            first: true,
            before: None,
            feeds: None,
            memberships: None,
            guard: Guard::new(&caller),
            caller,
            placing: None,
            storing: VecDeque::new(),
        })
    }

    /// Names the session in logs and lists.
    pub fn id(&self) -> &Arc<str> {
        &self.entry.id
    }

    /// The sending half. There is one writer, so this is called once.
    pub fn outlet(&self) -> Outlet {
        Outlet { hub: Arc::clone(&self.hub), entry: Arc::clone(&self.entry) }
    }

    /// Opens the subscription of a `Subscribe` call, or says why not.
    pub async fn subscribe_once(&mut self, spec: &SubscriptionSpec) -> Result<(), CommandError> {
        if spec.stream.as_ref().is_some_and(|from| from.ack_mode != AckMode::None) {
            return Err(CommandError::Unsupported {
                field: "ack_mode",
                needs: "a Session call: Subscribe cannot send acknowledgements",
            });
        }
        self.open_subscription(0, 1, spec).await
    }

    /// Applies commands and reads streams until the session is over, and cleans up after it.
    pub async fn run(mut self, mut requests: impl Requests) {
        let mut open = true;
        loop {
            let next = self.next(&mut requests, open).await;
            match next {
                Next::Call(Call::Ending) => break,
                Next::Call(Call::Room) => {}
                Next::Call(Call::Attention(attention)) => self.note(attention).await,
                Next::Sequenced((request_id, sequenced)) => self.sequenced(request_id, sequenced),
                Next::Stored((request_id, results)) => {
                    self.storing.pop_front();
                    self.published(request_id, results);
                }
                Next::Wake(wake) => {
                    if let Some(feeds) = &mut self.feeds {
                        feeds.wake(wake).await;
                    }
                }
                Next::Rights(wake) => self.look_at_rights(wake).await,
                Next::Step => {
                    if let Some(feeds) = &mut self.feeds {
                        feeds.step().await;
                    }
                }
                Next::Request(Some(Ok(request))) => self.apply(request).await,
                // A cancelled call looks the same as one that is half-closed; the outlet tells them apart.
                Next::Request(None) => open = false,
                // The stream of commands cannot be read on.
                Next::Request(Some(Err(error))) => self.outbox.end(End::BrokenFraming(Box::new(error))),
            }
            if !open && self.placing.is_none() && self.storing.is_empty() {
                self.outbox.no_more_commands();
            }
            tokio::task::consume_budget().await;
        }
        drop(requests);
        self.leave_groups().await;
        self.finish_publishes().await;
        self.outbox.all_answered();
        self.clean_up().await;
        self.outbox.until_over().await;
    }

    /// What to turn to next. Not in a fixed order: neither commands nor streams may keep the others waiting for ever.
    async fn next(&mut self, requests: &mut impl Requests, open: bool) -> Next {
        let takes_commands = open && self.placing.is_none() && self.storing.len() < MOST_STORING;
        let room = self.outbox.has_room();
        let Self { outbox, feeds, placing, storing, guard, .. } = self;
        let has_steps = feeds.as_ref().is_some_and(|feeds| feeds.has_work());
        tokio::select! {
            call = outbox.until_call(takes_commands && !room) => Next::Call(call),
            sequenced = first(placing.as_mut()) => Next::Sequenced(sequenced),
            stored = first(storing.front_mut()) => Next::Stored(stored),
            wake = sleep(feeds.as_deref_mut()) => Next::Wake(wake),
            wake = guard::wake(guard.as_deref_mut()) => Next::Rights(wake),
            request = next_request(requests, takes_commands && room), if open => Next::Request(request),
            () = std::future::ready(()), if has_steps => Next::Step,
        }
    }

    /// What was read as a command is published, whether or not the client hears of it; one that is drained does.
    async fn finish_publishes(&mut self) {
        if let Some(placing) = self.placing.take() {
            let (request_id, sequenced) = placing.await;
            self.sequenced(request_id, sequenced);
        }
        while let Some(storing) = self.storing.pop_front() {
            let (request_id, results) = storing.await;
            if self.outbox.is_draining() {
                self.published(request_id, results);
            }
        }
    }

    /// Forgets every route, a few at a time: publishers wait meanwhile, and there may be a million.
    async fn clean_up(&mut self) {
        let mut from = 0;
        loop {
            let some = self.outbox.take_routes(FORGET_AT_ONCE, &mut from);
            if some.is_empty() {
                break;
            }
            self.forget(some).await;
            tokio::task::yield_now().await;
        }
    }

    async fn apply(&mut self, request: Request) {
        let (request_id, field_path) = (request.request_id, request.field_path);
        let first = std::mem::replace(&mut self.first, false);
        let done = match request.command {
            Ok(command) => self.command(request_id, first, command).await,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            self.hub.metrics().command_refused();
            self.reply(request_id, Frame::Error { field_path, error: Box::new(error) });
        }
    }

    async fn command(&mut self, request_id: i64, first: bool, command: Command) -> Result<(), CommandError> {
        match command {
            Command::Hello { client_name, previous_session, heartbeat_interval } => {
                self.hello(first, &client_name, heartbeat_interval)?;
                self.before = previous_session;
                Ok(())
            }
            Command::Subscribe { subscription_id, spec } => self.subscribe(request_id, subscription_id, spec).await,
            Command::Update { subscription_id, filters } => self.update(request_id, subscription_id, &filters).await,
            Command::Unsubscribe { subscription_id } => {
                let (key, _) = self.outbox.find(subscription_id)?;
                self.settle(key).await;
                let closed = self.outbox.close(subscription_id, request_id, End::Unsubscribed)?;
                self.forget(closed).await;
                Ok(())
            }
            Command::Credit { subscription_id, grant } => self.outbox.grant(subscription_id, grant),
            Command::Acknowledge { subscription_id, sequences, up_to, outcome } => {
                self.acknowledge(request_id, subscription_id, (sequences, up_to), outcome).await
            }
            Command::Publish { events, precondition, memory } => {
                let quiet = request_id == 0;
                self.publish(request_id, Publish { events, precondition, memory, quiet }).await
            }
            Command::Authenticate { token } => self.authenticate(&token.0).await,
            Command::Ping { nonce } => {
                self.reply(request_id, Frame::Pong(nonce));
                Ok(())
            }
        }
    }

    fn hello(&mut self, first: bool, name: &str, heartbeat: Option<Duration>) -> Result<(), CommandError> {
        if !first {
            return Err(CommandError::Field { field: "", problem: "must be the first command".into() });
        }
        if let Some(interval) = heartbeat {
            self.outbox.set_heartbeat_interval(interval.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT));
        }
        ::tracing::info!(session = %self.entry.id, client = name, "hello");
        if !name.is_empty() {
            self.entry.set_client_name(name);
        }
        Ok(())
    }

    /// Answers with `subscribed` or `ended`; only an id that another subscription has is an error, since `ended` would
    /// speak of that one.
    async fn subscribe(
        &mut self,
        request_id: i64,
        id: i64,
        spec: Result<SubscriptionSpec, CommandError>,
    ) -> Result<(), CommandError> {
        if id != 0 && self.outbox.find(id).is_ok() {
            return Err(CommandError::SubscriptionIdInUse { id });
        }
        let opened = match spec {
            Ok(spec) => self.open_subscription(request_id, id, &spec).await,
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            self.hub.note_refusal(&self.entry.account, &error);
            self.hub.metrics().command_refused();
            let subscription_id = if id == 0 { self.outbox.free_id() } else { id };
            self.reply(
                request_id,
                Frame::Ended { subscription_id, end: End::Refused(Box::new(error)), position: None },
            );
        }
        Ok(())
    }

    /// Routed first and confirmed second, so that whatever is published after the client has seen `subscribed` reaches
    /// it. What is published in between waits behind that frame.
    async fn open_subscription(
        &mut self,
        request_id: i64,
        id: i64,
        spec: &SubscriptionSpec,
    ) -> Result<(), CommandError> {
        // Those that have ended count no more.
        let attention = self.outbox.take_attention();
        if !attention.is_empty() {
            self.note(attention).await;
        }
        let spec = self.admitted(spec)?;
        Turn::default().spend(spec.filter_tokens()).await;
        let id = match &spec.stream {
            Some(from) => self.open_stream(request_id, id, &spec, from).await?,
            None => self.open_live(request_id, id, &spec).await?,
        };
        self.hold(id, &spec);
        Ok(())
    }

    async fn open_live(&mut self, request_id: i64, id: i64, spec: &SubscriptionSpec) -> Result<i64, CommandError> {
        let (key, id) = self.outbox.reserve(id, spec)?;
        match self.hub.router().subscribe(self.outbox_id, key, &spec.filters, spec.group.as_ref()).await {
            Ok(route) => {
                if let Err(route) = self.outbox.open(key, route, request_id) {
                    self.forget(vec![Closed { key, route }]).await;
                }
                Ok(id)
            }
            Err(error) => {
                self.outbox.release(key);
                Err(error)
            }
        }
    }

    async fn update(&mut self, request_id: i64, id: i64, filters: &[Filter]) -> Result<(), CommandError> {
        let (key, group) = self.outbox.find(id)?;
        if self.is_member(key) {
            let needs = "a subscription that is not a member of a group on a stream: all members have the same filters";
            return Err(CommandError::Unsupported { field: "subscription_id", needs });
        }
        let filters = &*self.admitted_update(id, filters)?;
        let (old, new_cost) = self.outbox.begin_update(id, filters)?;
        Turn::default().spend(filter_tokens(filters)).await;
        if let Some(feeds) = self.feeds.as_mut().filter(|feeds| feeds.has(key)) {
            feeds.set_filters(key, filters.into()).inspect_err(|_| self.outbox.end_update(id, old))?;
            // The limit on tokens is below 2^32.
            self.outbox.refiltered(key, filter_tokens(filters) as u32, request_id);
            self.outbox.end_update(id, new_cost);
            self.hold_update(id, filters);
            return Ok(());
        }
        let routed = self.hub.router().resubscribe(self.outbox_id, key, filters, group).await;
        let new = routed.inspect_err(|_| self.outbox.end_update(id, old))?;
        match self.outbox.open(key, new.clone(), request_id) {
            Ok(Some(old)) => self.hub.router().forget_old(self.outbox_id, key, old, &new).await,
            Ok(None) => {}
            Err(route) => {
                self.forget(vec![Closed { key, route }]).await;
                return Err(CommandError::SubscriptionNotFound { id });
            }
        }
        self.outbox.end_update(id, new_cost);
        self.hold_update(id, filters);
        Ok(())
    }

    async fn publish(&mut self, request_id: i64, publish: Publish) -> Result<(), CommandError> {
        self.caller.refresh();
        let publisher = self.publisher.get_or_insert_with(|| Box::new(self.hub.publisher(&self.caller)));
        match publisher.publish(&self.caller, publish).await? {
            Publishing::Done(results) => self.published(request_id, results),
            Publishing::Storing(placing) => {
                self.placing = Some(Box::pin(async move { (request_id, placing.await) }));
            }
        }
        Ok(())
    }

    /// The events of a publish have their sequences; now they are to be stored.
    fn sequenced(&mut self, request_id: i64, sequenced: Result<Sequenced, CommandError>) {
        self.placing = None;
        match sequenced {
            Ok(sequenced) => {
                self.storing.push_back(Box::pin(async move { (request_id, sequenced.stored().await) }));
            }
            Err(error) => {
                self.hub.metrics().command_refused();
                self.reply(request_id, Frame::Error { field_path: "publish.", error: Box::new(error) });
            }
        }
    }

    fn published(&self, request_id: i64, results: Vec<Published>) {
        if request_id != 0 || results.iter().any(Result::is_err) {
            self.reply(request_id, Frame::Published(results));
        }
    }

    fn reply(&self, request_id: i64, frame: Frame) {
        self.outbox.reply(Reply { request_id, frame });
    }

    async fn forget(&mut self, closed: Vec<Closed>) {
        self.hub.router().forget(self.outbox_id, closed).await;
    }
}

impl Drop for Session {
    /// Runs after `clean_up`, or instead of it when the process is being torn down or the task has failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.outbox.end(End::Internal);
            self.outbox.all_answered();
        } else {
            self.outbox.abandon();
        }
        let left = self.outbox.take_routes(usize::MAX, &mut 0);
        self.hub.router().forget_at_once(self.outbox_id, left);
        self.hub.router().leave(self.outbox_id);
        self.hub.close(self.entry.number);
        self.hub.metrics().session_closed();
    }
}

impl Outlet {
    /// What waits to be sent.
    pub fn outbox(&self) -> &Outbox {
        &self.entry.outbox
    }

    /// Takes note of what is about to be sent.
    pub fn sending(&self, batch: &Batch) {
        if let Some(tracing) = self.hub.tracing() {
            tracing.delivered(&self.entry, batch);
        }
    }

    /// The hub this session is part of.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

/// The next command, for a session that takes commands now; for others it never comes.
async fn next_request(requests: &mut impl Requests, takes: bool) -> Option<Result<Request, CommandError>> {
    poll_fn(|context| {
        if takes {
            return Pin::new(&mut *requests).poll_next(context);
        }
        requests.poll_ahead(context);
        Poll::Pending
    })
    .await
}

async fn sleep(feeds: Option<&mut Feeds>) -> feed::Wake {
    match feeds {
        Some(feeds) => feeds.sleep().await,
        None => pending().await,
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        self.entry.outbox.abandon();
    }
}
