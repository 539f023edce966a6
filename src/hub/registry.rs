//! The sessions of the hub as an operator sees them: who they are and since when, how they stand, and ending one.

use std::{
    net::SocketAddr,
    ops::Bound,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use super::{
    Hub, Kind,
    quota::{Account, SessionUse},
};
use crate::{
    auth::Caller,
    model::{CommandError, End, limits::MAX_TERMINATE_REASON_BYTES},
    outbox::{Counts, Outbox, SubscriptionStatus, Taker},
    tasks::Turn,
};

/// One session that is open.
#[derive(Debug)]
pub struct OpenSession {
    pub(crate) number: u64,
    pub(crate) id: Arc<str>,
    kind: Kind,
    peer: Option<SocketAddr>,
    principal: Arc<str>,
    pub(crate) account: Arc<Account>,
    _counted: SessionUse,
    opened: SystemTime,
    client_name: OnceLock<Arc<str>>,
    pub(super) outbox: Arc<Outbox>,
}

impl OpenSession {
    pub(super) fn new(
        (number, id, kind): (u64, Arc<str>, Kind),
        caller: &Caller,
        (account, counted): (Arc<Account>, SessionUse),
        outbox: Arc<Outbox>,
    ) -> Self {
        let (opened, client_name) = (SystemTime::now(), OnceLock::new());
        let (peer, principal) = (caller.peer(), Arc::clone(caller.principal().id()));
        Self { number, id, kind, peer, principal, account, _counted: counted, opened, client_name, outbox }
    }

    /// Its name, unique among all sessions of all hubs.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The kind of its call.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Who its client is; empty on a hub that does not ask.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Where its client is.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// When it was opened.
    pub fn opened(&self) -> SystemTime {
        self.opened
    }

    /// The name its client gave itself.
    pub fn client_name(&self) -> Option<&Arc<str>> {
        self.client_name.get()
    }

    /// The first name counts: it is given once, in the first command.
    pub(crate) fn set_client_name(&self, name: &str) {
        self.client_name.get_or_init(|| name.into());
    }

    /// What waits for its client, for the one writer that it has.
    pub(crate) fn taker(&self) -> Taker<'_> {
        Taker::new(&self.outbox)
    }

    /// Ends it: every subscription is told, then the stream ends. The first end counts.
    pub(crate) fn end(&self, end: End) {
        self.outbox.end(end);
    }

    /// Its client is gone, or what serves it is.
    pub(crate) fn abandon(&self) {
        self.outbox.abandon();
    }

    /// How many subscriptions it has.
    pub fn subscriptions(&self) -> usize {
        self.outbox.subscriptions()
    }

    /// What waits to be sent to it, overhead included, in bytes.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.waiting_bytes()
    }

    /// How at most `most` of its subscriptions stand, and where to go on from; `from` is 0 at first.
    pub fn statuses(&self, from: usize, most: usize) -> (Vec<SubscriptionStatus>, Option<usize>) {
        self.outbox.statuses(from, most)
    }
}

impl Hub {
    /// At most `most` sessions that were opened after number `after`, the oldest first, and the number of the last one if
    /// there are more.
    pub fn list_sessions(&self, after: u64, most: usize) -> (Vec<Arc<OpenSession>>, Option<u64>) {
        let sessions = self.sessions.lock();
        let mut rest = sessions.range((Bound::Excluded(after), Bound::Unbounded)).map(|(_, session)| session);
        let page: Vec<Arc<OpenSession>> = rest.by_ref().take(most).cloned().collect();
        let next = rest.next().and(page.last()).map(|session| session.number);
        (page, next)
    }

    /// The session of that id.
    pub fn find_session(&self, id: &str) -> Result<Arc<OpenSession>, CommandError> {
        // Its number is the end of its name.
        let number = id.rsplit('-').next().and_then(|number| u64::from_str_radix(number, 16).ok());
        let sessions = self.sessions.lock();
        let found = number.and_then(|number| sessions.get(&number)).filter(|session| &*session.id == id);
        found.cloned().ok_or_else(|| CommandError::SessionNotFound { id: id.chars().take(64).collect() })
    }

    /// Ends the session of that id; its client is told why.
    pub fn terminate_session(&self, id: &str, why: &str) -> Result<(), CommandError> {
        if why.len() > MAX_TERMINATE_REASON_BYTES {
            let problem = format!("has {} bytes; the limit is {MAX_TERMINATE_REASON_BYTES}", why.len());
            return Err(CommandError::Field { field: "reason", problem });
        }
        let session = self.find_session(id)?;
        session.outbox.end(End::Terminated { why: why.into() });
        tracing::info!(session = id, why, "session terminated");
        Ok(())
    }

    /// How many subscriptions all sessions have, and how many of them stand in a way that operators watch.
    pub async fn count_subscriptions(&self) -> (usize, Counts) {
        let (mut subscriptions, mut sum, mut turn) = (0, Counts::default(), Turn::default());
        for session in self.open_sessions() {
            subscriptions += session.subscriptions();
            let counts = session.outbox.counts();
            sum.credit_blocked += counts.credit_blocked;
            sum.behind += counts.behind;
            turn.spend(1).await;
        }
        (subscriptions, sum)
    }
}
