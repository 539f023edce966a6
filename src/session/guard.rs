//! What a session may do while its credential and the policy change: asked before everything it does, and again for
//! what it has when either changes. Only what is no longer allowed ends (design 3.11).
//!
//! On a hub that asks nobody a session has no guard, and nothing here is done.

use std::{
    borrow::Cow,
    collections::HashMap,
    pin::Pin,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Sleep, sleep},
};

use super::Session;
use crate::{
    auth::{Action, Caller},
    engine::EventStream,
    model::{CommandError, Denial, End, Filter, Group, StreamError, StreamName, SubscriptionSpec},
    outbox::Frame,
};

/// A client is told to renew its credential when this part of its life is over.
const WARN_AFTER: f64 = 0.8;
/// No timer is set for longer: clocks may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// So many subscriptions are judged again before others may work.
const JUDGE_AT_ONCE: usize = 256;
/// Stale entries are swept once they outnumber live ones by this many.
const MOST_STALE: usize = 1024;

/// Looks after one session.
#[derive(Debug)]
pub(super) struct Guard {
    changes: watch::Receiver<u64>,
    timer: Pin<Box<Sleep>>,
    /// When the client is to be told that its credential will expire; `None` once it was.
    warn: Option<SystemTime>,
    /// What subscriptions were allowed to read. Some of them may have ended meanwhile.
    held: HashMap<i64, Held>,
}

/// What one subscription reads.
#[derive(Debug)]
struct Held {
    filters: Box<[Filter]>,
    stream: Option<StreamName>,
    group: Option<Group>,
}

/// Why a session looks at its rights again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// There is another policy. A command may have taken it on before.
    Policy,
    /// Time has passed.
    Time,
}

impl Held {
    fn of(spec: &SubscriptionSpec) -> Self {
        Self {
            filters: spec.filters.as_slice().into(),
            stream: spec.stream.as_ref().map(|from| from.name.clone()),
            group: spec.group.clone(),
        }
    }

    fn action<'a>(&'a self, filters: &'a [Filter]) -> Action<'a> {
        let group = self.group.as_ref().map(Group::as_str);
        match &self.stream {
            None => Action::Subscribe { filters, group },
            // Who reads all of a stream, whatever its topics, may read every topic.
            Some(stream) if filters.is_empty() => Action::ReadAll { stream: stream.as_str(), group },
            Some(stream) => Action::Read { stream: stream.as_str(), filters, group },
        }
    }
}

impl Guard {
    /// `None` on a hub that asks nobody.
    pub(super) fn new(caller: &Caller) -> Option<Box<Self>> {
        let auth = caller.auth()?;
        let mut guard =
            Self { changes: auth.changes(), timer: Box::pin(sleep(Duration::ZERO)), warn: None, held: HashMap::new() };
        guard.renewed(caller);
        Some(Box::new(guard))
    }

    /// A credential begins its life.
    fn renewed(&mut self, caller: &Caller) {
        let now = SystemTime::now();
        self.warn = caller.principal().expires().and_then(|expires| {
            let life = expires.duration_since(now).unwrap_or_default();
            now.checked_add(life.mul_f64(WARN_AFTER))
        });
        self.set_timer(caller);
    }

    fn set_timer(&mut self, caller: &Caller) {
        let next = self.warn.or_else(|| caller.ends()).filter(|_| !caller.is_over());
        let wait = next.map_or(LONGEST_SLEEP, |next| {
            // A little later rather than a little earlier.
            let left = next.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_millis(1);
            left.min(LONGEST_SLEEP)
        });
        self.timer = Box::pin(sleep(wait));
    }

    /// Ends when the policy, or the time, may have changed what is allowed. Cancel-safe.
    async fn wake(&mut self) -> Wake {
        tokio::select! {
            changed = self.changes.changed() => match changed {
                Ok(()) => Wake::Policy,
                // The hub is going.
                Err(_) => std::future::pending().await,
            },
            () = &mut self.timer => Wake::Time,
        }
    }
}

