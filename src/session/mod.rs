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
mod outlet;
mod park;
mod publishes;

use std::{
    fmt,
    future::{Future, pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

pub use command::{Command, NoRequests, Request, Requests, Secret};
pub use outlet::Outlet;
pub use park::{Park, ParkLimits, Visit};

use crate::{
    auth::Caller,
    cut::Cut,
    groups::Outcome,
    hub::{Hub, Kind, OpenSession, Publish, Speaker},
    memory::Client,
    model::{AckMode, CommandError, End, Filter, Labels, StreamError, SubscriptionSpec, filter_tokens},
    outbox::{Attention, Call, Closed, Desk, Frame, Published, Reply, SubscriptionKey, Wanted},
    router::OutboxId,
    tasks::Turn,
};
use feed::Feeds;
use guard::Guard;
use membership::{Membership, Memberships};
use publishes::{Progress, Publishes};

/// A client may ask to hear from an idle hub at least this often,
const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(1);
/// and at most this often.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(300);
/// When a session is over, its subscriptions are forgotten this many at a time.
const FORGET_AT_ONCE: usize = 1024;
/// So many subscriptions are judged again before others may work.
const JUDGE_AT_ONCE: usize = 256;

/// The reading half of one session. Dropping it closes the session, so [`Session::run`] is its only use.
pub struct Session {
    hub: Arc<Hub>,
    entry: Arc<OpenSession>,
    desk: Desk,
    outbox_id: OutboxId,
    first: bool,
    /// The session that its client had before, and comes back from.
    before: Option<Arc<str>>,
    /// Made with the first subscription that reads a stream.
    feeds: Option<Box<Feeds>>,
    /// Made with the first member of a group on a stream.
    memberships: Option<Box<Memberships>>,
    publishes: Publishes,
    /// Who it is, and what it may do.
    guard: Guard,
}

/// What a session turns to next.
enum Next {
    Call(Call),
    Publish(Progress),
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
        let (entry, desk) = hub.enter(kind, cut, &caller, client)?;
        let outbox_id = hub.router().join(desk.inlet());
        entry.set_outbox_id(outbox_id);
        Ok(Self {
            hub: Arc::clone(hub),
            entry,
            desk,
            outbox_id,
            first: true,
            before: None,
            feeds: None,
            memberships: None,
            publishes: Publishes::default(),
            guard: Guard::new(caller),
        })
    }

    /// Names the session in logs and lists.
    pub fn id(&self) -> &Arc<str> {
        &self.entry.id
    }

    /// The sending half. There is one writer, so this is called once.
    pub fn outlet(&self) -> Outlet {
        Outlet::new(Arc::clone(&self.hub), Arc::clone(&self.entry))
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
    #[allow(clippy::manual_async_fn)] // An async fn would keep its arguments twice for as long as it runs.
    pub fn run(mut self, mut requests: impl Requests) -> impl Future<Output = ()> {
        async move {
            self.serve(&mut requests).await;
            drop(requests);
            Box::pin(self.finish()).await;
        }
    }

    async fn serve(&mut self, requests: &mut impl Requests) {
        let mut open = true;
        loop {
            let mut next = self.next(requests, open).await;
            match next {
                Next::Call(Call::Ending) => break,
                Next::Call(Call::Room) => {}
                Next::Call(Call::Attention(ref mut attention)) => self.note(attention).await,
                Next::Publish(progress) => self.progressed(progress, true),
                Next::Wake(wake) => {
                    if let Some(feeds) = &mut self.feeds {
                        feeds.wake(wake).await;
                    }
                }
                Next::Rights(wake) => Box::pin(self.look_at_rights(wake)).await,
                Next::Step => {
                    if let Some(feeds) = &mut self.feeds {
                        feeds.step().await;
                    }
                }
                // An idle session would be as large as the largest thing that it may do.
                Next::Request(Some(Ok(request))) => Box::pin(self.apply(request)).await,
                // A cancelled call looks the same as one that is half-closed; the outlet tells them apart.
                Next::Request(None) => open = false,
                // The stream of commands cannot be read on.
                Next::Request(Some(Err(error))) => self.entry.end(End::BrokenFraming(Box::new(error))),
            }
            if !open && self.publishes.is_empty() {
                self.desk.no_more_commands();
            }
            tokio::task::consume_budget().await;
        }
    }

    async fn finish(&mut self) {
        self.leave_groups().await;
        self.finish_publishes().await;
        self.desk.all_answered();
        clean_up(&self.hub, self.outbox_id, &self.desk).await;
        self.desk.until_over().await;
    }

    /// What to turn to next. Not in a fixed order: neither commands nor streams may keep the others waiting for ever.
    async fn next(&mut self, requests: &mut impl Requests, open: bool) -> Next {
        let takes_commands = open && self.publishes.has_room();
        let room = self.desk.has_room();
        let Self { desk, feeds, publishes, guard, .. } = self;
        let has_steps = feeds.as_ref().is_some_and(|feeds| feeds.has_work());
        tokio::select! {
            call = desk.until_call(takes_commands && !room) => Next::Call(call),
            progress = poll_fn(|context| publishes.poll(context)) => Next::Publish(progress),
            wake = sleep(feeds.as_deref_mut()) => Next::Wake(wake),
            wake = guard.wake() => Next::Rights(wake),
            request = next_request(requests, takes_commands && room), if open => Next::Request(request),
            () = std::future::ready(()), if has_steps => Next::Step,
        }
    }

    /// What was read as a command is published, whether or not the client hears of it; one that is drained does.
    async fn finish_publishes(&mut self) {
        while !self.publishes.is_empty() {
            let progress = poll_fn(|context| self.publishes.poll(context)).await;
            self.progressed(progress, self.desk.is_draining());
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

    /// What is rare is done in a box of its own.
    async fn command(&mut self, request_id: i64, first: bool, command: Command) -> Result<(), CommandError> {
        match command {
            Command::Hello { client_name, labels, previous_session, heartbeat_interval } => {
                if !first {
                    return Err(CommandError::Field { field: "", problem: "must be the first command".into() });
                }
                hello(&self.entry, &self.desk, (&client_name, labels), heartbeat_interval)?;
                self.before = previous_session;
                Ok(())
            }
            Command::Subscribe { subscription_id, spec } => {
                Box::pin(self.subscribe(request_id, subscription_id, spec)).await
            }
            Command::Update { subscription_id, filters } => {
                Box::pin(self.update(request_id, subscription_id, &filters)).await
            }
            Command::Unsubscribe { subscription_id } => {
                let (key, _) = self.desk.find(subscription_id)?;
                Box::pin(settle(self.memberships.as_deref(), key)).await;
                let closed = self.desk.close(subscription_id, request_id, End::Unsubscribed)?;
                self.forget(closed).await;
                Ok(())
            }
            Command::Credit { subscription_id, grant } => self.desk.grant(subscription_id, grant),
            Command::Acknowledge { subscription_id, sequences, up_to, outcome } => {
                self.acknowledge(request_id, subscription_id, (sequences, up_to), outcome).await
            }
            Command::Publish { events, precondition, memory } => {
                let quiet = request_id == 0;
                self.entry.note_publish(events.len());
                let publish = Publish { events, precondition, memory, quiet };
                let caller = self.guard.refreshed();
                let publishing = self.publishes.publisher(&self.hub, caller).publish(caller, publish).await?;
                if let Some(results) = self.publishes.begin(request_id, publishing) {
                    self.published(request_id, results);
                }
                Ok(())
            }
            Command::Authenticate { token } => {
                self.guard.renew(&token.0).await?;
                Box::pin(self.judge_again()).await;
                Ok(())
            }
            Command::Ping { nonce } => {
                self.reply(request_id, Frame::Pong(nonce));
                Ok(())
            }
        }
    }

    /// Answers with `subscribed` or `ended`; only an id that another subscription has is an error, since `ended` would
    /// speak of that one.
    async fn subscribe(
        &mut self,
        request_id: i64,
        id: i64,
        spec: Result<SubscriptionSpec, CommandError>,
    ) -> Result<(), CommandError> {
        if id != 0 && self.desk.find(id).is_ok() {
            return Err(CommandError::SubscriptionIdInUse { id });
        }
        let opened = match spec {
            Ok(spec) => self.open_subscription(request_id, id, &spec).await,
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            self.hub.note_refusal(&self.entry.account, &error);
            self.hub.metrics().command_refused();
            let subscription_id = if id == 0 { self.desk.free_id() } else { id };
            self.reply(
                request_id,
                Frame::Ended { subscription_id, end: End::Refused(Box::new(error)), position: None },
            );
        }
        Ok(())
    }

    async fn update(&mut self, request_id: i64, id: i64, filters: &[Filter]) -> Result<(), CommandError> {
        let (key, group) = self.desk.find(id)?;
        if self.member(key).is_some() {
            let needs = "a subscription that is not a member of a group on a stream: all members have the same filters";
            return Err(CommandError::Unsupported { field: "subscription_id", needs });
        }
        let filters = &*self.guard.admitted_update(id, filters, self.hub.engine())?;
        let (old, new_cost) = self.desk.begin_update(id, filters)?;
        Turn::default().spend(filter_tokens(filters)).await;
        if let Some(feeds) = self.feeds.as_mut().filter(|feeds| feeds.has(key)) {
            let wanted: Arc<[Filter]> = filters.into();
            feeds.set_filters(key, Arc::clone(&wanted)).inspect_err(|_| self.desk.end_update(id, old))?;
            self.desk.refiltered(key, Wanted::new(wanted), request_id);
            self.desk.end_update(id, new_cost);
            self.guard.hold_update(id, filters);
            return Ok(());
        }
        let routed = self.hub.router().resubscribe(self.outbox_id, key, filters, group).await;
        let new = routed.inspect_err(|_| self.desk.end_update(id, old))?;
        match self.desk.open(key, new.clone(), request_id) {
            Ok(Some(old)) => self.hub.router().forget_old(self.outbox_id, key, old, &new).await,
            Ok(None) => {}
            Err(route) => {
                self.forget(vec![Closed { key, route }]).await;
                return Err(CommandError::SubscriptionNotFound { id });
            }
        }
        self.desk.end_update(id, new_cost);
        self.guard.hold_update(id, filters);
        Ok(())
    }

    /// Tells a group what became of events; it answers once that is stored.
    async fn acknowledge(
        &mut self,
        request_id: i64,
        id: i64,
        which: (Vec<u64>, Option<u64>),
        outcome: Outcome,
    ) -> Result<(), CommandError> {
        let (key, _) = self.desk.find(id)?;
        // What was sent before this came must be known before it.
        let mut attention = self.desk.take_attention();
        self.note(&mut attention).await;
        let Some(member) = self.member(key).filter(|member| member.acknowledges()) else {
            // It may have ended while its client wrote this.
            self.desk.find(id)?;
            let needs = "a subscription that acknowledges; this one does not";
            return Err(CommandError::Unsupported { field: "subscription_id", needs });
        };
        let speaker = Speaker { outbox: self.desk.filler(), key, subscription_id: id, request_id };
        let command = member.acknowledgement(speaker, which, outcome)?;
        if member.send(command).await { Ok(()) } else { Err(StreamError::Unavailable.into()) }
    }

    /// A member of a group on a stream.
    fn member(&self, key: SubscriptionKey) -> Option<&Membership> {
        self.memberships.as_ref()?.get(key)
    }

    /// Has subscriptions looked after: by the router, by their groups, or by the feeds of this session.
    async fn note(&mut self, attention: &mut Attention) {
        self.forget(std::mem::take(&mut attention.closed)).await;
        if let Some(memberships) = &mut self.memberships {
            Box::pin(memberships.note(attention)).await;
        }
        if let Some(feeds) = &mut self.feeds {
            feeds.note(std::mem::take(&mut attention.hungry), std::mem::take(&mut attention.gone)).await;
        }
    }

    /// The session is over, and its members go.
    async fn leave_groups(&mut self) {
        if self.memberships.is_none() {
            return;
        }
        let mut attention = self.desk.take_attention();
        self.note(&mut attention).await;
        let in_order = self.desk.is_draining();
        let Some(memberships) = self.memberships.take() else { return };
        if in_order {
            // What was acknowledged is answered while there are subscriptions to answer for.
            memberships.settle_all().await;
        }
        memberships.leave(in_order);
    }

    /// The policy is another, or time has passed.
    async fn look_at_rights(&mut self, wake: guard::Wake) {
        let over = self.guard.refreshed().is_over();
        if let Some(deadline) = self.guard.warning() {
            self.reply(0, Frame::CredentialExpiring { deadline });
        }
        if wake == guard::Wake::Policy || over {
            self.judge_again().await;
        }
    }

    /// Ends the subscriptions that are no longer allowed, and only those.
    async fn judge_again(&mut self) {
        for some in self.guard.held().chunks(JUDGE_AT_ONCE) {
            for id in some {
                self.judge(*id).await;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn judge(&mut self, id: i64) {
        let Ok((key, _)) = self.desk.find(id) else { return self.guard.forget(id) };
        let Some(denial) = self.guard.judge(id) else { return };
        settle(self.memberships.as_deref(), key).await;
        // Unless it has ended by itself.
        if let Ok(closed) = self.desk.close(id, 0, End::Denied(denial)) {
            self.forget(closed).await;
        }
    }

    /// Answers a publish; one that is stored only to a client that still hears of it.
    fn progressed(&mut self, progress: Progress, answers: bool) {
        match progress {
            Progress::Stored(request_id, results) if answers => self.published(request_id, results),
            Progress::Sequenced | Progress::Stored(..) => {}
            Progress::Refused(request_id, error) => {
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
        self.desk.reply(Reply { request_id, frame });
    }

    async fn forget(&mut self, closed: Vec<Closed>) {
        self.hub.router().forget(self.outbox_id, closed).await;
    }
}

impl Drop for Session {
    /// Runs after `clean_up`, or instead of it when the process is being torn down or the task has failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.entry.end(End::Internal);
            self.desk.all_answered();
        } else {
            self.entry.abandon();
        }
        let left = self.desk.take_routes(usize::MAX, &mut 0);
        self.hub.router().forget_at_once(self.outbox_id, left);
        self.hub.router().leave(self.outbox_id);
        self.hub.close(self.entry.number);
        self.hub.metrics().session_closed();
    }
}

/// What a client says of itself, and how often it wants to hear from the hub.
fn hello(
    entry: &OpenSession,
    desk: &Desk,
    (name, labels): (&str, Labels),
    heartbeat: Option<Duration>,
) -> Result<(), CommandError> {
    if !labels.is_empty() {
        desk.hold_labels(labels.cost())?;
        entry.set_labels(labels);
    }
    if let Some(interval) = heartbeat {
        desk.set_heartbeat_interval(interval.clamp(SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT));
    }
    ::tracing::info!(session = %entry.id, client = name, "hello");
    if !name.is_empty() {
        entry.set_client_name(name);
    }
    Ok(())
}

/// Forgets every route, a few at a time: publishers wait meanwhile, and there may be a million.
async fn clean_up(hub: &Hub, outbox_id: OutboxId, desk: &Desk) {
    let mut from = 0;
    loop {
        let some = desk.take_routes(FORGET_AT_ONCE, &mut from);
        if some.is_empty() {
            break;
        }
        hub.router().forget(outbox_id, some).await;
        tokio::task::yield_now().await;
    }
}

/// Waits until every acknowledgement of a member is answered: nothing may bear its id once it has ended.
async fn settle(memberships: Option<&Memberships>, key: SubscriptionKey) {
    if let Some(memberships) = memberships {
        memberships.settle(key).await;
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
