//! What a session may do while its credential and the policy change: asked before everything it does, and again for
//! what it has when either changes. Only what is no longer allowed ends (design 3.11).
//!
//! On a hub that asks nobody a guard watches nothing, and nothing here is done.

use std::{
    borrow::Cow,
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Sleep, sleep},
};

use crate::{
    auth::{Action, Caller},
    engine::{Engine, EventStream},
    model::{CommandError, Denial, Filter, Group, StreamError, StreamName, SubscriptionSpec},
    outbox::Desk,
};

/// A client is told to renew its credential when this part of its life is over.
const WARN_AFTER: f64 = 0.8;
/// No timer is set for longer: clocks may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// Stale entries are swept once they outnumber live ones by this many.
const MOST_STALE: usize = 1024;

/// What one session may do.
#[derive(Debug)]
pub(super) struct Guard {
    caller: Caller,
    /// `None` on a hub that asks nobody.
    watch: Option<Box<Watch>>,
}

/// What may change what is allowed, and what that is about.
#[derive(Debug)]
struct Watch {
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

impl Watch {
    /// `None` on a hub that asks nobody.
    fn new(caller: &Caller) -> Option<Box<Self>> {
        let auth = caller.auth()?;
        let mut watch =
            Self { changes: auth.changes(), timer: Box::pin(sleep(Duration::ZERO)), warn: None, held: HashMap::new() };
        watch.renewed(caller);
        Some(Box::new(watch))
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
}

impl Guard {
    pub(super) fn new(caller: Caller) -> Self {
        Self { watch: Watch::new(&caller), caller }
    }

    /// Who it is.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Who it is, by the policy of this moment.
    pub(super) fn refreshed(&mut self) -> &Caller {
        self.caller.refresh();
        &self.caller
    }

    /// What a subscription is allowed of what it wants; an error before anything is looked up that it may not know of.
    pub(super) fn admitted<'a>(
        &mut self,
        spec: &'a SubscriptionSpec,
        engine: Option<&Arc<dyn Engine>>,
    ) -> Result<Cow<'a, SubscriptionSpec>, CommandError> {
        if self.watch.is_none() {
            return Ok(Cow::Borrowed(spec));
        }
        self.caller.refresh();
        Ok(match readable(&self.caller, &Held::of(spec), &spec.filters, engine)? {
            Cow::Borrowed(_) => Cow::Borrowed(spec),
            Cow::Owned(filters) => Cow::Owned(SubscriptionSpec { filters, ..spec.clone() }),
        })
    }

    /// A subscription was opened with what it was allowed.
    pub(super) fn hold(&mut self, id: i64, spec: &SubscriptionSpec, desk: &Desk) {
        let Some(watch) = &mut self.watch else { return };
        watch.held.insert(id, Held::of(spec));
        if watch.held.len() > 2 * desk.subscriptions() + MOST_STALE {
            watch.held.retain(|id, _| desk.find(*id).is_ok());
        }
    }

    /// What a subscription is allowed of the filters it wants to have from now on.
    pub(super) fn admitted_update<'a>(
        &mut self,
        id: i64,
        filters: &'a [Filter],
        engine: Option<&Arc<dyn Engine>>,
    ) -> Result<Cow<'a, [Filter]>, CommandError> {
        self.caller.refresh();
        match self.watch.as_ref().and_then(|watch| watch.held.get(&id)) {
            None => Ok(Cow::Borrowed(filters)),
            Some(held) => readable(&self.caller, held, filters, engine),
        }
    }

    /// A subscription has other filters from now on.
    pub(super) fn hold_update(&mut self, id: i64, filters: &[Filter]) {
        if let Some(held) = self.watch.as_mut().and_then(|watch| watch.held.get_mut(&id)) {
            held.filters = filters.into();
        }
    }

    /// A subscription is over.
    pub(super) fn forget(&mut self, id: i64) {
        if let Some(watch) = &mut self.watch {
            watch.held.remove(&id);
        }
    }

    /// Takes on a fresh credential. What it does not allow any more is to end.
    pub(super) async fn renew(&mut self, token: &str) -> Result<(), CommandError> {
        let Some(watch) = &mut self.watch else {
            return Err(CommandError::Unsupported { field: "", needs: "a hub with authentication" });
        };
        self.caller.renew(token).await?;
        watch.renewed(&self.caller);
        Ok(())
    }

    /// Ends when the policy, or the time, may have changed what is allowed; never on a hub that asks nobody. Cancel-safe.
    pub(super) async fn wake(&mut self) -> Wake {
        let Some(watch) = &mut self.watch else { return std::future::pending().await };
        tokio::select! {
            changed = watch.changes.changed() => match changed {
                Ok(()) => Wake::Policy,
                // The hub is going.
                Err(_) => std::future::pending().await,
            },
            () = &mut watch.timer => Wake::Time,
        }
    }

    /// When the credential will expire, for a client that is to hear of it now; it hears once.
    pub(super) fn warning(&mut self) -> Option<SystemTime> {
        let (watch, now) = (self.watch.as_mut()?, SystemTime::now());
        let due = watch.warn.is_some_and(|at| now >= at);
        let deadline = self.caller.principal().expires().filter(|_| due);
        if deadline.is_some() {
            watch.warn = None;
        }
        watch.set_timer(&self.caller);
        deadline
    }

    /// What is to be judged again.
    pub(super) fn held(&self) -> Vec<i64> {
        self.watch.iter().flat_map(|watch| watch.held.keys().copied()).collect()
    }

    /// Why a subscription is no longer allowed, which is then forgotten; `None` for one that is.
    pub(super) fn judge(&mut self, id: i64) -> Option<Denial> {
        let watch = self.watch.as_mut()?;
        let held = watch.held.get(&id)?;
        let action = held.action(&held.filters);
        if self.caller.may(&action) {
            return None;
        }
        let denial = if self.caller.is_over() { Denial::Expired } else { Denial::Revoked };
        self.caller.record(denial, &format!("may no longer {}", action.told()));
        watch.held.remove(&id);
        Some(denial)
    }
}

/// The filters with which something may be read. All of a stream is what its own filters say at this moment: what it has
/// besides, or will have, nobody has allowed.
fn readable<'a>(
    caller: &Caller,
    held: &Held,
    filters: &'a [Filter],
    engine: Option<&Arc<dyn Engine>>,
) -> Result<Cow<'a, [Filter]>, CommandError> {
    let Some(name) = held.stream.as_ref().filter(|_| filters.is_empty()) else {
        caller.authorize(&held.action(filters))?;
        return Ok(Cow::Borrowed(filters));
    };
    let group = held.group.as_ref().map(Group::as_str);
    // Members of one group have the same filters, whatever else each may do.
    if group.is_none() && caller.may_read_every_topic() {
        caller.authorize(&held.action(filters))?;
        return Ok(Cow::Borrowed(filters));
    }
    caller.authorize(&Action::UseStream { stream: name.as_str(), group })?;
    let engine = engine.ok_or(StreamError::None)?;
    let stream = engine.stream(name.as_str()).ok_or_else(|| StreamError::NotFound(name.to_string()))?;
    let all = all_of(&*stream);
    caller.authorize(&held.action(&all))?;
    Ok(Cow::Owned(all))
}

/// Everything that a stream takes at this moment.
fn all_of(stream: &dyn EventStream) -> Vec<Filter> {
    stream.settings().filters.clone()
}