impl Session {
    /// What a subscription is allowed of what it wants; an error before anything is looked up that it may not know of.
    pub(super) fn admitted<'a>(
        &mut self,
        spec: &'a SubscriptionSpec,
    ) -> Result<Cow<'a, SubscriptionSpec>, CommandError> {
        if self.guard.is_none() {
            return Ok(Cow::Borrowed(spec));
        }
        self.caller.refresh();
        let held = Held::of(spec);
        let filters = self.readable(&held, &spec.filters)?;
        Ok(match filters {
            Cow::Borrowed(_) => Cow::Borrowed(spec),
            Cow::Owned(filters) => Cow::Owned(SubscriptionSpec { filters, ..spec.clone() }),
        })
    }

    /// The filters with which something may be read. All of a stream is what its own filters say at this moment: what it has
    /// besides, or will have, nobody has allowed.
    fn readable<'a>(&self, held: &Held, filters: &'a [Filter]) -> Result<Cow<'a, [Filter]>, CommandError> {
        let Some(name) = held.stream.as_ref().filter(|_| filters.is_empty()) else {
            self.caller.authorize(&held.action(filters))?;
            return Ok(Cow::Borrowed(filters));
        };
        let group = held.group.as_ref().map(Group::as_str);
        // Members of one group have the same filters, whatever else each may do.
        if group.is_none() && self.caller.may_read_every_topic() {
            self.caller.authorize(&held.action(filters))?;
            return Ok(Cow::Borrowed(filters));
        }
        self.caller.authorize(&Action::UseStream { stream: name.as_str(), group })?;
        let engine = self.hub.engine().ok_or(StreamError::None)?;
        let stream = engine.stream(name.as_str()).ok_or_else(|| StreamError::NotFound(name.to_string()))?;
        let all = all_of(&*stream);
        self.caller.authorize(&held.action(&all))?;
        Ok(Cow::Owned(all))
    }

    /// A subscription was opened with what it was allowed.
    pub(super) fn hold(&mut self, id: i64, spec: &SubscriptionSpec) {
        let Some(guard) = &mut self.guard else { return };
        guard.held.insert(id, Held::of(spec));
        if guard.held.len() > 2 * self.outbox.subscriptions() + MOST_STALE {
            let outbox = &self.outbox;
            guard.held.retain(|id, _| outbox.find(*id).is_ok());
        }
    }

    /// What a subscription is allowed of the filters it wants to have from now on.
    pub(super) fn admitted_update<'a>(
        &mut self,
        id: i64,
        filters: &'a [Filter],
    ) -> Result<Cow<'a, [Filter]>, CommandError> {
        self.caller.refresh();
        match self.guard.as_ref().and_then(|guard| guard.held.get(&id)) {
            None => Ok(Cow::Borrowed(filters)),
            Some(held) => self.readable(held, filters),
        }
    }

    /// A subscription has other filters from now on.
    pub(super) fn hold_update(&mut self, id: i64, filters: &[Filter]) {
        if let Some(held) = self.guard.as_mut().and_then(|guard| guard.held.get_mut(&id)) {
            held.filters = filters.into();
        }
    }

    /// Takes on a fresh credential. What it does not allow any more ends.
    pub(super) async fn authenticate(&mut self, token: &str) -> Result<(), CommandError> {
        if self.guard.is_none() {
            return Err(CommandError::Unsupported { field: "", needs: "a hub with authentication" });
        }
        self.caller.renew(token).await?;
        if let Some(guard) = &mut self.guard {
            guard.renewed(&self.caller);
        }
        self.judge_again().await;
        Ok(())
    }

    /// The policy is another, or time has passed.
    pub(super) async fn look_at_rights(&mut self, wake: Wake) {
        self.caller.refresh();
        let (over, now) = (self.caller.is_over(), SystemTime::now());
        let Some(guard) = &mut self.guard else { return };
        if let Some(deadline) = self.caller.principal().expires().filter(|_| guard.warn.is_some_and(|at| now >= at)) {
            guard.warn = None;
            self.reply(0, Frame::CredentialExpiring { deadline });
        }
        if let Some(guard) = &mut self.guard {
            guard.set_timer(&self.caller);
        }
        if wake == Wake::Policy || over {
            self.judge_again().await;
        }
    }

    /// Ends the subscriptions that are no longer allowed, and only those.
    async fn judge_again(&mut self) {
        let Some(guard) = &self.guard else { return };
        let ids: Vec<i64> = guard.held.keys().copied().collect();
        for some in ids.chunks(JUDGE_AT_ONCE) {
            for id in some {
                self.judge(*id).await;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn judge(&mut self, id: i64) {
        let Some(guard) = &mut self.guard else { return };
        let (Ok((key, _)), Some(held)) = (self.outbox.find(id), guard.held.get(&id)) else {
            guard.held.remove(&id);
            return;
        };
        let action = held.action(&held.filters);
        if self.caller.may(&action) {
            return;
        }
        let denial = if self.caller.is_over() { Denial::Expired } else { Denial::Revoked };
        self.caller.record(denial, &format!("may no longer {}", action.told()));
        guard.held.remove(&id);
        self.settle(key).await;
        // Unless it has ended by itself.
        if let Ok(closed) = self.outbox.close(id, 0, End::Denied(denial)) {
            self.forget(closed).await;
        }
    }
}

/// Everything that a stream takes at this moment.
fn all_of(stream: &dyn EventStream) -> Vec<Filter> {
    stream.settings().filters.clone()
}

/// Ends when a session is to look at its rights again; never without a guard.
pub(super) async fn wake(guard: Option<&mut Guard>) -> Wake {
    match guard {
        Some(guard) => guard.wake().await,
        None => std::future::pending().await,
    }
}
